"""What goes first, how much may be in flight, and why the rest waits."""

from __future__ import annotations

import random

import pytest

from dcompute.records import Item, ItemKey, Kind, Request
from dcompute.retry import Retry, Rule
from dcompute.window import (
    Capacity,
    Ended,
    Event,
    Offered,
    Reprioritized,
    Send,
    Tick,
    Waiting,
    Why,
    Window,
    WindowConfig,
)
from tests.unit.window_steps import BASE, GIB, Run, failed, items, only, receipt

HIGH = Request(priority=10)
LARGE = Request(memory=8 * GIB, priority=10)
SINGLE = WindowConfig(request=BASE, batch_size=1, second_below=0)


def named(name: str, count: int) -> list[Item]:
    return [item._replace(key=ItemKey(f"{name}{item.position}", "str")) for item in items(count)]


def two_classes(config: WindowConfig, slots: dict[Request, dict[str, int]], other: int = 4, base: int = 20) -> tuple[Window, list[Send]]:
    """A window with so many items of the run's class and of the other one, and what it sent at once."""
    window = Window(config, rng=random.Random(0))
    second = next(request for request in slots if request != config.request)
    window.handle(Offered(named("base", base)), 0.0)
    window.handle(Offered(named("other", other), exhausted=True, request=second), 0.0)
    return window, only(window.handle(Capacity(slots), 0.0), Send)


def ended(window: Window, send: Send, now: float) -> list[Send]:
    return only(window.handle(Ended(send.number, receipt(send, seconds=1)), now), Send)


# -- priority -------------------------------------------------------------------------------------------------------------------------


def test_what_waits_goes_by_the_new_priority_and_what_is_in_flight_keeps_its_own() -> None:
    """After a change the classes keep their distance to each other, and tasks carry the new number."""
    window, first = two_classes(SINGLE, {BASE: {"a": 1}, HIGH: {"a": 1}})
    assert [send.priority for send in first] == [10]
    assert not window.handle(Reprioritized(20), 1.0)
    (second,) = ended(window, first[0], 2.0)
    assert (second.request, second.priority) == (HIGH, 30)
    window.handle(Reprioritized(-10), 2.5)
    (third,) = ended(window, second, 3.0)
    assert (third.request, third.priority) == (HIGH, 0)


def test_a_further_attempt_goes_by_the_new_priority() -> None:
    """An item that failed under the old priority is tried again under the new one, in the class it was in."""
    run = Run(1, config=SINGLE, retry=Retry(kinds={"transient": Rule(retries=1, delay=30, jitter=False)}))
    run.tell(Ended(1, receipt(run.out[1], failed(Kind.TRANSIENT))))
    run.tell(Reprioritized(10))
    (again,) = only(run.wake(), Send)
    assert (again.priority, again.request) == (10, BASE)


def test_a_class_of_higher_priority_gets_a_whole_worker_though_small_work_never_leaves_one() -> None:
    """A worker with four small batches never falls empty by itself: one is kept free for what goes first, again and again."""
    workers = {"a": 4, "b": 4}
    window, first = two_classes(SINGLE, {BASE: workers, LARGE: dict.fromkeys(workers, 1)}, other=0)
    assert len(first) == 8
    flying = first
    window.handle(Offered(named("large", 3), request=LARGE), 0.5)
    ends = {send.number: send for send in flying}
    large: list[Send] = []
    now = 1.0
    while len(large) < 3:
        send = ends.pop(min(ends))
        now += 1
        for new in ended(window, send, now):
            ends[new.number] = new
            large += [new] if new.request == LARGE else []
        assert now < 40, "what goes first waits for ever"


