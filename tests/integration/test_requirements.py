"""What workloads ask for and what workers offer, on real clusters: declared, counted, refused, mixed, empty at first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pytest
from distributed import Client, Scheduler, Worker
from distributed.deploy.spec import SpecCluster
from distributed.diagnostics.plugin import SchedulerPlugin

import dcompute as dc
from dcompute.errors import ResourceError, UsageError

WEB = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
GIB = 1 << 30


def options(threads: int = 2, **more: Any) -> dict[str, Any]:
    """Of one in-process worker."""
    return {"cls": Worker, "options": {"protocol": "inproc://", "nthreads": threads, "memory_limit": 0, **WEB, **more}}


@contextmanager
def cluster_of(*workers: dict[str, Any]) -> Iterator[Client]:
    """A Client of a cluster with these workers."""
    scheduler = {"cls": Scheduler, "options": {"protocol": "inproc://", **WEB}}
    with SpecCluster(scheduler=scheduler, workers=dict(enumerate(workers))) as cluster, Client(cluster) as client:
        client.register_plugin(Batches())
        yield client


class Batches(SchedulerPlugin):  # type: ignore[misc]
    """Notes what the scheduler was told of each batch."""

    name = "batches"

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, float]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        task = self.scheduler.tasks.get(key)
        if task is not None and str(key).startswith("nap-"):
            self.resources.setdefault(str(key), dict(task.resource_restrictions or {}))


def annotated(client: Client) -> list[dict[str, float]]:
    """The resources of each batch, as the scheduler has them."""
    return list(client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["batches"].resources).values())


def most_at_once(run: dc.Run, rows: pd.DataFrame | None = None) -> int:
    """After its end: the largest number of items at work at one time, by these rows or all."""
    assert run.wait(60, progress="quiet")
    frame = run.attempts().compute() if rows is None else rows
    begins = frame["started"].astype("datetime64[us, UTC]").astype("int64") / 1e6
    spans = list(zip(begins, begins + frame["duration"].astype(float), strict=True))
    return max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)


def nap(x: int) -> int:
    time.sleep(0.15)
    return x


def test_what_workers_declare_is_annotated_and_holds(tmp_path: Path) -> None:
    """CPU, MEMORY and names of one's own arrive at the scheduler, and bound what is at work at once."""
    work = dc.workload(nap).options(cpus=2, memory="1 GiB", resources={"SCRATCH": 10})
    with cluster_of(options(4, resources={"CPU": 4, "MEMORY": 4 * GIB, "SCRATCH": 100})) as client:
        run = dc.map(work, range(6), tmp_path / "d", batch_size=1)
        assert most_at_once(run) == 2
        assert annotated(client) == [{"CPU": 2, "MEMORY": GIB, "SCRATCH": 10}] * 6


def test_what_nobody_declares_is_counted_by_the_driver(tmp_path: Path) -> None:
    """Threads stand for cpus: nothing is annotated, and no more is at work than fits."""
    with cluster_of(options(4)) as client:
        run = dc.map(dc.workload(nap).options(cpus=2), range(16), tmp_path / "d", batch_size=1)
        assert most_at_once(run) == 2
        # on a slow machine one may have a twin
        found = annotated(client)
        assert len(found) >= 16
        assert not any(found)


