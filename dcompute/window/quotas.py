"""Named limits: what batches in flight hold of them, what items took of rates, and when more may go out.

A number is held by a task in flight, which executes one item at a time. A rate is taken by each item when its batch goes out. In any period
of a rate no more than its amount is taken, and not all of it at once: after a kill whoever goes on knows nothing of what was taken before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from dcompute.quotas import Quota
from dcompute.records import Request

#: Seconds for which what a dropped task held counts as held: its worker kills the child before that.
LINGER = 5.0
#: Seconds of a rate that may be taken at once.
_BURST = 1.0
#: What is taken within this part of a span counts as taken at once, at the later time.
_GRAINS = {"short": 50, "whole": 1000}
_EPS = 1e-9


@dataclass(frozen=True, slots=True)
class Lack:
    """What a class waits for."""

    name: str  #: of the limit
    text: str
    until: float | None = None  #: when a rate permits the next; None: something else has to end


class _Taken:
    """What was taken of a rate, as long as it counts; at most ``amount`` in any ``span``."""

    def __init__(self, grains: int) -> None:
        self._grains = grains
        self._line: deque[tuple[float, float, float]] = deque()  #: first and last time, and how much
        self._total = 0.0

    def room(self, now: float, amount: float, span: float) -> float:
        line = self._line
        while line and line[0][1] + span <= now + _EPS:
            self._total -= line.popleft()[2]
        if not line:
            self._total = 0.0
        return amount - self._total

    def take(self, now: float, much: float, amount: float, span: float) -> None:
        while much > amount + _EPS:  # more than there ever is at once: as if it was taken one span after the other
            self._add(now, amount, span)
            now, much = now + span, much - amount
        self._add(now, much, span)

    def _add(self, now: float, much: float, span: float) -> None:
        self._total += much
        if self._line and now - self._line[-1][0] < span / self._grains:
            first, last, before = self._line.pop()
            self._line.append((first, max(now, last), before + much))
        else:
            self._line.append((now, now, much))

    def due(self, much: float, amount: float, span: float) -> float:
        """When there is room for so much, or for all there ever is."""
        room, due = amount - self._total, 0.0
        for _, last, freed in self._line:
            if room + _EPS >= min(much, amount):
                break
            room, due = room + freed, last + span
        return due


class Stream:
    """A rate: what was taken of it lately."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._short, self._whole = _Taken(_GRAINS["short"]), _Taken(_GRAINS["whole"])

    def room(self, now: float, rate: float, unit: float) -> float:
        """How much may be taken now, where ``rate`` a second is allowed and ``unit`` is the most that one item takes."""
        return min(taken.room(now, amount, span) for taken, amount, span in self._spans(rate, unit)) if rate > 0 else 0.0

    def take(self, now: float, much: float, rate: float, unit: float) -> None:
        """Take so much."""
        for taken, amount, span in self._spans(rate, unit):
            taken.take(now, much, amount, span)

    def fits(self, now: float, much: float, rate: float, unit: float) -> bool:
        """Whether so much may be taken now; what is more than there ever is at once has to find nothing taken."""
        if rate <= 0:
            return False
        return all(taken.room(now, amount, span) + _EPS >= min(much, amount) for taken, amount, span in self._spans(rate, unit))

    def due(self, now: float, much: float, rate: float, unit: float) -> float | None:
        """When so much may be taken; None: never, as nothing is allowed."""
        if rate <= 0:
            return None
        return max(now, *(taken.due(much, amount, span) for taken, amount, span in self._spans(rate, unit)))

    def _spans(self, rate: float, unit: float) -> tuple[tuple[_Taken, float, float], ...]:
        # an allowance may be less than one item takes in a period: it gets its turn in a longer one
        whole = max(rate * self._period, unit)
        short = max(1, math.floor(rate * _BURST / unit + _EPS)) * unit
        if short >= whole:
            return ((self._whole, whole, whole / rate),)
        return (self._short, short, short / rate), (self._whole, whole, whole / rate)


