"""Items that try to hurt others, on a cluster of real processes: each hurts only itself, and nothing of it is left."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
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
    "grandchild": None,
}
NEIGHBOURS = 24


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler and two workers with nannies, which get by value what stands in this file."""
    here = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(here)
    with dask_processes(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes
    cloudpickle.unregister_pickle_by_value(here)


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


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not this way")


def segfault(trace: str) -> None:
    ctypes.string_at(0)


def leave_without_a_word(trace: str) -> None:
    os._exit(0)


def leave(trace: str) -> None:
    sys.exit(3)


def hang(trace: str) -> None:
    time.sleep(1000)


def hoard(trace: str) -> None:
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 10)) * (16 << 10))


def raise_unpicklable(trace: str) -> None:
    raise Unpicklable(lambda: None)


def raise_unprintable(trace: str) -> None:
    raise Unprintable


def lie(trace: str) -> None:
    class Liar(Exception):  # here, because cloudpickle cannot make such a class anew from its parts
        @property
        def __class__(self) -> type:
            return ConnectionError

    raise Liar("I am a connection")


def print_a_gigabyte(trace: str) -> None:
    for _ in range(1024):
        sys.stdout.write("x" * (1 << 20) + "\n")


def leave_a_grandchild(trace: str) -> None:
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(trace + ".left", "a") as file:
        file.write(f"{left.pid}\n")


ACTS = {
    "segfault": segfault, "os._exit": leave_without_a_word, "SystemExit": leave, "hang": hang, "memory": hoard,
    "unpicklable": raise_unpicklable, "unprintable": raise_unprintable, "liar": lie, "print": print_a_gigabyte,
    "grandchild": leave_a_grandchild,
}  # fmt: skip


def act(do: str, trace: str) -> str:
    """What a hostile item does; every item gives its own name back, if it comes to that."""
    with open(trace, "a") as file:
        file.write(f"{do} {os.getpid()}\n")
    if do in ACTS:
        ACTS[do](trace)
    return do


def hostile(**requirements: Any) -> dc.Workload:
    """The workload with these requirements."""
    return dc.workload(**requirements)(act)


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
        hostile(timeout="4 s", memory="300 MiB", retries=0),
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
    assert sorted(dc.open(tmp_path / "d").results().compute()["value"]) == sorted([*neighbours, "grandchild"])
    counts = executed(trace)
    assert {name: counts[name] for name in neighbours} == dict.fromkeys(neighbours, 1)
    assert rows.loc["grandchild", "leftovers"] >= 1
    (left,) = map(int, (tmp_path / "trace.left").read_text().split())
    assert not psutil.pid_exists(left)
    assert "Liar" in rows.loc["liar", "error"]


def test_a_gigabyte_of_prints_harms_nothing(unharmed: DaskProcesses, tmp_path: Path) -> None:
    """The item succeeds, and its row keeps the beginning and the end of what it printed."""
    items = ["before", "print", "after"]
    run = dc.map(hostile(), items, tmp_path / "d", params={"trace": str(tmp_path / "trace")}, client=unharmed.address, batch_size=3)
    run.wait(progress="quiet")
    rows = last_attempts(tmp_path / "d")
    assert set(rows["outcome"]) == {"succeeded"}
    assert executed(tmp_path / "trace") == Counter(items)
    assert 8 * 1024 < len(rows.loc["print", "stdout"]) < 64 * 1024
    assert "left out" in rows.loc["print", "stdout"]


@pytest.mark.parametrize("do", ["os._exit", "unprintable"])
def test_in_a_group_only_the_guilty_item_fails(do: str, unharmed: DaskProcesses, tmp_path: Path) -> None:
    """The others succeed at their first attempt; the group's failure is nobody's attempt."""
    trace = str(tmp_path / "trace")

    @dc.workload(group=8, timeout="20 s", memory="300 MiB", retries=0)
    def together(names: list[str]) -> list[str]:
        return [act(name, trace) for name in names]

    neighbours = [f"neighbour-{number}" for number in range(7)]
    run = dc.map(together, [*neighbours[:3], do, *neighbours[3:]], tmp_path / "d", client=unharmed.address, batch_size=8)
    run.wait(progress="quiet")
    rows = last_attempts(tmp_path / "d")
    assert rows.loc[do, "kind"] == HOSTILE[do]
    assert set(rows.loc[neighbours, "outcome"]) == {"succeeded"}
    assert set(rows["attempt"]) == {1}
    assert run.summary().failed == 1


def test_a_crash_is_tried_once_more_alone_where_nothing_is_said_of_retries(unharmed: DaskProcesses, tmp_path: Path) -> None:
    """Two attempts, both crashes; then it stays failed, and its neighbours had one each.

    The first attempt counts from its second execution on: in the first another item had been executed in the same process before.
    """
    trace = tmp_path / "trace"
    run = dc.map(hostile(), ["a", "segfault", "b"], tmp_path / "d", params={"trace": str(trace)}, client=unharmed.address, batch_size=3)
    run.wait(progress="quiet")
    assert executed(trace) == {"a": 1, "segfault": 3, "b": 1}
    attempts = dc.open(tmp_path / "d").attempts().compute()
    assert sorted(attempts.loc[attempts["item_key"] == "segfault", "attempt"]) == [1, 2]
    assert run.summary().failed_by_kind == {"crash": 1}


def test_a_set_up_that_fails_three_times_ends_the_run_with_its_log(unharmed: DaskProcesses, tmp_path: Path) -> None:
    """InitializerError has what the set-up raised and printed; no item is billed, so that the corrected line does them all."""
    broken = tmp_path / "broken"
    broken.touch()

    class Model:
        def __init__(self, broken: str) -> None:
            import os

            if os.path.exists(broken):
                print("loading the weights")
                raise OSError("the weights are gone")

        def __call__(self, x: int) -> int:
            return x

    run = dc.map(Model, range(8), tmp_path / "d", params={"broken": str(broken)}, client=unharmed.address)
    with pytest.raises(InitializerError, match="the weights are gone") as caught:
        run.wait(progress="quiet")
    assert "loading the weights" in str(caught.value)
    assert len(dc.open(tmp_path / "d").attempts().compute()) == 0
    broken.unlink()
    run = dc.map(Model, range(8), tmp_path / "d", params={"broken": str(broken)}, client=unharmed.address)
    run.wait(progress="quiet")
    assert run.summary().succeeded == 8


def test_a_set_up_that_fails_once_works_and_is_billed_to_no_item(unharmed: DaskProcesses, tmp_path: Path) -> None:
    """Its time is in no item's duration, its failure in no item's attempts, and it is done once a child."""
    notes = tmp_path / "set-ups"

    def load(notes: str) -> str:
        import os
        import time

        with open(notes, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        with open(notes) as file:
            if len(file.readlines()) <= 3:
                raise RuntimeError("not yet")
        return "ready"

    def model(x: int, state: str) -> str:
        return f"{x} {state}"

    work = dc.workload(initializer=load)(model)
    run = dc.map(work, range(12), tmp_path / "d", params={"notes": str(notes)}, client=unharmed.address, batch_size=2)
    run.wait(progress="quiet")
    rows = last_attempts(tmp_path / "d")
    assert set(rows["outcome"]) == {"succeeded"}
    assert set(rows["attempt"]) == {1}
    assert rows["duration"].max() < 0.4
    pids = notes.read_text().split()
    assert len(pids) == len(set(pids))
