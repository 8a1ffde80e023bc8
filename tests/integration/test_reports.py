"""Reports as a whole: three stages over raw records, kills at each step, a cluster, and two at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import dask
import pytest

import dcompute as dc
from dcompute.errors import ReportOvertaken
from tests.programs import etl

ROOT = Path(__file__).resolve().parents[2]
Python = Callable[..., "CompletedProcess[str]"]


def counts_add_up(report: dc.Report, records: int) -> None:
    """What came in went out, or was dropped for the reason that the record has."""
    version = report.newest()
    assert version is not None
    (came,) = version.rows_in.values()
    assert dict(version.dropped) == etl.expected(report.name, records)
    assert came == version.rows + sum(version.dropped.values()) == len(report.to_arrow()) + sum(version.dropped.values())


@pytest.mark.timeout(900)
def test_three_stages_over_corrupt_records(tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """Of records corrupt in eight ways each stage counts what it drops; run twice, anew or in increments the rows are the same."""
    records, parts = rounds(20_000, 1_000_000), rounds(4, 100)
    raw = str(tmp_path / "raw")
    scene = etl.write_raw(raw, records, parts)
    parsed, cleaned, metrics = etl.stages(raw)
    assert metrics.run(upstream=True).is_new
    for report in (parsed, cleaned):
        counts_add_up(report, records)
    good = cleaned.newest().rows  # type: ignore[union-attr]
    assert metrics.newest().rows_in == {"clean": good}  # type: ignore[union-attr]
    assert good == sum(etl.rows_of(metrics)["n"].to_pylist()) == records - sum(bool(etl.line(number)[1]) for number in range(records))
    before = [etl.rows_of(report) for report in (cleaned, metrics)]
    assert not metrics.run(upstream=True).is_new
    assert metrics.run(upstream=True, full=True).is_new
    assert all(etl.rows_of(report).equals(rows) for report, rows in zip((cleaned, metrics), before, strict=True))
    etl.add_raw(scene, records, records // 10, 2)
    scene.publish()
    assert metrics.run(upstream=True).computed == 1
    counts_add_up(cleaned, records + records // 10)
    incremental = etl.rows_of(metrics)
    metrics.run(full=True)
    assert etl.rows_of(metrics).equals(incremental)


@pytest.mark.timeout(3600)
def test_a_killed_run_leaves_whole_versions_and_is_done_again(tmp_path: Path, python: Python, rounds: Callable[[int, int], int]) -> None:
    """Killed before any change of the storage, each stage has its last version or none, and the next run gives the same rows."""
    etl.write_raw(str(tmp_path / "template"), rounds(800, 1_000_000), rounds(2, 100))
    (tmp_path / "folder").mkdir()
    arguments = (tmp_path / "template", tmp_path / "folder", rounds(9, 5))
    done = python("-m", "tests.integration.killed_report", *arguments, within=rounds(300, 3600), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) >= rounds(3, 6)
    whole = told[-1]["before"]
    for one in told:
        assert one["after"] == whole, one["change"]
        assert all(stage in (None, of_whole) for stage, of_whole in zip(one["before"], whole, strict=True)), one["change"]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers in this process."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def where(_frame: Any) -> Any:
    """The address of the worker that executes this."""
    import pandas as pd
    from distributed import get_worker

    return pd.DataFrame({"worker": [get_worker().address]})


def test_a_report_is_computed_on_the_workers(tmp_path: Path, client: Any) -> None:
    """With a client the workers compute and write; the counts are those of this process."""
    import pandas as pd

    raw = str(tmp_path / "raw")
    etl.write_raw(raw, 400, 4)
    parsed, cleaned, metrics = etl.stages(raw)
    for report in (parsed, cleaned, metrics):
        report.run(client)
    for report in (parsed, cleaned):
        counts_add_up(report, 400)
    meta = pd.DataFrame({"worker": pd.Series([], dtype="string[pyarrow]")})
    placed = dc.Report("placed", raw, lambda raw: raw.map_partitions(where, meta=meta))
    with dask.config.set(scheduler="sync"):  # the client that is given counts before a setting
        placed.run(client)
    assert set(placed.to_pandas().worker) <= set(client.scheduler_info()["workers"])


def test_of_two_runs_at_once_one_wins(tmp_path: Path) -> None:
    """Both compute, one publishes; the other says who did, and leaves nothing behind."""
    etl.write_raw(str(tmp_path / "raw"), 400, 2)
    together = threading.Barrier(2)

    def slow(raw: Any) -> Any:
        together.wait(30)
        return raw

    report = dc.Report("r", str(tmp_path / "raw"), slow)

    def run(_number: int) -> str:
        try:
            return "won" if report.run().is_new else "up to date"
        except ReportOvertaken as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(run, range(2)))
    assert "nothing of this run does" in said[0]
    assert said[1] == "won"
    version = report.newest()
    assert version is not None
    assert report.shelf.store.names("00000000000000000001") == sorted(file.name for file in version.files)
