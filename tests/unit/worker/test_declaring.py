from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dcompute.worker import declaring, system, threads, walltime
from dcompute.worker.device import Device
from dcompute.worker.hardware import Machine

GIB = 1 << 30
MACHINE = Machine(host="a", cores=tuple(range(8)), memory=100 * GIB, disk=80 * GIB, devices=tuple(Device(id=id) for id in "abcd"))


def test_a_worker_declares_its_part_of_the_machine() -> None:
    """Cores as its threads, memory as its limit, disk in proportion; GPUs where it has claimed some."""
    assert declaring.found(MACHINE, 8, 50 * GIB, 4) == {"CPU": 8, "MEMORY": 50 * GIB, "DISK": 80 * GIB, "GPU": 4}
    assert declaring.found(MACHINE, 2, 10 * GIB, 0) == {"CPU": 2, "MEMORY": 10 * GIB, "DISK": 20 * GIB}


def test_more_threads_than_cores_are_no_more_cores() -> None:
    """Threads are for items that ask for less than a core."""
    assert declaring.found(MACHINE, 32, 50 * GIB, 0)["CPU"] == 8
    assert declaring.found(replace(MACHINE, quota=2.5), 8, 50 * GIB, 0)["CPU"] == 2.5
    assert declaring.found(replace(MACHINE, quota=0.5), 1, 50 * GIB, 0)["CPU"] == 1


def test_a_worker_without_a_limit_declares_its_part_of_most_of_the_memory() -> None:
    """80 % of what machine and cgroup allow, by its threads."""
    assert declaring.found(MACHINE, 8, 0, 0)["MEMORY"] == 80 * GIB
    assert declaring.found(MACHINE, 2, None, 0)["MEMORY"] == 20 * GIB


@pytest.mark.parametrize(("nthreads", "expected"), [(8, 4), (4, 2), (2, 1), (1, 1), (3, 2), (64, 4)])
def test_devices_are_shared_among_workers_by_their_threads(nthreads: int, expected: int) -> None:
    """As Dask shares memory: four workers with a fourth of the cores have one of four each."""
    assert declaring.devices_of(MACHINE, nthreads) == expected


def test_what_the_operator_said_is_taken_whatever_its_letters() -> None:
    """Environment variables make names lower-case: they are taken as ours with a word of warning, and other names are left alone."""
    words, warnings = declaring.given({"gpu": 2, "CPU": 3, "cpu": 1, "LICENCE": 5, "licence": 1})
    assert words == {"GPU": 2, "CPU": 3}
    assert len(warnings) == 1
    assert "gpu=2, which is taken as GPU" in warnings[0]
    assert '--resources "GPU=2"' in warnings[0]


def test_a_quota_is_no_core_of_ones_own() -> None:
    """Where fewer cores may be busy than may be used, others use them too."""
    assert MACHINE.has_own_cores
    assert not replace(MACHINE, quota=4.0).has_own_cores
    assert replace(MACHINE, quota=16.0).has_own_cores


def test_quotas_of_both_versions_of_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest up the tree counts, nested as batch systems do it; none is none."""
    nested = tmp_path / "job" / "step"
    nested.mkdir(parents=True)
    monkeypatch.setattr(system, "_cgroup_folders", lambda controller: [nested, nested.parent, tmp_path] if controller == "cpu" else [])
    assert system.cpu_quota() is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert system.cpu_quota() is None
    (nested.parent / "cpu.max").write_text("250000 100000\n")
    assert system.cpu_quota() == 2.5
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert system.cpu_quota() == 2.5
    (tmp_path / "cpu.cfs_quota_us").write_text("150000\n")
    assert system.cpu_quota() == 1.5


@pytest.mark.parametrize(("cpus", "expected"), [(1, "1"), (0.5, "1"), (4, "4"), (2.5, "2")])
def test_threads_follow_cpus(cpus: float, expected: str) -> None:
    """Never more than was asked for, and one at least."""
    assert set(threads.environment(cpus).values()) == {expected}
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= threads.environment(cpus).keys()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_END_TIME": "1700"}, 1700),
        ({"PBS_WALLTIME": "600"}, 1600),
        ({"PBS_WALLTIME": "1:00:01"}, 4601),
        ({"PBS_WALLTIME": "1:00:00:00"}, 87400),
        ({"PBS_WALLTIME": "for ever"}, None),
        ({"SLURM_JOB_ID": "x; rm -rf /"}, None),
    ],
)
def test_batch_systems_say_when_a_job_ends(environment: dict[str, str], expected: float | None) -> None:
    """Slurm and PBS in their variables; text that means nothing is none."""

    def ask(command: Sequence[str]) -> str:
        raise AssertionError(f"nobody is asked: {command}")

    assert walltime.end(environment, started=1000, ask=ask) == expected


def test_an_older_slurm_is_asked() -> None:
    """In local time; a job without an end, or a command that fails, is no walltime."""
    then = datetime.datetime(2030, 1, 2, 3, 4, 5)
    asks: list[Sequence[str]] = []

    def ask(command: Sequence[str]) -> str:
        asks.append(command)
        return f"{then.isoformat()}\n"

    assert walltime.end({"SLURM_JOB_ID": "42"}, started=0, ask=ask) == then.timestamp()
    assert "42" in asks[0]
    assert walltime.end({"SLURM_JOB_ID": "42"}, started=0, ask=lambda _: "N/A\n") is None
    assert walltime.end({"SLURM_JOB_ID": "42", "PATH": "/nowhere"}, started=0) is None


def test_the_earliest_end_counts() -> None:
    """The operator's walltime, Dask's lifetime, the job's: whichever is first."""
    assert walltime.end({}, started=1000, walltime=60) == 1060
    assert walltime.end({}, started=1000, lifetime=30, walltime=60) == 1030
    assert walltime.end({"SLURM_JOB_END_TIME": "1010"}, started=1000, lifetime=30) == 1010
    assert not math.isnan(walltime.end({}, started=1000, walltime=0) or math.nan)
