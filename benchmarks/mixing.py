"""How much of its slots a cluster uses while three runs of three classes have work left.

A scheduler and two workers of four cores, as ``dask scheduler`` and ``dask worker`` start them; the second has a (declared) GPU. One run
wants the GPU, one two cores an item, one a single core; items sleep, so that the machine's own cores are no bound. What counts is the time
that items themselves take, of all cores, from when all three are at work until the first has nothing left to begin. Fails below the mark.

python benchmarks/mixing.py [SECONDS]
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from distributed import Client

import dcompute as dc

SECONDS, ITEM, CORES = 40.0, 0.5, 4
CLASSES: dict[str, dict[str, Any]] = {"gpu": {"gpus": 1}, "two": {"cpus": 2}, "one": {}}
#: Seconds after the begin of the last run in which shares are found, and the mark.
SETTLING, LEAST_USE = 5.0, 0.95


def nap(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Client]:
    """Two workers of four cores, one with a GPU."""
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    web = ["--no-dashboard"]
    processes = [subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file, *web])]
    for resources in ("CPU=4", "CPU=4,GPU=1"):
        command = [*dask, "worker", "--scheduler-file", file, "--nthreads", str(CORES), "--memory-limit", "2 GiB", *web]
        processes.append(subprocess.Popen([*command, "--local-directory", folder, "--resources", resources]))
    try:
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def spans(run: dc.Run) -> pd.DataFrame:
    """When each item began and ended, in seconds."""
    attempts = run.attempts().compute()
    began = attempts["started"].astype("datetime64[us, UTC]").astype("int64") / 1e6
    return pd.DataFrame({"began": began, "ended": began + attempts["duration"].astype(float)})


def main() -> int:
    """Print the figures."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    work = dc.workload(nap)
    with tempfile.TemporaryDirectory() as name, cluster(Path(name)) as client:
        runs = {}
        for which, asked in CLASSES.items():
            count = round(seconds / ITEM * {"gpu": 1, "two": 2, "one": 4}[which])
            runs[which] = dc.map(
                work.options(**asked), range(count), Path(name) / which, params={"seconds": ITEM}, name=which, client=client
            )
        for run in runs.values():
            run.wait(progress="quiet")
        found = {which: spans(run) for which, run in runs.items()}
    start = max(frame["began"].min() for frame in found.values()) + SETTLING
    end = min(frame["began"].max() for frame in found.values())
    used = {
        which: (frame["ended"].clip(upper=end) - frame["began"].clip(lower=start)).clip(lower=0).sum() * CLASSES[which].get("cpus", 1)
        for which, frame in found.items()
    }
    whole = 2 * CORES * (end - start)
    print(f"{end - start:.1f} s with all three at work, of {2 * CORES} cores:")
    for which, core_seconds in used.items():
        print(f"  {which:4} {core_seconds / whole:6.1%}")
    share = sum(used.values()) / whole
    print(f"  all  {share:6.1%} (mark {LEAST_USE:.0%})")
    return 0 if share >= LEAST_USE else 1


if __name__ == "__main__":
    sys.exit(main())
