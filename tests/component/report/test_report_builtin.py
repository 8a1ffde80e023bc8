"""The built-in reports, on small tables whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pytest

from dcompute.dataset.frames import to_pandas
from dcompute.dataset.parts import ATTEMPTS_SCHEMA
from dcompute.errors import UsageError
from dcompute.report.advice import Use, advice
from dcompute.report.builtin import BUILTIN, report
from dcompute.report.cost import cost
from dcompute.report.failures import FAILED, failures
from dcompute.report.idleness import idleness
from dcompute.report.octaves import bins_of, quantile
from dcompute.report.resources import ALL, resources
from dcompute.report.runs import history, summary
from dcompute.report.scaling import scaling
from dcompute.report.tally import OTHERS, Groups, gather, tallied
from dcompute.report.throughput import throughput
from dcompute.report.timeline import FEWEST_BINS, MOST_BINS, Timeline, lines

START = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1 << 20


def attempt(at: float, duration: float | None = 1.0, **changed: Any) -> dict[str, Any]:
    """One attempt that begins so many seconds after the start."""
    known: dict[str, Any] = {
        "item_key": "k",
        "key_kind": "str",
        "attempt": 1,
        "outcome": "failed" if "kind" in changed else "succeeded",
        "started": START + timedelta(seconds=at),
        "duration": duration,
        "run": "r1",
        "workload": "w",
        "host": "h1",
        "worker": "w1",
        "batch": f"b{at}-{changed.get('worker')}-{changed.get('host')}-{changed.get('run')}",
        "cpu_user": 0.5,
        "cpu_system": 0.25,
        "peak_memory": 100 * MIB,
        "bytes_read": 1000,
        "bytes_written": 10,
        "bottleneck": "cpu",
        "rows": 2,
    }
    return known | changed


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows], schema=ATTEMPTS_SCHEMA)


def counted(name: str, *rows: dict[str, Any], parts: int = 2, **options: Any) -> dict[str, pa.Table]:
    """What a built-in report counts, in several partitions."""
    tables = [table(rows[part::parts]) for part in range(parts)]
    return tallied(tables, BUILTIN[name].needs(options))


def test_the_integral_of_slots_at_work_is_exact_at_any_width() -> None:
    """Whatever the width of bins, the time at work in a bin is what each attempt has of it."""
    chance = random.Random(5)
    spans = [(chance.uniform(0, 3000), chance.uniform(0.001, 300)) for _ in range(300)]
    found = counted("throughput", *(attempt(at, took, batch=str(at)) for at, took in spans), parts=7)
    for most in (1, 7, 60, 512):
        (line,) = lines(found["timeline"], most=most)
        assert len(line.begin) <= most
        width = line.begin[1] - line.begin[0] if len(line.begin) > 1 else 1 << 60
        start = START.timestamp() * 1e6
        for begin, busy, held in zip(line.begin, line.busy, line.held, strict=True):
            low, high = (begin - start) / 1e6, (begin + width - start) / 1e6
            expected = sum(max(0.0, min(high, at + took) - max(low, at)) for at, took in spans)
            assert busy == pytest.approx(expected, abs=1e-3)
            assert held == pytest.approx(expected, abs=1e-3)
        assert line.ended.sum() == 300


def test_a_long_run_beside_a_short_one_has_few_bins_and_leaves_the_short_one_its_own() -> None:
    """Each run has bins of its own width: a year does not blur what took a second."""
    year = [attempt(at * 86400, 10.0, run="year", batch=f"y{at}") for at in range(365)]
    second = [attempt(at / 100, 0.01, run="second", batch=f"s{at}") for at in range(100)]
    found = Timeline().merge([Timeline().count(table(year)), Timeline().count(table(second))])
    bins = {line.keys[0]: len(line.begin) for line in lines(found)}
    assert MOST_BINS / 2 < bins["year"] <= MOST_BINS
    assert 60 < bins["second"] < 70


def test_many_lines_have_fewer_bins_each() -> None:
    """Workers by the thousand do not make the timeline grow: bins become wider instead."""
    rows = [attempt(at, 5.0, worker=f"w{number}", batch=f"{number}-{at}") for number in range(8000) for at in (0, 50_000)]
    tally = Timeline(("worker",))
    found = tally.merge([tally.count(table(rows[:8000])), tally.count(table(rows[8000:]))])
    assert max(len(line.begin) for line in lines(found, ("worker",))) <= FEWEST_BINS


def test_attempts_that_never_began_are_in_no_bin_and_in_the_counts() -> None:
    """What the driver wrote of lost items has no time; it counts as an attempt."""
    rows = [attempt(0), attempt(0, None, started=None, kind="infrastructure", error="lost")]
    assert sum(throughput(counted("throughput", *rows))["ended"].to_pylist()) == 1
    (row,) = history(counted("history", *rows)).to_pylist()
    assert (row["attempts"], row["failed"]) == (2, 1)


def test_throughput_counts_what_ended_in_each_bin() -> None:
    """Rates, failures and rows are those of the attempts that ended in the bin."""
    rows = [attempt(0, 0.9, batch="a"), attempt(0, 1.9, batch="b", kind="permanent"), attempt(1, 0.8, batch="c")]
    found = throughput(counted("throughput", *rows), bins=2).to_pylist()
    assert [(row["ended"], row["failed"], row["rows"]) for row in found] == [(1, 0, 2), (2, 1, 4)]
    assert [row["seconds"] for row in found] == pytest.approx([1.0, 0.9])
    assert found[1]["rate"] == pytest.approx(2 / 0.9)
    assert found[0]["busy"] == pytest.approx(1.9)


def test_failures_are_told_by_kind_by_exception_and_by_host() -> None:
    """Each of the three has its counts and an example; a host's share is of its own attempts."""
    rows = [attempt(at, host="good") for at in range(6)]
    rows += [attempt(7, kind="timeout", error="timeout", message="too long", host="good", item_key="slow")]
    rows += [attempt(8 + at, kind="permanent", error="ValueError", message="x" * 900, host="bad", item_key="odd") for at in range(2)]
    found = failures(counted("failures", *rows)).to_pylist()
    assert [(row["by"], row["name"], row["attempts"]) for row in found] == [
        ("kind", "permanent", 2),
        ("kind", "timeout", 1),
        ("error", "ValueError", 2),
        ("error", "timeout", 1),
        ("host", "bad", 2),
        ("host", "good", 1),
    ]
    shares = {row["name"]: row["share"] for row in found if row["by"] == "host"}
    assert shares == {"bad": 1.0, "good": pytest.approx(1 / 7)}
    assert (found[0]["item_key"], len(found[0]["message"])) == ("odd", 300)


