"""What to change, from what attempts used: each rule is a figure, a bound, and words that name both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MIB = 1 << 20

#: Bounds of the rules.
ROOM, LAVISH, NARROW = 1.2, 2.0, 0.9
CORES_OVER, CORES_UNDER = 1.2, 0.5
COMPUTES, WAITS = 0.7, 0.3
AROUND, IDLE = 0.2, 0.1
SHORT_ITEM = 0.005
#: Of items of fewer seconds most of the CPU time is that of what calls them.
SHORTEST = 0.001
LONG_BATCH = 30.0
#: Fewer attempts say nothing.
FEWEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What attempts of one workload used; unknown figures are None."""

    attempts: int
    cores: float | None = None
    bottleneck: str | None = None
    duration_p50: float | None = None
    memory_p95: float | None = None
    memory_max: float | None = None
    memory_kills: int = 0
    timeouts: int = 0
    batch_p95: float | None = None
    slots: int | None = None
    busy: float | None = None
    around: float | None = None
    start: float | None = None
    middle: float | None = None
    tail: float | None = None
    memory: int | None = None  #: what an item asks for, in bytes
    cpus: float = 1.0  #: what an item asks for


def advice(use: Use) -> list[str]:
    """What to change, the most urgent first; nothing of fewer than five attempts."""
    return [text for rule in _RULES for text in rule(use)] if use.attempts >= FEWEST else []


def _memory(use: Use) -> Iterator[str]:
    wanted = _request(use.memory_max) if use.memory_max else None
    if use.memory_kills:
        asks = f"they ask for {_mib(use.memory)}" if use.memory else "they had their slot's share"
        yield f"{use.memory_kills:,} attempts were killed for memory, {asks}: ask for more than the peak of {_mib(use.memory_max)}"
    elif wanted and use.memory and use.memory > LAVISH * wanted:
        yield f"items ask for {_mib(use.memory)} and the largest peak was {_mib(use.memory_max)}: memory={_mib(wanted)!r} fits more slots"
    elif wanted and use.memory and use.memory_max and use.memory_max > NARROW * use.memory:
        close = f"the largest peak, {_mib(use.memory_max)}, is close to the {_mib(use.memory)} that items ask for"
        yield f"{close}: memory={_mib(wanted)!r} is safer"
    elif wanted and not use.memory:
        yield f"memory={_mib(wanted)!r} holds all peaks (95 % are below {_mib(use.memory_p95)})"


def _cores(use: Use) -> Iterator[str]:
    if use.cores is None or (use.duration_p50 is not None and use.duration_p50 < SHORTEST):
        return
    if use.cores > CORES_OVER * use.cpus:
        wanted = math.ceil(use.cores - 0.2)
        yield f"items use {use.cores:.1f} cores and ask for {use.cpus:g}: cpus={wanted} keeps them from slowing each other"
    elif use.cpus > 1 and use.cores < CORES_UNDER * use.cpus:
        yield f"items use {use.cores:.1f} cores and ask for {use.cpus:g}: cpus={max(1, math.ceil(use.cores))} fits more slots"


def _bottleneck(use: Use) -> Iterator[str]:
    if use.bottleneck == "io":
        yield "storage holds most of the time up: more slots on one host will not help, more hosts, faster disks or fewer bytes will"
    elif use.bottleneck == "mixed" and use.cores is not None and use.cores < WAITS * use.cpus:
        yield f"items wait (they use {use.cores:.2f} cores): more slots than cores, such as cpus=0.5, let others compute meanwhile"
    elif use.bottleneck == "memory":
        yield "attempts come near their memory limit: ask for more, or make the items smaller"


def _batches(use: Use) -> Iterator[str]:
    if use.around is not None and use.around > AROUND:
        short = use.duration_p50 is not None and use.duration_p50 < SHORT_ITEM
        cure = (
            "items are short: group=64 calls the function with many at once"
            if short
            else "look at the size of results and the speed of storage"
        )
        yield f"{use.around:.0%} of slot time is between items of a batch: {cure}"
    if use.batch_p95 is not None and use.duration_p50 is not None and use.batch_p95 > 2 * max(LONG_BATCH, use.duration_p50 * 2):
        yield f"5 % of batches take more than {use.batch_p95:.0f} s: a lost worker loses that much; batch_size= makes them smaller"


def _slots(use: Use) -> Iterator[str]:
    if use.slots is None or use.slots < 2:
        return
    if (use.tail or 0.0) > IDLE:
        yield f"{use.tail:.0%} of slot time is idle at the end: slots wait for the last items; fewer slots or the longest first help"
    if (use.start or 0.0) > IDLE:
        yield f"{use.start:.0%} of slot time is idle at the start: workers came late"
    if (use.middle or 0.0) > IDLE:
        yield f"{use.middle:.0%} of slot time is idle in full swing: items wait to be retried, workers were lost, or the scheduler is slow"


def _time(use: Use) -> Iterator[str]:
    if use.timeouts:
        yield f"{use.timeouts:,} attempts were killed at their timeout; half of all end within {use.duration_p50 or 0:.3g} s"


_RULES: tuple[Callable[[Use], Iterator[str]], ...] = (_memory, _time, _cores, _bottleneck, _batches, _slots)


def _request(peak: float) -> int:
    """A request that holds a peak: a fifth more, rounded up to two digits of MiB."""
    mib = peak * ROOM / MIB
    digit = 10 ** max(0, math.floor(math.log10(max(mib, 1))) - 1)
    return int(math.ceil(mib / digit) * digit * MIB)


def _mib(size: float | None) -> str:
    return "an unknown size" if size is None else f"{math.ceil(size / MIB):,} MiB".replace(",", "")
