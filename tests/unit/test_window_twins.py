"""Twins of stragglers: who gets one and when, what the first end of the two means, and that none is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dcompute.records import Kind, Receipt
from dcompute.retry import Retry, Rule
from dcompute.window import (
    CancelAll,
    Capacity,
    Drop,
    End,
    Ended,
    LookForMark,
    Lost,
    Notice,
    Send,
    Settled,
    SetupFailed,
    Started,
    Tick,
    Window,
    WindowConfig,
)
from dcompute.window.events import Offered
from dcompute.window.sizing import Sizes
from dcompute.window.twins import patience
from tests.component.window.test_window_runs import CONDUCT
from tests.component.window.window_cluster import Scenario, finished
from tests.unit.window_steps import BASE, Run, failed, items, only, receipt

PLAIN = WindowConfig(request=BASE, batch_size=1, second_below=0)


def at_the_end(config: WindowConfig = PLAIN, slots: dict[str, int] | None = None, others: int = 4, counted: bool = False) -> Run:
    """A run of which batch 1 is still in flight, on the first worker, since 0 s; so many others took a second each, and nothing is left."""
    run = Run(others + 1, slots or {"a": 1, "b": 1}, config, counted=counted)
    run.tell(Started(1, next(iter(run.slots))))
    end_all_but(run, 1)
    return run


def end_all_but(run: Run, last: int) -> None:
    """All batches but the first so many end."""
    while len(run.out) > last:
        send = next(send for send in run.out.values() if send.number > last)
        run.tell(Ended(send.number, receipt(send, seconds=1)))


def twins_of(run: Run) -> list[Send]:
    """What goes out next, whenever that is."""
    twins: list[Send] = []
    while not twins:
        twins = only(run.wake(), Send)
    return twins


def with_twin(config: WindowConfig = PLAIN, slots: dict[str, int] | None = None, counted: bool = False) -> tuple[Run, Send]:
    """Such a run, and the twin that went out."""
    run = at_the_end(config, slots, counted=counted)
    (twin,) = twins_of(run)
    return run, twin


# -- who gets one, and when -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "seconds", "setup", "count", "expected"),
    [
        (3, 1.0, 0.0, 1, 5.0),
        (3, 10.0, 0.0, 1, 3 * 10.01),
        (3, 10.0, 0.0, 4, 3 * 40.01),
        (3, 10.0, 20.0, 1, 3 * 10.01 + 20),
        (2, 10.0, 0.0, 1, None),
    ],
)
def test_a_batch_may_take_three_times_what_its_items_should(
    ended: int, seconds: float, setup: float, count: int, expected: float | None
) -> None:
    """At least five seconds; a child that is set up takes as long as the slowest so far; of two batches nothing is learnt."""
    sizes = Sizes(PLAIN)
    for _ in range(ended):
        held = seconds + 0.01 + setup
        sizes.measured(Receipt(batch="", execution="", holds=((0, 1),), seconds=seconds, slot_seconds=held, setup_seconds=setup), 1)
    assert patience(PLAIN, sizes, count) == (None if expected is None else pytest.approx(expected))


def test_what_another_class_took_says_nothing() -> None:
    """A class whose memory was raised knows the durations of its parent, and waits for its own."""
    parent = Sizes(PLAIN)
    for _ in range(9):
        parent.measured(Receipt(batch="", execution="", holds=((0, 1),), seconds=1, slot_seconds=1), 1)
    child = Sizes(PLAIN, parent)
    assert child.item_seconds == 1
    assert patience(PLAIN, child, 1) is None


def test_a_straggler_gets_one_twin_on_another_worker() -> None:
    """After five seconds, under its own id, with a send of its own; never a second one."""
    run = at_the_end()
    first = run.out[1]
    (twin,) = twins_of(run)
    assert run.now == 5.0
    assert (twin.number, twin.again, twin.twin, twin.only_on, twin.tries) == (1, 1, True, "b", first.tries)
    assert not run.tell(Tick(), 1000.0)
    assert run.window.wake_at() is None


def test_a_batch_is_no_straggler_before_its_worker_said_that_it_started() -> None:
    """What waited for its slot at the scheduler gets its time from there on."""
    run = at_the_end()
    run.tell(Started(1, "a", 0), 4.0)
    assert twins_of(run)
    assert run.now == 9.0


@pytest.mark.parametrize(
    ("config", "slots", "others"),
    [
        (replace(PLAIN, twins=False), None, 4),
        (replace(PLAIN, idempotent=False), None, 4),
        (PLAIN, {"a": 2}, 4),
        (PLAIN, None, 2),
    ],
    ids=["turned off", "at most once", "one worker", "too few ended"],
)
def test_no_twin(config: WindowConfig, slots: dict[str, int] | None, others: int) -> None:
    """Not where the user says so, where nothing may run twice, where no other worker is, where nobody knows what to expect."""
    run = at_the_end(config, slots, others)
    assert list(run.out) == [1]
    assert not run.tell(Tick(), 1000.0)
    assert run.window.wake_at() is None


def test_no_twin_while_inputs_may_come() -> None:
    """A slot that stands idle is for them: the last has not come yet."""
    window = Window(PLAIN)
    window.handle(Capacity({BASE: {"a": 1, "b": 1}}), 0.0)
    sends = only(window.handle(Offered(items(5)), 0.0), Send)
    while len(sends) > 1:
        send = sends.pop()
        sends += only(window.handle(Ended(send.number, receipt(send, seconds=1)), 0.0), Send)
    window.handle(Offered([]), 0.0)
    assert not only(window.handle(Tick(), 1000.0), Send)
    assert [send.number for send in only(window.handle(Offered([], exhausted=True), 1000.0), Send)] == [1]


def test_no_twin_for_an_item_that_runs_alone() -> None:
    """It may be what ends workers, and a second execution is no longer alone."""
    run = Run(5, config=PLAIN)
    send = run.out[1]
    end_all_but(run, 1)
    (alone,) = run.sends(Ended(1, receipt(send, failed(Kind.CRASH), seconds=1)))
    assert alone.alone
    assert not run.tell(Tick(), 1000.0)


def test_no_twin_for_what_was_lost_with_a_worker() -> None:
    """It may be what ended that worker: it gets one at a time."""
    run = at_the_end()
    (again,) = run.sends(Lost(1, "a"))
    run.tell(Started(1, "b", again.again))
    assert not run.tell(Tick(), 1000.0)


def test_no_twin_in_a_pause() -> None:
    """While everything fails alike nothing but single probes goes out."""
    config = replace(PLAIN, alike_items=4)
    run = Run(5, config=config, retry=Retry(kinds={"transient": Rule(retries=9, delay=5000, jitter=False)}))
    run.tell(Started(1, "a"))
    said = []
    while len(run.out) > 1:
        send = next(send for send in run.out.values() if send.number > 1)
        said = run.tell(Ended(send.number, receipt(send, failed(Kind.TRANSIENT), seconds=1)))
    assert [notice.code for notice in only(said, Notice)] == ["paused"]
    assert not only(run.tell(Tick(), 100.0), Send)


def test_another_host_is_better_than_another_worker() -> None:
    """A host that is sick slows all its workers down."""
    slots = {"tcp://one:1": 1, "tcp://one:2": 1, "tcp://two:1": 1}
    assert [twin.only_on for twin in twins_of(at_the_end(slots=slots))] == ["tcp://two:1"]


def test_few_have_a_twin_at_the_same_time() -> None:
    """One slot in four: where more are slow, the expectation is wrong and not a worker."""
    run = Run(12, {"a": 4, "b": 4}, PLAIN)
    for number in range(1, 5):
        run.tell(Started(number, "a"))
    end_all_but(run, 4)
    twins = twins_of(run)
    assert [(twin.number, twin.only_on) for twin in twins] == [(1, "b"), (2, "b")]
    assert not only(run.tell(Tick(), 100.0), Send)
    run.tell(Ended(1, receipt(run.out[1], seconds=1)))
    assert [twin.number for twin in twins_of(run)] == [3]


# -- what becomes of the two ----------------------------------------------------------------------------------------------------------


def test_the_first_receipt_settles_and_drops_the_other() -> None:
    """From whichever of the two; the same receipt, told by the other, counts no more."""
    run, twin = with_twin()
    run.tell(Started(1, "b", twin.again))
    said = run.tell(Ended(1, receipt(twin)))
    assert [type(instruction) for instruction in said] == [Drop, Settled, End]
    assert said[0] == Drop(1)
    assert run.window.counts().succeeded == 5
    assert not run.tell(Ended(1, receipt(twin)))


def test_a_twin_takes_a_slot() -> None:
    """An item whose next attempt is due waits until one of the two ends, whatever is told of the cluster; then it goes out."""
    retry = Retry(kinds={"transient": Rule(retries=1, delay=30, jitter=False)})
    run = Run(5, config=PLAIN, retry=retry)
    run.tell(Started(1, "a"))
    while len(run.out) > 1:
        send = next(send for send in run.out.values() if send.number > 1)
        why = [failed(Kind.TRANSIENT)] if send.number == 5 else []
        run.tell(Ended(send.number, receipt(send, *why, seconds=1)))
    (twin,) = twins_of(run)
    run.tell(run.capacity())
    assert not run.sends(Tick(), 30.0)
    assert run.window.counts().ready == 1
    (last,) = run.sends(Lost(1, "b", again=twin.again))
    assert last.tries[0].attempt == 2


@pytest.mark.parametrize("lost", [0, 1], ids=["the first", "the twin"])
@pytest.mark.parametrize("how", ["lost", "set-up failed"])
def test_the_end_of_one_is_no_loss_of_the_batch(lost: int, how: str) -> None:
    """The other goes on, in its place: nothing is sent, looked for or billed, and its receipt ends the run."""
    run, twin = with_twin()
    worker = ("a", "b")[lost]
    assert not run.tell(Lost(1, worker, again=lost) if how == "lost" else SetupFailed(1, "no model", lost))
    assert run.window.counts().batches == 1
    assert run.window.counts().losses == 0
    run.slots = {("b", "a")[lost]: 1}
    assert not run.tell(run.capacity()), "the worker that is gone has nothing of it"
    assert run.tell(Ended(1, receipt(twin)))[-1] == End("done")


def test_the_loss_of_both_is_two_losses() -> None:
    """An item that ends workers ended two: its mark is looked for, and it goes out again under another id with two losses."""
    run = at_the_end(replace(PLAIN, batch_size=2), others=9)
    (twin,) = twins_of(run)
    run.tell(Lost(1, "a", again=0))
    said = run.tell(Lost(1, "b", again=twin.again))
    assert only(said, LookForMark) == [LookForMark(1)]
    assert {tried.losses for tried in only(said, Send)[0].tries} == {2}


def test_a_batch_whose_twin_was_lost_goes_out_again_as_a_third_task() -> None:
    """No task ever has the name of another, and the batch gets no second twin."""
    run, _ = with_twin()
    run.tell(SetupFailed(1, "no model", 1))
    (again,) = run.sends(Lost(1, "a", again=0))
    assert (again.number, again.again, again.twin) == (1, 2, False)
    assert not run.tell(Tick(), 1000.0)


def test_a_cancel_drops_both_and_waits_for_both() -> None:
    """That one of them wrote nothing does not end the run: the other may still write what is finished."""
    run, twin = with_twin()
    run.tell(Started(1, "b", twin.again))
    said = run.tell(CancelAll("enough"))
    assert [instruction for instruction in said if not isinstance(instruction, Notice)] == [Drop(1)]
    assert not run.tell(Lost(1, "a", again=0))
    said = run.tell(Lost(1, "b", again=twin.again))
    assert only(said, LookForMark) == [LookForMark(1)]
    assert said[-1] == End("cancelled", "enough")


def test_a_cancel_waits_for_a_twin_that_began() -> None:
    """Also where the first was not heard to begin: without a twin its mark would be looked for at once."""
    run = Run(5, config=PLAIN)
    end_all_but(run, 1)
    (twin,) = twins_of(run)
    run.tell(Started(1, str(twin.only_on), twin.again))
    assert not only(run.tell(CancelAll("enough")), LookForMark)
    assert run.tell(Ended(1, receipt(twin)))[-1] == End("cancelled", "enough")


def test_a_twin_whose_worker_is_gone_is_dropped() -> None:
    """It named that worker, so its task would wait for ever; the first goes on, and a late word of the twin means nothing."""
    run, twin = with_twin(slots={"a": 1, "b": 1})
    run.slots = {"a": 1}
    assert run.tell(run.capacity()) == [Drop(1, twin.again)]
    assert not run.tell(Lost(1, "b", again=twin.again))
    assert run.tell(Ended(1, receipt(twin)))[-1] == End("done")


def test_a_twin_goes_on_where_the_worker_of_the_first_is_gone() -> None:
    """The first had named that worker: only its task is dropped, and the batch is not sent again."""
    run, twin = with_twin(counted=True)
    run.slots = {"b": 1, "c": 1}
    assert run.tell(run.capacity()) == [Drop(1, 0)]
    assert run.tell(Ended(1, receipt(twin)))[-1] == End("done")


# -- whatever happens -----------------------------------------------------------------------------------------------------------------


def test_runs_with_stragglers_keep_all_promises() -> None:
    """Executions that stand still, twins, losses, cancels and workers that come and go, in any order: one outcome an item, no task left."""
    twins = 0
    for seed in range(24):
        cancel = 30 + seed if seed % 4 == 0 else None
        conduct = ("ok", CONDUCT[seed % len(CONDUCT)])
        scenario = Scenario(seed, items=10 + seed, workers=2 + seed % 3, trouble=seed % 12, stuck=2, conduct=conduct, cancel_after=cancel)
        cluster = finished(scenario)
        assert cancel is not None or len(cluster.outcomes) == scenario.items
        twins += len(cluster.twinned)
    assert twins > 10
