"""How large batches are, and what an item costs the window."""

from __future__ import annotations

import pytest

from dcompute.window import Capacity, Ended, Offered, Send, Take, Tick, Window, WindowConfig
from tests.unit.window_steps import BASE, Clockwork, Run, items, only, receipt


def test_items_that_do_nothing_go_in_few_large_batches() -> None:
    """From single items batches grow to the largest allowed within a few rounds."""
    clockwork = Clockwork(Run(120_000), item_seconds=2e-6)
    sizes = [size for _, _, size in clockwork.batches]
    assert sizes[:2] == [1, 1]
    assert max(sizes) == 10_000
    assert all(size <= 8 * max(sizes[:index]) for index, size in enumerate(sizes) if index)
    assert len(sizes) < 60


def test_batches_of_short_items_last_one_to_five_seconds() -> None:
    """By measured durations, and no larger than the items need."""
    clockwork = Clockwork(Run(40_000, {"a": 4, "b": 4}), item_seconds=0.02)
    middle = [end - begin for begin, end, _ in clockwork.batches[80:-60]]
    assert middle
    assert all(0.9 < seconds < 5.5 for seconds in middle)


def test_batches_of_long_runs_last_up_to_half_a_minute() -> None:
    """Where a run takes hours, a batch lasts longer, and never longer than 30 s."""
    clockwork = Clockwork(Run(60_000), item_seconds=0.2)
    longest = max(end - begin for begin, end, _ in clockwork.batches)
    assert 20 < longest < 31


def test_long_items_go_one_by_one() -> None:
    """An item that takes longer than a batch should is a batch of its own, and no slot has two."""
    clockwork = Clockwork(Run(40), item_seconds=60)
    assert {size for _, _, size in clockwork.batches} == {1}
    assert clockwork.last_of_each_slot() <= 60.1


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1.0])
def test_all_slots_end_together(seconds: float) -> None:
    """At the tail batches get smaller: between the first slot and the last that falls idle lies no more than a short batch."""
    clockwork = Clockwork(Run(6000, {"a": 4, "b": 4}), item_seconds=seconds)
    assert clockwork.last_of_each_slot() <= max(1.0, 2.1 * seconds)


def test_a_batch_size_that_was_asked_for_is_kept() -> None:
    """With a number, every batch but the last has it, from the first on."""
    clockwork = Clockwork(Run(95, config=WindowConfig(request=BASE, batch_size=10)), item_seconds=0.001)
    assert sorted(size for _, _, size in clockwork.batches) == [5] + [10] * 9


def test_batches_of_groups_are_whole_groups() -> None:
    """Where the workload takes groups, batches are multiples of them."""
    clockwork = Clockwork(Run(1000, config=WindowConfig(request=BASE, group=8)), item_seconds=0.01)
    assert all(size % 8 == 0 for _, _, size in clockwork.batches)


def test_storage_that_counts_requests_gets_fewer_batches() -> None:
    """Many slots and few batches a second make longer batches."""
    config = WindowConfig(request=BASE, batches_per_second=2.0)
    clockwork = Clockwork(Run(100_000, {f"w{index}": 10 for index in range(4)}, config), item_seconds=0.1)
    lengths = sorted(end - begin for begin, end, _ in clockwork.batches)
    assert lengths[-1] == pytest.approx(20.0, abs=0.1)
    assert lengths[len(lengths) // 2] > 5


def test_storage_that_counts_requests_gets_no_more_of_them_at_the_tail() -> None:
    """The last batches are no shorter than the limit asks for: what is saved at the end of a run is not worth a throttled storage."""
    config = WindowConfig(request=BASE, batches_per_second=2.0)
    clockwork = Clockwork(Run(20_000, {f"w{index}": 10 for index in range(4)}, config), item_seconds=0.1)
    ends = sorted(end for _, end, _ in clockwork.batches)
    assert sum(end > ends[-1] - 20 for end in ends) <= 2.0 * 20 + 40


def test_a_batch_carries_at_most_so_many_bytes() -> None:
    """Items are counted by their bytes too; one that is larger than the limit goes by itself."""
    config = WindowConfig(request=BASE, batch_size=100, max_bytes=1000)
    window = Window(config)
    window.handle(Capacity({BASE: {"a": 9}}), 0.0)
    offered = [item._replace(size=size) for item, size in zip(items(6), [400, 600, 1, 5000, 999, 1], strict=True)]
    sends = only(window.handle(Offered(offered, exhausted=True), 0.0), Send)
    assert [[tried.item.size for tried in send.tries] for send in sends] == [[400, 600], [1], [5000], [999, 1]]


def test_a_slow_first_item_does_not_leave_slots_idle() -> None:
    """Only a few single items probe at first, but when none ends within a second the other slots get theirs."""
    run = Run(100, {f"w{index}": 10 for index in range(4)})
    assert len(only(run.first, Send)) == 16
    assert run.window.wake_at() == 1.0
    assert len(only(run.wake(), Send)) == 24


def test_a_stream_that_is_slow_sends_what_is_there() -> None:
    """A batch that is not full waits a tenth of a second for items that were asked for, and no longer."""
    window = Window(WindowConfig(request=BASE, batch_size=4))
    assert only(window.handle(Capacity({BASE: {"a": 1}}), 0.0), Take)
    said = window.handle(Offered(items(6)), 0.0)
    assert [len(send.tries) for send in only(said, Send)] == [4]
    assert only(said, Take)
    first = only(said, Send)[0]
    assert not only(window.handle(Ended(first.number, receipt(first, seconds=9)), 0.05), Send)
    assert window.wake_at() == pytest.approx(0.1)
    assert [len(send.tries) for send in only(window.handle(Tick(), 0.1), Send)] == [2]
