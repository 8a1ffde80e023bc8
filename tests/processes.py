"""Real processes for tests: a scheduler, workers with nannies, clients; started, killed and cleaned up by process id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil


def until(true: Callable[[], Any], seconds: float, what: str, said: Callable[[], str] = str) -> Any:
    """The first true answer; fails where none comes in time, with the end of what was said meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s\n{said()[-4000:]}")


class DaskProcesses:
    """A scheduler and workers, each in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._started: list[subprocess.Popen[bytes]] = []
        self.nannies: list[subprocess.Popen[bytes]] = []
        where = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file))
        self.scheduler = self._start("scheduler", *where)
        until(lambda: self._file.exists() and self._file.read_text().endswith("\n}"), 30, "the scheduler's file, whole")

    @property
    def _file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        """The scheduler's address."""
        import json

        return str(json.loads(self._file.read_text())["address"])

    def add_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """A nanny with one worker of one thread, unless the options say otherwise; returns the nanny's process."""
        scratch = self.folder / f"scratch-{len(self._started)}"
        defaults = ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(scratch)]
        nanny = self._start("worker", "--scheduler-file", str(self._file), *defaults, *options)
        self.nannies.append(nanny)
        return nanny

    def worker_pids(self) -> list[int]:
        """Process ids of the Dask workers themselves, as the scheduler knows them."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return list(client.run(os.getpid).values())

    def close(self) -> None:
        """End all of them and what they started."""
        for process in reversed(self._started):
            kill_tree(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{words[0]}-{len(self._started)}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=log, stderr=log, cwd=self.folder)
        self._started.append(process)
        return process


@contextlib.contextmanager
def dask_processes(folder: Path, workers: int = 2) -> Iterator[DaskProcesses]:
    """A scheduler and so many workers with nannies, ready."""
    from distributed import Client

    cluster = DaskProcesses(folder)
    try:
        for _ in range(workers):
            cluster.add_worker()
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield cluster
    finally:
        cluster.close()


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all below it."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process, which may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def below(pid: int, words: str) -> list[int]:
    """Processes below one whose command line has these words."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for process in children:
        with contextlib.suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                found.append(process.pid)
    return found
