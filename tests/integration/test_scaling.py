"""Clusters that scale by what runs tell of their demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker
from distributed.deploy.spec import ProcessInterface

import dcompute as dc
from dcompute.demand import RUNS, SCALING, told
from dcompute.errors import ResourceError
from dcompute.records import Request
from tests.processes import until

WEB = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
INSIDE = {"protocol": "inproc://", **WEB}
CPU, GPU = Request(), Request(gpus=1)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of no workers; new ones are threads of this process with one slot each."""
    new = {"cls": Worker, "options": {**INSIDE, "nthreads": 1, "memory_limit": 0}}
    with SpecCluster(scheduler={"cls": Scheduler, "options": INSIDE}, worker=new) as started:
        yield started


@pytest.fixture
def client(cluster: Any) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as connected:
        yield connected


class Runs:
    """What runs say at a scheduler."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._number = 0

    def want(self, **demand: dict[Request, int]) -> None:
        """These runs want so many batches; others are over."""
        self._number += 1
        self._client.set_metadata(
            [RUNS], {run: {"number": self._number, "workload": "f", "classes": told(classes)} for run, classes in demand.items()}
        )


#: What tasks of in-process workers wait for.
GATES: dict[str, threading.Event] = {}


def hold(name: str) -> bool:
    """Takes a slot until the gate is open."""
    return GATES[name].wait(60)


def size(cluster: Any) -> int:
    return len(cluster.scheduler_info["workers"])


def answered(client: Client) -> Any:
    """What the scaler says after two more looks."""
    number = (client.get_metadata([SCALING], default=None) or {"number": 0})["number"]
    until(lambda: (client.get_metadata([SCALING], default=None) or {"number": 0})["number"] >= number + 3, 20, "another look")
    return client.get_metadata([SCALING])


def test_workers_come_for_what_they_could_do_and_go_when_they_are_idle(cluster: Any, client: Client) -> None:
    """Two runs get as many workers as both can use, within the bounds; when they are over, none is left."""
    dc.adapt(cluster, maximum=3, interval="50ms", idle="200ms")
    runs = Runs(client)
    runs.want(a={CPU: 1}, b={CPU: 1})
    until(lambda: size(cluster) == 2, 20, "a worker for each run")
    runs.want(a={CPU: 1}, b={CPU: 9})
    until(lambda: size(cluster) == 3, 20, "as many as there may be")
    assert answered(client)["want"] == 3
    runs.want()
    until(lambda: size(cluster) == 0, 20, "no worker")


def test_nothing_is_started_for_work_that_no_new_worker_could_run(cluster: Any, client: Client) -> None:
    """A hundred batches that want a GPU start no worker without one, and it is said why; a batch beside them gets its worker."""
    dc.adapt(cluster, maximum=3, interval="50ms", idle="200ms")
    runs = Runs(client)
    runs.want(a={GPU: 100})
    said = answered(client)
    assert (said["want"], size(cluster)) == (0, 0)
    assert said["impossible"][0].startswith("needs GPU=1; a new worker has no GPU")
    runs.want(a={GPU: 100}, b={CPU: 1})
    until(lambda: size(cluster) == 1, 20, "one worker")
    assert answered(client)["asked"] == 1


def test_a_worker_at_work_is_not_closed(cluster: Any, client: Client) -> None:
    """Of three workers of which one executes a task, the two idle ones go; the task ends, and then the last one goes."""
    dc.adapt(cluster, maximum=3, interval="50ms", idle="100ms")
    runs = Runs(client)
    runs.want(a={CPU: 3})
    until(lambda: size(cluster) == 3, 20, "three workers")
    gate = GATES["work"] = threading.Event()
    task = client.submit(hold, "work", key="f-1")
    until(lambda: any(client.processing().values()), 10, "a task at work")
    runs.want(a={})
    until(lambda: size(cluster) == 1, 20, "one worker")
    answered(client)
    assert size(cluster) == 1
    assert not task.done()
    gate.set()
    assert task.result(20) is True
    del task
    until(lambda: size(cluster) == 0, 20, "no worker")


def test_a_lost_worker_is_replaced(cluster: Any, client: Client) -> None:
    """One that is gone comes again while it is wanted, and not where it is not."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}):
        dc.adapt(cluster, minimum=1, maximum=3, interval="50ms", idle="200ms")
        runs = Runs(client)
        runs.want(a={CPU: 2})
        until(lambda: size(cluster) == 2, 20, "two workers")
        first = set(cluster.scheduler_info["workers"])
        client.retire_workers(list(first), close_workers=True)
        until(lambda: size(cluster) == 2 and first.isdisjoint(cluster.scheduler_info["workers"]), 20, "two others")
        runs.want()
        client.retire_workers(list(cluster.scheduler_info["workers"]), close_workers=True)
        until(lambda: size(cluster) == 1, 20, "the one that there is at least")


