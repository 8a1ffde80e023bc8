"""The built-in reports over millions of attempts, on two workers of 2 GB each: seconds, and the most memory that a process had.

python benchmarks/reports.py [ATTEMPTS]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pyarrow as pa
from distributed import Client, LocalCluster

import dcompute as dc
from dcompute.dataset.entries import Add, AddBatch, Close, Entry, Open
from dcompute.dataset.names import entry_name, new_id
from dcompute.dataset.parts import ATTEMPTS_SCHEMA, mark_name, write_attempts
from dcompute.dataset.store import Store
from dcompute.records import Receipt, batch_id

ATTEMPTS = 10_000_000
ROWS = 10_000  # a batch
SLOTS, HOSTS, WORKERS = 512, 64, 256
COMMITS = 100  # batches an entry of the log
RUN = "20260101T000000-abcdef01"
LIMIT = 2e9  # bytes of a worker
REPORTS: dict[str, dict[str, Any]] = {
    "summary": {"run": "all"},
    "throughput": {},
    "failures": {},
    "resources": {},
    "scaling": {"by": "workers"},
    "history": {},
    "cost": {"price": 1.0},
}


def pattern(chance: np.random.Generator) -> dict[str, Any]:
    """The columns of a batch that may be the same in another one."""
    failed = chance.random(ROWS) < 0.02
    error = np.where(failed, np.char.add("lab.errors.Odd", chance.integers(0, 200, ROWS).astype(str)), None)
    return {
        "attempt": np.ones(ROWS, np.int32),
        "outcome": np.where(failed, "failed", "succeeded"),
        "kind": np.where(failed, "permanent", None),
        "error": error,
        "message": np.where(failed, "what was wrong with it, in a sentence of some length", None),
        "duration": chance.lognormal(-4, 1, ROWS),
        "cpu_user": chance.random(ROWS) / 100,
        "cpu_system": chance.random(ROWS) / 1000,
        "peak_memory": chance.lognormal(18, 0.5, ROWS).astype(np.int64),
        "bytes_read": chance.integers(0, 10**6, ROWS),
        "bytes_written": chance.integers(0, 10**5, ROWS),
        "bottleneck": chance.choice(["cpu", "io", "mixed"], ROWS),
        "rows": np.ones(ROWS, np.int64),
    }


def write(store: Store, attempts: int) -> int:
    """Write so many attempts, batch by batch; bytes that they take."""
    chance = np.random.default_rng(1)
    patterns = [pattern(chance) for _ in range(8)]
    Path(store.path("attempts")).mkdir(parents=True)
    Path(store.path("log")).mkdir()
    store.write("dataset.json", b'{"format": [1, 0], "id": "d", "created": 0}')
    batches = [_batch(store, number, patterns[number % 8]) for number in range(1, attempts // ROWS + 1)]
    actions: list[Any] = [Open(epoch=1, run=RUN, workload="flux", host="h", boot="b", pid=1, started=1.0)]
    actions += [Add(batches=tuple(batches[at : at + COMMITS])) for at in range(0, len(batches), COMMITS)]
    for number, action in enumerate([*actions, Close(epoch=1)], 1):
        Path(store.path(entry_name(number))).write_bytes(Entry(number, new_id(), float(number), (action,)).to_bytes())
    return sum(path.stat().st_size for path in Path(store.path("attempts")).iterdir())


def _batch(store: Store, number: int, columns: dict[str, Any]) -> AddBatch:
    batch, slot = batch_id(RUN, 1, number), number % SLOTS
    began = np.cumsum(columns["duration"]) - columns["duration"]
    started = 1_767_225_600 + (number // SLOTS) * float(columns["duration"].sum()) + began
    own = {
        "item_key": [f"raw/2026/{number:06d}/{row:05d}.csv" for row in range(ROWS)],
        "key_kind": ["str"] * ROWS,
        "started": pa.array((started * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC")),
        "host": [f"node-{slot % HOSTS}"] * ROWS,
        "worker": [f"tcp://10.0.0.{slot % WORKERS}:40000"] * ROWS,
        "batch": [batch] * ROWS,
        "run": [RUN] * ROWS,
        "workload": ["flux"] * ROWS,
    }
    known = {**columns, **own}
    arrays = [_array(known[field.name], field) if field.name in known else pa.nulls(ROWS, field.type) for field in ATTEMPTS_SCHEMA]
    receipt = Receipt(batch=batch, execution="e", holds=((0, ROWS),))
    write_attempts(store.path(mark_name(batch)), pa.table(arrays, schema=ATTEMPTS_SCHEMA), receipt)
    failed = int((columns["outcome"] == "failed").sum())
    return AddBatch(id=batch, holds=((0, ROWS),), succeeded=ROWS - failed, failed=(("permanent", failed),), rows=ROWS)


def _array(values: Any, field: pa.Field) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    # of a NumPy array of objects Arrow takes None for a value
    return pa.array(values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind == "O" else values, field.type)


@contextmanager
def watched(client: Client) -> Iterator[dict[str, float]]:
    """The most that a worker and this process had in memory, and that workers had spilled, while it lasts."""
    pids = {f"worker {at}": psutil.Process(pid) for at, pid in enumerate(client.run(_pid).values(), 1)} | {"client": psutil.Process()}
    most: dict[str, float] = dict.fromkeys([*pids, "spilled"], 0.0)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for name, process in pids.items():
                with suppress(psutil.NoSuchProcess):  # its nanny ended it for its memory
                    most[name] = max(most[name], process.memory_info().rss)
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            spilled = sum(sum(worker["metrics"].get("spilled_bytes", {"": 0}).values()) for worker in workers)
            most["spilled"] = max(most["spilled"], spilled)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _pid() -> int:
    import os

    return os.getpid()


def main() -> int:
    """Print the figures; 1 where a worker comes near its limit or spills."""
    attempts = int(sys.argv[1]) if len(sys.argv) > 1 else ATTEMPTS
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(f"{folder}/dataset")
        began = time.perf_counter()
        size = write(store, attempts)
        took = time.perf_counter() - began
        print(f"{attempts:,} attempts in {attempts // ROWS:,} files of {size / 1e6:.0f} MB in all, written in {took:.0f} s", flush=True)
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=None, local_directory=folder)
        with cluster, Client(cluster) as client:
            dataset = dc.open(store.url)
            for name, options in REPORTS.items():
                began = time.perf_counter()
                with watched(client) as most:
                    found = dataset.report(name, **options)
                took = time.perf_counter() - began
                told = ", ".join(f"{who} {size / 1e6:,.0f} MB" for who, size in most.items())
                print(f"{name:<11} {took:6.1f} s  {attempts / took:11,.0f} attempts/s  {len(found):5,} rows  most: {told}", flush=True)
                bad += most["spilled"] > 0 or max(most["worker 1"], most["worker 2"]) > LIMIT
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