def test_too_many_groups_are_added_up_and_nothing_is_lost() -> None:
    """Of more exceptions than can be told the rarest are one group, and the sum stays right."""
    rows = [attempt(at, kind="permanent", error=f"E{at}" if at > 200 else "Often") for at in range(500)]
    small = Groups(**{**vars(FAILED), "most": 50})
    found = small.merge([small.count(table(rows[:250])), small.count(table(rows[250:]))])
    counts = dict(zip(found["error"].to_pylist(), found["attempts"].to_pylist(), strict=True))
    assert len(counts) <= 50
    assert counts["Often"] == 201
    assert sum(counts.values()) == 500
    assert OTHERS in counts


def test_quantiles_are_right_to_a_fortieth() -> None:
    """A histogram of sixteen bins an octave knows quantiles to 2.2 %."""
    values = np.random.default_rng(1).lognormal(3, 2, 20_000)
    bins, counts = np.unique(bins_of(values), return_counts=True)
    for share in (0.05, 0.5, 0.95):
        assert quantile(bins, counts, share) == pytest.approx(float(np.quantile(values, share)), rel=0.025)
    assert quantile(bins[:0], counts[:0], 0.5) is None


def test_idle_slot_time_is_told_apart_by_when_it_was() -> None:
    """Two slots: the second comes after a quarter of the run and has nothing to do in the last quarter; half of each batch is overhead."""
    rows = [attempt(2 * at, 2.0, batch=f"a{at}", worker="a") for at in range(20)]
    rows += [attempt(10 + 2 * at, 1.0, batch=f"b{at // 2}", worker="b") for at in range(10)]
    # a batch is one file, and so lies in one partition
    (line,) = lines(counted("throughput", *rows, parts=1)["timeline"])
    idle = idleness(line)
    assert idle.slots == 2
    assert idle.start == pytest.approx(10 / 80, abs=0.02)
    assert idle.tail == pytest.approx(10 / 80, abs=0.03)
    assert idle.busy == pytest.approx(50 / 80, abs=0.001)
    assert idle.busy + idle.around + idle.start + idle.middle + idle.tail == pytest.approx(1.0)
    assert idle.around == pytest.approx(5 / 80, abs=0.02)


