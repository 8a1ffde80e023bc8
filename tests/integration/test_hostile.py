"""Items that try to hurt others, on a cluster of real processes: each hurts only itself, and nothing of it is left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

import dcompute as dc
from dcompute.errors import InitializerError
from tests.processes import DaskProcesses, below, dask_processes, until

#: What each item does, and the kind as which it fails; None: it succeeds.
HOSTILE: dict[str, str | None] = {
    "segfault": "crash",
    "os._exit": "crash",
    "SystemExit": "permanent",
    "hang": "timeout",
    "memory": "memory",
    "unpicklable": "permanent",
    "unprintable": "permanent",
    "liar": "permanent",
    "print": None,
    "grandchild": None,
}
NEIGHBOURS = 24


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and two workers with nannies, whose workers must be the same at the end."""
    with dask_processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


@pytest.fixture
def unharmed(cluster: DaskProcesses) -> Iterator[DaskProcesses]:
    """The cluster; after the test its workers are the processes they were, and have nothing below them but what waits for work."""
    before = sorted(cluster.worker_pids())
    yield cluster
    assert sorted(cluster.worker_pids()) == before
    until(lambda: not strangers(cluster), 10, "the end of what items left behind")


def strangers(cluster: DaskProcesses) -> list[str]:
    """Command lines below the workers that are neither Dask's nor a warm child."""
    found = []
    for pid in [pid for nanny in cluster.nannies for pid in below(nanny.pid, "")]:
        try:
            words = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            continue
        if words and not any(known in words for known in ("multiprocessing", "dcompute.worker")):
            found.append(words)
    return found


def act(do: str, trace: str) -> str:
    """What a hostile item does; everything else gives its own name back."""
    import ctypes
    import os
    import subprocess
    import sys
    import time

    with open(trace, "a") as file:
        file.write(f"{do} {os.getpid()}\n")

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Unpicklable(Exception):
        def __reduce__(self) -> Any:
            raise RuntimeError("not this way")

    class Liar(Exception):
        @property
        def __class__(self) -> type:
            return ConnectionError

    if do == "segfault":
        ctypes.string_at(0)
    elif do == "os._exit":
        os._exit(0)
    elif do == "SystemExit":
        sys.exit(3)
    elif do == "hang":
        time.sleep(1000)
    elif do == "memory":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 10)) * (16 << 10))
    elif do == "unpicklable":
        raise Unpicklable(lambda: None)
    elif do == "unprintable":
        raise Unprintable
    elif do == "liar":
        raise Liar("I am a connection")
    elif do == "print":
        for _ in range(64):
            sys.stdout.write("x" * (1 << 20) + "\n")
    elif do == "grandchild":
        left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with open(trace + ".left", "a") as file:
            file.write(f"{left.pid}\n")
    return do


def by_value(**requirements: Any) -> Any:
    """The workload, which workers that cannot import this file get by value."""
    source = act

    def hostile(do: str, trace: str) -> str:
        return source(do, trace)

    return dc.workload(**requirements)(hostile)


def executed(trace: Path) -> Counter[str]:
    """How often each item began."""
    return Counter(line.split()[0] for line in trace.read_text().splitlines())


def last_attempts(dataset: Path) -> pd.DataFrame:
    """The attempts, by item; there is one an item."""
    frame = dc.open(dataset).attempts().compute()
    assert frame["item_key"].is_unique
    return frame.set_index("item_key")


def test_each_hostile_item_hurts_only_itself(unharmed: DaskProcesses, tmp_path: Path) -> None:
    """Each has its right kind, every neighbour succeeds and was executed once, and no process of theirs is left."""
    trace = tmp_path / "trace"
    neighbours = [f"neighbour-{number}" for number in range(NEIGHBOURS)]
    items = [*neighbours, *HOSTILE]
    items = items[::5] + items[1::5] + items[2::5] + items[3::5] + items[4::5]
    run = dc.map(
        by_value(timeout="4 s", memory="300 MiB", retries=0),
        items,
        tmp_path / "d",
        params={"trace": str(trace)},
        client=unharmed.address,
        batch_size=6,
    )
    run.wait(progress="quiet")
    rows = last_attempts(tmp_path / "d")
    assert {do: None if pd.isna(rows.loc[do, "kind"]) else rows.loc[do, "kind"] for do in HOSTILE} == HOSTILE
    assert set(rows.loc[neighbours, "outcome"]) == {"succeeded"}
    assert sorted(dc.open(tmp_path / "d").results().compute()["value"]) == sorted([*neighbours, "print", "grandchild"])
    counts = executed(trace)
    assert {name: counts[name] for name in neighbours} == dict.fromkeys(neighbours, 1)
    assert rows.loc["grandchild", "leftovers"] >= 1
    (left,) = map(int, (tmp_path / "trace.left").read_text().split())
    assert not psutil.pid_exists(left)
    assert len(rows.loc["print", "stdout"]) < 64 * 1024
    assert "Liar" in rows.loc["liar", "error"]
