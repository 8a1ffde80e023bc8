"""Whose cluster a run uses: a Client that exists, one of its own, from scripts, notebooks, coroutines and inside Dask tasks."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster, Scheduler, Worker
from distributed.deploy.spec import SpecCluster
from distributed.diagnostics.plugin import SchedulerPlugin

import dcompute as dc
from dcompute.connection import connect
from dcompute.errors import ClusterError, ItemError, UsageError
from tests.processes import below, until

WEB = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


def spec_cluster(threads: int = 1, workers: int = 1, **more: Any) -> SpecCluster:
    """In-process workers that are somebody else's."""
    options = {"protocol": "inproc://", "nthreads": threads, "memory_limit": 0, **WEB, **more}
    scheduler = {"cls": Scheduler, "options": {"protocol": "inproc://", **WEB}}
    return SpecCluster(scheduler=scheduler, workers={n: {"cls": Worker, "options": options} for n in range(workers)})


@pytest.fixture
def cluster() -> Iterator[SpecCluster]:
    """One worker with one thread."""
    with spec_cluster() as cluster:
        yield cluster


def double(x: int) -> int:
    return 2 * x


def slow(x: int) -> int:
    time.sleep(0.3)
    return x


def table(url: object) -> dict[str, Any]:
    """The value of each item, by key."""
    frame = dc.open(url).results().compute()
    return dict(zip(frame["item_key"], frame["value"], strict=True)) if len(frame) else {}


def workers_of(run: dc.Run) -> set[str]:
    return set(run.attempts().compute()["worker"])


def test_local_clusters_at_once_are_silent_until_the_last_has_ended() -> None:
    """What distributed says while one closes is printed in no run, whichever began first; then its logs are as they were."""
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    log = logging.getLogger("distributed")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        first, second = connect(None, workers=1), connect(None, workers=1)
        first.close()
        second.close()
        assert printed.getvalue() == ""
        assert handler.level == logging.NOTSET
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


# -- whose cluster -------------------------------------------------------------------------------------------------------------


def test_a_client_that_exists_is_used_and_left_as_it_was(cluster: SpecCluster, tmp_path: Path) -> None:
    """The items execute on its workers; afterwards it works, and knows no task of ours."""
    with Client(cluster) as client:
        run = dc.map(double, range(5), tmp_path / "d")
        assert run.wait(60, progress="quiet")
        assert workers_of(run) == set(client.scheduler_info()["workers"])
        assert client.submit(double, 4).result() == 8
        assert client.run_on_scheduler(lambda dask_scheduler: [c for c in dask_scheduler.clients if c.startswith("Client-dcompute")]) == []