def test_scaling_finds_where_it_bends() -> None:
    """Items take 1 s with one, two and four slots, and twice as long with eight: eight give no more than four."""
    rows, at = [], 0.0
    for slots, took in ((1, 1.0), (2, 1.0), (4, 1.0), (8, 2.0)):
        steps = range(int(40 / took))
        rows += [attempt(at + step * took, took, batch=f"{slots}-{slot}-{step}") for slot in range(slots) for step in steps]
        at += 40
    found = scaling(counted("scaling", *rows)).to_pylist()
    assert [(row["from"], row["to"]) for row in found] == [(1, 1), (2, 2), (3, 4), (5, 8)]
    assert [row["rate"] for row in found] == pytest.approx([1, 2, 4, 4], rel=0.02)
    assert [row["efficiency"] for row in found] == pytest.approx([1, 1, 1, 0.5], rel=0.02)
    assert [row["bends"] for row in found] == [False, False, False, True]


def test_scaling_by_workers_counts_workers_and_not_slots() -> None:
    """Two workers of two slots each are two."""
    rows = [attempt(at, 1.0, worker="a", batch=f"a{slot}{at}") for slot in range(2) for at in range(40)]
    rows += [attempt(20 + at, 1.0, worker="b", batch=f"b{slot}{at}") for slot in range(2) for at in range(20)]
    found = scaling(counted("scaling", *rows, by="workers"), by="workers").to_pylist()
    assert [row["to"] for row in found] == [1, 2]
    assert [row["rate"] for row in found] == pytest.approx([2, 4], rel=0.02)


def test_history_compares_a_run_with_the_one_before() -> None:
    """Runs come in their order, and one whose items take twice as long says so."""
    rows = [attempt(100 + 2 * at, 2.0, run="r2") for at in range(5)] + [attempt(at, 1.0, run="r1") for at in range(5)]
    rows += [attempt(300, 1.0, run="r2", attempt=2, kind="memory", host="h2")]
    found = history(counted("history", *rows)).to_pylist()
    assert [row["run"] for row in found] == ["r1", "r2"]
    assert found[1]["against_before"] == pytest.approx(11 / 6)
    assert (found[1]["attempts"], found[1]["succeeded"], found[1]["again"], found[1]["hosts"]) == (6, 5, 1, 2)
    assert found[0]["rate"] == pytest.approx(1.0)
    assert found[0]["cpu_hours"] == pytest.approx(5 * 0.75 / 3600)


def test_summary_has_one_row_and_none_without_attempts() -> None:
    """All that was counted in one row."""
    rows = [attempt(at) for at in range(9)] + [attempt(9, kind="timeout")]
    (row,) = summary(counted("summary", *rows)).to_pylist()
    assert (row["attempts"], row["kinds"], row["bottleneck"], row["slots"], row["runs"]) == (10, "1 timeout", "cpu", 1, 1)
    assert row["duration_p50"] == pytest.approx(1.0, rel=0.03)
    assert row["busy"] == pytest.approx(1.0)
    assert summary(counted("summary")).num_rows == 0


def test_every_report_has_its_columns_without_attempts_too() -> None:
    """An empty dataset is no error."""
    for name, builtin in BUILTIN.items():
        options = {"price": 1.0} if name == "cost" else {}
        assert builtin.finish(counted(name), **options).num_rows == 0


def test_cost_is_hours_of_hosts_times_their_price() -> None:
    """A host is paid from its first begin to its last end; what failed is wasted; the first pattern that fits counts."""
    rows = [attempt(0, 1800, host="gpu-1"), attempt(1800, 1800, host="gpu-1", kind="crash"), attempt(0, 3600, host="cpu-1")]
    (row,) = cost(counted("cost", *rows), price={"gpu-*": 3.0, "*": 1.0}).to_pylist()
    assert row["node_hours"] == pytest.approx(2.0)
    assert row["cost"] == pytest.approx(4.0)
    assert row["cost_per_1000"] == pytest.approx(2000.0)
    assert row["wasted"] == pytest.approx(0.25)
    with pytest.raises(UsageError, match="no price for host 'cpu-1'"):
        cost(counted("cost", *rows), price={"gpu-*": 3.0})


