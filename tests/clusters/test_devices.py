"""Two tasks never have one device: whole or shared, whoever is killed meanwhile, whoever else uses it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client

import dcompute as dc
from tests.clusters.conftest import DEVICES, in_process, information
from tests.processes import DaskProcesses, below, kill, until

PRELOAD = ("--preload", "dcompute.worker", "--nthreads", "2")
ITEMS = 1000
KILLS = 7


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    """Two worker processes of one host, with one device each, and two threads."""
    processes = DaskProcesses(tmp_path / "cluster")
    for _ in range(2):
        processes.add_worker(*PRELOAD, "--resources", "GPU=1,CPU=2")
    with Client(processes.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield processes
    processes.close()


def use(x: int, folder: str, share: float) -> dict[str, object]:
    """Lock each device as long as it is used: what two use at once, one of them cannot lock, and the kernel unlocks what the killed had."""
    import fcntl
    import os
    import time
    from pathlib import Path

    seen = os.environ["FAKE_VISIBLE_DEVICES"].split(",")
    assert tuple(seen) == dc.current().gpus
    files = []
    for device in seen:
        places = [f"{device}-{place}" for place in range(2)]
        for place in places if share == 1 else [places[x % 2], places[1 - x % 2]]:
            file = Path(folder, place).open("w")  # noqa: SIM115  held while the device is used
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            files.append(file)
            if share < 1:
                break
    if len(files) != (2 if share == 1 else 1):
        with Path(folder, "violations").open("a") as told:
            told.write(f"{x} {seen} {share}\n")
    begun = time.monotonic()
    time.sleep(0.02)
    for file in files:
        file.close()
    return {"device": ",".join(seen), "begun": begun, "ended": time.monotonic(), "pid": os.getpid()}


class Killer(threading.Thread):
    """Kills six children of workers and one worker, one after another, while runs are at work."""

    def __init__(self, cluster: DaskProcesses) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._over = threading.Event()
        self._random = random.Random(4)
        self.killed: list[str] = []

    def run(self) -> None:
        workers = self._cluster.worker_pids()
        while not self._over.wait(1.0) and len(self.killed) < KILLS:
            children = [pid for nanny in self._cluster.nannies for pid in below(nanny.pid, "dcompute.worker.child")]
            if len(self.killed) == 3:
                kill(self._random.choice(workers))
                self.killed.append("worker")
            elif children:
                kill(self._random.choice(children))
                self.killed.append("child")

    def stop(self) -> None:
        self._over.set()
        self.join(30)


@pytest.fixture
def patient() -> Iterator[None]:
    """A child that is killed while it gets ready says nothing of the workload."""
    with dask.config.set({"dcompute.window.setup-failures": 1000}):
        yield


@pytest.mark.usefixtures("patient")
def test_no_two_tasks_on_one_device_in_a_thousand(cluster: DaskProcesses, tmp_path: Path) -> None:
    """Whole devices and halves in two runs at once on two workers of a host, with children and a worker killed: never two on one."""
    locks = tmp_path / "locks"
    locks.mkdir()
    killer = Killer(cluster)
    runs = []
    for name, share, count in (("whole", 1, ITEMS // 2), ("half", 0.5, ITEMS // 2)):
        work = dc.workload(use).options(gpus=share, retries=5)
        params = {"folder": str(locks), "share": share}
        runs.append(dc.map(work, range(count), tmp_path / name, params=params, batch_size=25, client=cluster.address))
    killer.start()
    try:
        for run in runs:
            assert run.wait(150, progress="quiet")
    finally:
        killer.stop()
    assert "worker" in killer.killed
    assert killer.killed.count("child") >= 3
    for run in runs:
        assert run.summary().succeeded == ITEMS // 2
    assert not (locks / "violations").exists(), (locks / "violations").read_text()
    whole = runs[0].results().compute()
    assert set(whole["device"]) == set(DEVICES)
    for _, rows in whole.sort_values("begun").groupby("device"):
        assert (rows["begun"].iloc[1:].to_numpy() >= rows["ended"].iloc[:-1].to_numpy()).all()


def test_a_device_is_free_when_the_tree_of_a_killed_worker_is_dead(tmp_path: Path) -> None:
    """A worker is killed while its item, and a process that left its group, use the device: nobody gets it before both are gone."""
    processes = DaskProcesses(tmp_path / "cluster")
    try:
        processes.add_worker(*PRELOAD, "--resources", "GPU=2")
        pids = tmp_path / "pids"

        def hold(x: int) -> int:
            import subprocess
            import sys

            if not pids.exists():
                other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
                pids.with_suffix(".new").write_text(f"{os.getpid()} {other.pid}")
                pids.with_suffix(".new").rename(pids)
                time.sleep(600)
            return sum(psutil.pid_exists(int(pid)) for pid in pids.read_text().split())

        run = dc.map(dc.workload(hold).options(gpus=2), [1], tmp_path / "d", client=processes.address)
        until(pids.exists, 60, "the item at work")
        kill(processes.worker_pids()[0])
        assert run.wait(90, progress="quiet")
        assert list(run.results().compute()["value"]) == [0]
    finally:
        processes.close()


def test_an_item_without_gpus_sees_none(tmp_path: Path) -> None:
    """And one that asks for two sees these two, in the environment and by name."""

    def look(x: int) -> dict[str, object]:
        return {"seen": os.environ["FAKE_VISIBLE_DEVICES"], "gpus": ",".join(dc.current().gpus)}

    with in_process({"nthreads": 2}) as client:
        for gpus, expected in ((0, ""), (2, "a,b"), (0, "")):
            run = dc.map(dc.workload(look).options(gpus=gpus), range(4), tmp_path / f"{gpus}-{time.monotonic()}", client=client)
            assert run.wait(60, progress="quiet")
            rows = run.results().compute()
            assert set(rows["seen"]) == set(rows["gpus"]) == {expected}


def test_a_device_that_somebody_uses_is_passed_over(machine: Path, tmp_path: Path) -> None:
    """Items get the other one; where all are used the run ends soon, and says which, by whom not, and what to do."""

    def look(x: int) -> str:
        return os.environ["FAKE_VISIBLE_DEVICES"]

    (machine / "a").write_bytes(bytes(1000))
    work = dc.workload(look).options(gpus=1)
    with dask.config.set({"dcompute.worker.device-wait": 0.3}), in_process({"nthreads": 2}) as client:
        run = dc.map(work, range(6), tmp_path / "one", batch_size=1, client=client)
        assert run.wait(60, progress="quiet")
        assert set(run.results().compute()["value"]) == {"b"}
        (machine / "b").write_bytes(bytes(1000))
        until(lambda: run.status().state != "running", 10, "the end of the first run")
        other = dc.map(work.options(version="2"), range(6), tmp_path / "two", batch_size=1, client=client)
        with pytest.raises(
            dc.errors.ClusterError, match=r"no device of this worker was free for gpus=1 .*a \(1000 bytes\), b \(1000 bytes\)"
        ):
            other.wait(60, progress="quiet")


def test_without_the_preload_a_declared_gpu_is_one_device(tmp_path: Path) -> None:
    """Two workers of one host, each told GPU=1 by its operator: at any time each item has one device that the other has not."""
    locks = tmp_path / "locks"
    locks.mkdir()
    plain: dict[str, Any] = {"preload": [], "resources": {"GPU": 1}}
    with in_process(plain, plain) as client:
        assert all("dcompute" not in about for about in information(client).values())
        work = dc.workload(use).options(gpus=1)
        run = dc.map(work, range(100), tmp_path / "d", params={"folder": str(locks), "share": 1}, batch_size=5, client=client)
        assert run.wait(60, progress="quiet")
        assert run.summary().succeeded == 100
    assert not (locks / "violations").exists()
    assert set(run.results().compute()["device"]) == set(DEVICES)
