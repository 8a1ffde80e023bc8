"""The share that a run has beside others at its scheduler: what it says of itself, and what theirs leave it of each worker."""

from __future__ import annotations

import math
import os
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dcompute.presence import Presence, Words
from dcompute.priority import aged
from dcompute.records import Request
from dcompute.resources import WorkerOffer
from dcompute.rooms import declared_names, needs, room, slots_left
from dcompute.sharing import TURN_SECONDS, Claim, Party, part_of, split, taken
from dcompute.window import Capacity

#: What a run could use falls no sooner than after this (seconds): inputs come in gusts, and others need not jump in and out.
DEMAND_SECONDS = 3.0
#: Slots that a run had count half for its turn after so many seconds.
HALF_SECONDS = 30.0
#: On more workers than this nobody says where his batches are: the table goes to every run once a second.
MOST_WORKERS = 256


@dataclass(slots=True)
class _Class:
    """What is known of one class of this run."""

    demands: deque[tuple[float, int]] = field(default_factory=deque)
    waits_since: float | None = None  #: it could use slots and has none

    def demand(self, now: float, count: int) -> int:
        self.demands.append((now, count))
        while self.demands[0][0] < now - DEMAND_SECONDS:
            self.demands.popleft()
        return max(count for _, count in self.demands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What a run has and could use at one moment."""

    demand: Mapping[Request, int]  #: batches each class could have in flight
    needed: Mapping[Request, int]  #: the same, if there was enough of all limits
    flying: Mapping[Request, Mapping[str, int]]  #: class -> worker ("" where nobody knows) -> batches in flight
    about: Words = field(default_factory=dict)  #: what else others may read of it


class Neighbours:
    """One run among others; everything here is called on the driver's thread.

    Parameters
    ----------
    presence
        How it is seen, and sees them.
    weight
        Of this run, among those of its priority.
    ageing
        Seconds for which a class waits without any slot until it counts one priority higher; None: it never does.
    """

    def __init__(self, presence: Presence, *, weight: float = 1.0, ageing: float | None = None) -> None:
        self._presence = presence
        self._weight = weight
        self._ageing = ageing
        self._classes: dict[Request, _Class] = {}
        self._spent = 0.0
        self._said = (-math.inf, 0.0)  #: when it was said last what this run had, and that
        self._last: float | None = None
        self._own: Words = {}
        self._held: Mapping[Request, Mapping[str, int]] = {}
        self._taken: dict[str, dict[str, float]] = {}
        self._still_taken: dict[str, dict[str, float]] = {}
        self.raised = 0  #: by how much the run's priority was changed

    @property
    def others(self) -> Mapping[str, Words]:
        """What the other runs say."""
        return self._presence.others

    @property
    def words(self) -> Words:
        """What this run says of itself."""
        return self._own

    def tell(self, stand: Stand, offers: Mapping[str, WorkerOffer], shuns: Iterable[str], now: float) -> None:
        """Let the others know where this run stands.

        Parameters
        ----------
        stand
            What it has and could use.
        offers
            All workers.
        shuns
            Those on which it executes nothing.
        now
            Seconds on a clock that never goes back.
        """
        rooms = _rooms(offers) if self.others else {}
        self._held = stand.flying
        self._note_spent(stand, rooms, now)
        is_small = len(offers) <= MOST_WORKERS
        classes = []
        for request, demand in stand.demand.items():
            flying = stand.flying.get(request, {})
            count = sum(flying.values())
            known = self._classes.setdefault(request, _Class())
            classes.append(
                {
                    **_spelled(request),
                    "priority": self._priority(known, request, waits=demand > 0 and not count, now=now),
                    "batches": known.demand(now, demand),
                    "needed": stand.needed.get(request, demand),
                    "flying": count,
                    "held": {worker: number for worker, number in flying.items() if worker} if is_small else {},
                }
            )
        self._own = {
            **stand.about,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "weight": self._weight,
            "spent": self._said[1],
            "shuns": list(shuns) if is_small else [],
            "classes": classes,
        }
        self._presence.say(self._own)

    def weigh(self, run: str, offers: Mapping[str, WorkerOffer]) -> None:
        """Find the share of this run anew.

        Parameters
        ----------
        run
            Its id.
        offers
            All workers.
        """
        self._taken, self._still_taken = {}, {}
        others = [party for name, words in self.others.items() if (party := party_of(name, words)) is not None]
        own = party_of(run, self._own)
        if not others or own is None:
            return
        parties = [own, *others]
        shares = split(parties, _rooms(offers))
        self._taken = taken(parties, shares, but=run)
        self._still_taken = taken(parties, shares, but=run, held=True)

    def limited(self, full: Capacity, offers: Mapping[str, WorkerOffer], *, deep: bool) -> Capacity:
        """What the others leave of a cluster's slots.

        What they hold beyond their share counts as theirs only where nobody but drivers counts what a class asks for; elsewhere a worker
        itself lets a batch wait until there is room.

        Parameters
        ----------
        full
            What it offers to a run that is alone there.
        offers
            All workers.
        deep
            Whether a slot gets a second batch.
        """
        if not self._taken:
            return full
        declared = declared_names(offers.values())
        slots: dict[Request, dict[str, int]] = {}
        share: dict[str, int] = {}
        for request, there in full.slots.items():
            taken_there = self._still_taken if request in full.counted else self._taken
            held = self._held.get(request, {})
            slots[request] = {}
            for worker, count in there.items():
                gone = taken_there.get(worker)
                left = min(count, slots_left(request, offers[worker], gone, declared)) if gone else count
                share[worker] = max(share.get(worker, 0), left)
                # the room of what is there already does not vanish: that alone would let all else wait
                slots[request][worker] = min(count, max(left, held.get(worker, 0)))
        most = self._most(full, sum(share.values()), deep)
        for request, there in full.slots.items() if most else ():
            if any(there.values()) and not any(slots[request].values()):
                # workers for it are there: what has no slot at all would be taken for what no worker could execute
                slots[request][next(worker for worker, count in there.items() if count)] = 1
        return replace(full, slots=slots, most=most)

    def _most(self, full: Capacity, share: int, deep: bool) -> int:
        """Batches that may be in flight; where the cluster grows with them, the same part of what lets it grow."""
        workers = {worker: 0 for there in full.slots.values() for worker in there}
        for there in full.slots.values():
            workers |= {worker: max(workers[worker], count) for worker, count in there.items()}
        total = sum(workers.values())
        grown = math.ceil((full.target or 0) * share / total) if total else full.target or 0
        return max(share * (2 if deep else 1), grown)

    def _priority(self, known: _Class, request: Request, *, waits: bool, now: float) -> float:
        known.waits_since = (known.waits_since if known.waits_since is not None else now) if waits else None
        waited = 0.0 if known.waits_since is None else now - known.waits_since
        return float(aged(request.priority + self.raised, waited, self._ageing))

    def _note_spent(self, stand: Stand, rooms: Mapping[str, Mapping[str, float]], now: float) -> None:
        seconds = 0.0 if self._last is None else now - self._last
        self._last = now
        self._spent *= 0.5 ** (seconds / HALF_SECONDS)
        for request, flying in stand.flying.items():
            part = part_of(Claim(needs=needs(request), demand=0), rooms)
            self._spent += sum(flying.values()) * part * seconds / self._weight
        if now - self._said[0] >= TURN_SECONDS:
            self._said = (now, self._spent)


def party_of(run: str, words: Words) -> Party | None:
    """A run by what it says of itself; None where that cannot be understood, as of another version."""
    try:
        return Party(
            run=run,
            weight=max(1e-6, float(words["weight"])),
            spent=float(words["spent"]),
            shuns=frozenset(map(str, words["shuns"])),
            claims=tuple(
                Claim(
                    needs=needs(_request(said)),
                    demand=int(said["batches"]),
                    priority=float(said["priority"]),
                    held={str(worker): int(count) for worker, count in said["held"].items()},
                )
                for said in words["classes"]
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _spelled(request: Request) -> dict[str, Any]:
    """A class as the metadata of a scheduler takes it."""
    pairs = {name: dict(getattr(request, name, ())) for name in ("resources", "uses")}
    return {"cpus": request.cpus, "gpus": request.gpus, "memory": request.memory, **pairs}


def _request(said: Mapping[str, Any]) -> Request:
    memory = said["memory"]
    return Request(
        cpus=float(said["cpus"]),
        gpus=float(said["gpus"]),
        memory=None if memory is None else int(memory),
        resources=tuple(sorted((str(name), float(amount)) for name, amount in said["resources"].items())),
    )


def _rooms(offers: Mapping[str, WorkerOffer]) -> dict[str, dict[str, float]]:
    declared = declared_names(offers.values())
    return {address: room(offer, declared) for address, offer in offers.items()}
