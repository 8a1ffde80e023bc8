"""The window case by case: places, further attempts, stops and pauses."""

from __future__ import annotations

import pytest

from dcompute.records import Failure, ItemKey, Kind, Request
from dcompute.retry import LOSSES, Retry, Rule
from dcompute.window import (
    CancelAll,
    Capacity,
    Drop,
    End,
    Ended,
    Instruction,
    LookForMark,
    Lost,
    Measure,
    Notice,
    Offered,
    Send,
    Settled,
    Started,
    Tick,
    Window,
    WindowConfig,
)
from tests.unit.window_steps import BASE, GIB, Run, failed, items, only, receipt

# -- in flight ------------------------------------------------------------------------------------------------------------------------


def test_one_batch_a_slot_is_in_flight() -> None:
    """Of batches longer than 2 s a slot has one."""
    run = Run(100, {"a": 3, "b": 2}, WindowConfig(request=BASE, batch_size=1))
    sends = only(run.first, Send)
    assert len(sends) == 5
    assert len(run.sends(Ended(1, receipt(sends[0], seconds=5)))) == 1


def test_short_batches_get_a_second_one_a_slot() -> None:
    """Of batches shorter than 2 s a slot has two, so that it need not wait for the next."""
    run = Run(100, {"a": 3, "b": 2}, WindowConfig(request=BASE, batch_size=1))
    first = only(run.first, Send)[0]
    run.tell(Ended(first.number, receipt(first, seconds=0.1)))
    assert run.window.counts().batches == 10


def test_what_asks_for_a_device_gets_no_second_batch() -> None:
    """Waiting for a device at its worker, it would keep what needs none waiting behind it."""
    run = Run(100, {"a": 3, "b": 2}, WindowConfig(request=Request(gpus=0.5), batch_size=1))
    first = only(run.first, Send)[0]
    run.tell(Ended(first.number, receipt(first, seconds=0.1)))
    assert run.window.counts().batches == 5


def test_where_only_the_window_counts_a_slot_has_one_batch_and_names_its_worker() -> None:
    """A second one would be executed beside the first, and one that may go anywhere where there is no room for it."""
    run = Run(100, {"a": 2, "b": 1}, WindowConfig(request=BASE, batch_size=1), counted=True)
    first = only(run.first, Send)
    assert sorted(send.only_on or "" for send in first) == ["a", "a", "b"]
    again = run.sends(Ended(first[0].number, receipt(first[0], seconds=0.1)))
    assert [send.only_on for send in again] == [first[0].only_on]
    assert run.window.counts().batches == 3


def test_a_batch_that_named_a_worker_goes_out_again_when_that_is_gone() -> None:
    """Its task would wait for ever: it is taken back, and a worker that is there gets it."""
    run = Run(3, {"a": 1, "b": 1}, WindowConfig(request=BASE, batch_size=1), counted=True)
    lost = next(send for send in only(run.first, Send) if send.only_on == "a")
    run.slots = {"b": 2}
    said = run.tell(run.capacity())
    assert [drop.batch for drop in only(said, Drop)] == [lost.number]
    assert [send.only_on for send in only(said, Send) if send.number == lost.number] == ["b"]


def test_without_any_slot_one_batch_goes_out() -> None:
    """A cluster that scales from zero sees one batch, and one only."""
    run = Run(10, {})
    assert len(only(run.first, Send)) == 1
    run.slots = {"a": 2}
    assert len(run.sends(run.capacity())) == 1


def test_beside_outsiders_every_batch_names_its_worker() -> None:
    """One that may go anywhere would go to a worker that must not get it; when the outsiders are gone, batches are free again."""
    run = Run(100, {"a": 1, "b": 1}, WindowConfig(request=BASE, batch_size=1, second_below=0.0))
    first = only(run.first, Send)
    assert [send.only_on for send in first] == [None, None]
    run.outsiders = True
    run.tell(run.capacity())
    again = [send for one in first for send in run.sends(Ended(one.number, receipt(one)))]
    assert sorted(send.only_on or "" for send in again) == ["a", "b"]
    run.outsiders = False
    run.tell(run.capacity())
    assert [send.only_on for one in again for send in run.sends(Ended(one.number, receipt(one)))] == [None, None]


