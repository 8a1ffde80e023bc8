"""Runs: one of them in short, and all of them one after another."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.report.failures import FAILED
from dcompute.report.idleness import Idleness, idleness, together
from dcompute.report.octaves import quantile
from dcompute.report.tally import Counted
from dcompute.report.timeline import Timeline, lines
from dcompute.report.usage import CAUSES, SPREAD, USAGE

TIMELINE = Timeline()
HISTORY_TALLIES = (USAGE, TIMELINE)
SUMMARY_TALLIES = (USAGE, TIMELINE, FAILED, CAUSES, SPREAD)

_COUNT, _SECONDS, _TEXT, _TIME = pa.int64(), pa.float64(), pa.string(), pa.timestamp("us", "UTC")
HISTORY_SCHEMA = pa.schema(
    [
        ("run", _TEXT),
        ("workload", _TEXT),
        ("version", _TEXT),
        ("began", _TIME),
        ("seconds", _SECONDS),
        ("attempts", _COUNT),
        ("succeeded", _COUNT),
        ("failed", _COUNT),
        ("again", _COUNT),
        ("rows", _COUNT),
        ("rate", _SECONDS),
        ("slots", _COUNT),
        ("busy", _SECONDS),
        ("item_seconds", _SECONDS),
        ("against_before", _SECONDS),
        ("cpu_hours", _SECONDS),
        ("peak_memory", _COUNT),
        ("bytes_read", _COUNT),
        ("bytes_written", _COUNT),
        ("hosts", _COUNT),
    ]
)
_WHICH, _OWN = ("run", "workload", "version"), ("against_before", "hosts")
SUMMARY_SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in _WHICH),
        ("runs", _COUNT),
        *(field for field in HISTORY_SCHEMA if field.name not in (*_WHICH, *_OWN)),
        ("ended", _TIME),
        ("hosts", _COUNT),
        ("kinds", _TEXT),
        ("duration_p50", _SECONDS),
        ("duration_p95", _SECONDS),
        ("peak_memory_p50", _COUNT),
        ("peak_memory_p95", _COUNT),
        ("bottleneck", _TEXT),
        *((name, _SECONDS) for name in ("around", "start", "middle", "tail")),
    ]
)


def history(counted: Counted) -> pa.Table:
    """What each run did and used: a row a run, the oldest first. Runs that tried nothing (up to date) have none.

    ==================================  ================================================================================================
    ``run``, ``workload``, ``version``  which
    ``began``, ``seconds``              of its first attempt; from then to the end of its last one
    ``attempts``                        of which ``succeeded`` and ``failed``, ``again`` those that were not the first of their item
    ``rows``                            of results
    ``rate``                            ``succeeded / seconds``
    ``slots``                           the most batches at work at once, on the average of one of up to 512 bins
    ``busy``                            share of ``slots * seconds`` in which items were at work
    ``item_seconds``                    mean duration of an attempt
    ``against_before``                  ``item_seconds`` divided by that of the run before of the same workload: 2 is twice as slow
    ``cpu_hours``                       user and system, of the attempts that were measured
    ``peak_memory``                     bytes, of the largest attempt
    ``bytes_read``, ``bytes_written``   by the attempts that were measured
    ``hosts``                           that had attempts
    ==================================  ================================================================================================
    """
    idle = {line.keys[0]: idleness(line) for line in lines(counted[TIMELINE.name])}
    rows = [_row(run, idle.get(run["run"])) for run in runs(counted)]
    before: dict[Any, float] = {}
    for row in rows:
        last = before.get(row["workload"])
        row["against_before"] = row["item_seconds"] / last if last and row["item_seconds"] is not None else None
        if row["item_seconds"]:
            before[row["workload"]] = row["item_seconds"]
    return pa.Table.from_pylist(rows, schema=HISTORY_SCHEMA)


def runs(counted: Counted) -> list[dict[str, Any]]:
    """What :data:`USAGE` says of each run and version, the oldest first; ``hosts`` is how many there were."""
    found = USAGE.by(counted["usage"], ["run", "workload", "version"]).to_pylist()
    hosts = counted["usage"].group_by(["run", "workload", "version"]).aggregate([("host", "count_distinct")]).to_pylist()
    number = {(one["run"], one["workload"], one["version"]): one["host_count_distinct"] for one in hosts}
    for row in found:
        row["hosts"] = number[row["run"], row["workload"], row["version"]]
        row["seconds"] = seconds_of(row)
    # a run that never began anything has no time: its id begins with one
    return sorted(found, key=lambda row: (row["began"] is not None and row["began"].timestamp(), row["run"] or ""))


def seconds_of(row: dict[str, Any]) -> float | None:
    """From the first begin to the last end of some attempts."""
    return (row["ended"] - row["began"]).total_seconds() if row["began"] is not None and row["ended"] is not None else None


def _row(run: dict[str, Any], idle: Idleness | None) -> dict[str, Any]:
    return run | {
        "rate": run["succeeded"] / run["seconds"] if run["seconds"] else None,
        "slots": idle.slots if idle is not None else None,
        "busy": idle.busy if idle is not None else None,
        "item_seconds": run["duration"] / run["attempts"] if run["duration"] is not None else None,
        "cpu_hours": run["cpu"] / 3600 if run["cpu"] is not None else None,
    }


def summary(counted: Counted) -> pa.Table:
    """What was done, in one row: of the newest run, unless another one or ``run="all"`` is asked for.

    It has the columns of :func:`history` that make sense for several runs, and these; without an attempt there is no row.

    ==================================================  ================================================================================
    ``runs``                                            how many it is about; ``run`` is the newest
    ``ended``                                           the last end of an attempt
    ``seconds``                                         of all runs, without the time between them
    ``kinds``                                           of failed attempts, most frequent first: ``"12 timeout, 3 memory"``
    ``duration_p50``, ``duration_p95``                  seconds of an attempt, to 2.2 %
    ``peak_memory_p50``, ``peak_memory_p95``            bytes of an attempt, to 2.2 %
    ``bottleneck``                                      of most attempt time: ``cpu``, ``memory``, ``io`` or ``mixed``
    ``busy``, ``around``, ``start``, ``middle``,        where the time of the slots went, shares that add up to 1: items at work; the rest
    ``tail``                                            of their batches; no batch while slots came, in full swing, at the end. Full swing
                                                        is from the first to the last bin in which 90 % of the slots have a batch
    ==================================================  ================================================================================
    """
    each = runs(counted)
    if not each:
        return SUMMARY_SCHEMA.empty_table()
    (total,) = USAGE.by(counted["usage"], []).to_pylist()
    idle = together([idleness(line) for line in lines(counted[TIMELINE.name])])
    seconds = sum(run["seconds"] or 0.0 for run in each)
    row = _row(total | {"seconds": seconds}, idle)
    spread = {name: _quantiles(counted["spread"], name) for name in ("duration", "memory")}
    columns: dict[str, Any] = {name: row[name] for name in HISTORY_SCHEMA.names if name in row}
    columns = {
        "run": each[-1]["run"],
        "workload": each[-1]["workload"],
        "version": each[-1]["version"],
        "runs": len({one["run"] for one in each}),
    } | columns
    columns |= {
        "ended": total["ended"],
        "hosts": pc.count_distinct(counted["usage"]["host"]).as_py(),
        "kinds": ", ".join(f"{one['attempts']:,} {one['kind']}" for one in _kinds(counted)),
        "duration_p50": spread["duration"][0],
        "duration_p95": spread["duration"][1],
        "peak_memory_p50": _whole(spread["memory"][0]),
        "peak_memory_p95": _whole(spread["memory"][1]),
        "bottleneck": bottleneck(counted["causes"]),
        **{name: getattr(idle, name) if idle is not None else None for name in ("around", "start", "middle", "tail")},
    }
    return pa.Table.from_pylist([columns], schema=SUMMARY_SCHEMA)


def _kinds(counted: Counted) -> list[dict[str, Any]]:
    found = FAILED.by(counted["failed"], ["kind"]).sort_by([("attempts", "descending"), ("kind", "ascending")])
    return list(found.to_pylist())


def _quantiles(spread: pa.Table, figure: str) -> tuple[float | None, float | None]:
    of = spread.filter(pc.equal(spread["figure"], figure))
    bins, counts = of["bin"].to_numpy(), of["attempts"].to_numpy()
    return quantile(bins, counts, 0.5), quantile(bins, counts, 0.95)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def bottleneck(causes: pa.Table) -> str | None:
    """What held most of the time of some attempts up."""
    found = CAUSES.by(causes, ["bottleneck"]).sort_by([("seconds", "descending"), ("bottleneck", "ascending")])
    return found["bottleneck"][0].as_py() if found.num_rows else None
