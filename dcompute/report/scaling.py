"""Scaling: what was done with one slot, two, four, ... at work, and from where on more of them give less."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dcompute.errors import UsageError
from dcompute.report.tally import Counted, Tally
from dcompute.report.timeline import Line, Timeline, lines

#: What counts as an instance, and the timeline that knows them.
BY: dict[str, tuple[str, ...]] = {"slots": (), "workers": ("worker",), "hosts": ("host",)}
#: An instance that gives less than this share of what the first one gave is past the bend.
BEND = 0.5
#: The first step is one that was there for this share of the time, or more.
_BASE = 0.01
#: A step of fewer seconds is too short to call it a bend.
_LEAST = 1.0
#: A worker or host with batches for this share of a bin is at work in it.
_PRESENT = 0.05

SCHEMA = pa.schema(
    [
        ("instances", pa.float64()),
        ("from", pa.int64()),
        ("to", pa.int64()),
        ("seconds", pa.float64()),
        ("items", pa.float64()),
        ("rate", pa.float64()),
        ("efficiency", pa.float64()),
        ("marginal", pa.float64()),
        ("bends", pa.bool_()),
    ]
)


def tallies(by: str = "slots") -> tuple[Tally, ...]:
    """What :func:`scaling` needs.

    Raises
    ------
    UsageError
        ``by`` is not ``"slots"``, ``"workers"`` or ``"hosts"``.
    """
    if by not in BY:
        raise UsageError(f"by={by!r}: scaling is by 'slots', 'workers' or 'hosts'")
    return (Timeline(BY[by]),)


def scaling(counted: Counted, *, by: str = "slots") -> pa.Table:
    """How the rate grows with what is at work: a row for 1, 2, 3 to 4, 5 to 8, ... instances, over all runs.

    Time is cut into bins (512 a run at most); each is of the step of its average number of slots with a batch, rounded (at least 1), or
    of its workers or hosts that had one for 5 % of it. Within a bin items count by the share of them that was done in it, and only those
    that succeeded.

    ==========================  ========================================================================================================
    ``instances``               average over the bins of the step
    ``from``, ``to``            the step
    ``seconds``, ``items``      time in the step, and items done in it
    ``rate``                    ``items / seconds``
    ``efficiency``              ``(rate / instances)`` divided by the same of the first step that was there for 1 % of the time or more
    ``marginal``                what another instance gives, compared with that first step: the growth of ``rate`` since the step before,
                                divided by the growth of ``instances`` and by the first step's ``rate / instances``
    ``bends``                   true for the first step with ``marginal`` below 0.5 that was there for a second and 1 % of the time
    ==========================  ========================================================================================================

    Steps are seen only where a run had them: at its start and end, or since workers came and went. The items of one step may be other
    ones than those of the next; where they differ much, so does their rate.

    Parameters
    ----------
    counted
        What :func:`tallies` found.
    by
        ``"slots"``, ``"workers"`` or ``"hosts"``.
    """
    (tally,) = tallies(by)
    found = lines(counted[tally.name], BY[by])
    seconds, instances, items = _bins(found) if by == "slots" else _bins_of_instances(found)
    return _table(_steps(seconds, instances, items))


def _bins(found: list[Line]) -> tuple[npt.NDArray[Any], ...]:
    if not found:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    return tuple(
        np.concatenate(values) for values in zip(*((line.seconds, line.held / line.seconds, line.work) for line in found), strict=True)
    )


def _bins_of_instances(found: list[Line]) -> tuple[npt.NDArray[Any], ...]:
    runs: dict[Any, list[Line]] = {}
    for line in found:
        runs.setdefault(line.keys[0], []).append(line)
    return _joined([_together(of_run) for of_run in runs.values()])


def _joined(parts: list[tuple[npt.NDArray[Any], ...]]) -> tuple[npt.NDArray[Any], ...]:
    return tuple(np.concatenate(values) for values in zip(*parts, strict=True)) if parts else (np.zeros(0), np.zeros(0), np.zeros(0))


def _together(of_run: list[Line]) -> tuple[npt.NDArray[Any], ...]:
    """Seconds, instances and items of the bins of one run; its lines have bins of one width, but begin and end at different times."""
    starts = np.unique(np.concatenate([line.begin for line in of_run]))
    seconds, instances, items = np.zeros(len(starts)), np.zeros(len(starts)), np.zeros(len(starts))
    for line in of_run:
        at = np.searchsorted(starts, line.begin)
        seconds[at] = np.maximum(seconds[at], line.seconds)
        items[at] += line.work
        instances[at] += line.held >= _PRESENT * line.seconds
    return seconds, instances, items


def _steps(seconds: npt.NDArray[Any], instances: npt.NDArray[Any], items: npt.NDArray[Any]) -> list[dict[str, Any]]:
    whole = np.where(instances > 0, np.maximum(np.rint(instances), 1), 0).astype(np.int64)
    step = np.where(whole > 0, np.ceil(np.log2(np.maximum(whole, 1))), -1).astype(np.int64)
    rows: list[dict[str, Any]] = []
    for one in sorted(set(step[step >= 0].tolist())):
        of = step == one
        time, done = float(seconds[of].sum()), float(items[of].sum())
        number = float((instances[of] * seconds[of]).sum()) / time
        low = 2 ** (one - 1) + 1 if one else 1
        rows.append({"instances": number, "from": low, "to": 2**one, "seconds": time, "items": done, "rate": done / time})
    return rows


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    total = sum(row["seconds"] for row in rows)
    base = next((row for row in rows if row["seconds"] >= _BASE * total and row["rate"] > 0), None)
    each = base["rate"] / base["instances"] if base is not None else math.nan
    before, is_bent = None, False
    for row in rows:
        row["efficiency"] = row["rate"] / row["instances"] / each if base is not None else None
        row["marginal"] = _marginal(before, row, each) if before is not None else None
        is_seen = row["seconds"] >= max(_LEAST, _BASE * total)
        row["bends"] = not is_bent and is_seen and row["marginal"] is not None and row["marginal"] < BEND
        is_bent = is_bent or row["bends"]
        before = row if row is base or before is not None else None
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _marginal(before: dict[str, Any], row: dict[str, Any], each: float) -> float:
    return float((row["rate"] - before["rate"]) / (row["instances"] - before["instances"]) / each)