@pytest.mark.parametrize("losses", [0, LOSSES - 1])
def test_where_only_outsiders_are_nothing_goes_out(losses: int) -> None:
    """A batch without a slot would go to one of them: it waits for another worker; an item that must run alone does too."""
    run = Run(1, {"a": 1}, WindowConfig(request=BASE, batch_size=1))
    for _ in range(losses):
        run.tell(Lost(next(iter(run.out)), "a"))
    assert [send.alone for send in run.out.values()] == [losses > 0]
    run.slots, run.outsiders = {}, True
    run.tell(run.capacity())
    for number in list(run.out):
        run.tell(Lost(number, "outsider"))
    assert not run.out
    run.slots = {"b": 1}
    (send,) = run.sends(run.capacity())
    assert "b" in (send.only_on, send.alone_on)


def test_beside_outsiders_an_adaptive_cluster_sees_its_target_on_the_workers_that_count() -> None:
    """What goes out beyond the slots waits in line at those workers, and lets the cluster grow all the same."""
    run = Run(50, {"a": 1, "b": 1}, target=6, outsiders=True)
    assert sorted(send.only_on or "" for send in only(run.first, Send)) == ["a", "a", "a", "b", "b", "b"]


def test_an_adaptive_cluster_sees_its_target() -> None:
    """As many batches as let an adaptive cluster grow are in flight, slots or not."""
    run = Run(50, {}, target=7)
    assert len(only(run.first, Send)) == 7
    run.slots = {"a": 2}
    assert not run.sends(run.capacity())


def test_where_slots_vanish_nothing_goes_out_until_the_number_fits() -> None:
    """Eight batches on two slots: the next goes out when only one is left."""
    run = Run(100, {"a": 4, "b": 4}, WindowConfig(request=BASE, batch_size=1))
    sends = only(run.first, Send)
    run.slots = {"a": 1, "b": 1}
    assert not run.sends(run.capacity())
    sent = [len(run.sends(Ended(send.number, receipt(send, seconds=5)))) for send in sends]
    assert sent == [0, 0, 0, 0, 0, 0, 1, 1]


def test_two_classes_share_a_worker_by_fractions() -> None:
    """A class that could run four times and one that could run once do not run together on one worker."""
    window = Window(WindowConfig(request=BASE, batch_size=1))
    large = Request(memory=8 * GIB)
    capacity = Capacity({BASE: {"a": 4}, large: {"a": 1}})
    window.handle(capacity, 0.0)
    sends = only(window.handle(Offered(items(8), exhausted=True), 0.0), Send)
    assert len(sends) == 4
    big = [item._replace(key=ItemKey(f"big{item.position}", "str")) for item in items(2)]
    assert not only(window.handle(Offered(big, exhausted=True, request=large), 0.0), Send)
    after = [only(window.handle(Ended(send.number, receipt(send, seconds=5)), 1.0), Send) for send in sends]
    assert [[send.request for send in some] for some in after] == [[], [], [], [large]]


def test_a_class_that_no_worker_serves_is_said_and_waits_at_the_scheduler() -> None:
    """One batch of it goes out, so that a worker for it may come; the others go on, and the user is told why."""
    window = Window(WindowConfig(request=BASE, batch_size=1))
    large = Request(memory=8 * GIB)
    window.handle(Offered(items(3)), 0.0)
    big = [item._replace(key=ItemKey(f"big{item.position}", "str")) for item in items(3)]
    window.handle(Offered(big, exhausted=True, request=large), 0.0)
    said = window.handle(Capacity({BASE: {"a": 1}, large: {"a": 0}}), 0.0)
    assert sorted(send.request.memory or 0 for send in only(said, Send)) == [0, 8 * GIB]
    assert "8.00 GiB of memory" in only(said, Notice)[0].text


def test_a_priority_goes_first() -> None:
    """Of two classes the one with the higher priority gets the free slots."""
    window = Window(WindowConfig(request=BASE, batch_size=1))
    urgent = Request(priority=5)
    window.handle(Offered(items(4)), 0.0)
    window.handle(Offered(items(4), exhausted=True, request=urgent), 0.0)
    sends = only(window.handle(Capacity({BASE: {"a": 2}, urgent: {"a": 2}}), 0.0), Send)
    assert [send.request.priority for send in sends] == [5, 5]


