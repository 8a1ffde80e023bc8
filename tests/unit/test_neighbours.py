"""What a run says of itself, and what others leave it of the slots of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcompute.neighbours import DEMAND_SECONDS, Neighbours, Stand, party_of
from dcompute.records import Request
from dcompute.resources import WorkerOffer
from dcompute.window import Capacity

PLAIN = Request()
GPU = Request(gpus=1)


class Others:
    """Stands for the exchange: what the others say is set by hand."""

    def __init__(self) -> None:
        self.others: dict[str, Mapping[str, Any]] = {}
        self.said: Mapping[str, Any] = {}

    def say(self, words: Mapping[str, Any]) -> None:
        self.said = words


def offers(**resources: float) -> dict[str, WorkerOffer]:
    return {name: WorkerOffer(address=name, nthreads=4, memory_limit=8 << 30, resources=resources) for name in ("w0", "w1")}


def stand(demand: int, request: Request = PLAIN, **held: int) -> Stand:
    return Stand(demand={request: demand}, needed={}, flying={request: held})


def meet(one: Others, other: Others) -> None:
    one.others, other.others = {"other": {**other.said, "number": 1}}, {"one": {**one.said, "number": 1}}


def full(there: dict[str, WorkerOffer], *requests: Request, **more: Any) -> Capacity:
    return Capacity(slots={request: dict.fromkeys(there, 1 if request.gpus else 4) for request in requests or (PLAIN,)}, **more)


def pair(**weights: float) -> tuple[Others, Neighbours, Others, Neighbours]:
    a, b = Others(), Others()
    return a, Neighbours(a, weight=weights.get("one", 1.0)), b, Neighbours(b, weight=weights.get("other", 1.0))  # type: ignore[arg-type]


def test_two_runs_share_by_weight() -> None:
    """The cap on what is in flight and the slots of each are its share; two drivers that see the same table agree."""
    there = offers()
    a, one, b, other = pair(one=3.0)
    one.tell(stand(99), there, (), 0.0)
    other.tell(stand(99), there, (), 0.0)
    meet(a, b)
    one.weigh("one", there)
    other.weigh("other", there)
    first, second = one.limited(full(there), there, deep=False), other.limited(full(there), there, deep=False)
    assert (first.most, second.most) == (6, 2)
    assert sum(first.slots[PLAIN].values()) + sum(second.slots[PLAIN].values()) == 8


def test_who_is_alone_or_among_the_idle_has_all() -> None:
    """Others that want nothing take nothing."""
    there = offers()
    a, one, b, other = pair()
    one.tell(stand(99), there, (), 0.0)
    other.tell(stand(0), there, (), 0.0)
    meet(a, b)
    one.weigh("one", there)
    assert one.limited(full(there), there, deep=False) == full(there)


def test_a_backlog_for_gpus_leaves_the_other_cores() -> None:
    """A run with one GPU batch a worker takes a core of each, however much of it waits."""
    there = offers(CPU=4, GPU=1)
    a, one, b, other = pair()
    one.tell(stand(1000, GPU), there, (), 0.0)
    other.tell(stand(1000), there, (), 0.0)
    meet(a, b)
    other.weigh("other", there)
    assert other.limited(full(there), there, deep=False).slots == {PLAIN: {"w0": 3, "w1": 3}}


def test_room_of_what_is_in_flight_does_not_vanish() -> None:
    """Where a run holds more than its share, its slots stay and the cap stops it: else nothing of it would go out anywhere."""
    there = offers()
    a, one, b, other = pair()
    one.tell(stand(99, w0=4, w1=4), there, (), 0.0)
    other.tell(stand(99), there, (), 0.0)
    meet(a, b)
    one.weigh("one", there)
    limited = one.limited(full(there), there, deep=False)
    assert (limited.most, limited.slots) == (4, full(there).slots)


def test_what_others_still_hold_counts_where_nobody_else_counts() -> None:
    """Memory that no worker declares is not given out again before who holds it is done."""
    there = offers()
    a, one, b, other = pair()
    needy = Request(memory=2 << 30)
    one.tell(stand(99, needy, w0=4, w1=4), there, (), 0.0)
    other.tell(stand(99, needy), there, (), 0.0)
    meet(a, b)
    other.weigh("other", there)
    found = other.limited(full(there, needy, counted=frozenset([needy])), there, deep=False)
    assert (found.most, set(found.slots[needy].values())) == (0, {0})


def test_demand_falls_late_and_waiting_ages() -> None:
    """A gap in the inputs does not give slots away at once; what waits with nothing in flight counts one level higher after a while."""
    a = Others()
    one = Neighbours(a, ageing=10.0)  # type: ignore[arg-type]
    told: list[tuple[int, float]] = []
    for now, demand in ((0.0, 5), (1.0, 0), (DEMAND_SECONDS + 0.5, 0), (10.0, 5), (20.0, 5)):
        one.tell(stand(demand), {}, (), now)
        told.append((a.said["classes"][0]["batches"], a.said["classes"][0]["priority"]))
    assert told == [(5, 0), (5, 0), (0, 0), (5, 0), (5, 10)]


def test_what_a_run_had_is_said_now_and_then_and_fades() -> None:
    """So that turns last some seconds; with a larger weight less is said."""
    there = offers()
    a, one, b, other = pair(one=2.0)
    other.tell(stand(9), there, (), 0.0)
    one.tell(stand(9), there, (), 0.0)
    meet(a, b)
    said = []
    for now in range(1, 12):
        one.tell(stand(9, w0=4), there, (), float(now))
        said.append(a.said["spent"])
    assert said[0] == said[3] == 0.0
    assert 0 < said[4] == said[8] < said[10]
    assert said[4] < 5 * 0.5 / 2


def test_what_another_version_says_is_no_error() -> None:
    """It takes no part in the share."""
    assert party_of("x", {"number": 1}) is None
    assert party_of("x", {"weight": "much", "spent": 0, "shuns": [], "classes": []}) is None
