"""What attempts used, by run, workload, version and host: the tallies that most reports share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.report import calls
from dcompute.report.octaves import bins_of
from dcompute.report.tally import Groups

_SUMMED = ("duration", "cpu_user", "cpu_system", "io_wait", "bytes_read", "bytes_written", "rows", "leftovers")
_WHO = ("workload", "version", "host")
_KINDS = {"memory_kills": "memory", "timeouts": "timeout", "crashes": "crash", "lost": "infrastructure"}


def is_(column: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    """Whether each value is this one; null is not."""
    return pc.fill_null(pc.equal(column, value), False)


def ones(column: pa.ChunkedArray) -> pa.Array:
    """A one for each row that is true."""
    return pc.cast(column, pa.int64())


def end(attempts: pa.Table) -> pa.Array:
    """When attempts ended: those of one call all at its end."""
    duration = pa.array(np.rint(calls.calls_of(attempts).seconds * 1e6).astype(np.int64))
    return pc.add(pc.cast(attempts["started"], pa.timestamp("us", "UTC")), pc.cast(duration, pa.duration("us")))


def _usage(attempts: pa.Table) -> pa.Table:
    succeeded = is_(attempts["outcome"], "succeeded")
    cpu = pc.add(attempts["cpu_user"], attempts["cpu_system"])
    columns: dict[str, Any] = {name: attempts[name] for name in ("run", *_WHO)}
    columns |= {
        "attempts": pa.array(np.ones(attempts.num_rows, np.int64)),
        "succeeded": ones(succeeded),
        "failed": ones(pc.invert(succeeded)),
        "again": ones(pc.fill_null(pc.greater(attempts["attempt"], 1), False)),
        "wasted": pc.if_else(succeeded, 0.0, pc.fill_null(attempts["duration"], 0.0)),
        "measured_for": pc.if_else(pc.is_valid(cpu), pc.fill_null(attempts["duration"], 0.0), 0.0),
        "cpu": cpu,
        **{kind: ones(is_(attempts["kind"], value)) for kind, value in _KINDS.items()},
        **{name: attempts[name] for name in _SUMMED},
        "began": pc.cast(attempts["started"], pa.timestamp("us", "UTC")),
        "ended": end(attempts),
        "peak_memory": attempts["peak_memory"],
    }
    return pa.table(columns)


def _causes(attempts: pa.Table) -> pa.Table:
    known = attempts.filter(pc.is_valid(attempts["bottleneck"]))
    columns = {name: known[name] for name in (*_WHO, "bottleneck")}
    return pa.table(columns | {"attempts": pa.array(np.ones(known.num_rows, np.int64)), "seconds": known["duration"]})


def _spread(attempts: pa.Table) -> pa.Table:
    """A row for each peak of memory and each duration, and one for the time that each batch held its slot."""
    batches = attempts.select([*_WHO, "batch"]).append_column("began", attempts["started"].cast(pa.int64()))
    batches = batches.append_column("ended", end(attempts).cast(pa.int64()))
    spans = batches.group_by([*_WHO, "batch"], use_threads=False).aggregate([("began", "min"), ("ended", "max")])
    seconds = pc.divide(pc.cast(pc.subtract(spans["ended_max"], spans["began_min"]), pa.float64()), 1e6)
    told = {"memory": (attempts, attempts["peak_memory"]), "duration": (attempts, attempts["duration"]), "batch": (spans, seconds)}
    return pa.concat_tables([_of_figure(name, table, values) for name, (table, values) in told.items()])


def _of_figure(figure: str, table: pa.Table, values: Any) -> pa.Table:
    above = pc.fill_null(pc.greater(values, 0), False)
    known, numbers = table.filter(above), values.filter(above).to_numpy()
    columns: dict[str, Any] = {name: known[name] for name in _WHO}
    columns |= {"figure": pa.array([figure] * known.num_rows, pa.string()), "bin": pa.array(bins_of(numbers))}
    return pa.table(columns | {"attempts": pa.array(np.ones(known.num_rows, np.int64))})


USAGE = Groups(
    name="usage",
    columns=(
        "run", *_WHO, "outcome", "kind", "attempt", "peak_memory", *_SUMMED, *calls.COLUMNS,
    ),
    prepare=_usage,
    keys=("run", *_WHO),
    sums=(
        "attempts", "succeeded", "failed", "again", "wasted", "measured_for", "cpu", "duration", "io_wait", "bytes_read", "bytes_written",
        "rows", "leftovers", *_KINDS,
    ),
    mins=("began",),
    maxs=("ended", "peak_memory"),
    fold=("host",),
)  # fmt: skip

CAUSES = Groups(
    name="causes",
    columns=(*_WHO, "bottleneck", "duration"),
    prepare=_causes,
    keys=(*_WHO, "bottleneck"),
    sums=("attempts", "seconds"),
    fold=("host",),
)

SPREAD = Groups(
    name="spread",
    columns=(*_WHO, *calls.COLUMNS, "peak_memory"),
    prepare=_spread,
    keys=(*_WHO, "figure", "bin"),
    fold=("host",),
    most=100_000,
)
