"""Clusters of this machine: worker processes that need no guard in a script, and that nothing outlives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

import dcompute as dc
from tests.hosts.network import BIN
from tests.processes import kill_tree, until

SCRIPT = """
import sys, time
import dcompute as dc
cluster = dc.cluster(workers=2, threads=1)
seconds = {"seconds": float(sys.argv[1])}
run = dc.map(lambda x, seconds: time.sleep(seconds) or x, range(4), "out", name="sleeps", params=seconds, batch_size=1)
print("started", flush=True)
run.wait(progress="quiet")
print(run.summary())
cluster.close()
"""


def below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_a_script_needs_no_guard(tmp_path: Path, leaves_nothing: None) -> None:
    """The current cluster is used, and its workers are processes."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py", "0"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 succeeded" in done.stdout
    workers = dc.open(tmp_path / "out").attempts().compute(scheduler="synchronous")["worker"]
    assert workers.nunique() == 2


def test_a_killed_program_takes_its_workers_along(tmp_path: Path, leaves_nothing: None) -> None:
    """SIGKILL, which nobody can catch."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "script.py", "60"], cwd=tmp_path, stdout=log, stderr=log)
    until(lambda: "started" in (tmp_path / "log").read_text(), 60, "the run", (tmp_path / "log").read_text)
    until(lambda: len(below(process.pid)) >= 4, 30, "its workers")
    children = below(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 40, "their end")


def test_cluster_start_ends_its_workers_with_itself(tmp_path: Path, leaves_nothing: None) -> None:
    """It asks before workers are beside the scheduler, and nobody there to answer means no."""
    words = [str(BIN / "dcompute"), "cluster", "start", "--listen", "tcp://127.0.0.1:0", "--address-file", "here.json"]
    refused = subprocess.run([*words, "--workers", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "--scheduler-as-worker" in refused.stderr
    beside = [*words, "--scheduler-as-worker", "--workers", "1", "--threads", "1"]
    unasked = subprocess.run(beside, cwd=tmp_path, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert unasked.returncode == 2
    assert "may take the scheduler along" in unasked.stderr
    assert not (tmp_path / "here.json").exists()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*beside, "--yes"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        until((tmp_path / "here.json").exists, 60, "a scheduler", (tmp_path / "log").read_text)
        children = below(process.pid)
        assert children
        with dc.cluster(tmp_path / "here.json") as cluster:
            assert cluster.client.submit(sum, [1, 2]).result(timeout=30) == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        kill_tree(process.pid)
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 20, "their end")
    assert not (tmp_path / "here.json").exists()