def test_a_batch_that_starts_elsewhere_changes_places() -> None:
    """The model follows the scheduler: two batches that swapped workers free their real slots."""
    run = Run(100, config=WindowConfig(request=BASE, batch_size=1))
    one, two = only(run.first, Send)
    run.tell(Started(one.number, "b"))
    run.tell(Started(two.number, "a"))
    run.slots = {"a": 1}
    run.tell(run.capacity())
    assert len(run.sends(Ended(two.number, receipt(two, seconds=5)))) == 0
    assert len(run.sends(Ended(one.number, receipt(one, seconds=5)))) == 1


# -- further attempts -----------------------------------------------------------------------------------------------------------------


def test_waiting_for_the_next_attempt_costs_no_slot() -> None:
    """An item in back-off is in no batch; when its time has come it goes out with the next number."""
    run = Run(1, retry=Retry(kinds={"transient": Rule(retries=1, delay=30, jitter=False)}))
    (first,) = only(run.first, Send)
    said = run.tell(Ended(1, receipt(first, failed(Kind.TRANSIENT))))
    assert only(said, Settled) == [Settled(1, receipt(first, failed(Kind.TRANSIENT)), (), (), first.tries, 1)]
    assert (run.window.counts().running, run.window.counts().retrying, run.window.wake_at()) == (0, 1, 30.0)
    (second,) = only(run.wake(), Send)
    assert (second.number, second.tries[0].attempt) == (2, 2)
    said = run.tell(Ended(2, receipt(second, failed(Kind.TRANSIENT))))
    assert only(said, Settled)[0].final == (0,)
    assert said[-1] == End("done")


def test_a_crash_is_executed_once_more_whatever_failed_before_it() -> None:
    """A lost connection, a crash and a loss of the worker each have budgets of their own: only the second crash is final."""
    run = Run(1, retry=Retry(kinds={"transient": Rule(retries=4, delay=1)}))
    (send,) = only(run.first, Send)
    run.tell(Ended(send.number, receipt(send, failed(Kind.TRANSIENT))))
    (send,) = only(run.wake(), Send)
    for attempt in (2, 3):
        assert (send.tries[0].attempt, send.alone) == (attempt, attempt == 3)
        said = run.tell(Ended(send.number, receipt(send, failed(Kind.CRASH))))
        (send,) = only(said, Send) or (send,)
    assert only(said, Settled)[0].final == (0,)
    assert said[-1] == End("done")


def test_a_memory_failure_doubles_up_to_the_largest_worker() -> None:
    """1, 2 and 4 GiB are tried where the largest worker has 4; then the failure is final."""
    run = Run(1)
    sends = only(run.first, Send)
    said: list[Instruction] = []
    while sends:
        (send,) = sends
        said = run.tell(Ended(send.number, receipt(send, failed(Kind.MEMORY))))
        sends = only(said, Send)
        assert [wish.request.memory for wish in only(said, Measure)] == [send.request.memory for send in sends]
    assert [request.memory for request in run.window.classes] == [None, 2 * GIB, 4 * GIB]
    assert only(said, Settled)[0].final == (0,)


def test_memory_grows_to_the_largest_worker_where_twice_is_too_much() -> None:
    """3 GiB on a cluster whose largest worker has 4 are followed by 4."""
    run = Run(1, config=WindowConfig(request=Request(memory=3 * GIB)))
    (send,) = only(run.first, Send)
    (again,) = run.sends(Ended(send.number, receipt(send, failed(Kind.MEMORY))))
    assert again.request.memory == 4 * GIB


