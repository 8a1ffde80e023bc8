"""Where the time of slots went: items at work, what surrounds them in their batches, and slots without a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dcompute.report.timeline import Line

#: A run is in full swing from the first to the last bin in which so large a share of its slots have a batch.
FULL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Idleness:
    """Shares of ``slots * seconds``; they add up to 1."""

    slots: int  #: as many batches as were ever at work at once, on the average of a bin
    seconds: float  #: from the first begin to the last end
    busy: float  #: items at work
    around: float  #: batches at work, and no item: between items, reading and writing
    start: float  #: no batch, before the run was in full swing: slots came one by one
    middle: float  #: no batch, in full swing: the next one was late, items waited to be retried, or slots were lost
    tail: float  #: no batch, at the end: fewer items were left than slots, or the last ones took long


def idleness(line: Line) -> Idleness:
    """Where the time of the slots of one line went.

    ``slots`` is the largest average of ``held / seconds`` of any bin, rounded up (a twentieth more than a whole number is none).
    """
    seconds = float(line.seconds.sum())
    held = line.held / line.seconds
    slots = max(1, math.ceil(float(held.max()) - 0.05))
    total = slots * seconds
    full = np.flatnonzero(held >= FULL * slots)
    first, last = (int(full[0]), int(full[-1])) if len(full) else (0, len(held) - 1)
    missing = np.maximum(slots * line.seconds - line.held, 0.0)
    busy, taken = float(line.busy.sum()), float(line.held.sum())
    start, middle, tail = (float(part.sum()) / total for part in (missing[:first], missing[first : last + 1], missing[last + 1 :]))
    busy_share = min(busy, taken) / total
    return Idleness(
        slots=slots,
        seconds=seconds,
        busy=busy_share,
        around=max(0.0, 1.0 - busy_share - start - middle - tail),
        start=start,
        middle=middle,
        tail=tail,
    )


def together(parts: list[Idleness]) -> Idleness | None:
    """The mean of several lines by the time of their slots; of slots the most that one line had."""
    total = sum(part.slots * part.seconds for part in parts)
    if not parts or not total:
        return None
    names = ("busy", "around", "start", "middle", "tail")
    shares = {name: sum(getattr(part, name) * part.slots * part.seconds for part in parts) / total for name in names}
    return Idleness(slots=max(part.slots for part in parts), seconds=sum(part.seconds for part in parts), **shares)
