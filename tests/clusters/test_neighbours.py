"""Several classes of work on one cluster: none stands in the way of another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

import dcompute as dc
from tests.clusters.conftest import in_process
from tests.processes import until

#: Seconds of one batch that uses the GPU, and what a busy machine adds.
GPU_BATCH, SLACK = 1.5, 0.5


def written(dataset: Path) -> int:
    """How many batches of a run have their mark."""
    return len(list(dataset.glob("attempts/*.parquet")))


def nap(x: int, seconds: float) -> int:
    time.sleep(seconds)
    return x


class Times(WorkerPlugin):  # type: ignore[misc]
    """Notes when each task came to its worker, and when it began there."""

    name = "times"

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self.began: dict[str, float] = {}

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        if finish == "executing":
            self.began.setdefault(str(key), time.monotonic())
        self.came.setdefault(str(key), time.monotonic())


def test_a_backlog_for_gpus_delays_other_work_by_one_batch_at_most(tmp_path: Path) -> None:
    """One GPU, and eight batches for it: items that need none begin on the other slot soon after they were sent, each of them."""
    with in_process({"nthreads": 2, "resources": {"CPU": 2, "GPU": 1}}) as client:
        client.register_plugin(Times())
        work = dc.workload(nap)
        backlog = dc.map(work.options(gpus=1), range(8), tmp_path / "gpu", params={"seconds": GPU_BATCH}, batch_size=1, client=client)
        until(lambda: written(tmp_path / "gpu"), 60, "the first batch of the backlog")
        run = dc.map(work, range(12), tmp_path / "cpu", params={"seconds": 0.01}, batch_size=1, client=client)
        assert run.wait(60, progress="quiet")
        left = 8 - written(tmp_path / "gpu")
        assert backlog.wait(90, progress="quiet")
        ((came, began),) = client.run(lambda dask_worker: (dask_worker.plugins["times"].came, dask_worker.plugins["times"].began)).values()
    assert left >= 1, "the backlog was over first"
    delays = [at - came[key] for key, at in began.items() if key.startswith(f"nap-{run.id}-")]
    assert len(delays) >= 12
    assert max(delays) < GPU_BATCH + SLACK, sorted(delays)