@pytest.mark.parametrize("what", ["client", "cluster", "address"])
def test_a_cluster_can_be_named(what: str, tmp_path: Path) -> None:
    """``client=`` takes a Client, a cluster or an address, and goes before the Client that is current."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0", worker_dashboard_address=":0"
        ) as wanted,
        spec_cluster() as other,
        Client(wanted, set_as_default=False) as client,
        Client(other),
    ):
        named = {"client": client, "cluster": wanted, "address": wanted.scheduler_address}[what]
        run = dc.map(double, range(3), tmp_path / "d", client=named)
        assert run.wait(60, progress="quiet")
        assert workers_of(run) == set(client.scheduler_info()["workers"])


def test_an_address_where_nobody_listens_is_named(tmp_path: Path) -> None:
    """A ClusterError from wait(), with the address."""
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        run = dc.map(double, [1], tmp_path / "d", client="tcp://127.0.0.1:9")
        with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9"):
            run.wait(60, progress="quiet")


def test_without_a_client_a_cluster_is_started_and_closed(tmp_path: Path) -> None:
    """Nothing of it is left: no warm child, no default client."""

    def children() -> set[int]:
        return set(below(os.getpid(), "dcompute.worker.child"))

    before = children()
    run = dc.map(double, range(4), tmp_path / "d")
    assert run.wait(60, progress="quiet")
    assert workers_of(run)
    with pytest.raises(ValueError, match="No client"):
        Client.current()
    until(lambda: not children() - before, 10, "the end of its children")


def test_a_client_closed_early_harms_nothing(cluster: SpecCluster, tmp_path: Path) -> None:
    """The driver has a client of its own to the same scheduler."""
    with Client(cluster):
        run = dc.map(slow, range(4), tmp_path / "d", batch_size=1)
    assert run.wait(60, progress="quiet")
    assert sorted(table(tmp_path / "d")) == ["0", "1", "2", "3"]


# -- asynchronous --------------------------------------------------------------------------------------------------------------


def test_an_asynchronous_client_is_used(tmp_path: Path) -> None:
    """dc.map returns without holding the loop up; the run is waited for in a thread."""

    async def main() -> tuple[set[str], set[str]]:
        async with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, asynchronous=True, dashboard_address=":0", worker_dashboard_address=":0"
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            run = dc.map(double, range(4), tmp_path / "d")
            assert await asyncio.to_thread(run.wait, 60, progress="quiet")
            assert client.asynchronous
            return await asyncio.to_thread(workers_of, run), {worker.address for worker in cluster.workers.values()}

    used, there = asyncio.run(main())
    assert used == there
    assert table(tmp_path / "d") == {"0": 0, "1": 2, "2": 4, "3": 6}


def test_an_asynchronous_client_that_was_not_awaited_is_refused(tmp_path: Path) -> None:
    """It is connected to nothing yet; dc.map itself says so, and to await it."""

    async def main() -> None:
        async with LocalCluster(
            n_workers=0, processes=False, asynchronous=True, dashboard_address=":0", worker_dashboard_address=":0"
        ) as cluster:
            client = Client(cluster, asynchronous=True, set_as_default=False)
            with pytest.raises(UsageError, match="await"):
                dc.map(double, [1], tmp_path / "d", client=client)
            await client
            await client.close()

    asyncio.run(main())


# -- inside a task -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_inside_a_task_of_a_worker_with_one_thread_the_task_gives_its_slot_back(named: bool, cluster: SpecCluster, tmp_path: Path) -> None:
    """Else it would wait for ever for the slot that it holds itself, whether it names the cluster or not."""

    def outer(folder: str, address: str | None) -> dict[str, Any]:
        run = dc.map(double, range(4), folder, client=address)
        assert run.wait(40, progress="quiet")
        return table(folder)

    with Client(cluster, set_as_default=False) as client:
        address = cluster.scheduler_address if named else None
        future = client.submit(outer, str(tmp_path / "d"), address, pure=False)
        assert future.result(timeout=60) == {"0": 0, "1": 2, "2": 4, "3": 6}


def test_inside_an_item_a_run_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    """A child is no worker: what it maps runs in a local cluster in that child."""

    def outer(x: int, folder: str) -> int:
        import dcompute

        run = dcompute.map(abs, [-1, -2], folder)
        run.wait(40, progress="quiet")
        return int(run.summary().succeeded)

    run = dc.map(outer, [1], tmp_path / "outer", params={"folder": str(tmp_path / "inner")})
    assert run.wait(90, progress="quiet")
    assert table(tmp_path / "outer") == {"1": 2}
    assert table(tmp_path / "inner") == {"-1": 1, "-2": 2}


# -- scripts and notebooks -----------------------------------------------------------------------------------------------------

SCRIPT = """
import dcompute as dc

factor = 3

class Pair:
    def __init__(self, x):
        self.x = x

@dc.workload
def triple(x):
    return Pair(x).x * factor

run = dc.map(triple, range(6), "here")
{end}
"""


def test_a_plain_script_without_a_main_guard_runs_as_it_stands(python: Callable[..., Any], tmp_path: Path) -> None:
    """Its functions, classes and globals travel by value; it ends, with results, and leaves no process."""
    (tmp_path / "script.py").write_text(SCRIPT.format(end='run.wait(progress="quiet")\nprint(run.summary())'))
    done = python("script.py")
    assert done.returncode == 0, done.stderr
    assert "6 succeeded" in done.stdout
    assert table(tmp_path / "here") == {str(x): 3 * x for x in range(6)}


def test_a_script_that_ends_without_waiting_waits_as_executors_do(python: Callable[..., Any], tmp_path: Path) -> None:
    """The interpreter ends when the run has; nothing is written to stderr."""
    (tmp_path / "script.py").write_text(SCRIPT.format(end=""))
    done = python("script.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(table(tmp_path / "here")) == 6


def test_a_process_that_is_forked_in_mid_run_ends_when_it_is_done(python: Callable[..., Any], tmp_path: Path) -> None:
    """It does not wait for a run that it has no thread of."""
    fork = "import os, sys\nif os.fork() == 0:\n    sys.exit(0)\nassert os.wait()[1] == 0\nassert not run.wait(0, progress='quiet')\n"
    script = SCRIPT.format(end=fork).replace("Pair(x).x * factor", "__import__('time').sleep(1) or x * factor")
    (tmp_path / "script.py").write_text(script)
    done = python("script.py")
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "here")) == 6


SPAWNED = """
import multiprocessing, os

def job():
{script}

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=job)
    process.start()
    process.join()
    raise SystemExit(process.exitcode)

class Pair:
    def __init__(self, x):
        self.x = x

def triple(x):
    return Pair(x).x * 3
