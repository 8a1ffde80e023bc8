"""Compaction, vacuum and deletion on real files, beside real runs and readers in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dcompute as dc
from tests.processes import DaskProcesses, dask_processes, until

READER = Path(__file__).parents[1] / "programs" / "reader.py"
#: Seconds; most reads on a busy machine are quicker.
RETENTION = 2
READERS = 20


def halves(x: int) -> list[dict[str, int]]:
    """Two rows an item."""
    return [{"x": x, "half": 0}, {"x": x, "half": 1}]


def expected(count: int) -> Counter[tuple[str, int, int]]:
    return Counter((str(x), x, half) for x in range(count) for half in (0, 1))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readers_see_whole_items_beside_runs_compaction_and_vacuum(tmp_path: Path, rounds: Any) -> None:
    """Twenty readers, whatever is written, merged and removed meanwhile: each read is one entry's rows, none missing, double or torn."""
    dataset, stop = tmp_path / "dataset", tmp_path / "stop"
    processes = rounds(2, READERS)
    command = [sys.executable, str(READER), str(dataset), str(stop), str(RETENTION), str(READERS // processes)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(processes)]
    compacted = removed = 0
    count = 0
    try:
        for _ in range(rounds(3, 8)):
            count += 12
            run = dc.map(halves, range(count), dataset, batch_size=1)
            while not run.wait(timeout=0.1, progress="quiet"):
                compacted, removed = upkeep(dataset, compacted, removed)
            compacted, removed = upkeep(dataset, compacted, removed)
    finally:
        stop.touch()
        answers = [reader.communicate(timeout=60) for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * len(readers), [error for _, error in answers]
    said = [one for answer, _ in answers for one in json.loads(answer)]
    assert [one["errors"] for one in said] == [[]] * READERS
    assert all(one["reads"] > one["slow"] for one in said), said
    assert all(one["positions"] > 1 for one in said), said
    assert all(one["items"] == count for one in said), said
    assert compacted > count
    assert removed > 0
    truth(dataset, count)


def upkeep(dataset: Path, compacted: int, removed: int) -> tuple[int, int]:
    """One round of compaction and vacuum; the sums so far."""
    if not (dataset / "dataset.json").exists():
        return compacted, removed
    opened = dc.open(dataset)
    return compacted + opened.compact(all=True).replaced, removed + len(opened.vacuum(RETENTION).removed)


def truth(dataset: Path, count: int) -> None:
    opened = dc.open(dataset)
    opened.compact(all=True)
    opened.vacuum(0)
    assert rows_of(opened.results().compute(scheduler="sync")) == expected(count)
    import pandas as pd

    assert rows_of(pd.read_parquet(dataset / "results")) == expected(count)


def rows_of(frame: Any) -> Counter[tuple[str, int, int]]:
    return Counter(zip(frame["item_key"].tolist(), frame["x"].tolist(), frame["half"].tolist(), strict=True))


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty items; ten were done again with another parameter, five were deleted, and a column came late."""
    dataset = tmp_path_factory.mktemp("upkeep") / "dataset"

    def row(x: int, late: bool) -> dict[str, Any]:
        return {"x": x, **({"late": f"{x}", "list": [x, x]} if late else {})}

    dc.map(row, range(30), dataset, params={"late": False}, batch_size=3, name="row").wait(progress="quiet")
    dc.map(row, range(10), dataset, params={"late": True}, batch_size=3, name="row").wait(progress="quiet")
    dc.open(dataset).delete([str(x) for x in range(25, 30)])
    return dataset


def test_the_files_alone_are_the_truth_for_every_reader(three_runs: Path) -> None:
    """After compact --all and vacuum --retention 0 pandas, Arrow, Polars and DuckDB read from results/ what the dataset has."""
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as ds

    opened = dc.open(three_runs)
    expected = sorted((x, str(x) if x < 10 else None) for x in range(25))
    by_log = opened.results().compute(scheduler="sync")
    assert sorted(zip(by_log["x"].tolist(), by_log["late"].astype(object).where(by_log["late"].notna(), None), strict=True)) == expected
    opened.compact(all=True, sort_by="x")
    opened.vacuum(0)
    files = f"{three_runs}/results/*.parquet"
    frame = pd.read_parquet(three_runs / "results")
    assert sorted(zip(frame["x"], frame["late"].astype(object).where(frame["late"].notna(), None), strict=True)) == expected
    table = ds.dataset(three_runs / "results").to_table()
    assert sorted(zip(table["x"].to_pylist(), table["late"].to_pylist(), strict=True)) == expected
    assert sorted(pl.read_parquet(files).select("x", "late").rows()) == expected
    with duckdb.connect() as connection:
        assert sorted(connection.sql(f"select x, late from '{files}'").fetchall()) == expected  # type: ignore[arg-type]


def test_deleted_items_are_done_again(tmp_path: Path) -> None:
    """The same line executes what was deleted, and nothing else."""
    dataset, trace = tmp_path / "dataset", tmp_path / "trace"

    def noted(x: int, trace: str) -> int:
        with Path(trace).open("a") as file:
            file.write(f"{x}\n")
        return 2 * x

    def run() -> Any:
        run = dc.map(noted, range(20), dataset, params={"trace": str(trace)}, batch_size=5, name="noted")
        run.wait(progress="quiet")
        return run

    first = run()
    opened = dc.open(dataset)
    opened.delete(["3", "17"])
    assert opened.status().succeeded == 18
    assert run().summary().succeeded == 2
    assert Counter(trace.read_text().split())["3"] == 2
    assert sorted(dc.open(dataset).results().compute(scheduler="sync")["value"].tolist()) == [2 * x for x in range(20)]
    assert opened.refresh().delete(run=first.id).items == 18
    assert run().summary().succeeded == 18
    assert len(trace.read_text().split()) == 40


def test_a_run_merges_what_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a run with very many small parts there are few."""
    monkeypatch.setattr("dcompute.dataset.compaction.LEAST_AFTER_RUN", 20)
    run = dc.map(halves, range(25), tmp_path / "dataset", batch_size=1)
    run.wait(progress="quiet")
    opened = dc.open(tmp_path / "dataset")
    assert len(list(opened.state.counted_parts())) == 1
    assert rows_of(run.results().compute(scheduler="sync")) == expected(25)
    # what a run reads takes what a dataset's own reading takes
    assert sorted(run.results(["x"], [("half", "==", 1), ("x", "<", 3)]).compute(scheduler="sync").itertuples(index=False)) == [
        (0,),
        (1,),
        (2,),
    ]
    assert len(run.attempts(["item_key"], [("item_key", "==", "7")]).compute(scheduler="sync")) == 1
    assert len(run.failures(columns=["kind"]).compute(scheduler="sync")) == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


def test_a_cluster_compacts(tmp_path: Path, cluster: DaskProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a client each file is made by a task; rows are what they were, and nothing is left at the scheduler."""
    from distributed import Client

    dc.map(halves, range(40), tmp_path / "dataset", batch_size=1).wait(progress="quiet")
    opened = dc.open(tmp_path / "dataset")
    monkeypatch.setattr("dcompute.dataset.compaction.grouped", lambda parts: [tuple(parts)[at::6] for at in range(6)])
    with Client(cluster.address, set_as_default=False) as client:
        done = opened.compact(all=True, client=client)
        until(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0, 10, "no task is left")
    assert (done.replaced, done.written) == (40, 6)
    assert rows_of(opened.results().compute(scheduler="sync")) == expected(40)
