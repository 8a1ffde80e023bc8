"""Named limits in the window: what is held, what is taken, and when the next may go out."""

from __future__ import annotations

import pytest

from dcompute.quotas import parse_quotas
from dcompute.records import Kind, Request
from dcompute.retry import Retry, Rule
from dcompute.window import Allowance, Capacity, Ended, Lost, Offered, Send, Tick, Why, Window, WindowConfig
from dcompute.window.quotas import LINGER
from tests.unit.test_window_order import ended, named
from tests.unit.test_window_twins import at_the_end, twins_of
from tests.unit.window_steps import BASE, failed, items, only, receipt

LICENSED = Request(uses=(("licence", 1.0),))
CALLING = Request(uses=(("api", 1.0),))


def config(request: Request, size: int | None = 1, **limits: object) -> WindowConfig:
    return WindowConfig(request=request, batch_size=size, second_below=0, limits=parse_quotas(limits))


def test_no_more_batches_are_in_flight_than_there_are_licences() -> None:
    """Each batch holds what one item of it uses; what waits says so, and work that uses none goes on."""
    window = Window(config(LICENSED, licence=3))
    window.handle(Offered(items(10)), 0.0)
    window.handle(Offered(named("other", 10), exhausted=True, request=BASE), 0.0)
    sends = only(window.handle(Capacity({LICENSED: {"a": 8}, BASE: {"a": 8}}), 0.0), Send)
    assert [send.request for send in sends].count(LICENSED) == 3
    assert len(sends) == 8
    waiting = next(waiting for waiting in window.reasons() if waiting.request == LICENSED)
    assert (waiting.why, waiting.items) == (Why.LIMIT, 7)
    assert waiting.text == "limit 'licence' is used up: 3 of 3 are in use"
    assert window.demand() == {LICENSED: 3, BASE: 10}
    licensed = next(send for send in sends if send.request == LICENSED)
    assert len(ended(window, licensed, 1.0)) == 1


def test_an_item_may_use_more_than_one() -> None:
    """Of five licences two batches of two fit, and what two limits together permit counts."""
    request = Request(uses=(("licence", 2.0), ("seat", 1.0)))
    window = Window(config(request, licence=5, seat=9))
    window.handle(Offered(items(10), exhausted=True), 0.0)
    assert len(only(window.handle(Capacity({request: {"a": 8}}), 0.0), Send)) == 2


def test_an_allowance_that_shrinks_drops_nothing_and_one_that_grows_sends_at_once() -> None:
    """What others hold is theirs; the text says that they do."""
    window = Window(config(LICENSED, licence=3))
    window.handle(Offered(items(10), exhausted=True), 0.0)
    sends = only(window.handle(Capacity({LICENSED: {"a": 8}}), 0.0), Send)
    assert not window.handle(Allowance({"licence": 1}), 1.0)
    assert [len(ended(window, send, 2.0)) for send in sends] == [0, 0, 1]
    assert window.reasons()[0].text == "limit 'licence' is used up: 1 of 1 are in use (3 there are, others hold the rest)"
    assert len(only(window.handle(Allowance({"licence": 3}), 3.0), Send)) == 2
    assert not window.handle(Allowance({"licence": 99}), 4.0)


def rated(rate: str, size: int | None = 1, slots: int = 100, count: int = 100_000, **more: object) -> tuple[Window, list[Send]]:
    window = Window(config(CALLING, size, api=rate), **more)
    window.handle(Offered(items(count), exhausted=True), 0.0)
    return window, only(window.handle(Capacity({CALLING: {"a": slots}}), 0.0), Send)


def taken(window: Window, first: list[Send], until: float) -> list[tuple[float, int]]:
    """When items went out and how many, where each batch ends at once."""
    now, line, found = 0.0, first, []
    while now < until:
        found += [(now, len(send.tries)) for send in line]
        line = [new for send in line for new in ended(window, send, now)]
        if not line:
            now = window.wake_at() or until
            line = only(window.handle(Tick(), now), Send)
    return found


@pytest.mark.parametrize(
    ("rate", "size", "burst", "period"),
    [("20/s", 1, 20, 1.0), ("20/s", 7, 20, 1.0), ("1000/min", 50, 16, 60.0), ("360/h", 5, 1, 3600.0), ("7/10s", 3, 1, 10.0)],
)
def test_a_rate_is_kept_in_every_period_and_used_to_the_full(rate: str, size: int, burst: int, period: float) -> None:
    """At most the amount in any period, a second's worth at once, and over a long time nearly all that the rate allows."""
    window, first = rated(rate, size)
    until = 2.5 * period
    found = taken(window, first, until)
    amount = parse_quotas({"api": rate})["api"].amount
    assert sum(count for at, count in found if at == 0) == burst
    assert max(sum(count for at, count in found if end - period + 1e-6 < at <= end) for end, _ in found) <= amount
    assert sum(count for _, count in found) >= 0.95 * amount * until / period


def test_a_batch_is_no_larger_than_the_rate_permits() -> None:
    """Items wait in the driver, in no slot; the window says when the next may go."""
    window, sends = rated("20/s", size=1000)
    assert [len(send.tries) for send in sends] == [20]
    assert window.wake_at() == pytest.approx(1.0)
    (waiting,) = window.reasons()
    assert (waiting.why, waiting.until) == (Why.LIMIT, pytest.approx(1.0))
    assert waiting.text == "limit 'api' allows 20/s: the next in 1 s"
    assert window.demand() == {CALLING: 1}
    (send,) = only(window.handle(Tick(), 1.0), Send)
    assert len(send.tries) == 20


