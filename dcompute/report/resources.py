"""What attempts used and what held them up, by workload, version and host, with advice."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.errors import UsageError
from dcompute.report.advice import Use, advice
from dcompute.report.idleness import Idleness, idleness, together
from dcompute.report.octaves import quantile
from dcompute.report.tally import Counted
from dcompute.report.timeline import Timeline, lines
from dcompute.report.usage import CAUSES, SPREAD, USAGE
from dcompute.resources import parse_bytes

EVERYWHERE, BY_HOST = Timeline(), Timeline(("host",))
TALLIES = (USAGE, CAUSES, SPREAD, EVERYWHERE, BY_HOST)

#: Stands in the column ``host`` for all of them.
ALL = "(all)"

_COUNT, _NUMBER, _TEXT = pa.int64(), pa.float64(), pa.string()
_SHARES = ("busy", "around", "start", "middle", "tail")
SCHEMA = pa.schema(
    [
        ("workload", _TEXT),
        ("version", _TEXT),
        ("host", _TEXT),
        ("attempts", _COUNT),
        ("seconds", _NUMBER),
        ("cores", _NUMBER),
        ("io_wait", _NUMBER),
        ("read_rate", _NUMBER),
        ("write_rate", _NUMBER),
        ("bottleneck", _TEXT),
        ("duration_p50", _NUMBER),
        ("duration_p95", _NUMBER),
        ("memory_p50", _COUNT),
        ("memory_p95", _COUNT),
        ("memory_max", _COUNT),
        ("memory_kills", _COUNT),
        ("timeouts", _COUNT),
        ("batch_p50", _NUMBER),
        ("batch_p95", _NUMBER),
        ("slots", _COUNT),
        *((name, _NUMBER) for name in _SHARES),
        ("advice", _TEXT),
    ]
)


def resources(counted: Counted, *, memory: int | str | None = None, cpus: float = 1.0) -> pa.Table:
    """What attempts used and what held them up: a row for each workload and version, and one for each host of it.

    ==========================================  ========================================================================================
    ``workload``, ``version``, ``host``         which; ``(all)`` for all hosts together
    ``attempts``, ``seconds``                   how many, and their durations added up
    ``cores``                                   CPU seconds (user and system) a second of duration, of the attempts that were measured
    ``io_wait``                                 seconds of waiting for block devices a second of duration, where the kernel tells
    ``read_rate``, ``write_rate``               bytes a second of duration
    ``bottleneck``                              of most attempt time: ``cpu``, ``memory``, ``io`` or ``mixed``
    ``duration_p50``, ``duration_p95``          seconds, to 2.2 %
    ``memory_p50``, ``memory_p95``,             bytes: peaks of attempts, the quantiles to 2.2 %; short attempts count with the peak of
    ``memory_max``                              their batch
    ``memory_kills``, ``timeouts``              attempts that ended so
    ``batch_p50``, ``batch_p95``                seconds from a batch's first begin to its last end, to 2.2 %
    ``slots``                                   the most batches at work at once, on the average of a bin of the timeline
    ``busy``, ``around``, ``start``,            where the time of those slots went: see :func:`~dcompute.report.runs.summary`. Runs of the
    ``middle``, ``tail``                        same version are weighed by the time of their slots
    ``advice``                                  what to change, and the figures that say so; see :mod:`dcompute.report.advice`
    ==========================================  ========================================================================================

    Parameters
    ----------
    counted
        What :data:`TALLIES` found.
    memory
        What an item asks for, in bytes or as ``"2 GiB"``: it is not written down with the attempts.
    cpus
        What an item asks for.
    """
    if not isinstance(cpus, int | float) or isinstance(cpus, bool) or not 0 < cpus < math.inf:
        raise UsageError(f"cpus={cpus!r}: give what an item asks for, such as 1 or 0.5")
    rows = []
    asked = None if memory is None else parse_bytes(memory)
    idle = _idleness(counted)
    for total in USAGE.by(counted["usage"], ["workload", "version"]).to_pylist():
        rows.append(_row(counted, total | {"host": ALL}, idle, asked, cpus))
        of = _of(counted["usage"], total, ("workload", "version"))
        rows += [_row(counted, one, idle, asked, cpus) for one in USAGE.by(of, ["workload", "version", "host"]).to_pylist()]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(counted: Counted, use: dict[str, Any], idle: dict[Any, list[Idleness]], memory: int | None, cpus: float) -> dict[str, Any]:
    who = ("workload", "version") if use["host"] == ALL else ("workload", "version", "host")
    spread, causes = _of(counted["spread"], use, who), CAUSES.by(_of(counted["causes"], use, who), ["bottleneck"])
    slots = together(idle.get((use["workload"], use["version"], use["host"]), []))
    measured = use["measured_for"] or 0.0
    row: dict[str, Any] = {name: use[name] for name in ("workload", "version", "host", "attempts", "memory_kills", "timeouts")}
    row |= {
        "seconds": use["duration"],
        "cores": _a_second(use["cpu"], measured),
        "io_wait": _a_second(use["io_wait"], measured),
        "read_rate": _a_second(use["bytes_read"], measured),
        "write_rate": _a_second(use["bytes_written"], measured),
        "bottleneck": causes.sort_by([("seconds", "descending")])["bottleneck"][0].as_py() if causes.num_rows else None,
        "memory_max": use["peak_memory"],
        "slots": slots.slots if slots is not None else None,
        **{name: getattr(slots, name) if slots is not None else None for name in _SHARES},
    }
    for figure in ("duration", "memory", "batch"):
        of = spread.filter(pc.equal(spread["figure"], figure))
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            value = quantile(of["bin"].to_numpy(), of["attempts"].to_numpy(), share)
            if figure == "memory" and value is not None:
                # known to 2.2 %, and the largest one exactly
                value = min(round(value), row["memory_max"] or round(value))
            row[f"{figure}_{name}"] = value
    use_ = Use(**{name: row[name] for name in Use.__dataclass_fields__ if name in row}, memory=memory, cpus=cpus)
    return row | {"advice": "; ".join(advice(use_)) or None}


def _a_second(value: float | None, seconds: float) -> float | None:
    return value / seconds if value is not None and seconds else None


def _of(table: pa.Table, row: dict[str, Any], names: tuple[str, ...]) -> pa.Table:
    for name in names:
        table = table.filter(pc.is_null(table[name]) if row[name] is None else pc.equal(table[name], row[name]))
    return table


def _idleness(counted: Counted) -> dict[Any, list[Idleness]]:
    """Of each workload, version and host, run by run."""
    ran = counted["usage"].group_by(["run", "workload", "version"]).aggregate([]).to_pylist()
    found: dict[Any, list[Idleness]] = {}
    versions: dict[Any, list[tuple[Any, Any]]] = {}
    for one in ran:
        versions.setdefault(one["run"], []).append((one["workload"], one["version"]))
    for tally in (EVERYWHERE, BY_HOST):
        for line in lines(counted[tally.name], tally.by):
            host = line.keys[1] if tally.by else ALL
            for who in versions.get(line.keys[0], []):
                found.setdefault((*who, host), []).append(idleness(line))
    return found
