"""Workers that join while a run goes on: they get batches once they have shown that they can do the work, and nobody waits for them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import dask
import pytest
from distributed import Client

import dcompute as dc
from dcompute import placing
from dcompute.errors import ClusterError, WorkloadError
from dcompute.graph import Packed, Placement, batch_task, probe_task, rewrite_task
from dcompute.records import BatchSpec
from tests.integration.test_refusals import importable
from tests.processes import DaskProcesses, kill, kill_tree, until

#: What the workers have to import; those that stand in another folder cannot.
MODULE = """
import os, time
from pathlib import Path

def work(x, gate):
    # the first items are quick; the others wait until the test has seen what it came for
    while x >= 10 and not Path(gate).exists():
        time.sleep(0.01)
    return {"x": x, "pid": os.getppid()}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the module; it can be imported here."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "gated.py").write_text(MODULE)
    with importable(folder):
        yield folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes a Python which starts there one that has no dcompute."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(
        "import sys\nclass No:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'dcompute':\n            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, No())\n"
    )
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler without workers."""
    cluster = DaskProcesses(tmp_path_factory.mktemp("empty"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def processes(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and one worker that finds the module."""
    cluster = DaskProcesses(tmp_path_factory.mktemp("cluster"))
    with added(cluster, library, "--no-nanny"):
        yield cluster
    cluster.close()


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Processes that are started here find modules in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield


@contextmanager
def added(cluster: DaskProcesses, library: Path, *options: str) -> Iterator[str]:
    """One more worker, which finds modules in this folder; its address."""
    known = workers(cluster)
    with standing_in(library):
        process = cluster.add_worker(*options)
    try:
        yield until(lambda: next(iter(workers(cluster) - known), ""), 60, "the worker")
    finally:
        kill_tree(process.pid)
        process.wait(10)
        until(lambda: workers(cluster) <= known, 60, "its end")


def workers(cluster: DaskProcesses) -> set[str]:
    with Client(cluster.address, set_as_default=False) as client:
        return set(client.scheduler_info(n_workers=-1)["workers"])


class Gated:
    """A run whose items from the eleventh on wait for the test."""

    def __init__(self, cluster: DaskProcesses, folder: Path) -> None:
        import gated  # type: ignore[import-not-found]

        self.gate = folder / "gate"
        self.run = dc.map(gated.work, range(40), folder / "d", params={"gate": str(self.gate)}, client=cluster.address, batch_size=1)

    def wait_for(self, done: int = 0, running: int = 0) -> Gated:
        """Go on when so many items have succeeded and so many are in flight."""
        self._until(
            lambda: self.run.status().done >= done and self.run.status().running >= running, 30, f"{done} items, {running} in flight"
        )
        return self

    def wait_for_notice(self, worker: str) -> None:
        self._until(lambda: worker in self.run.status().note, 20, "the notice")

    def _until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            until(true, seconds, what)
        except AssertionError as error:
            status = self.run.status()
            self.run.cancel()  # the next tests need its workers
            raise AssertionError(f"{error}: {status}") from None

    def finish(self) -> Counter[str]:
        """Open the gate; who executed how many items, all of which succeeded at their first attempt."""
        self.gate.touch()
        assert self.run.wait(60, progress="quiet")
        attempts = self.run.attempts().compute()
        assert set(attempts["outcome"]) == {"succeeded"}
        assert set(Counter(attempts["item_key"]).values()) == {1}
        return Counter(attempts["worker"])


def notices(log: pytest.LogCaptureFixture, worker: str) -> list[str]:
    """The lines that say that a worker is left out."""
    lines = [record.getMessage() for record in log.records]
    return [line for line in lines if "takes no part" in line and worker in line]


def test_a_worker_that_joins_gets_batches(processes: DaskProcesses, library: Path, tmp_path: Path) -> None:
    """Once it has answered; here while the first worker is busy with an item.

    A second one is in line there, which Dask may bring to a worker that joins at once: so this has room for more.
    """
    run = Gated(processes, tmp_path).wait_for(done=5)
    with added(processes, library, "--no-nanny", "--nthreads", "2") as newcomer:
        assert run.wait_for(running=3).finish()[newcomer]


