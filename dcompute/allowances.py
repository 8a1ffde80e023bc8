"""How much of each named limit a run may use, when all runs at one scheduler together keep to it.

A number at once is so many units, and each unit is a lock of the scheduler that one run holds: two runs never have the same one,
also while one of them does not know of the other yet. A run takes the units that are its share, gives a unit back when none of its batches
needs it any more, and what a killed run held comes back when its leases time out. A rate is divided by weight among those who use it.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dcompute.presence import Words
from dcompute.quotas import Quota
from dcompute.sharing import Claim, Party, split

if TYPE_CHECKING:
    from dcompute.connection import Connection

log = logging.getLogger("dcompute.driver")

#: Seconds for which a run that meets others uses nothing of a rate: by then they have seen it, and keep to less.
MEET_SECONDS = 3.0
#: A limit has at most so many units; of larger ones, a unit is several.
MOST_UNITS = 256


# ------------------------------------------------------------------------------------------------------------------------ decisions


def agreed(own: Mapping[str, Quota], others: Mapping[str, Words]) -> tuple[dict[str, Quota], list[str]]:
    """The limits that count, where runs say different things, and what is to be said of that: the smaller counts.

    Parameters
    ----------
    own
        What this run says.
    others
        What other runs say of themselves.
    """
    found, news = dict(own), []
    for name, quota in own.items():
        for run, words in sorted(others.items()):
            stated = _stated(words, name)
            if stated is None or (stated.period is None) != (quota.period is None):
                continue
            if stated.measure < found[name].measure:
                found[name] = stated
            if stated.measure != quota.measure:
                less = "less" if stated.measure < quota.measure else "more"
                news.append(f"run {run} says that there is {less} of {name!r} ({stated}) than this one does ({quota}): the smaller counts")
    return found, news


def spelled(quotas: Mapping[str, Quota]) -> dict[str, list[float | None]]:
    """Limits as the metadata of a scheduler takes them."""
    return {name: [quota.amount, quota.period] for name, quota in quotas.items()}


def share_of(name: str, quota: Quota, run: str, table: Mapping[str, Words]) -> float:
    """How much of a limit a run may have, by what all of them say, itself among them; in the unit of an allowance."""
    parties = [party for other, words in table.items() if (party := _party(name, other, words)) is not None]
    if quota.rate is not None:
        weights = {party.run: party.weight for party in parties if any(claim.demand for claim in party.claims)}
        return quota.rate * weights[run] / sum(weights.values()) if run in weights else quota.rate / (1 + len(weights))
    shares = split(parties, {"": {name: quota.amount}})
    own = next((party for party in parties if party.run == run), None)
    if own is None:
        return 0.0
    counts = [sum(there.values()) for there in shares[run]]
    return sum(count * claim.needs[name] for count, claim in zip(counts, own.claims, strict=True))


def _stated(words: Words, name: str) -> Quota | None:
    try:
        amount, period = words["limits"][name]
        return Quota(float(amount), None if period is None else float(period))
    except (KeyError, TypeError, ValueError):
        return None


def _party(name: str, run: str, words: Words) -> Party | None:
    """A run as one that wants some of a limit; None where it uses none of it."""
    try:
        claims = tuple(
            Claim(
                needs={name: float(said["uses"][name])},
                demand=int(said["needed"]),
                priority=float(said["priority"]),
            )
            for said in words["classes"]
            if name in said["uses"]
        )
        return Party(run=run, weight=max(1e-6, float(words["weight"])), spent=float(words["spent"]), claims=claims) if claims else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


# ------------------------------------------------------------------------------------------------------------------------------ units


class Units:
    """The units of one limit that a run holds; what they are taken with is called on one thread, the rest on any.

    Parameters
    ----------
    name, quota
        The limit: a number at once.
    lock
        Makes the lock of a unit, by its name: with ``acquire(timeout=0)`` and ``release()``.
    """

    def __init__(self, name: str, quota: Quota, lock: Callable[[str], Any]) -> None:
        self._name = name
        self._lock = lock
        self._locks: dict[str, Any] = {}
        self._mine: dict[str, float] = {}  #: unit -> how much it is; replaced whole
        self._units: dict[str, float] = {}
        self._amount = 0.0
        self.want = 0.0  #: to be had at last
        self.floor = 0.0  #: what may be in use: so much is not given back
        self.resize(quota)

    @property
    def held(self) -> float:
        """How much this run holds of what there is."""
        return min(self._amount, sum(amount for unit, amount in self._mine.items() if unit in self._units))

    def resize(self, quota: Quota) -> None:
        """There is another number of them."""
        if quota.amount == self._amount:
            return
        size = max(1, math.ceil(quota.amount / MOST_UNITS))
        count = math.ceil(quota.amount / size)
        self._units = {f"dcompute-{self._name}-{size}-{number}": min(float(size), quota.amount - size * number) for number in range(count)}
        self._amount = quota.amount

    def take(self, taken: frozenset[str] = frozenset()) -> bool:
        """Take or give back what is too few or too many; whether anything changed.

        Parameters
        ----------
        taken
            Units that others say they hold: these are tried last.
        """
        before = self._mine
        for unit in sorted(self._units, key=lambda unit: unit in taken):
            if self.held >= self.want:
                break
            if unit not in self._mine and self._of(unit).acquire(timeout=0):
                self._mine = {**self._mine, unit: self._units[unit]}
        # those that do not count any more go first
        for unit, amount in sorted(self._mine.items(), key=lambda each: each[0] in self._units):
            if sum(self._mine.values()) - amount >= max(self.want, self.floor) - 1e-9:
                self._mine = {other: much for other, much in self._mine.items() if other != unit}
                self._locks[unit].release()
        return self._mine != before

    @property
    def names(self) -> list[str]:
        """The units that are held."""
        return list(self._mine)

    def close(self, *, give_back: bool) -> None:
        """Hold nothing any more; what is not given back comes free when its leases time out."""
        for unit in self._mine:
            with contextlib.suppress(Exception):  # a scheduler that is gone has no locks
                if give_back:
                    self._locks[unit].release()
        for lock in self._locks.values():
            refresh = getattr(lock, "refresh_callback", None)
            if refresh is not None:
                refresh.stop()
        self._mine = {}

    def _of(self, unit: str) -> Any:
        if unit not in self._locks:
            self._locks[unit] = self._lock(unit)
        return self._locks[unit]


class Allowances:
    """What a run may use of its named limits.

    Parameters
    ----------
    connection
        To the scheduler of all runs.
    run
        Its id.
    quotas
        How much there is, as far as this run uses it.
    """

    def __init__(self, connection: Connection, run: str, quotas: Mapping[str, Quota]) -> None:
        self._connection = connection
        self._run = run
        self._stated = quotas
        self._agreed = dict(quotas)
        self._units = {name: Units(name, quota, self._lock) for name, quota in quotas.items() if quota.period is None}
        self._rates_from = math.inf
        self._met = False  #: there were others when this run came
        self._told: set[str] = set()
        self.news: list[str] = []  #: what is to be said of them, once

    def __bool__(self) -> bool:
        return bool(self._stated)

    @property
    def words(self) -> Words:
        """What others read of them."""
        if not self._stated:
            return {}
        return {"limits": spelled(self._stated), "units": {name: units.names for name, units in self._units.items()}}

    def begin(self, others: Mapping[str, Words], now: float) -> None:
        """The others are known for the first time: take what would be an equal share, until it is known what there is to do."""
        self._met = bool(others)
        self._rates_from = now + MEET_SECONDS if others else now
        self._agree(others)
        for name, units in self._units.items():
            users = sum(_party(name, run, words) is not None for run, words in others.items())
            units.want = self._agreed[name].amount / (1 + users)

    def first(self) -> dict[str, float]:
        """What may be used until it is known what there is to do."""
        at_once = {name: units.held for name, units in self._units.items()}
        for name, units in self._units.items():
            units.floor = at_once[name]
        rates = {name: 0.0 if self._met else quota.rate for name, quota in self._agreed.items() if quota.rate is not None}
        return {**at_once, **rates}

    def reckon(self, table: Mapping[str, Words], in_use: Mapping[str, float], now: float) -> dict[str, float]:
        """How much of each limit this run may use now; called on the driver's thread, which tells the window before it asks again.

        Parameters
        ----------
        table
            What all runs say, itself among them.
        in_use
            How much of each limit batches in flight use.
        now
            Seconds on a clock that never goes back.
        """
        self._agree({run: words for run, words in table.items() if run != self._run})
        allowed: dict[str, float] = {}
        for name, quota in self._agreed.items():
            share = share_of(name, quota, self._run, table)
            units = self._units.get(name)
            if units is None:
                allowed[name] = share if now >= self._rates_from else 0.0
                continue
            units.resize(quota)
            units.want = share
            # what is given back is not used any more: first the window hears of less
            allowed[name] = min(units.held, share)
            units.floor = max(allowed[name], in_use.get(name, 0.0))
        return allowed

    def exchange(self, others: Mapping[str, Words]) -> bool:
        """Take and give back units, whether anything changed; called on the thread that speaks to the scheduler."""
        changed = [units.take(_units_of(others, name)) for name, units in self._units.items()]
        return any(changed)

    def close(self, *, give_back: bool) -> None:
        """Hold nothing any more; see :meth:`Units.close`."""
        for units in self._units.values():
            units.close(give_back=give_back)

    def _agree(self, others: Mapping[str, Words]) -> None:
        self._agreed, news = agreed(self._stated, others)
        self.news += [text for text in news if text not in self._told]
        self._told.update(news)

    def _lock(self, name: str) -> Any:
        from distributed import Semaphore

        client = self._connection.client
        lock = Semaphore(max_leases=1, name=name, scheduler_rpc=client.scheduler, loop=client.loop)
        lock.register()
        return lock


def _units_of(others: Mapping[str, Words], name: str) -> frozenset[str]:
    found: set[str] = set()
    for words in others.values():
        units = words.get("units")
        held = units.get(name) if isinstance(units, Mapping) else None
        found.update(map(str, held) if isinstance(held, list | tuple) else ())
    return frozenset(found)