def test_tasks_that_are_no_runs_get_workers_too(cluster: Any, client: Client) -> None:
    """Plain Dask work on the same cluster does not wait for ever, beside a run or alone."""
    dc.adapt(cluster, maximum=2, interval="50ms", idle="200ms")
    assert client.submit(sum, [1, 2], key="alone-1").result(20) == 3
    until(lambda: size(cluster) == 0, 20, "no worker")
    Runs(client).want(a={GPU: 1})
    assert client.submit(sum, [1, 3], key="beside-1").result(10) == 4


class Told:
    """A thing that can be told how many workers it is to have, and gets them as a cluster does."""

    def __init__(self, cluster: SpecCluster) -> None:
        self.scheduler_address = cluster.scheduler_address
        self.asked: list[int] = []
        self._cluster = cluster

    def scale(self, n: int) -> None:
        """Have so many."""
        self.asked.append(n)
        self._cluster.scale(n)


def test_anything_that_can_be_scaled_is(cluster: Any, client: Client) -> None:
    """An object with ``scale`` and an address gets workers by what it says one offers; fewer only when none has anything to do."""
    told_so = Told(cluster)
    scaler = dc.adapt(told_so, maximum=4, offers={"CPU": 1, "GPU": 1}, interval="50ms", idle="100ms")
    try:
        runs = Runs(client)
        runs.want(a={GPU: 2, CPU: 1})
        until(lambda: told_so.asked and told_so.asked[-1] == 3, 20, "workers by their offer")
        until(lambda: size(cluster) == 3, 20, "three workers")
        gate = GATES["told"] = threading.Event()
        task = client.submit(hold, "told", key="f-1")
        until(lambda: any(client.processing().values()), 10, "a task at work")
        runs.want(a={CPU: 1})
        answered(client)
        assert told_so.asked[-1] == 3
        gate.set()
        task.result(20)
        until(lambda: told_so.asked[-1] == 1, 20, "fewer")
    finally:
        scaler.stop()
    asked = len(told_so.asked)
    runs.want(a={CPU: 4})
    time.sleep(0.2)
    assert len(told_so.asked) == asked


def nap(number: int) -> int:
    """Takes a moment."""
    time.sleep(0.05)
    return number


def test_a_run_grows_its_cluster_from_zero_and_leaves_it_empty(cluster: Any, tmp_path: Path) -> None:
    """What a run could have in flight is what is started, up to the bound, and goes when the run is over."""
    dc.adapt(cluster, maximum=3, interval="50ms", idle="200ms")
    run = dc.map(nap, range(400), tmp_path / "d", client=cluster, batch_size=10)
    until(lambda: size(cluster) == 3, 30, "as many workers as may be")
    assert run.wait(60, progress="quiet")
    assert run.summary().succeeded == 400
    until(lambda: size(cluster) == 0, 30, "no worker")


def test_a_run_that_no_new_worker_could_execute_is_refused(cluster: Any, tmp_path: Path) -> None:
    """With no worker there, and none to come, it is an error that names the gap; nothing was started."""
    dc.adapt(cluster, maximum=3, interval="50ms", idle="200ms")
    run = dc.map(dc.workload(nap, gpus=1), range(4), tmp_path / "d", client=cluster)
    with pytest.raises(ResourceError, match="none is asked for: needs GPU=1; a new worker has no GPU"):
        run.wait(30, progress="quiet")
    assert size(cluster) == 0


def test_a_run_that_waits_says_what_is_asked_for(cluster: Any, client: Client, tmp_path: Path) -> None:
    """While a run waits for a worker that does not come, its note says how many are asked for."""
    cluster.new_spec["cls"] = Never
    dc.adapt(cluster, maximum=2, interval="50ms")
    run = dc.map(nap, range(4), tmp_path / "d", client=cluster, wait_for_workers=60)
    until(lambda: "1 are asked for, 0 are there" in run.status().note, 20, "a note of what is asked for")
    run.cancel()


class Never(ProcessInterface):
    """A worker that is asked for, and does not come."""

    def __init__(self, scheduler: str, **_: Any) -> None:
        super().__init__(scheduler=scheduler)