def test_workers_that_cannot_do_the_work_are_left_out_and_named(
    processes: DaskProcesses, library: Path, bare: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One cannot import the module, one lacks dcompute: no item goes there or fails, one line says who and why, and both live on."""
    run = Gated(processes, tmp_path).wait_for(done=5)
    with added(processes, tmp_path, "--no-nanny") as one:
        run.wait_for_notice(one)
        with added(processes, bare, "--no-nanny") as other:
            run.wait_for_notice(other)
            assert not {one, other} & run.finish().keys()
            assert {one, other} <= workers(processes)
    assert ["gated" in line and "\n" not in line for line in notices(caplog, one)] == [True]
    assert ["cannot import dcompute" in line for line in notices(caplog, other)] == [True]


def test_a_worker_without_dcompute_lives_on_when_a_task_comes_to_it(processes: DaskProcesses, bare: Path) -> None:
    """Dask may bring a batch to a worker that joins, before it is known what that lacks."""
    packed = Packed(payload=b"", digest="", data=b"")
    batch = BatchSpec(id="r-1-1", keys=(), attempts=(), fingerprints=(), values=b"")
    with added(processes, bare, "--no-nanny") as other, Client(processes.address, set_as_default=False) as client:
        there = Placement(resources={}, workers=(other,))
        tasks = [
            batch_task(packed, batch, there, key="batch"),
            probe_task(packed, "token", worker=other, key="probe"),
            rewrite_task(packed, "r-1-1", "r-1-2", None, workers=(other,), key="rewrite"),
        ]
        with dask.annotate(workers=[other], allow_other_workers=False):
            tasks.append(dc.workload(abs).delayed(-1))
        errors = [client.compute(task, optimize_graph=False, workers=[other]).exception(timeout=30) for task in tasks]
        assert [str(error) for error in errors] == ["No module named 'dcompute'"] * 4
        assert other in workers(processes)


def test_a_run_is_refused_where_a_worker_lacks_dcompute(processes: DaskProcesses, bare: Path, tmp_path: Path) -> None:
    """It lives on, and the error says what to do."""
    with added(processes, bare, "--no-nanny") as other:
        with pytest.raises(ClusterError, match=rf"worker {other} cannot do this work: it cannot import dcompute .*: install it there"):
            Gated(processes, tmp_path).run.wait(30)
        with Client(processes.address, set_as_default=False) as client:
            assert client.submit(abs, -1, workers=[other]).result(timeout=20) == 1


def test_a_scheduler_needs_no_dcompute(bare: Path, library: Path, tmp_path: Path) -> None:
    with standing_in(bare):
        cluster = DaskProcesses(tmp_path / "cluster")
    try:
        with added(cluster, library, "--no-nanny"), Client(cluster.address, set_as_default=False) as client:
            with pytest.raises(ModuleNotFoundError, match="dcompute"):
                client.run_on_scheduler(import_module, "dcompute")
            Gated(cluster, tmp_path).finish()
    finally:
        cluster.close()


def test_nobody_waits_for_a_worker_that_does_not_answer(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is taken by somebody else: the run ends without it.

    Dask must not bring a batch there from the line of the other worker, which it may before anybody knows of this one.
    """
    free = tmp_path / "free"

    def hog(path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "False")
    cluster = DaskProcesses(tmp_path / "cluster")
    try:
        with added(cluster, library, "--no-nanny"), Client(cluster.address, set_as_default=False) as client:
            taken = client.submit(hog, str(free), resources={"HOG": 1}, pure=False)
            run = Gated(cluster, tmp_path).wait_for(done=5)
            with added(cluster, library, "--no-nanny", "--resources", "HOG=1") as newcomer:
                until(lambda: len(client.processing().get(newcomer, ())) == 2, 20, "the probe behind the other task")
                assert newcomer not in run.finish()
                free.touch()
                taken.result(timeout=20)
    finally:
        cluster.close()


def test_the_first_worker_may_be_a_wrong_one(empty: DaskProcesses, library: Path, tmp_path: Path) -> None:
    """It takes the batch that waits for any worker, and cannot begin it: the next worker does all the work.

    Its set-up there says nothing of the workload: here the first that failed would end the run.
    """
    with dask.config.set({"dcompute.window.setup-failures": 1}):
        run = Gated(empty, tmp_path).wait_for(running=1)
    with added(empty, tmp_path, "--no-nanny") as wrong:
        run.wait_for_notice(wrong)
        with added(empty, library, "--no-nanny") as right:
            assert run.finish() == {right: 40}


def test_a_run_ends_when_for_long_there_are_only_workers_that_cannot_do_the_work(
    empty: DaskProcesses, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the error that a run would begin with, had they been there before."""
    monkeypatch.setattr(placing, "REFUSED_SECONDS", 0.5)
    run = Gated(empty, tmp_path).wait_for(running=1).run
    with added(empty, tmp_path, "--no-nanny") as wrong, pytest.raises(WorkloadError, match="gated") as caught:
        run.wait(60, progress="quiet")
    assert wrong in str(caught.value)


def test_a_worker_that_its_nanny_starts_again_goes_on(empty: DaskProcesses, library: Path, tmp_path: Path) -> None:
    """It has another address then, and is asked as any other that joins."""
    with added(empty, library, "--nanny") as first:
        run = Gated(empty, tmp_path).wait_for(done=5)
        kill(empty.worker_pids()[0])
        second = until(lambda: next(iter(workers(empty) - {first}), ""), 60, "the next worker")
        assert run.finish()[second]
