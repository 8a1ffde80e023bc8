"""How many workers the work at hand wants, of each class of items: decisions of adaptive scaling, and the form in which runs tell of it.

Pure: what there is comes in as records, time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dcompute.records import Request
from dcompute.resources import WorkerOffer, explain_gap, slots

#: Name in the scheduler's metadata: run id -> what it says of itself; None: it is over.
RUNS = "dcompute-runs"
#: The same of what scales the cluster.
SCALING = "dcompute-scaling"
#: A run that has told nothing new for so long (seconds) is taken for dead.
SILENT_SECONDS = 15.0
#: No run tells of more classes than this: those with the most batches.
MOST_CLASSES = 50

_EPS = 1e-9

# --------------------------------------------------------------------------------------------------------------------------- telling


def told(demand: Mapping[Request, int]) -> list[dict[str, Any]]:
    """Batches by class in built-in types, as a scheduler without dcompute keeps them."""
    most = sorted(demand.items(), key=lambda pair: -pair[1])[:MOST_CLASSES]
    return [
        {"cpus": one.cpus, "gpus": one.gpus, "memory": one.memory, "resources": dict(one.resources), "batches": count}
        for one, count in most
        if count > 0
    ]


def heard(classes: Any) -> dict[Request, int]:
    """What :func:`told` made; what is not in its form is left out: another version may have told it."""
    found: dict[Request, int] = {}
    for one in classes if isinstance(classes, list | tuple) else ():
        try:
            request = Request(
                cpus=float(one["cpus"]),
                gpus=float(one["gpus"]),
                memory=None if one["memory"] is None else int(one["memory"]),
                resources=tuple(sorted((str(name), float(amount)) for name, amount in one["resources"].items())),
            )
            found[request] = found.get(request, 0) + max(0, int(one["batches"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def offer_told(told: Any) -> WorkerOffer | None:
    """What a new worker has, as its scaler told it; None where that is in no form that is known."""
    try:
        offer = told["offer"]
        return WorkerOffer(
            address="a new worker",
            nthreads=int(offer["nthreads"]),
            memory_limit=None if offer["memory"] is None else int(offer["memory"]),
            resources={str(name): float(one) for name, one in offer["resources"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


class Hearing:
    """The demand of all runs of a scheduler, without those that have died."""

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[Any, float]] = {}  #: run -> the last number it told, and when that was new

    def sum(self, runs: Any, now: float) -> dict[Request, int]:
        """Batches by class that all runs could have in flight.

        Parameters
        ----------
        runs
            What the scheduler keeps under :data:`RUNS`.
        now
            In seconds on a clock that never goes back.
        """
        found: dict[Request, int] = {}
        alive = {run: one for run, one in runs.items() if isinstance(one, Mapping)} if isinstance(runs, Mapping) else {}
        self._numbers = {run: seen for run, seen in self._numbers.items() if run in alive}
        for run, one in alive.items():
            number, since = self._numbers.get(run, (None, now))
            if one.get("number") != number:
                number, since = one.get("number"), now
            self._numbers[run] = (number, since)
            if now - since < SILENT_SECONDS:
                for request, count in heard(one.get("classes")).items():
                    found[request] = found.get(request, 0) + count
        return found


# -------------------------------------------------------------------------------------------------------------------------- deciding


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the work at hand wants of a cluster that scales."""

    workers: int  #: how many it should have, the present ones that are wanted among them
    kept: frozenset[str] = frozenset()  #: present workers that serve what a new one could not
    impossible: tuple[Request, ...] = ()  #: classes that neither a present worker nor a new one can serve


def need(demand: Mapping[Request, int], new: WorkerOffer, own: Iterable[WorkerOffer], others: Iterable[WorkerOffer] = ()) -> Need:
    """How many workers a cluster should have for all of this at once.

    Parameters
    ----------
    demand
        Batches that each class could have in flight.
    new
        What one more worker would offer.
    own, others
        Workers that are there: of the cluster that scales, and such that others have started, which it need not replace.
    """
    own, others = list(own), list(others)
    present = [*own, *others]
    left = {request: count for request, count in demand.items() if count > 0}
    can = {request: slots(request, new, [new]) for request in left}
    _fill(left, others, present)
    only_here = {request: count for request, count in left.items() if not can[request]}
    kept = _fill(only_here, own, present)
    load = sum(count / can[request] for request, count in left.items() if can[request])
    return Need(
        workers=len(kept) + math.ceil(load - _EPS),
        kept=frozenset(kept),
        impossible=tuple(request for request in left if not can[request] and not any(slots(request, offer, present) for offer in present)),
    )


def _fill(left: dict[Request, int], workers: Iterable[WorkerOffer], present: list[WorkerOffer]) -> list[str]:
    """Put batches on workers, those classes first that fit least often; addresses of those that got one. Takes from ``left``."""
    used = []
    for offer in workers:
        room = 1.0
        fits = {request: slots(request, offer, present) for request, count in left.items() if count}
        for request in sorted(fits, key=lambda one: fits[one]):
            if fits[request]:
                count = min(left[request], int(room * fits[request] + _EPS))
                left[request] -= count
                room -= count / fits[request]
        if room < 1.0:
            used.append(offer.address)
    return used


def why_impossible(request: Request, new: WorkerOffer) -> str:
    """Why no new worker is asked for."""
    gap = (
        explain_gap(request, [new])
        .replace("the largest worker has", "a new worker has")
        .replace("no worker declares", "a new worker has no")
    )
    return gap or "a new worker cannot serve it"


# --------------------------------------------------------------------------------------------------------------------------- closing


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What is started and closed as one: a worker, or a job with several."""

    name: str
    size: int = 1  #: workers that it has, or will have
    present: frozenset[str] = frozenset()  #: addresses of those that are there
    busy: bool = False  #: a task is at work on one of them
    leaving: bool = False  #: they take nothing new any more


def surplus(want: int, units: Collection[Unit], kept: Collection[str] = ()) -> list[Unit]:
    """Which units are not wanted: those that have not come yet first, then idle ones; never one with a task at work.

    Parameters
    ----------
    want
        Workers that there should be.
    units
        All that were asked for and are not leaving.
    kept
        Addresses of workers that stay.
    """
    excess = sum(unit.size for unit in units) - want
    found = []
    candidates = [unit for unit in units if not unit.busy and unit.present.isdisjoint(kept)]
    for unit in sorted(candidates, key=lambda unit: bool(unit.present)):
        if unit.size <= excess:
            excess -= unit.size
            found.append(unit)
    return found


@dataclass(slots=True)
class Resting:
    """Who was not wanted for how long: a worker costs minutes to start, and is not closed for a moment's rest."""

    patience: float
    _since: dict[str, float] = field(default_factory=dict)

    def over(self, unwanted: Iterable[str], now: float) -> list[str]:
        """Of these names, those that were among them all the time since ``patience`` seconds ago."""
        names = list(unwanted)
        self._since = {name: self._since.get(name, now) for name in names}
        return [name for name in names if now - self._since[name] >= self.patience]


@dataclass(slots=True)
class Backoff:
    """When lost workers are asked for again: ever later, while they are lost before they come."""

    first: float = 2.0
    most: float = 300.0
    until: float = 0.0
    _lost: int = 0

    def lost(self, count: int, now: float) -> None:
        """So many were lost before a worker of theirs was seen."""
        if count and now >= self.until:
            self.until = now + min(self.most, self.first * 2**self._lost)
            self._lost += 1

    def came(self) -> None:
        """One came: whatever it was is over."""
        self._lost, self.until = 0, 0.0
