"""How runs that work on one cluster at the same time share its slots.

Pure: every driver sees the same table of what all of them could use, and finds the same shares. Higher priorities go first. Within one
priority slots go by weight, one at a time to whoever has least for his weight, and what one does not need goes to the others. A run that
had more than its part of late is put back for that, by less than a slot: so where there are fewer slots than runs, they take turns.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: So many seconds of one slot ahead of the others put a run back by one slot. Runs say no more often than this what they had, so that
#: shares do not change with every second.
TURN_SECONDS = 5.0
#: A run is put back by no more than this part of a slot: where there are slots for all, each keeps one.
_MOST_LEAD = 0.999
_TOLERANCE = 1e-9

Amounts = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one class of a run could use now."""

    needs: Amounts  #: of one batch, by name
    demand: int  #: batches it could have in flight if there was room for all, those in flight included
    priority: float = 0.0  #: higher goes first
    held: Mapping[str, int] = field(default_factory=dict)  #: worker -> its batches in flight there, as far as that is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One run that wants slots."""

    run: str
    weight: float = 1.0
    spent: float = 0.0  #: what it had of late, for each unit of weight: share of the cluster times seconds
    claims: tuple[Claim, ...] = ()
    shuns: frozenset[str] = frozenset()  #: workers on which it executes nothing


#: Of each claim of a run, how many batches may be where.
Share = tuple[dict[str, int], ...]


def split(parties: Iterable[Party], rooms: Mapping[str, Amounts]) -> dict[str, Share]:
    """The share of each run: of each of its claims, so many batches on these workers.

    Parameters
    ----------
    parties
        All runs, in any order.
    rooms
        What each worker has, by name; what a worker does not name it has nothing of.
    """
    table = sorted(parties, key=lambda party: party.run)
    ground = _Ground(table, rooms)
    shares: dict[str, Share] = {party.run: tuple({} for _ in party.claims) for party in table}
    for level in sorted({claim.priority for party in table for claim in party.claims}, reverse=True):
        ground.fill([_Seat(party, shares[party.run], level) for party in table])
    return shares


def taken(parties: Iterable[Party], shares: Mapping[str, Share], *, but: str, held: bool = False) -> dict[str, dict[str, float]]:
    """What the shares of all runs but one take of each worker.

    Parameters
    ----------
    parties, shares
        What :func:`split` was asked, and answered.
    but
        The run that asks.
    held
        Count what others still have somewhere, where that is more than their share there.
    """
    found: dict[str, dict[str, float]] = {}
    for party in parties:
        if party.run == but:
            continue
        for claim, share in zip(party.claims, shares[party.run], strict=True):
            for worker in dict.fromkeys([*share, *(claim.held if held else ())]):
                count = max(share.get(worker, 0), claim.held.get(worker, 0) if held else 0)
                there = found.setdefault(worker, {})
                for name, need in claim.needs.items():
                    there[name] = there.get(name, 0.0) + count * need
    return found


def part_of(claim: Claim, rooms: Mapping[str, Amounts]) -> float:
    """The share of the cluster that one batch takes: of what it needs most, compared with what is there."""
    totals: dict[str, float] = {}
    for room in rooms.values():
        for name in claim.needs:
            totals[name] = totals.get(name, 0.0) + room.get(name, 0.0)
    return max((need / totals[name] for name, need in claim.needs.items() if need > 0 and totals.get(name, 0.0) > 0), default=0.0)


class _Seat:
    """One run at one level of priority, while slots are handed out."""

    def __init__(self, party: Party, share: Share, level: float) -> None:
        self.party = party
        self.share = share
        self.open = [index for index, claim in enumerate(party.claims) if claim.priority == level and claim.demand > 0]
        self.counts = [0] * len(share)
        self.usage = 0.0
        #: where batches of each claim are now, and may stay
        self.stays = [deque((worker, count) for worker, count in claim.held.items() if worker not in party.shuns) for claim in party.claims]

    def next(self) -> int:
        """The claim whose turn it is: the one of which the smallest part is met."""
        return min(self.open, key=lambda index: (self.counts[index] / self.party.claims[index].demand, index))

    def give(self, index: int, worker: str, part: float) -> None:
        self.share[index][worker] = self.share[index].get(worker, 0) + 1
        self.counts[index] += 1
        self.usage += part
        if self.counts[index] >= self.party.claims[index].demand:
            self.open.remove(index)