"""


def test_the_script_travels_by_value_from_a_process_that_it_spawned(python: Callable[..., Any], tmp_path: Path) -> None:
    """There it has another name, under which no worker finds it."""
    body = 'import dcompute as dc\nrun = dc.map(triple, range(6), "here")\nrun.wait(progress="quiet")'
    (tmp_path / "script.py").write_text(SPAWNED.format(script=textwrap.indent(body, "    ")))
    done = python("script.py")
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "here") == {str(x): 3 * x for x in range(6)}


CELLS = (
    "import dcompute as dc\noffset = 100",
    "@dc.workload(timeout='30 s')\ndef shifted(x):\n    import time\n    time.sleep(0.05)\n    return x + offset",
    "run = dc.map(shifted, range(30), 'here', batch_size=5)\nrun.wait()\nprint(run.summary())",
    "run",
    "sorted(run.results().compute()['value'])[:3]",
    "offset = 1000\nagain = dc.map(shifted, range(31), 'here')\nagain.wait(progress='quiet')\nprint(again.summary())",
)


def test_a_notebook_runs_as_it_stands_with_progress_that_updates(tmp_path: Path) -> None:
    """Executed by a real kernel: one HTML output that was updated in place, results, and functions of the notebook by value."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(book, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    waiting = book.cells[2]["outputs"]
    pages = [out["data"]["text/html"] for out in waiting if out.get("output_type") == "display_data"]
    assert len(pages) == 1, waiting
    assert "<progress" in pages[0]
    assert "30 of 30 done" in pages[0]
    assert "30 succeeded" in "".join(out.get("text", "") for out in waiting)
    assert "<progress" in book.cells[3]["outputs"][0]["data"]["text/html"]
    assert book.cells[4]["outputs"][0]["data"]["text/plain"] == "[100, 101, 102]"
    assert "1 succeeded" in book.cells[5]["outputs"][0]["text"]
    assert table(tmp_path / "here")["30"] == 1030


# -- Workload.delayed ----------------------------------------------------------------------------------------------------------


@dc.workload(timeout="20 s", priority=7, resources={"SCRATCH": 2}, memory="300 MiB")
def square(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x} is negative")
    return x * x


@dc.workload
def process_of(x: int) -> int:
    return os.getpid()


class Seen(SchedulerPlugin):  # type: ignore[misc]
    """Notes what the scheduler knows of tasks as they come."""

    name = "seen"

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        task = self.scheduler.tasks.get(key)
        if task is not None and key not in self.tasks:
            self.tasks[str(key)] = {
                "resources": dict(task.resource_restrictions or {}),
                "priority": -task.priority[0],
                "workers": set(task.worker_restrictions or ()),
                "loose": task.loose_restrictions,
                "retries": task.retries,
                "prefix": task.prefix.name,
            }


@pytest.fixture
def declared() -> Iterator[SpecCluster]:
    """Two workers that declare what the workloads here ask for."""
    with spec_cluster(threads=2, workers=2, resources={"CPU": 2, "MEMORY": 8e9, "SCRATCH": 4}) as cluster:
        yield cluster


def test_delayed_is_a_plain_delayed_in_a_graph_of_ones_own(declared: SpecCluster) -> None:
    """It takes delayed inputs, gives a plain result, executes in a child, and its annotations arrive at the scheduler."""
    seen = Seen()
    with Client(declared) as client:
        client.register_plugin(seen)
        total = dask.delayed(sum)([square.delayed(x) for x in [1, 2, dask.delayed(abs)(-3)]])
        assert total.compute() == 14
        assert process_of.delayed(1).compute() != os.getpid()
        with pytest.raises(ItemError, match="-4 is negative") as caught:
            square.delayed(-4).compute()
        plugin = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["seen"].tasks)
    assert caught.value.kind == "permanent"
    assert "raise ValueError" in caught.value.traceback
    calls = [task for key, task in plugin.items() if key.startswith(("square-", "process_of-"))]
    assert len(calls) == 5
    own = [task for task in calls if task["resources"]]
    assert len(own) == 4
    assert all(task["resources"] == {"SCRATCH": 2, "MEMORY": 300 * 2**20} for task in own)
    assert all(task["priority"] == 7 for task in own)
    assert all(not task["retries"] for task in calls)


def test_every_annotation_of_a_batch_arrives_at_the_scheduler(declared: SpecCluster, tmp_path: Path) -> None:
    """Resources that workers declare, the priority, a probe's worker; Dask's own retries are not used."""
    seen = Seen()
    with Client(declared) as client:
        client.register_plugin(seen)
        run = dc.map(square.options(cpus=1), range(20), tmp_path / "d", batch_size=5)
        assert run.wait(60, progress="quiet")
        plugin = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["seen"].tasks)
        workers = set(client.scheduler_info()["workers"])
    batches = {key: task for key, task in plugin.items() if key.startswith("square-")}
    assert len(batches) == 4
    for task in batches.values():
        assert task["resources"] == {"CPU": 1, "MEMORY": 300 * 2**20, "SCRATCH": 2}
        assert task["priority"] == 7
        assert not task["retries"]
        assert task["prefix"] == "square"
    probes = [task for key, task in plugin.items() if key.startswith("probe-")]
    assert set.union(*(task["workers"] for task in probes)) == workers
    assert all(len(task["workers"]) == 1 and not task["loose"] for task in probes)