def test_a_crash_runs_once_more_alone() -> None:
    """The second attempt has a worker for itself: nothing else is on it, nothing joins it, and a second crash is final."""
    run = Run(60, config=WindowConfig(request=BASE, batch_size=1))
    one, two = only(run.first, Send)
    for send, worker in ((one, "a"), (two, "b")):
        run.tell(Started(send.number, worker))
    (alone,) = run.sends(Ended(one.number, receipt(one, failed(Kind.CRASH), seconds=5)))
    assert (alone.alone, alone.alone_on, alone.tries[0].attempt) == (True, "a", 2)
    (other,) = run.sends(Ended(two.number, receipt(two, seconds=5)))
    assert other.avoid == ("a",)
    said = run.tell(Ended(alone.number, receipt(alone, failed(Kind.CRASH), seconds=5)))
    assert only(said, Settled)[0].final == (0,)
    assert len(only(said, Send)) == 1


def test_an_item_that_runs_alone_waits_for_a_worker_to_fall_empty() -> None:
    """On one worker with two slots nothing more goes out until it is empty; then the suspect, then the rest."""
    run = Run(60, {"a": 2}, WindowConfig(request=BASE, batch_size=1))
    one, two = only(run.first, Send)
    assert not run.sends(Ended(one.number, receipt(one, failed(Kind.CRASH), seconds=5)))
    (alone,) = run.sends(Ended(two.number, receipt(two, seconds=5)))
    assert alone.alone_on == "a"
    assert len(run.sends(Ended(alone.number, receipt(alone, seconds=5)))) == 2


def test_a_worker_that_is_gone_frees_the_item_that_runs_alone_there() -> None:
    """Its task could run nowhere else: it is dropped and goes out again elsewhere under its id."""
    run = Run(1, config=WindowConfig(request=BASE, batch_size=1))
    (one,) = only(run.first, Send)
    (alone,) = run.sends(Ended(one.number, receipt(one, failed(Kind.CRASH))))
    run.slots = {"c": 1}
    said = run.tell(run.capacity())
    assert only(said, Drop) == [Drop(alone.number)]
    (again,) = only(said, Send)
    assert (again.number, again.alone_on, again.again) == (alone.number, "c", 1)


def test_a_predicate_that_raises_is_reported_once_and_left_out() -> None:
    """A wrong predicate must not end a run: the rules decide, and a notice says why."""

    def broken(failure: Failure) -> bool:
        raise ZeroDivisionError(failure.error)

    run = Run(3, {"a": 3}, WindowConfig(request=BASE, batch_size=1), Retry(predicate=broken))
    notices = [only(run.tell(Ended(send.number, receipt(send, failed(Kind.PERMANENT)))), Notice) for send in only(run.first, Send)]
    assert [[notice.code for notice in some] for some in notices] == [["predicate"], [], []]
    assert run.window.counts().failed == 3


def test_a_full_retry_heap_stops_the_intake() -> None:
    """While too many items wait for another attempt, the plan is asked for no more."""
    config = WindowConfig(request=BASE, batch_size=40, max_retrying=30, alike_share=2)
    run = Run(400, {"a": 1}, config, Retry(kinds={"transient": Rule(retries=1, delay=50, jitter=False)}))
    (send,) = only(run.first, Send)
    offered = run.window.counts().offered
    said = run.tell(Ended(send.number, receipt(send, *(failed(Kind.TRANSIENT, index) for index in range(40)), seconds=3)))
    (send,) = only(said, Send)
    said = run.tell(Ended(send.number, receipt(send, seconds=3)))
    assert run.window.counts().offered == offered
    assert run.window.wake_at() == 50.0
    assert only(run.wake(), Send)


# -- stops ----------------------------------------------------------------------------------------------------------------------------


def test_a_cancel_keeps_what_workers_still_write() -> None:
    """Tasks are dropped; a receipt that comes within the time of grace counts; then marks are looked for, and the run ends."""
    run = Run(100, {"a": 3}, WindowConfig(request=BASE, batch_size=4))
    sends = only(run.first, Send)
    for send in sends[:2]:
        run.tell(Started(send.number, "a"))
    said = run.tell(CancelAll("by request"))
    assert [drop.batch for drop in only(said, Drop)] == [1, 2, 3]
    assert only(said, LookForMark) == [LookForMark(3)], "nothing comes of a batch that never started"
    said = run.tell(Ended(1, receipt(sends[0], upto=2)))
    assert only(said, Settled)[0].succeeded == 2
    assert run.window.wake_at() == 10.0
    run.marks[2] = receipt(sends[1])
    said = run.wake()
    assert [type(instruction) for instruction in said] == [LookForMark, Settled, End]
    assert said[-1] == End("cancelled", "by request")
    counts = run.window.counts()
    assert (counts.succeeded, counts.cancelled) == (6, counts.offered - 6)