def test_an_item_that_runs_alone_goes_after_a_class_of_higher_priority() -> None:
    """A worker is not kept free for it while work that goes first waits for that worker."""
    window = Window(SINGLE, rng=random.Random(0))
    window.handle(Offered(named("base", 1)), 0.0)
    (one,) = only(window.handle(Capacity({BASE: {"a": 1}, HIGH: {"a": 1}}), 0.0), Send)
    window.handle(Offered(named("high", 2), exhausted=True, request=HIGH), 0.1)
    (high,) = only(window.handle(Ended(one.number, receipt(one, failed(Kind.CRASH))), 1.0), Send)
    assert high.request == HIGH
    (high,) = ended(window, high, 2.0)
    assert high.request == HIGH
    (alone,) = ended(window, high, 3.0)
    assert (alone.alone, alone.request) == (True, BASE)


def test_with_ageing_a_low_class_gets_its_turn_and_waits_again() -> None:
    """Two levels below, it goes first after twice the time, with one batch; without ageing it waits until all else is done."""
    low = Request(priority=-10)
    for ageing, expected in ((None, []), (3.0, [7.0, 14.0])):
        config = WindowConfig(request=HIGH, batch_size=1, second_below=0, ageing=ageing)
        window, (send,) = two_classes(config, {HIGH: {"a": 1}, low: {"a": 1}})
        times = []
        for now in range(1, 20):
            (send,) = ended(window, send, float(now))
            if send.request == low:
                times.append(float(now))
                assert send.priority == 10
        assert times == expected


# -- how much may be in flight ---------------------------------------------------------------------------------------------------------


def capped(most: int | None, slots: dict[str, int], **more: object) -> Capacity:
    return Capacity({BASE: slots}, most=most, **more)


def test_no_more_is_in_flight_than_the_share_of_the_run() -> None:
    """Whatever slots there are; when the share shrinks nothing in flight is dropped, and nothing new goes out until it fits."""
    window = Window(SINGLE)
    window.handle(Offered(items(20), exhausted=True), 0.0)
    first = only(window.handle(capped(3, {"a": 8}), 0.0), Send)
    assert len(first) == 3
    assert not window.handle(capped(1, {"a": 8}), 1.0)
    assert [len(ended(window, send, 2.0)) for send in first] == [0, 0, 1]
    assert len(only(window.handle(capped(None, {"a": 8}), 3.0), Send)) == 7


def test_a_share_of_nothing_sends_nothing() -> None:
    """With no slot on any worker one batch goes out so that a cluster starts; not where the run may have none."""
    window = Window(SINGLE)
    window.handle(Offered(items(2), exhausted=True), 0.0)
    assert not only(window.handle(capped(0, {}), 0.0), Send)
    assert len(only(window.handle(capped(1, {}, target=5), 1.0), Send)) == 1


def test_second_batches_of_a_slot_and_items_that_run_alone_are_in_the_share() -> None:
    """Short batches get no second one a slot beyond it, and an item that runs alone waits for its place in it."""
    window = Window(WindowConfig(request=BASE, batch_size=1))
    window.handle(Offered(items(20), exhausted=True), 0.0)
    one, _two = only(window.handle(capped(2, {"a": 1, "b": 1}), 0.0), Send)
    assert len(ended(window, one, 0.1)) == 1
    run = Run(3, {"a": 1, "b": 1, "c": 1}, SINGLE)
    one, two, _ = only(run.first, Send)
    run.tell(Capacity({BASE: run.slots}, most=2))
    assert not run.sends(Ended(one.number, receipt(one, failed(Kind.CRASH))))
    (alone,) = run.sends(Ended(two.number, receipt(two)))
    assert alone.alone


def test_a_twin_is_in_the_share() -> None:
    """No second execution goes out where the run has as many batches in flight as it may."""
    from tests.unit.test_window_twins import at_the_end, twins_of

    run = at_the_end()
    run.tell(Capacity({BASE: run.slots}, most=1))
    assert not only(run.tell(Tick(), 100.0), Send)
    run.tell(Capacity({BASE: run.slots}, most=2))
    assert len([*run.out.values()]) == 1 or twins_of(run)


# -- what could go out, and why it does not ---------------------------------------------------------------------------------------------


def why(window: Window) -> dict[Why, int]:
    return {waiting.why: waiting.items for waiting in window.reasons()}