def test_memory_is_counted_by_the_limits_of_workers(tmp_path: Path) -> None:
    """On each of two workers with 3 GiB, one item of 2 GiB at a time, however many threads they have; on a small one none."""
    with cluster_of(options(4, memory_limit=3 * GIB), options(4, memory_limit=3 * GIB), options(4, memory_limit=GIB)) as client:
        run = dc.map(dc.workload(nap).options(memory="2 GiB"), range(12), tmp_path / "d", batch_size=1)
        assert most_at_once(run) == 2
        frame = run.attempts().compute()
        assert frame["worker"].nunique() == 2
        assert all(most_at_once(run, frame[frame["worker"] == worker]) == 1 for worker in set(frame["worker"]))
        assert annotated(client) == [{}] * 12


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 1}, ("GPU=1", "no worker declares GPU", "--preload dcompute.worker")),
        ({"resources": {"LICENCE": 1}}, ("LICENCE=1", "no worker declares LICENCE", '--resources "LICENCE=1"')),
        ({"resources": {"scratch": 1}}, ("scratch=1", "'SCRATCH'", "letter by letter")),
        ({"resources": {"SCRATCH": 500}}, ("SCRATCH=500", "the largest worker has SCRATCH=100")),
        ({"cpus": 64}, ("CPU=64", "the largest worker has CPU=2")),
        ({"memory": "900 TiB"}, ("MEMORY=900 TiB", "the largest worker has MEMORY=")),
    ],
)
def test_what_no_worker_has_is_refused_with_the_gap(asked: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    """Before the first batch, and not by waiting for ever: what is asked, what there is, and what to do."""
    with cluster_of(options(resources={"SCRATCH": 100})):
        run = dc.map(dc.workload(nap).options(**asked), [1], tmp_path / "d")
        with pytest.raises(ResourceError) as caught:
            run.wait(30, progress="quiet")
    assert all(word in str(caught.value) for word in words), caught.value
    assert len(run.attempts()) == 0


def test_a_refused_run_leaves_the_dataset_free_for_the_next(tmp_path: Path) -> None:
    """The line that asks for less goes on at once."""
    with cluster_of(options()):
        with pytest.raises(ResourceError):
            dc.map(dc.workload(nap).options(gpus=1), [1], tmp_path / "d").wait(30, progress="quiet")
        run = dc.map(nap, [1], tmp_path / "d")
        assert run.wait(30, progress="quiet")
        assert run.summary().succeeded == 1


def test_in_a_mixed_cluster_workers_without_declarations_take_no_part_and_the_run_says_so(tmp_path: Path) -> None:
    """One worker declares CPU, the other nothing: all items execute on the first, and a note names how many stand aside."""
    with cluster_of(options(2, resources={"CPU": 2}), options(2)) as client:
        declaring = next(address for address, info in client.scheduler_info()["workers"].items() if info["resources"])
        run = dc.map(nap, range(20), tmp_path / "d", batch_size=1)
        notes = set()
        while not run.wait(0.05, progress="quiet"):
            notes.add(run.status().note)
        assert set(run.attempts().compute()["worker"]) == {declaring}
    assert any("1 of 2 workers" in note and "CPU" in note for note in notes), notes


def test_a_cluster_without_workers_starts_when_one_comes(tmp_path: Path) -> None:
    """Nothing is refused while there is nobody to say what there is; a batch waits at the scheduler, and all is done."""
    with cluster_of() as client:
        run = dc.map(nap, range(6), tmp_path / "d")
        until = time.monotonic() + 20
        while not annotated(client) and time.monotonic() < until:
            time.sleep(0.05)
        assert annotated(client)  # a cluster that scales by what waits sees something
        client.cluster.worker_spec[0] = options(1)
        client.cluster.sync(client.cluster._correct_state)
        assert run.wait(60, progress="quiet")
        assert run.summary().succeeded == 6


def test_an_adaptive_cluster_grows_from_zero_and_ends_the_run(tmp_path: Path) -> None:
    """The batch that waits is what it grows for."""
    scheduler = {"cls": Scheduler, "options": {"protocol": "inproc://", **WEB}}
    with SpecCluster(scheduler=scheduler, worker=options(1)) as cluster, Client(cluster):
        cluster.adapt(minimum=0, maximum=2, interval="100ms")
        run = dc.map(nap, range(20), tmp_path / "d", batch_size=1)
        assert run.wait(60, progress="quiet")
        assert run.summary().succeeded == 20


def test_without_memory_the_limit_is_the_slots_share_of_its_worker(tmp_path: Path) -> None:
    """Two threads and 800 MiB: an item that takes 500 MiB alone is killed at 400, and doubled gets all there is."""

    def hoard(size: int) -> int:
        held = bytearray(size << 20)
        for place in range(0, len(held), 4096):
            held[place] = 1
        time.sleep(0.3)
        return size

    with cluster_of(options(2, memory_limit=800 << 20)):
        run = dc.map(hoard, [500], tmp_path / "d")
        assert run.wait(60, progress="quiet")
        frame = run.attempts().compute().sort_values("attempt")
    assert list(frame["kind"].fillna("-")) == ["memory", "-"]


def test_fusing_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """With ``optimization.fuse.delayed`` annotations would be lost without a word; it names the setting."""
    with dask.config.set({"optimization.fuse.delayed": True}):
        with pytest.raises(UsageError, match=r"optimization\.fuse\.delayed"):
            dc.map(nap, [1], tmp_path / "d")
        with pytest.raises(UsageError, match=r"optimization\.fuse\.delayed"):
            dc.workload(nap).delayed(1)
    assert not (tmp_path / "d").exists()
