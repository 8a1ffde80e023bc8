"""What workers with the preload declare: before they register, beside what their operator said, and again when they were killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client

import dcompute as dc
from dcompute.connection import WORKER_INFORMATION
from dcompute.worker import system
from dcompute.worker.preload import INFORMATION
from tests.clusters.conftest import in_process, information
from tests.processes import DaskProcesses, kill, until

GIB = 1 << 30
PRELOAD = ("--preload", "dcompute.worker")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    """A scheduler without workers."""
    processes = DaskProcesses(tmp_path / "cluster")
    yield processes
    processes.close()


@pytest.fixture
def client(cluster: DaskProcesses) -> Iterator[Client]:
    with Client(cluster.address, set_as_default=False) as client:
        yield client


def devices(about: dict[str, Any]) -> list[str]:
    return [device["id"] for device in about[WORKER_INFORMATION]["devices"]]


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_worker_declares_what_it_has_before_it_registers(cluster: DaskProcesses, client: Client, nanny: str) -> None:
    """A task that waits for a GPU is executed when the worker comes, which the scheduler does for no resource that is declared later."""
    with dask.annotate(resources={"GPU": 2, "CPU": 1, "DISK": 1e6}):
        waiting = client.compute(dask.delayed(os.getpid)())
    cluster.add_worker("--nthreads", str(os.cpu_count()), "--memory-limit", "1GiB", nanny, *PRELOAD)
    assert waiting.result(timeout=60) > 0
    ((_, about),) = information(client).items()
    assert about["resources"]["CPU"] == len(system.own_cores())
    assert about["resources"]["MEMORY"] == GIB
    assert about["resources"]["GPU"] == 2
    assert about["resources"]["DISK"] > 0
    assert about[WORKER_INFORMATION]["labels"] == {"host": os.uname().nodename, "cpu": system.cpu_model(), "gpu": "Fake 1"}
    assert about[WORKER_INFORMATION]["until"] is None
    assert devices(about) == ["a", "b"]


def test_the_name_of_the_information_is_said_alike() -> None:
    """What workers tell is what the driver reads."""
    assert INFORMATION == WORKER_INFORMATION


def test_what_the_operator_said_stays(cluster: DaskProcesses, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name by name, names of one's own and labels too; the preload comes from the environment."""
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", '["dcompute.worker"]')
    monkeypatch.setenv("DASK_DCOMPUTE__WORKER__LABELS", '{"room": "b12"}')
    monkeypatch.setenv("DASK_DCOMPUTE__WORKER__WALLTIME", "1 h")
    cluster.add_worker("--nthreads", "2", "--resources", "GPU=1,CPU=7,LICENCE=3")
    client.wait_for_workers(1, timeout=60)
    ((_, about),) = information(client).items()
    assert {name: about["resources"][name] for name in ("GPU", "CPU", "LICENCE")} == {"GPU": 1, "CPU": 7, "LICENCE": 3}
    assert about["resources"]["MEMORY"] > 0
    assert about[WORKER_INFORMATION]["labels"]["room"] == "b12"
    assert 3500 < about[WORKER_INFORMATION]["until"] - time.time() < 3600
    assert devices(about) == ["a"]


def test_workers_of_one_host_share_its_devices_and_a_killed_one_gets_its_own_again(cluster: DaskProcesses, client: Client) -> None:
    """Each declares its part, together they declare what there is; what a dead worker had is free for its successor."""
    for _ in range(2):
        cluster.add_worker(*PRELOAD)
    client.wait_for_workers(2, timeout=60)
    found = {address: devices(about) for address, about in information(client).items()}
    assert sorted(found.values()) == [["a"], ["b"]]
    before = set(found)
    kill(cluster.worker_pids()[0])

    def again() -> dict[str, list[str]] | None:
        now = {address: devices(about) for address, about in information(client).items()}
        return now if len(now) == 2 and set(now) != before else None

    assert sorted(until(again, 60, "the worker that its nanny starts again").values()) == [["a"], ["b"]]


def test_a_worker_that_closes_leaves_its_devices_and_cores_to_others() -> None:
    """In one process too, where no lock would end by itself."""
    for _ in range(2):
        with in_process({"nthreads": len(system.own_cores())}) as client:
            ((_, about),) = information(client).items()
            assert devices(about) == ["a", "b"]
            assert sorted(about[WORKER_INFORMATION]["cores"]) == list(system.own_cores())


def test_names_from_the_environment_are_taken_as_ours() -> None:
    """Lower-case ones, which no task could ask for."""
    words = {"distributed.worker.resources.gpu": 1, "distributed.worker.resources.cpu": 5}
    with dask.config.set(words), in_process({}) as client:
        ((_, about),) = information(client).items()
        assert (about["resources"]["GPU"], about["resources"]["CPU"]) == (1, 5)
        assert len(devices(about)) == 1


def test_a_preload_that_fails_leaves_a_worker_that_works(tmp_path: Path) -> None:
    """A setting that names no kind of devices is told in the log, and the worker serves as one without the preload."""
    with dask.config.set({"dcompute.worker.devices": ["no.such:Kind"]}), in_process({}) as client:
        ((_, about),) = information(client).items()
        assert about["resources"] == {}


def test_plain_runs_are_as_before(tmp_path: Path) -> None:
    """Workers with the preload execute what asks for nothing: as many at once as they have cores, each with its share of the memory."""

    def look(x: int) -> dict[str, object]:
        with open("/proc/self/status") as file:
            return {"threads": os.environ["OMP_NUM_THREADS"], "status": file.name}

    with in_process({"nthreads": 2}) as client:
        run = dc.map(look, range(50), tmp_path / "d", client=client)
        assert run.wait(60, progress="quiet")
        assert run.summary().succeeded == 50
        assert set(run.results().compute()["threads"]) == {"1"}


def test_a_call_in_a_graph_of_ones_own_gets_what_it_asks_for() -> None:
    """``Workload.delayed``: its annotations name what the preload declares, and its process has the devices and threads."""

    @dc.workload(cpus=1.5, gpus=0.5, memory="300 MB", resources={"DISK": "1 MB"})
    def look(x: int) -> tuple[int, tuple[str, ...], str | None, str]:
        return x, dc.current().gpus, os.environ.get("FAKE_VISIBLE_DEVICES"), os.environ["MKL_NUM_THREADS"]

    with in_process({"nthreads": 2}) as client:
        futures = client.compute([look.delayed(x) for x in range(4)])
        for x, future in enumerate(futures):
            number, gpus, seen, threads = future.result(timeout=60)
            assert number == x
            assert seen in ("a", "b")
            assert gpus == (seen,)
            assert threads == "1"