def test_errors_raise_stops_at_the_first_final_failure() -> None:
    """The end names the item, its attempt and its failure."""
    run = Run(100, {"a": 1}, WindowConfig(request=BASE, batch_size=4, errors="raise"))
    (send,) = only(run.first, Send)
    (end,) = only(run.tell(Ended(send.number, receipt(send, failed(Kind.TIMEOUT, 2)))), End)
    assert (end.code, end.tried, end.failure) == ("item", send.tries[2], failed(Kind.TIMEOUT, 2))
    assert "'2' failed at attempt 1 with Error (timeout): why" in end.text


@pytest.mark.parametrize(("limit", "ends_after"), [(0, 1), (3, 4), (0.1, 100), (1.0, None)])
def test_too_many_failures_end_the_run(limit: float, ends_after: int | None) -> None:
    """A number allows so many, a share so much of what ended, from 100 items on."""
    run = Run(300, {"a": 1}, WindowConfig(request=BASE, batch_size=1, max_failures=limit, second_below=0, alike_share=2))
    line, ended = only(run.first, Send), 0
    while line:
        said = run.tell(Ended(line[0].number, receipt(line[0], failed(Kind.PERMANENT))))
        ended += 1
        line = only(said, Send)
    assert only(said, End)[0].code == ("done" if ends_after is None else "failures")
    assert ended == (ends_after or 300)


# -- pauses ---------------------------------------------------------------------------------------------------------------------------


def paused(kind: Kind, count: int = 60) -> Run:
    """A run of which the last 20 attempts failed alike."""
    config = WindowConfig(request=BASE, batch_size=10, alike_items=20)
    run = Run(count, {"a": 2}, config, Retry(kinds={"transient": Rule(retries=1, delay=1, jitter=False)}))
    for send in only(run.first, Send):
        said = run.tell(Ended(send.number, receipt(send, *(failed(kind, index) for index in range(10)), seconds=5)))
    assert [notice.code for notice in only(said, Notice)] == ["paused"]
    for send in only(run.tell(Tick()), Send):
        raise AssertionError(send)
    return run


def test_a_run_pauses_when_everything_fails_alike_and_goes_on_when_one_succeeds() -> None:
    """One item at a time is tried, after 1, 2 and 4 s and so on; a success lets the run go on."""
    run = paused(Kind.TRANSIENT)
    for send in list(run.out.values()):
        run.tell(Ended(send.number, receipt(send, *(failed(Kind.TRANSIENT, index) for index in range(10)))))
    for wait in (1.0, 2.0, 4.0):
        begun = run.now
        (probe,) = only(run.wake(), Send)
        assert (len(probe.tries), run.now - begun) == (1, wait)
        assert not only(run.tell(Ended(probe.number, receipt(probe, failed(Kind.TRANSIENT)))), Send)
    (probe,) = only(run.tell(Tick(), 8.0), Send)
    said = run.tell(Ended(probe.number, receipt(probe)))
    assert [notice.code for notice in only(said, Notice)] == ["resumed"]
    assert max(len(send.tries) for send in only(said, Send)) == 10


def test_a_pause_for_what_does_not_heal_is_given_up() -> None:
    """A wrong workload fails all its items within seconds, not within days."""
    run = paused(Kind.PERMANENT)
    codes: list[str] = []
    while not run.window.over:
        send = next(iter(run.out.values()), None)
        said = run.wake() if send is None else run.tell(Ended(send.number, receipt(send, *_all_failed(send))))
        codes += [notice.code for notice in only(said, Notice)]
    assert codes == ["pause-given-up"]
    assert run.now == 7.0
    assert run.window.counts().failed == 60


def _all_failed(send: Send) -> list[Failure]:
    return [failed(Kind.PERMANENT, index) for index in range(len(send.tries))]