def test_demand_is_what_would_go_out_and_what_has() -> None:
    """By class, in batches, in flight or not, whatever room there is."""
    window, first = two_classes(SINGLE, {BASE: {"a": 2}, HIGH: {"a": 2}}, other=3, base=5)
    assert len(first) == 2
    assert window.demand() == {BASE: 5, HIGH: 3}
    ended(window, first[0], 1.0)
    assert window.demand() == {BASE: 5, HIGH: 2}


def test_demand_knows_of_items_that_are_still_in_the_plan() -> None:
    """Where the inputs can be counted, those that were not taken yet are in it."""
    window = Window(WindowConfig(request=BASE, batch_size=10))
    window.handle(Capacity({BASE: {"a": 1}}), 0.0)
    window.handle(Offered(items(20), remaining=980), 0.0)
    assert window.demand() == {BASE: 100}


@pytest.mark.parametrize(
    ("event", "reason", "text"),
    [
        (Capacity({BASE: {"a": 0}}), Why.NO_WORKER, "no worker has room for 1 cpus"),
        (Capacity({BASE: {"a": 2}}), Why.BUSY, "all 2 slots for it are taken"),
        (Capacity({BASE: {"a": 9}}, most=2), Why.SHARE, "2 batches in flight"),
        (Tick(), Why.UNMEASURED, "looked up"),
    ],
)
def test_what_waits_says_why(event: Event, reason: Why, text: str) -> None:
    """With the number of items, by what the cluster offers now."""
    window = Window(SINGLE)
    window.handle(Offered(items(6), exhausted=True), 0.0)
    sent = only(window.handle(event, 0.0), Send)
    (waiting,) = window.reasons()
    assert (waiting.why, waiting.items) == (reason, 6 - len(sent))
    assert text in waiting.text


def test_items_in_back_off_say_when_their_time_comes() -> None:
    """Apart from those of the class that wait for a slot."""
    run = Run(5, {"a": 1}, SINGLE, Retry(kinds={"transient": Rule(retries=1, delay=30, jitter=False)}))
    run.tell(Ended(1, receipt(run.out[1], failed(Kind.TRANSIENT))), after=1.0)
    (slot, later) = run.window.reasons()
    assert (slot.why, slot.items) == (Why.BUSY, 3)
    assert later == Waiting(
        request=BASE, items=1, why=Why.BACK_OFF, text="in back-off after a failure: the next attempt in 30 s", until=31.0
    )


def test_an_item_that_runs_alone_and_a_pause_say_so() -> None:
    """Each with the number of its own items."""
    run = Run(60, {"a": 2}, SINGLE)
    one, _two = only(run.first, Send)
    run.tell(Ended(one.number, receipt(one, failed(Kind.CRASH), seconds=5)))
    assert why(run.window) == {Why.KEPT: 58, Why.ALONE: 1}
    paused = Run(60, {"a": 2}, WindowConfig(request=BASE, batch_size=1, alike_items=4))
    while not paused.window.counts().paused:
        send = next(iter(paused.out.values()))
        paused.tell(Ended(send.number, receipt(send, failed(Kind.PERMANENT))))
    (waiting,) = paused.window.reasons()
    assert (waiting.why, waiting.until) == (Why.PAUSED, 1.0)
    assert "Error (permanent)" in waiting.text


def test_a_worker_that_is_kept_for_an_item_that_runs_alone_is_open_to_what_goes_before_it() -> None:
    """Work of a higher priority that comes while the worker falls empty takes its slots at once."""
    run = Run(3, {"a": 2}, SINGLE)
    one, _two = only(run.first, Send)
    assert not run.sends(Ended(one.number, receipt(one, failed(Kind.CRASH), seconds=5)))
    run.window.handle(Offered(named("high", 1), exhausted=True, request=HIGH), 1.0)
    (high,) = only(run.window.handle(Capacity({BASE: run.slots, HIGH: run.slots}), 1.0), Send)
    assert high.request == HIGH
