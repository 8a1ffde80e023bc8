"""Runs on Slurm jobs whose jobs, nodes and controller are taken away in mid-run: each item has one outcome, lost jobs are replaced."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  its settings are there once it is
import pytest

import dcompute as dc
from dcompute.clusters.slurm import Settings, open_cluster
from dcompute.clusters.tls import write
from dcompute.errors import ResourceError
from tests.processes import until
from tests.slurm.controller import Slurm


def slow(x: int) -> dict[str, int]:
    """A fifth of a second for each input."""
    time.sleep(0.2)
    return {"double": 2 * x}


@contextlib.contextmanager
def cluster(folder: Path, **more: Any) -> Iterator[Any]:
    """A cluster of Slurm jobs, with what such a job has unless more is said."""
    own: dict[str, Any] = {"cores": 1, "memory": "1 GiB", "walltime": "10 min", "host": "127.0.0.1", "scratch": str(folder / "scratch")}
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "2s"}):
        opened = open_cluster(Settings(**{**own, "logs": str(folder / "logs"), **more}))
        try:
            yield opened.cluster
        finally:
            opened.close()


def check(run: dc.Run, count: int) -> None:
    """Every item has its one visible row, and was executed to its end."""
    found = run.results().compute()
    assert sorted(found["double"]) == [2 * x for x in range(count)]
    assert run.summary().failed == 0


def done(run: dc.Run) -> int:
    """Items that are done, by what the run says."""
    return run.status().done


@pytest.mark.timeout(150)
def test_cancelled_jobs_and_those_of_a_node_that_goes_down_are_replaced(slurm: Slurm, tmp_path: Path) -> None:
    """Of two jobs one is cancelled, then the node of another is set down: there are two again each time, and no item is missing."""
    with cluster(tmp_path, workers=2, cores=3) as jobs:
        run = dc.map(slow, range(600), tmp_path / "dataset", client=jobs)
        until(lambda: done(run) > 20, 40, "a beginning")
        first = set(slurm.jobs("RUNNING"))
        slurm.run("scancel", min(first))
        until(lambda: len(set(slurm.jobs("RUNNING")) - {min(first)}) == 2, 30, "another job in place of the cancelled one")
        slurm.run("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        until(lambda: len(jobs.scheduler_info["workers"]) < 2, 30, "the loss of a worker")
        slurm.run("scontrol", "update", "nodename=n2", "state=resume")
        until(
            lambda: len(jobs.scheduler_info["workers"]) == 2 and len(slurm.jobs("RUNNING")) == 2, 40, "another job in place of the lost one"
        )
        assert run.wait(60)
    check(run, 600)


@pytest.mark.timeout(150)
def test_a_controller_and_a_node_daemon_that_are_killed_cost_no_item(slurm: Slurm, tmp_path: Path) -> None:
    """SIGKILL of slurmctld and a slurmd in mid-run, while a worker dies too: the run goes on, and the worker is replaced in the end."""
    with cluster(tmp_path, workers=2) as jobs:
        run = dc.map(slow, range(300), tmp_path / "dataset", client=jobs)
        until(lambda: done(run) > 10, 40, "a beginning")
        slurm.kill_controller()
        slurm.kill_node("n1")
        before = done(run)
        until(lambda: done(run) > before + 10, 30, "a run that goes on without Slurm")
        lost = next(iter(jobs.scheduler_info["workers"]))
        jobs.sync(jobs.scheduler_comm.retire_workers, workers=[lost], close_workers=True)
        until(lambda: "Unable to contact" in jobs.refusal() or run.status().state == "finished", 30, "a job that Slurm cannot take")
        slurm.start_controller()
        slurm.start_node("n1")
        until(lambda: len(jobs.scheduler_info["workers"]) == 2, 40, "a new worker")
        assert run.wait(60)
    check(run, 300)


@pytest.mark.timeout(220)
def test_a_run_outlives_the_walltime_of_its_jobs(slurm: Slurm, tmp_path: Path) -> None:
    """Workers leave before their walltime is over, others come in their place, and no item counts as failed."""
    with cluster(tmp_path, workers=2, walltime="80 s", leave="45 s") as jobs:
        run = dc.map(slow, range(400), tmp_path / "dataset", client=jobs)
        until(lambda: len(jobs.scheduler_info["workers"]) == 2, 40, "both workers")
        first = set(jobs.scheduler_info["workers"])
        assert run.wait(160)
        assert first.isdisjoint(jobs.scheduler_info["workers"])
    check(run, 400)
    hosts = run.attempts(columns=["worker"]).compute()["worker"]
    assert hosts.nunique() >= 3


@pytest.mark.timeout(150)
def test_jobs_come_for_what_they_could_do_and_go_when_they_are_idle(slurm: Slurm, tmp_path: Path) -> None:
    """From no job to as many as may be, over TLS; a run that wants a GPU gets no job and says why; when all is done, no job is left."""
    write(tmp_path / "certs", ["127.0.0.1"])
    with cluster(tmp_path, adapt={"min": 0, "max": 3}, idle="2 s", tls=str(tmp_path / "certs")) as jobs:
        assert jobs.scheduler_address.startswith("tls://")
        refused = dc.map(dc.workload(slow, gpus=1), range(4), tmp_path / "refused", client=jobs)
        with pytest.raises(ResourceError, match="needs GPU=1; a new worker has no GPU"):
            refused.wait(30)
        assert slurm.jobs() == []
        run = dc.map(slow, range(300), tmp_path / "dataset", client=jobs)
        until(lambda: len(slurm.jobs("RUNNING")) == 3, 30, "as many jobs as may be")
        assert run.wait(100)
        until(lambda: slurm.jobs() == [], 30, "no job")
    check(run, 300)


@pytest.mark.timeout(150)
def test_a_job_that_is_cancelled_before_its_worker_came_is_asked_for_again(slurm: Slurm, tmp_path: Path) -> None:
    """Slurm knows it no more, so another one is asked for. Beyond loopback all is encrypted, and no key is left in the end."""
    shared = tmp_path / "shared"
    with cluster(tmp_path, workers=1, prologue=["sleep 6"], host=None, shared=str(shared)) as jobs:
        assert jobs.scheduler_address.startswith("tls://")
        assert {path.stat().st_mode & 0o077 for path in shared.iterdir()} == {0}
        until(lambda: slurm.jobs("RUNNING"), 30, "a job")
        first = slurm.jobs("RUNNING")[0]
        slurm.run("scancel", first)
        until(lambda: set(slurm.jobs("RUNNING")) - {first}, 60, "another job")
        until(lambda: len(jobs.scheduler_info["workers"]) == 1, 60, "its worker")
    assert list(shared.iterdir()) == []
