"""Real processes killed with real signals: what was committed stays, what was written is not executed again, all comes out right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from distributed import Client

import dcompute as dc
from tests.processes import DaskProcesses, below, dask_processes, kill, until

PROGRAM = Path(__file__).parents[1] / "programs" / "slow_index.py"
ITEM_SECONDS = 0.05
FILES = 90
BATCH = 3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of source files."""
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(library.glob("*.py"))[:FILES]
    listing = tmp_path_factory.mktemp("files") / "files.txt"
    listing.write_text("\n".join(map(str, found)))
    return listing


@pytest.fixture
def seed() -> int:
    """Printed where a test fails, to repeat its moments."""
    chosen = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CHAOS_SEED={chosen}")
    return chosen


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    """A scheduler and two workers with nannies, each in processes of their own."""
    with dask_processes(tmp_path / "cluster") as processes:
        yield processes


def start(dataset: Path, trace: Path, files: Path, *scheduler: str, seconds: float = ITEM_SECONDS) -> subprocess.Popen[str]:
    """The program under way; its first line has been read."""
    words = [sys.executable, str(PROGRAM), str(dataset), str(trace), str(files), str(seconds), *scheduler]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def finish(process: subprocess.Popen[str], seconds: float = 90) -> str:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out


def rows(dataset: Path) -> pd.DataFrame:
    """All results, sorted."""
    frame = dc.open(dataset).results().compute()
    return frame.sort_values(["item_key", "line", "name"]).reset_index(drop=True)


def succeeded(dataset: Path) -> Counter[str]:
    """How often each item was committed as succeeded."""
    frame = dc.open(dataset).attempts().compute()
    return Counter(frame[frame["outcome"] == "succeeded"]["item_key"])


def executed(trace: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in trace.read_text().splitlines())


def check(dataset: Path, trace: Path, files: Path, tmp_path: Path, *, lost_batches: int) -> None:
    """The results are those of an undisturbed run, nothing was committed twice, and no more was executed again than was in flight."""
    finish(start(tmp_path / "quiet", tmp_path / "quiet-trace", files, seconds=0.0))
    pd.testing.assert_frame_equal(rows(dataset), rows(tmp_path / "quiet"))
    names = files.read_text().split("\n")
    assert succeeded(dataset) == Counter(names)
    again = sum(executed(trace).values()) - len(names)
    assert 0 <= again <= lost_batches * BATCH, f"{again} items were executed again"


def test_a_client_killed_at_ten_random_moments_goes_on(tmp_path: Path, files: Path, seed: int) -> None:
    """Ten SIGKILLs of the client, workers and all, each followed by the same command."""
    moments = random.Random(seed)
    dataset, trace = tmp_path / "d", tmp_path / "trace"
    for _ in range(10):
        process = start(dataset, trace, files)
        time.sleep(moments.uniform(0.0, 1.2))
        process.kill()
        process.communicate()
    finish(start(dataset, trace, files))
    slots = os.cpu_count() or 1
    check(dataset, trace, files, tmp_path, lost_batches=10 * 2 * slots)


@pytest.mark.parametrize("victim", ["worker", "nanny", "child"])
def test_processes_of_a_cluster_killed_at_random_moments(
    victim: str, cluster: DaskProcesses, tmp_path: Path, files: Path, seed: int
) -> None:
    """The run goes on by itself, with right results, and nothing that was written is executed again."""
    moments = random.Random(seed)
    dataset, trace = tmp_path / "d", tmp_path / "trace"
    process = start(dataset, trace, files, cluster.address)
    kills = 0
    for _ in range(2):
        time.sleep(moments.uniform(0.5, 1.5))
        if process.poll() is None:
            kills += _kill_one(victim, cluster, moments)
    finish(process)
    assert kills
    check(dataset, trace, files, tmp_path, lost_batches=4 * kills)


def _kill_one(victim: str, cluster: DaskProcesses, moments: random.Random) -> int:
    if victim == "nanny":
        nanny = cluster.add_worker()
        until(lambda: below(nanny.pid, ""), 30, "the nanny's worker")
        chosen = moments.choice([p for p in cluster.nannies if p.poll() is None])
        for pid in below(chosen.pid, "spawn_main"):
            kill(pid)
        kill(chosen.pid)
        return 1
    if victim == "worker":
        kill(moments.choice(cluster.worker_pids()))
        return 1
    kill(moments.choice(until(lambda: _children(cluster), 30, "a child")))
    return 1


def _children(cluster: DaskProcesses) -> list[int]:
    return [pid for nanny in cluster.nannies for pid in below(nanny.pid, "dcompute.worker.child")]


def test_a_killed_scheduler_ends_the_run_and_the_same_line_goes_on(tmp_path: Path, files: Path) -> None:
    """The run ends within seconds with ClusterError, which says how to go on; on a new cluster that works."""
    dataset, trace = tmp_path / "d", tmp_path / "trace"
    with dask_processes(tmp_path / "one") as cluster:
        process = start(dataset, trace, files, cluster.address)
        until(lambda: trace.exists() and len(executed(trace)) > 12, 60, "the first items")
        kill(cluster.scheduler.pid)
        began = time.monotonic()
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 20
        assert process.returncode != 0
        assert "ClusterError" in err
        assert "run the same line again" in err
    with dask_processes(tmp_path / "two") as cluster:
        finish(start(dataset, trace, files, cluster.address))
    check(dataset, trace, files, tmp_path, lost_batches=2 * 2)


def test_workers_killed_while_they_are_asked_hold_no_run_up(tmp_path: Path, cluster: DaskProcesses) -> None:
    """All are busy, and die before they have shown that they can do the work: those that come in their place are asked."""
    with Client(cluster.address, set_as_default=False) as client:
        there = list(client.scheduler_info()["workers"])
        busy = [client.submit(time.sleep, 600, workers=[address], pure=False) for address in there]
        run = dc.map(len, ["a", "bb"], tmp_path / "d", client=client)
        until(lambda: run.status().note == "checking workers", 30, "the probes")
        for pid in cluster.worker_pids():
            kill(pid)
        assert run.wait(40, progress="quiet")
        assert sorted(run.results().compute()["value"]) == [1, 2]
        client.cancel(busy)


def test_no_process_is_left_after_a_client_was_killed(tmp_path: Path, files: Path) -> None:
    """The guardian ends the children of a client whose in-process workers died with it."""
    process = start(tmp_path / "d", tmp_path / "trace", files, seconds=5.0)
    ours = until(lambda: below(process.pid, "dcompute.worker.child"), 30, "a child")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not any(psutil.pid_exists(pid) for pid in ours), 10, "the end of the children")