class Quotas:
    """The named limits of one window.

    Parameters
    ----------
    limits
        How much there is of each.
    flying
        Tasks in flight by class; read, never changed.
    """

    def __init__(self, limits: Mapping[str, Quota], flying: Mapping[Request, int]) -> None:
        self._limits = limits
        self._flying = flying
        self._allowed: Mapping[str, float] = {}
        self._streams = {name: Stream(quota.period) for name, quota in limits.items() if quota.period is not None}
        self._units: dict[str, float] = {}
        self._lingering: deque[tuple[float, Request]] = deque()

    def allow(self, limits: Mapping[str, float]) -> None:
        """This run may use so much of each from now on."""
        self._allowed = limits

    def permitted(self, request: Request, count: int, now: float) -> int:
        """Of so many items, how many rates permit in a batch that goes out now."""
        for name, amount in request.uses:
            if name in self._streams:
                room = self._streams[name].room(now, self._allowance(name), self._unit(name, amount))
                count = min(count, math.floor(room / amount + _EPS))
        return max(count, 0)

    def lack(self, request: Request, count: int, now: float) -> Lack | None:
        """Why a batch of exactly so many items may not go out; None: it may."""
        for name, amount in request.uses:
            if name not in self._limits:
                continue
            lack = self._too_fast(name, amount, count, now) if name in self._streams else self._too_many(name, amount, now)
            if lack is not None:
                return lack
        return None

    def take(self, request: Request, count: int, now: float) -> None:
        """A task with so many items goes out."""
        for name, amount in request.uses:
            if name in self._streams:
                self._streams[name].take(now, count * amount, self._rate(name), self._unit(name, amount))

    def linger(self, request: Request, now: float) -> None:
        """A task is dropped that may still be at work."""
        if any(name in self._limits and name not in self._streams for name, _ in request.uses):
            self._lingering.append((now + LINGER, request))

    def most(self, request: Request, now: float) -> int | None:
        """Tasks of a class that numbers allow beside those of others; None: as many as there are."""
        flying = self._flying.get(request, 0)
        counts = [
            flying + math.floor((self._allowance(name) - self._held(name, now)) / amount + _EPS)
            for name, amount in request.uses
            if name in self._limits and name not in self._streams
        ]
        return max(0, flying, min(counts)) if counts else None

    def held(self, now: float) -> dict[str, float]:
        """How much of each number is in use."""
        return {name: self._held(name, now) for name in self._limits if name not in self._streams}

    def _too_many(self, name: str, amount: float, now: float) -> Lack | None:
        held, allowed = self._held(name, now), self._allowance(name)
        if held + amount <= allowed + _EPS:
            return None
        whole = self._limits[name].amount
        shared = f" ({whole:g} there are, others hold the rest)" if allowed < whole else ""
        ends = [until for until, request in self._lingering if any(used == name for used, _ in request.uses)]
        text = f"limit {name!r} is used up: {held:g} of {allowed:g} are in use{shared}"
        return Lack(name, text, min(ends, default=None))

    def _too_fast(self, name: str, amount: float, count: int, now: float) -> Lack | None:
        rate, unit = self._allowance(name), self._unit(name, amount)
        if self._streams[name].fits(now, count * amount, rate, unit):
            return None
        due = self._streams[name].due(now, count * amount, rate, unit)
        if due is None:
            return Lack(name, f"limit {name!r} allows {self._limits[name]}, and others have it now")
        share = f", of which this run has {rate:.3g}/s" if rate < self._limits[name].measure - _EPS else ""
        return Lack(name, f"limit {name!r} allows {self._limits[name]}{share}: the next in {max(0.0, due - now):.2g} s", due)

    def _allowance(self, name: str) -> float:
        return min(self._allowed.get(name, math.inf), self._limits[name].measure)

    def _rate(self, name: str) -> float:
        return self._allowance(name) or self._limits[name].measure

    def _unit(self, name: str, amount: float) -> float:
        unit = self._units[name] = max(amount, self._units.get(name, 0.0))
        return unit

    def _held(self, name: str, now: float) -> float:
        while self._lingering and self._lingering[0][0] <= now:
            self._lingering.popleft()
        uses = [(request, count) for request, count in self._flying.items() if count and request.uses]
        uses += [(request, 1) for _, request in self._lingering]
        return sum(count * amount for request, count in uses for used, amount in request.uses if used == name)
