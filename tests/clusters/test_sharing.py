"""Runs of several processes on one cluster: what each gets of its slots and of named limits, and what is left of one that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dcompute as dc
from tests.processes import DaskProcesses, kill, until
from tests.programs.neighbour import begin

SLOTS = 4
#: So many starts of each run, until both know of each other and what was sent before is done.
SETTLED = 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler that gives leases back soon, and two workers of two slots each, with a GPU as Dask's resources say it."""
    from distributed import Client

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL", "500ms")
        processes = DaskProcesses(tmp_path_factory.mktemp("cluster"))
        try:
            for _ in range(2):
                processes.add_worker("--nthreads", "2", "--resources", "CPU=2,GPU=1")
            with Client(processes.address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield processes
        finally:
            processes.close()


def neighbour(cluster: DaskProcesses, folder: Path, name: str, items: int, seconds: float, **options: Any) -> subprocess.Popen[bytes]:
    """A run in a process of its own, whose leases end soon after it."""
    words = [cluster.address, folder, name, items, seconds, json.dumps(options)]
    program = [sys.executable, "-m", "tests.programs.neighbour", *map(str, words)]
    return subprocess.Popen(program, cwd=Path(__file__).parents[2])


def starts(folder: Path) -> list[str]:
    """Whose items began, in their order."""
    trace = folder / "trace"
    return [line.split()[0] for line in trace.read_text().splitlines()] if trace.exists() else []


def test_slots_go_by_weight_across_processes(cluster: DaskProcesses, tmp_path: Path) -> None:
    """Of two runs that could each use all slots, one of weight 3 has three times as many batches as one of weight 1."""
    other = neighbour(cluster, tmp_path, "light", 400, 0.25)
    try:
        run = begin(cluster.address, str(tmp_path), "heavy", 400, 0.25, weight=3)
        until(lambda: min(starts(tmp_path).count(name) for name in ("light", "heavy")) >= SETTLED, 90, "both at work")
        # what the first of them had in flight beyond its share ends before
        first = len(starts(tmp_path)) + 6 * SLOTS
        until(lambda: len(starts(tmp_path)) >= first + 80, 90, "80 more")
        heavy = starts(tmp_path)[first : first + 80].count("heavy")
        run.cancel()
    finally:
        kill(other.pid)
        other.wait()
    # 60 are three in four; more and fewer, where a loaded machine holds one of the drivers up
    assert 48 <= heavy <= 72


def test_limits_hold_across_processes_and_come_back_from_a_killed_one(cluster: DaskProcesses, tmp_path: Path, monkeypatch: Any) -> None:
    """Items fail where more are at work at once than the limit says: none does, of two runs that share it, one of which is killed."""
    import dask

    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT", "3s")
    options: dict[str, Any] = {"limits": {"licence": 2}, "uses": {"licence": 1}, "at_once": 2}
    other = neighbour(cluster, tmp_path, "other", 1000, 0.3, **options)
    with dask.config.set({"distributed.scheduler.locks.lease-timeout": "3s"}):
        until(lambda: starts(tmp_path).count("other") >= 5, 60, "the other at work")
        run = begin(cluster.address, str(tmp_path), "mine", 25, 0.3, **options)
        until(lambda: starts(tmp_path).count("mine") >= 5, 60, "both at work")
        assert "other" in starts(tmp_path)[-20:]
        kill(other.pid)
        other.wait()
        assert run.wait(90, progress="quiet")
    assert run.summary().failed == 0
    assert dc.open(tmp_path / "other").status().failed == 0


def test_what_is_urgent_goes_before_what_waits(cluster: DaskProcesses, tmp_path: Path) -> None:
    """While an urgent run has work, of another only those batches go that were on their way; asked to be urgent, a run at work is."""
    first = begin(cluster.address, str(tmp_path), "first", 400, 0.25)
    until(lambda: len(starts(tmp_path)) >= SETTLED, 60, "the first at work")
    urgent = begin(cluster.address, str(tmp_path), "urgent", 30, 0.25, priority="urgent")
    assert urgent.wait(90, progress="quiet")
    order = starts(tmp_path)
    settled = [place for place, name in enumerate(order) if name == "urgent"]
    assert order[settled[SETTLED] : settled[-1]].count("first") <= SLOTS
    second = begin(cluster.address, str(tmp_path), "second", 400, 0.25, priority="high")
    until(lambda: starts(tmp_path).count("second") >= SETTLED, 60, "the second at work")
    until(lambda: second.id in str(first.explain()), 15, "word of the other run")
    assert dc.open(tmp_path / "first").reprioritize("urgent") == first.id
    place = len(starts(tmp_path))
    until(lambda: starts(tmp_path)[place:].count("first") >= SETTLED, 60, "the first again")
    first.cancel()
    second.cancel()
    first._driver.ended.wait(30)
    second._driver.ended.wait(30)


def test_a_backlog_for_gpus_does_not_hold_cpu_work_up(cluster: DaskProcesses, tmp_path: Path) -> None:
    """A run with many items for the two GPUs leaves the two other slots to another run from its first batch to its last."""
    gpu = begin(cluster.address, str(tmp_path), "gpu", 400, 0.25, gpus=1)
    until(lambda: len(starts(tmp_path)) >= SETTLED, 60, "the GPUs at work")
    cpu = begin(cluster.address, str(tmp_path), "cpu", 30, 0.25)
    assert cpu.wait(60, progress="quiet")
    order = starts(tmp_path)
    places = [place for place, name in enumerate(order) if name == "cpu"]
    # as many GPUs as other slots: one start of the one for each of the other; twice that, where a loaded machine starts children slowly
    assert order[places[2] : places[-1]].count("gpu") <= 2 * len(places)
    gpu.cancel()
    gpu._driver.ended.wait(30)


def test_a_worker_is_waited_for_as_long_as_was_said(cluster: DaskProcesses, tmp_path: Path) -> None:
    """What no worker can do is an error that says what was waited for, and for how long; one that comes in time does the work."""
    run = begin(cluster.address, str(tmp_path), "never", 1, 0.0, gpus=2, wait_for_workers="2 s")
    with pytest.raises(dc.errors.ResourceError, match=r"needs GPU=2; the largest worker has GPU=1.*waited 2 s for such a worker"):
        run.wait(30, progress="quiet")
    run = begin(cluster.address, str(tmp_path), "soon", 1, 0.0, gpus=2, wait_for_workers="60 s")
    until(lambda: "waiting for a worker: needs GPU=2" in run.status().note, 20, "the note")
    assert "needs GPU=2" in str(until(lambda: dc.open(tmp_path / "soon").explain().note, 20, "the note in the dataset"))
    nanny = cluster.add_worker("--resources", "CPU=1,GPU=2")
    assert run.wait(60, progress="quiet")
    kill(nanny.pid, 15)
    nanny.wait(20)
