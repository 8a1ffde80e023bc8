"""What runs cost, by the price of an hour of a node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from dcompute.errors import UsageError
from dcompute.report.runs import seconds_of
from dcompute.report.tally import Counted
from dcompute.report.usage import USAGE

TALLIES = (USAGE,)

_COUNT, _NUMBER, _TEXT = pa.int64(), pa.float64(), pa.string()
SCHEMA = pa.schema(
    [
        ("run", _TEXT),
        ("workload", _TEXT),
        ("began", pa.timestamp("us", "UTC")),
        ("hosts", _COUNT),
        ("node_hours", _NUMBER),
        ("cost", _NUMBER),
        ("succeeded", _COUNT),
        ("cost_per_1000", _NUMBER),
        ("wasted", _NUMBER),
    ]
)


def cost(counted: Counted, *, price: float | Mapping[str, float]) -> pa.Table:
    """What each run cost: a row a run, the oldest first. Money is in the unit of ``price``.

    ==================================  ================================================================================================
    ``run``, ``workload``, ``began``    which, and when its first attempt began
    ``hosts``                           that had attempts
    ``node_hours``                      hours from the first begin to the last end of an attempt on a host, added up over hosts: a host is
                                        paid while it waits in between too, what it cost before and after is not known here
    ``cost``                            node hours times their price
    ``succeeded``, ``cost_per_1000``    items, and ``1000 * cost / succeeded``
    ``wasted``                          share of attempt time in attempts that failed
    ==================================  ================================================================================================

    Of more than 20,000 pairs of runs and hosts the rarest hosts are counted as one, and the cost is a lower bound.

    Parameters
    ----------
    counted
        What :data:`TALLIES` found.
    price
        Of an hour of a node; or a mapping of patterns of host names (``"gpu-*"``) to prices, of which the first that fits counts.
    """
    prices = _prices(price)
    rows: dict[Any, dict[str, Any]] = {}
    for one in USAGE.by(counted["usage"], ["run", "workload", "host"]).to_pylist():
        seconds = seconds_of(one)
        if seconds is None:
            continue
        row = rows.setdefault((one["run"], one["workload"]), _nothing(one))
        row["began"] = min(row["began"], one["began"])
        row["hosts"] += 1
        row["node_hours"] += seconds / 3600
        row["cost"] += seconds / 3600 * _price(prices, one["host"] or "")
        for name in ("succeeded", "wasted", "duration"):
            row[name] += one[name] or 0
    for row in rows.values():
        row["cost_per_1000"] = 1000 * row["cost"] / row["succeeded"] if row["succeeded"] else None
        row["wasted"] = row["wasted"] / row["duration"] if row["duration"] else None
    return pa.Table.from_pylist(sorted(rows.values(), key=lambda row: row["began"]), schema=SCHEMA)


def _nothing(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("run", "workload", "began")} | dict.fromkeys(
        ("hosts", "node_hours", "cost", "succeeded", "wasted", "duration"), 0
    )


def _prices(price: Any) -> dict[str, float]:
    prices = dict(price) if isinstance(price, Mapping) else {"*": price}
    for pattern, one in prices.items():
        is_number = isinstance(one, int | float) and not isinstance(one, bool)
        if not isinstance(pattern, str) or not is_number or not math.isfinite(one) or one < 0:
            raise UsageError(f"price={price!r}: give what a node costs an hour, such as 0.8, or patterns of host names with theirs")
    return prices


def _price(prices: Mapping[str, float], host: str) -> float:
    for pattern, price in prices.items():
        if fnmatchcase(host, pattern):
            return float(price)
    raise UsageError(f'price= has no price for host {host!r}: add a pattern that fits, or "*" for all others')
