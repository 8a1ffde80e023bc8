"""Calls with several items (``group=``) in the built-in reports: figures are held against those that pandas finds, call by call."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dcompute.dataset.parts import ATTEMPTS_SCHEMA
from dcompute.report.builtin import BUILTIN
from dcompute.report.cost import cost
from dcompute.report.resources import resources
from dcompute.report.runs import history, summary
from dcompute.report.scaling import scaling
from dcompute.report.tally import Counted, tallied
from dcompute.report.throughput import throughput

START = datetime(2026, 1, 1, tzinfo=UTC)


def rows_of(batch: str, at: float, calls: list[tuple[int, float]], measured: str | None, host: str = "h1") -> list[dict[str, Any]]:
    """A batch of calls, one after another: each has so many items and takes so long; half a tenth of a second lies between them."""
    rows: list[dict[str, Any]] = []
    for number, (items, took) in enumerate(calls):
        call = {
            "key_kind": "str", "attempt": 1, "outcome": "succeeded", "rows": 1, "run": "r", "workload": "w", "host": host, "worker": host,
            "batch": batch, "started": START + timedelta(seconds=at), "duration": took / items,
            "measured": "item" if items == 1 else measured,
        }  # fmt: skip
        rows += [{"item_key": f"{batch}-{number}-{item}", **call} for item in range(items)]
        at += took + 0.05
    return rows


def world(measured: str | None) -> list[list[dict[str, Any]]]:
    """Four slots on two hosts, each with ten batches of calls of one to eight items; a list a batch, as a file has them."""
    chance = random.Random(3)
    batches = []
    for slot in range(4):
        at = chance.uniform(0, 1)
        for number in range(10):
            calls = [(chance.choice([1, 4, 8]), round(chance.uniform(0.2, 2.0), 3)) for _ in range(3)]
            batches.append(rows_of(f"s{slot}-{number}", at, calls, measured, f"h{slot % 2}"))
            at += sum(took + 0.05 for _, took in calls) + 0.2
    return batches


def counted(name: str, batches: list[list[dict[str, Any]]]) -> Counted:
    return tallied([pa.Table.from_pylist(batch, schema=ATTEMPTS_SCHEMA) for batch in batches], BUILTIN[name].needs({}))


def calls_of(batches: list[list[dict[str, Any]]]) -> pd.DataFrame:
    """What pandas knows: a row a call, with begin and end in seconds since the start."""
    frame = pd.DataFrame([row for batch in batches for row in batch])
    found = frame.groupby(["host", "batch", "started"]).agg(seconds=("duration", "sum"), items=("duration", "size")).reset_index()
    found["begin"] = (found.started - START).dt.total_seconds()
    found["end"] = found.begin + found.seconds
    return found


def overlap(begin: Any, end: Any, low: float, high: float) -> float:
    return float(np.maximum(0, np.minimum(end, high) - np.maximum(begin, low)).sum())


@pytest.mark.parametrize("measured", ["group", None])
def test_a_call_with_several_items_is_at_work_once(measured: str | None) -> None:
    """Whether figures were measured or not: bins have the time of calls, what ended at their end, and of batches from begin to end."""
    batches = world(measured)
    calls = calls_of(batches)
    spans = calls.groupby("batch").agg(begin=("begin", "min"), end=("end", "max"))
    found = throughput(counted("throughput", batches), bins=12).to_pylist()
    for place, row in enumerate(found):
        low = (row["time"] - START).total_seconds()
        high = (found[place + 1]["time"] - START).total_seconds() if place + 1 < len(found) else 1e9
        assert row["ended"] == calls[(calls.end >= low) & (calls.end < high)]["items"].sum()
        assert row["busy"] * row["seconds"] == pytest.approx(overlap(calls.begin, calls.end, low, high), abs=1e-3)
        assert row["held"] * row["seconds"] == pytest.approx(overlap(spans.begin, spans.end, low, high), abs=1e-3)
        assert row["busy"] <= row["held"] + 1e-6
    assert sum(row["ended"] for row in found) == calls["items"].sum()


def test_runs_last_until_their_last_call_ends() -> None:
    """Seconds, rates, node hours, quantiles of batches and shares of slot time are those of calls, not of one item's share of them."""
    batches = world("group")
    calls = calls_of(batches)
    seconds, items = calls.end.max() - calls.begin.min(), calls["items"].sum()
    (row,) = summary(counted("summary", batches)).to_pylist()
    assert row["seconds"] == pytest.approx(seconds, abs=1e-3)
    assert row["slots"] == 4
    assert row["busy"] == pytest.approx(calls.seconds.sum() / (4 * seconds), abs=1e-3)
    assert row["item_seconds"] == pytest.approx(calls.seconds.sum() / items)
    (run,) = history(counted("history", batches)).to_pylist()
    assert (run["rate"], run["busy"]) == (pytest.approx(items / seconds, rel=1e-3), pytest.approx(row["busy"]))
    hours = calls.groupby("host").agg(begin=("begin", "min"), end=("end", "max"))
    (paid,) = cost(counted("cost", batches), price=2.0).to_pylist()
    assert paid["cost"] == pytest.approx(2 * (hours.end - hours.begin).sum() / 3600, rel=1e-3)
    spans = calls.groupby("batch").agg(begin=("begin", "min"), end=("end", "max"))
    told = resources(counted("resources", batches)).to_pylist()[0]
    assert told["batch_p50"] == pytest.approx((spans.end - spans.begin).quantile(0.5, interpolation="lower"), rel=0.025)
    assert told["busy"] == pytest.approx(row["busy"])


def test_one_slot_of_full_calls_is_busy_all_the_time() -> None:
    """Eight calls of eight items, 0.8 s each, on one slot: ten items a second, and nothing idle but what lies between the calls."""
    batches = [rows_of(f"b{number}", number * 1.75, [(8, 0.8)] * 2, "group") for number in range(4)]
    (row,) = summary(counted("summary", batches)).to_pylist()
    assert (row["slots"], row["busy"]) == (1, pytest.approx(8 * 0.8 / 6.9, abs=1e-3))
    assert row["middle"] == pytest.approx(3 * 0.1 / 6.9, abs=1e-3)
    (step,) = scaling(counted("scaling", batches)).to_pylist()
    assert step["items"] == pytest.approx(64)
    assert step["rate"] == pytest.approx(64 / step["seconds"])
    assert step["seconds"] == pytest.approx(6.9, abs=0.31)
