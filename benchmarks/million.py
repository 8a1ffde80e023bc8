"""A million no-op items, committed with results and attempts, beside ``client.map`` on ten thousand, in one run on one cluster.

    python benchmarks/million.py [ITEMS]

Prints items a second of both, their ratio, and how much the scheduler and the driver grew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

import dcompute as dc

COMPARED = 10_000


def noop(x: int) -> int:
    return x


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=log, stderr=log, cwd=folder)


def rss(pid: int | None = None) -> float:
    """Megabytes."""
    return psutil.Process(pid).memory_info().rss / 1e6


def compare(client: Client) -> float:
    """Items a second of plain ``client.map``."""
    client.gather(client.map(noop, range(100), pure=False))
    began = time.perf_counter()
    client.gather(client.map(noop, range(COMPARED), pure=False))
    return COMPARED / (time.perf_counter() - began)


def million(client: Client, scheduler: int, dataset: Path, items: int) -> dict[str, Any]:
    """Items a second of dcompute, and megabytes by which scheduler and driver grew."""
    dc.map(noop, range(10), dataset.with_name("warm"), client=client).wait(progress="quiet")
    before = rss(scheduler), rss()
    began = time.perf_counter()
    run = dc.map(noop, range(items), dataset, client=client)
    peak = before
    while not run.wait(timeout=0.25, progress="quiet"):
        peak = max(peak[0], rss(scheduler)), max(peak[1], rss())
    seconds = time.perf_counter() - began
    assert run.summary().succeeded == items, run.summary()
    return {
        "items_per_second": items / seconds,
        "seconds": seconds,
        "scheduler_mb": peak[0] - before[0],
        "driver_mb": peak[1] - before[1],
        "batches": run._driver._standing.ledger.batches,
    }


def main() -> None:
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        file = place / "scheduler.json"
        started = [start(place, "scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file))]
        started += [
            start(place, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
            for _ in range(2)
        ]
        try:
            with Client(scheduler_file=str(file)) as client:
                client.wait_for_workers(2, timeout=60)
                plain = compare(client)
                ours = million(client, started[0].pid, place / "dataset", items)
                began = time.perf_counter()
                dc.map(noop, range(items), place / "dataset", client=client).wait(progress="quiet")
                again = time.perf_counter() - began
        finally:
            for process in started:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()
    print(json.dumps({"client_map_per_second": plain, **ours, "ratio": ours["items_per_second"] / plain, "again_seconds": again}, indent=1))


if __name__ == "__main__":
    main()