class _Ground:
    """What is left on the workers."""

    def __init__(self, parties: Sequence[Party], rooms: Mapping[str, Amounts]) -> None:
        self._rooms = rooms
        self._left = {worker: dict(rooms[worker]) for worker in sorted(rooms)}
        held: dict[str, float] = {}
        for party in parties:
            for claim in party.claims:
                for worker, count in claim.held.items():
                    held[worker] = held.get(worker, 0.0) + count
        # what grows goes where least is held, so that all can stay where they are
        self._order = sorted(self._left, key=lambda worker: held.get(worker, 0.0))
        self._lines: dict[tuple[object, ...], deque[str]] = {}
        self._parts: dict[tuple[object, ...], float] = {}
        self._kinds: dict[int, tuple[object, ...]] = {}

    def fill(self, seats: list[_Seat]) -> None:
        """Hand out slots to these until none fits or nobody wants more."""
        seats = [seat for seat in seats if seat.open]
        least = min((seat.party.spent for seat in seats), default=0.0)
        heap = [(self._key(seat, least), seat.party.spent, number) for number, seat in enumerate(seats)]
        heapq.heapify(heap)
        while heap:
            _, spent, number = heapq.heappop(heap)
            seat = seats[number]
            self._serve(seat)
            if seat.open:
                heapq.heappush(heap, (self._key(seat, least), spent, number))

    def _key(self, seat: _Seat, least: float) -> float:
        """What a run has for its weight, and how far it is ahead."""
        party = seat.party
        part = max((self._part(party.claims[index]) for index in seat.open), default=0.0)
        lead = min(_MOST_LEAD * part, party.weight * (party.spent - least) / TURN_SECONDS)
        return (seat.usage + lead) / party.weight

    def _serve(self, seat: _Seat) -> None:
        index = seat.next()
        claim = seat.party.claims[index]
        worker = self._place(seat, index)
        if worker is None:
            seat.open.remove(index)
            return
        left = self._left[worker]
        for name, need in claim.needs.items():
            left[name] = left.get(name, 0.0) - need
        seat.give(index, worker, self._part(claim))

    def _place(self, seat: _Seat, index: int) -> str | None:
        claim, stays = seat.party.claims[index], seat.stays[index]
        while stays:
            worker, count = stays[0]
            if seat.share[index].get(worker, 0) < count and worker in self._left and self._fits(claim.needs, worker):
                return worker
            stays.popleft()
        line = self._line(claim, seat.party.shuns)
        while line:
            if self._fits(claim.needs, line[0]):
                line.rotate(-1)
                return line[-1]
            line.popleft()  # what is left there only gets less
        return None

    def _line(self, claim: Claim, shuns: frozenset[str]) -> deque[str]:
        kind = (self._kind(claim), shuns)
        if kind not in self._lines:
            self._lines[kind] = deque(worker for worker in self._order if worker not in shuns)
        return self._lines[kind]

    def _fits(self, needs: Amounts, worker: str) -> bool:
        left = self._left[worker]
        return all(left.get(name, 0.0) + _TOLERANCE >= need for name, need in needs.items())

    def _part(self, claim: Claim) -> float:
        kind = self._kind(claim)
        if kind not in self._parts:
            self._parts[kind] = part_of(claim, self._rooms)
        return self._parts[kind]

    def _kind(self, claim: Claim) -> tuple[object, ...]:
        """What is the same for claims that fit alike."""
        found = self._kinds.get(id(claim))
        if found is None:
            found = self._kinds[id(claim)] = tuple(sorted(claim.needs.items()))
        return found
