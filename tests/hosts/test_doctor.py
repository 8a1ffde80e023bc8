"""The doctor at clusters with something wrong: it names the worker and says what to do, in bounded time, and the worker lives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from distributed import Client

import dcompute
from tests.hosts.network import BIN
from tests.processes import DaskProcesses, until

SITE = Path(cloudpickle.__file__).parent.parent


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskProcesses]:
    """A scheduler with a worker that is as it should be."""
    there = DaskProcesses(tmp_path / "cluster")
    there.add_worker("--no-nanny", "--name", "good")
    try:
        yield there
    finally:
        there.close()


def joined(cluster: DaskProcesses, name: str) -> str:
    """The address of a worker, when it is there."""
    with Client(cluster.address, set_as_default=False) as client:

        def address() -> str | None:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            return next((address for address, info in workers.items() if info["name"] == name), None)

        return str(until(address, 60, f"worker {name}"))


def odd_worker(cluster: DaskProcesses, folder: Path, name: str, *options: str, path: str) -> subprocess.Popen[bytes]:
    """A worker whose Python has other packages."""
    folder.mkdir(exist_ok=True)
    words = [sys.executable, *options, "-m", "dask", "worker", cluster.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*words, "--host", "127.0.0.1", "--name", name, "--local-directory", str(folder / name)],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip


def doctor(cluster: DaskProcesses, *words: str, within: float = 90) -> tuple[int, list[dict[str, Any]]]:
    """Its exit code and its findings."""
    done = subprocess.run(
        [str(BIN / "dcompute"), "doctor", cluster.address, *words, "--json"], capture_output=True, text=True, timeout=within, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def wrong(findings: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(found["status"], found["check"], found["where"]) for found in findings if found["status"] != "ok"]


def test_a_healthy_cluster_is_healthy_and_stays_as_it_was(cluster: DaskProcesses, tmp_path: Path) -> None:
    """Nothing is left on the storage, and no task at the scheduler."""
    joined(cluster, "good")
    code, findings = doctor(cluster, str(tmp_path / "data" / "set"))
    assert (code, wrong(findings)) == (0, [])
    assert sum(found["check"] == "storage" for found in findings) == 2
    assert not (tmp_path / "data").exists()
    with Client(cluster.address, set_as_default=False) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)) == []


def test_a_worker_that_lacks_dcompute_is_named_and_lives(cluster: DaskProcesses, tmp_path: Path) -> None:
    """With the line that installs it there; the others are well."""
    # -S: what an editable install puts on the path is not there
    process = odd_worker(cluster, tmp_path / "odd", "bare", "-S", path=str(SITE))
    try:
        address = joined(cluster, "bare")
        code, findings = doctor(cluster, str(tmp_path / "data"))
        assert code == 3
        assert wrong(findings) == [("failure", "import", address)]
        (found,) = [found for found in findings if found["where"] == address]
        assert "No module named 'dcompute'" in found["text"]
        assert f"pip install dcompute=={dcompute.__version__}" in found["todo"]
        assert process.poll() is None
        assert joined(cluster, "bare") == address
    finally:
        process.kill()
        process.wait()


def test_versions_that_differ_are_named(cluster: DaskProcesses, tmp_path: Path) -> None:
    """Of dcompute, which must be the same, and of cloudpickle, which ought to be."""
    other = tmp_path / "other"
    shutil.copytree(Path(dcompute.__file__).parent, other / "dcompute", ignore=shutil.ignore_patterns("__pycache__"))
    source = other / "dcompute" / "__init__.py"
    source.write_text(source.read_text().replace(f'__version__ = "{dcompute.__version__}"', '__version__ = "0.0.9"'))
    shutil.copytree(SITE / "cloudpickle", other / "cloudpickle")
    (other / "cloudpickle-2.2.1.dist-info").mkdir()
    (other / "cloudpickle-2.2.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cloudpickle\nVersion: 2.2.1\n")
    process = odd_worker(cluster, tmp_path / "odd", "old", path=str(other))
    try:
        address = joined(cluster, "old")
        code, findings = doctor(cluster)
        assert code == 3
        assert wrong(findings) == [("failure", "versions", address), ("warning", "versions", address)]
        text = " ".join(found["text"] + found["todo"] for found in findings if found["where"] == address)
        assert f"dcompute 0.0.9 (here {dcompute.__version__})" in text
        assert "cloudpickle 2.2.1" in text
    finally:
        process.kill()
        process.wait()


def test_a_frozen_worker_is_named_in_bounded_time(cluster: DaskProcesses, tmp_path: Path) -> None:
    """The others are looked at all the same."""
    frozen = cluster.add_worker("--no-nanny", "--name", "frozen")
    address = joined(cluster, "frozen")
    joined(cluster, "good")
    tree = [psutil.Process(frozen.pid), *psutil.Process(frozen.pid).children(recursive=True)]
    for process in tree:
        process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        code, findings = doctor(cluster, "--timeout", "4")
        assert time.monotonic() - began < 45
        assert code == 3
        assert wrong(findings) == [("failure", "answer", address)]
        assert any(found["check"] == "import" and found["where"] == "1 worker" for found in findings)
    finally:
        for process in tree:
            process.send_signal(signal.SIGCONT)


def test_a_scheduler_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    """And the storage is looked at from here, all the same."""
    done = subprocess.run(
        [str(BIN / "dcompute"), "doctor", "tcp://127.0.0.1:1", str(tmp_path / "data"), "--timeout", "3", "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    found = {finding["check"]: finding["status"] for finding in json.loads(done.stdout)["findings"]}
    assert found == {"here": "ok", "storage": "ok", "connect": "failure"}
