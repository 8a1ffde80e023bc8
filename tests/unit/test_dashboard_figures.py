from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dcompute.dashboard.figures import CLASS_COLUMNS, MOST_POINTS, MOST_ROWS, MOST_RUNS, MOST_TEXT, RUN_COLUMNS, Watch
from dcompute.demand import SILENT_SECONDS

CLASS = {"cpus": 2.0, "gpus": 1.0, "memory": 3 << 30, "resources": {"SCRATCH": 5.0}, "uses": {"licence": 1.0}}
RUN = {
    "number": 1, "workload": "flux", "dataset": "s3://lab/flux", "state": "running", "host": "head", "weight": 2.0, "rate": 12.345,
    "counts": {"succeeded": 7, "failed": 1, "retrying": 2, "running": 3},
    "classes": [{**CLASS, "priority": 10.0, "batches": 9, "flying": 4}, {"cpus": 1.0, "batches": 1, "flying": 1, "priority": 0}],
}  # fmt: skip


def watched(runs: Any, scaling: Any = None, now: float = 100.0) -> Watch:
    watch = Watch()
    watch.look(runs, scaling, now)
    return watch


def test_a_run_is_a_row() -> None:
    """Its counts, its rate, and of all its classes what is and what could be in flight."""
    table = watched({"r1": RUN}).runs()
    assert {name: values for name, values in table.items() if name not in ("workload", "dataset", "host")} == {
        "run": ["r1"], "state": ["running"], "succeeded": [7], "failed": [1], "retrying": [2], "running": [3], "rate": [12.35],
        "flying": [5], "wanted": [10], "weight": [2.0],
    }  # fmt: skip


def test_a_class_is_a_row() -> None:
    """With what it asks for, named limits too."""
    table = watched({"r1": RUN}).classes()
    assert table["asks"] == ["CPU=2, GPU=1, MEMORY=3.00 GiB, SCRATCH=5, licence=1", "CPU=1"]
    assert (table["priority"], table["flying"], table["wanted"]) == ([10.0, 0.0], [4, 1], [9, 1])


def test_a_run_that_is_over_or_dead_is_not_shown() -> None:
    """One whose name has nothing any more goes at once, one that tells nothing new after a while; its line stays for a time."""
    watch = watched({"a": RUN, "b": RUN, "c": RUN})
    watch.look({"a": RUN, "b": {**RUN, "number": 2}, "c": None}, None, 100.0 + SILENT_SECONDS)
    assert watch.runs()["run"] == ["b"]
    assert set(watch.lines) == {"a", "b", "c"}


def test_what_scales_the_cluster_is_a_line() -> None:
    """How many workers are there, asked for and wanted, and why there are not more."""
    said = {"have": 1, "asked": 2, "want": 3, "most": 4, "impossible": ["needs GPU=1."], "trouble": "Slurm takes none"}
    assert watched({}, said).scaling() == "Workers: 1 there, 2 asked for, 3 wanted, 4 at most. needs GPU=1. Slurm takes none"
    assert watched({}).scaling() == ""


def test_all_is_bounded() -> None:
    """However many runs, classes, looks and letters there are."""
    long = {**RUN, "workload": "w" * 10_000, "classes": [CLASS] * 1000}
    watch = watched({f"r{number}": long for number in range(500)})
    for second in range(MOST_POINTS + 10):
        watch.look({"r1": {**long, "number": second}}, None, 200.0 + second)
    watch.look({f"r{number}": {**long, "number": -1} for number in range(500)}, None, 10_000.0)
    assert len(watch.runs()["run"]) == MOST_RUNS
    assert len(watch.classes()["run"]) == MOST_ROWS
    assert len(watch.lines) == MOST_RUNS
    assert max(len(line.times) for line in watch.lines.values()) <= MOST_POINTS
    assert max(map(len, watch.runs()["workload"])) == MOST_TEXT


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RUN, *CLASS, "x"]), inner, max_size=4),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING)
def test_whatever_stands_there_gives_tables(runs: Any, scaling: Any) -> None:
    """Another version, or somebody else, may have written anything under these names."""
    watch = watched({"r": runs, "s": {**RUN, "classes": runs, "counts": scaling}}, scaling)
    for table, columns in ((watch.runs(), RUN_COLUMNS), (watch.classes(), CLASS_COLUMNS)):
        assert tuple(table) == columns
        assert len({len(values) for values in table.values()}) == 1
    assert isinstance(watch.scaling(), str)