def test_batches_for_groups_are_whole_groups_where_the_rate_permits_one() -> None:
    """Of a rate of 20 two groups of eight go; a group that is larger than the rate permits at once goes in pieces."""
    for group, size in ((8, 16), (30, 20)):
        window = Window(WindowConfig(request=CALLING, batch_size=10 * group, group=group, limits=parse_quotas({"api": "20/s"})))
        window.handle(Offered(items(1000), exhausted=True), 0.0)
        (send, *_) = only(window.handle(Capacity({CALLING: {"a": 1}}), 0.0), Send)
        assert len(send.tries) == size


def test_further_attempts_and_lost_batches_take_again() -> None:
    """What is executed again calls again."""
    window, sends = rated("4/s", size=2, count=4, retry=Retry(kinds={"transient": Rule(retries=1, delay=0.1, jitter=False)}))
    assert [len(send.tries) for send in sends] == [2, 2]
    assert not only(window.handle(Lost(sends[0].number, "a"), 0.2), Send)
    again = failed(Kind.TRANSIENT)
    assert not only(window.handle(Ended(sends[1].number, receipt(sends[1], again)), 0.3), Send)
    assert not only(window.handle(Tick(), 0.5), Send)
    found = [len(send.tries) for send in only(window.handle(Tick(), 1.0), Send)]
    assert sorted(found) == [1, 2]


def test_a_lost_batch_that_is_larger_than_what_is_allowed_now_goes_when_nothing_was_taken() -> None:
    """It cannot be cut, as its mark may come; what it takes too much is waited for after it."""
    window, (send,) = rated("20/s", size=20, count=40, slots=1)
    window.handle(Allowance({"api": 5.0}), 0.5)
    assert not only(window.handle(Lost(send.number, "a"), 0.5), Send)
    (again,) = only(window.handle(Tick(), window.wake_at() or 0.0), Send)
    assert (again.number, len(again.tries)) == (send.number, 20)
    at = 1.0
    assert not ended(window, again, at)
    (after,) = only(window.handle(Tick(), window.wake_at() or 0.0), Send)
    assert window.wake_at() is not None
    assert len(after.tries) == 5
    assert window.counts().running == 5


def test_an_allowance_of_nothing_waits_for_another() -> None:
    """No time is known at which that changes."""
    window, sends = rated("20/s", size=5, count=30)
    window.handle(Allowance({"api": 0.0}), 1.0)
    assert not [new for send in sends for new in ended(window, send, 5.0)]
    assert window.wake_at() is None
    assert window.reasons()[0].text == "limit 'api' allows 20/s, and others have it now"
    assert len(only(window.handle(Allowance({"api": 10.0}), 6.0), Send)) == 2


@pytest.mark.parametrize("alone", [True, False])
def test_a_worker_is_not_kept_free_for_what_a_limit_holds_back(alone: bool) -> None:
    """What needs a whole worker waits for its licence, and the slots of the worker that was kept for it go on."""
    window = Window(config(BASE, licence=1))
    window.handle(Offered(items(20)), 0.0)
    room = {LICENSED: {"a": 2 if alone else 1}, BASE: {"a": 2}}
    one, two = only(window.handle(Capacity({BASE: {"a": 2}}), 0.0), Send)
    window.handle(Offered(named("licensed", 2), exhausted=True, request=LICENSED), 0.5)
    window.handle(Capacity(room), 0.5)
    if alone:
        (licensed,) = ended(window, one, 1.0)
        assert licensed.request == LICENSED
        window.handle(Ended(licensed.number, receipt(licensed, failed(Kind.CRASH), seconds=5)), 1.5)
    assert {waiting.why for waiting in window.reasons() if waiting.request == BASE} == {Why.KEPT}
    window.handle(Allowance({"licence": 0}), 2.0)
    assert {send.request for send in ended(window, two, 3.0)} == {BASE}
    assert {waiting.why for waiting in window.reasons() if waiting.request == LICENSED} == {Why.LIMIT}


def test_a_twin_holds_too_and_what_is_dropped_holds_until_it_is_killed() -> None:
    """With as many licences as batches there is no twin; one that is dropped lets nobody in at once."""
    slots = {"a": 1, "b": 1, "c": 1}
    one = WindowConfig(request=LICENSED, batch_size=1, second_below=0, limits=parse_quotas({"licence": 1}))
    run = at_the_end(one, slots)
    assert not only(run.tell(Tick(), 100.0), Send)
    two = WindowConfig(request=LICENSED, batch_size=1, second_below=0, limits=parse_quotas({"licence": 2}))
    run = at_the_end(two, slots)
    (twin,) = twins_of(run)
    window, now = run.window, run.now
    window.handle(Offered(named("late", 2), exhausted=True), now)
    assert not ended(window, twin, now)[1:]
    assert len(only(window.handle(Tick(), now + LINGER), Send)) == 1


def test_a_twin_takes_of_a_rate() -> None:
    """What comes after it waits until the rate permits that too."""
    limits = parse_quotas({"api": "1000/s"})
    run = at_the_end(WindowConfig(request=CALLING, batch_size=1, second_below=0, limits=limits), {"a": 1, "b": 1, "c": 1})
    run.tell(Allowance({"api": 1.0}))
    (twin,) = twins_of(run)
    assert twin.twin
    assert not only(run.window.handle(Offered(named("late", 1), exhausted=True), run.now), Send)
    assert run.window.wake_at() == run.now + 1.0
    assert only(run.window.handle(Tick(), run.now + 1.0), Send)
