"""Who rewrites a batch that does not join the schema: workers that get batches, and others when these are gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

import dcompute as dc
from tests.integration.test_newcomers import added, bare, workers
from tests.processes import DaskProcesses, until

__all__ = ["bare"]  # a fixture


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    """A scheduler without workers."""
    cluster = DaskProcesses(tmp_path / "cluster")
    yield cluster
    cluster.close()


class Disagreement:
    """A run whose items wait for the test, all at work, and then return one of two types that cannot meet.

    Whoever comes second is rewritten, and fails.
    """

    def __init__(self, cluster: DaskProcesses, folder: Path, items: int = 2) -> None:
        gate = self.gate = folder / "gate"
        self.items = items

        def disagree(x: int) -> dict[str, object]:
            folder.joinpath(f"begun-{x}").touch()
            while not gate.exists():
                time.sleep(0.01)
            return {"value": x if x % 2 else "text"}

        self.run = dc.map(disagree, range(items), folder / "d", client=cluster.address, batch_size=1)
        until(lambda: len(list(folder.glob("begun-*"))) == items, 30, "all items at work")

    def finish(self) -> None:
        """One half has succeeded, one failed."""
        assert self.run.wait(60, progress="quiet")
        summary = self.run.summary()
        assert (summary.succeeded, summary.failed_by_kind) == (self.items // 2, {"permanent": self.items // 2})


def test_a_worker_without_dcompute_rewrites_nothing(
    cluster: DaskProcesses, bare: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has nothing to do, and answers at once: Dask would send it most of what any worker may do."""
    with added(cluster, tmp_path, "--no-nanny", "--nthreads", "8"):
        run = Disagreement(cluster, tmp_path, 8)
        with added(cluster, bare, "--no-nanny", "--nthreads", "8") as other:
            until(lambda: other in run.run.status().note, 20, "the notice")
            run.gate.touch()
            run.finish()
    assert [record.getMessage() for record in caplog.records if "was lost" in record.getMessage()] == []


def test_a_rewrite_whose_workers_are_gone_goes_to_another(cluster: DaskProcesses, tmp_path: Path) -> None:
    free = tmp_path / "free"

    def hog(path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    with Client(cluster.address, set_as_default=False) as client:
        with (
            added(cluster, tmp_path, "--no-nanny", "--resources", "HOG=1") as one,
            added(cluster, tmp_path, "--no-nanny", "--resources", "HOG=1") as two,
        ):
            run = Disagreement(cluster, tmp_path)
            hogs = [
                client.submit(hog, str(free), resources={"HOG": 1}, workers=[each], priority=2_000_000, pure=False) for each in (one, two)
            ]
            until(lambda: all(len(tasks) == 2 for tasks in client.processing().values()), 20, "a task behind each item")
            run.gate.touch()
            until(
                lambda: any("rewrite" in key for tasks in client.processing().values() for key in tasks),
                20,
                "the rewrite behind one of them",
            )
        with added(cluster, tmp_path, "--no-nanny"):
            run.finish()
        del hogs
    assert not workers(cluster)