def test_resources_are_told_for_each_host_and_for_all() -> None:
    """The row of all hosts adds up the rows of each; versions are told apart."""
    rows = [attempt(at, host="h1") for at in range(10)] + [
        attempt(at, host="h2", peak_memory=400 * MIB, bottleneck="io") for at in range(6)
    ]
    rows += [attempt(50 + at, version="2", run="r2") for at in range(5)]
    found = {(row["version"], row["host"]): row for row in resources(counted("resources", *rows), memory="4 GiB").to_pylist()}
    assert {key: row["attempts"] for key, row in found.items()} == {
        (None, ALL): 16, (None, "h1"): 10, (None, "h2"): 6, ("2", ALL): 5, ("2", "h1"): 5,
    }  # fmt: skip
    assert found[None, ALL]["cores"] == pytest.approx(0.75)
    assert found[None, ALL]["memory_max"] == 400 * MIB
    assert found[None, "h2"]["bottleneck"] == "io"
    assert "items ask for 4096 MiB and the largest peak was 400 MiB: memory='480 MiB'" in found[None, ALL]["advice"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"memory_kills": 2, "memory": 100 * MIB}, "killed for memory"),
        ({"memory": 110 * MIB}, "is close to the 110 MiB"),
        ({}, "memory='120 MiB' holds all peaks"),
        ({"cores": 3.9}, "cpus=4"),
        ({"cores": 0.1, "bottleneck": "mixed"}, "items wait"),
        ({"bottleneck": "io"}, "storage"),
        ({"around": 0.5, "duration_p50": 0.0001}, "group=64"),
        ({"tail": 0.4, "slots": 4}, "40% of slot time is idle at the end"),
        ({"timeouts": 3}, "3 attempts were killed at their timeout"),
    ],
)
def test_advice_names_the_figure_and_the_cure(changed: dict[str, Any], said: str) -> None:
    """Each rule speaks when its figure is past its bound."""
    use = Use(**{"attempts": 100, "memory_max": 100 * MIB, "memory_p95": 90 * MIB, "duration_p50": 1.0, **changed})
    assert any(said in line for line in advice(use))


def test_advice_is_silent_where_all_is_well_or_little_is_known() -> None:
    """A fitting request and busy slots need no words; nor do four attempts."""
    fits = {"memory": 130 * MIB, "memory_max": 100 * MIB, "cores": 0.95, "bottleneck": "cpu", "slots": 4, "busy": 0.97, "around": 0.02}
    assert advice(Use(attempts=100, **fits)) == []
    assert advice(Use(attempts=4, memory_kills=4)) == []
    assert advice(Use(attempts=100, cores=1.6, duration_p50=0.00002)) == []


def test_partitions_of_a_dask_dataframe_give_what_one_table_gives() -> None:
    """Counting apart and meeting in a tree changes no figure."""
    rows = [
        attempt(at / 7, 0.5, batch=str(at), kind="timeout") if at % 9 == 0 else attempt(at / 7, 0.5, batch=str(at)) for at in range(200)
    ]
    parts = [table(rows[start : start + 10]) for start in range(0, 200, 10)]
    frame = dd.from_map(lambda part: to_pandas(part), parts, meta=to_pandas(parts[0].slice(0, 0)))
    for name in ("summary", "throughput", "failures", "resources", "scaling"):
        tallies = BUILTIN[name].needs({})
        there = BUILTIN[name].finish(gather(frame, tallies)).to_pylist()
        here = BUILTIN[name].finish(tallied([table(rows)], tallies)).to_pylist()
        assert len(there) == len(here) > 0
        for one, other in zip(there, here, strict=True):
            assert {key: _about(value) for key, value in one.items()} == {key: _about(value) for key, value in other.items()}, name


def _about(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value


class _NoRows:
    """A dataset that is never asked."""


def test_a_wrong_name_or_option_says_which_there_are() -> None:
    """Typing mistakes are told with what is near, before anything is read."""
    with pytest.raises(UsageError, match=r"did you mean 'scaling'\? There are summary, throughput"):
        report(_NoRows(), "scalling")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"bin= is no option of the report 'throughput': it has run=, bins="):
        report(_NoRows(), "throughput", bin=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs price="):
        report(_NoRows(), "cost")  # type: ignore[arg-type]
