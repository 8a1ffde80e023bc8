"""Stragglers on a real cluster: one sick worker does not hold the end of a run up, and nothing of the two executions is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client

import dcompute as dc
from dcompute.errors import RunCancelled
from tests.processes import DaskProcesses, dask_processes, until

ITEMS = 12
BATCH = 2
STUCK = 1  # the second item of the first batch
PATIENCE = 5.0
#: A cancelled run ends so soon (seconds) where both tasks are ended; receipts of tasks that go on are waited for longer.
SOON = 8.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and two workers of one slot each."""
    with dask_processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


def work(x: int, trace: str, stuck: int, frozen: int) -> int:
    """One item freezes its process, as often as it is told to, as if its host were sick."""
    import os
    import signal

    with open(trace, "a+") as file:
        file.write(f"{x} {os.getpid()}\n")
        file.seek(0)
        before = [line for line in file if line.split()[0] == str(x)]
    if x == stuck and len(before) <= frozen:
        os.kill(os.getpid(), signal.SIGSTOP)
    return 2 * x


def begin(cluster: DaskProcesses, folder: Path, frozen: int) -> dc.Run:
    params = {"trace": str(folder / "trace"), "stuck": STUCK, "frozen": frozen}
    return dc.map(work, range(ITEMS), folder / "d", params=params, batch_size=BATCH, client=cluster.address)


def executions(folder: Path) -> list[int]:
    """Processes in which the item began that freezes."""
    trace = folder / "trace"
    lines = trace.read_text().splitlines() if trace.exists() else []
    return [int(line.split()[1]) for line in lines if line.split()[0] == str(STUCK)]


def nothing_is_left(cluster: DaskProcesses, pids: list[int], folder: Path) -> None:
    """No task at the scheduler or on a worker, no process of those, no results part that does not count."""
    with Client(cluster.address, set_as_default=False) as client:

        def tasks() -> int:
            at_workers = client.run(lambda dask_worker: len(dask_worker.state.tasks) + len(dask_worker.state.executing))
            return int(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))) + sum(at_workers.values())

        until(lambda: not tasks(), 15, "the end of all tasks")
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10, "the end of the frozen process")
    counted = dc.open(folder / "d").attempts().compute()["batch"].nunique()
    until(lambda: len(list((folder / "d" / "results").iterdir())) == counted, 10, "the end of the loser's results part")


def test_a_frozen_execution_does_not_hold_the_run_up(cluster: DaskProcesses, tmp_path: Path) -> None:
    """Its batch is executed on the other worker too; every item is there once, and what the first had finished is taken away."""
    began = time.monotonic()
    run = begin(cluster, tmp_path, frozen=1)
    assert run.wait(60, progress="quiet")
    assert PATIENCE < time.monotonic() - began < PATIENCE + 15
    first, second = executions(tmp_path)
    attempts = run.attempts().compute()
    assert Counter(attempts["item_key"]) == Counter(str(x) for x in range(ITEMS))
    assert set(attempts["outcome"]) == {"succeeded"}
    assert sorted(run.results().compute()["value"]) == [2 * x for x in range(ITEMS)]
    assert run.summary().succeeded == ITEMS
    assert second in set(attempts[attempts["item_key"] == str(STUCK)]["pid"])
    nothing_is_left(cluster, [first], tmp_path)


def test_a_cancel_ends_both(cluster: DaskProcesses, tmp_path: Path) -> None:
    """The twin freezes too: both are ended at once, and what was finished beside the frozen item counts once."""
    run = begin(cluster, tmp_path, frozen=2)
    pids = until(lambda: len(executions(tmp_path)) == 2 and executions(tmp_path), 60, "the twin")
    told = time.monotonic()
    run.cancel()
    with pytest.raises(RunCancelled):
        run.wait(30, progress="quiet")
    assert time.monotonic() - told < SOON
    assert sorted(run.results().compute()["value"]) == [2 * x for x in range(ITEMS) if x != STUCK]
    nothing_is_left(cluster, pids, tmp_path)
