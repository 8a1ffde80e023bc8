"""Workloads in all their forms, as a user writes them, through ``dc.map`` on a real local cluster."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import Client, Worker
from distributed.deploy.spec import SpecCluster
from distributed.scheduler import Scheduler

import dcompute as dc
from dcompute.errors import InitializerError, ItemError, WorkloadError


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[Client]:
    """One cluster for all runs here: a Client that exists is used."""
    web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    cluster = SpecCluster(
        scheduler={"cls": Scheduler, "options": {"protocol": "inproc://", **web}},
        workers={0: {"cls": Worker, "options": {"protocol": "inproc://", "nthreads": 2, "memory_limit": 0, **web}}},
    )
    with cluster, Client(cluster) as client:
        yield client


def table(url: object) -> dict[str, Any]:
    """The value of each item, by key."""
    frame = dc.open(url).results().compute()
    return dict(zip(frame["item_key"], frame["value"], strict=True)) if len(frame) else {}


def attempts(run: dc.Run) -> pd.DataFrame:
    """All attempts, in the order in which they began."""
    return run.attempts().compute().sort_values(["item_key", "attempt"]).reset_index(drop=True)


def done(run: dc.Run) -> dc.Run:
    """The run, after its end."""
    assert run.wait(90, progress="quiet"), run.status()
    return run


# -- the decorator -------------------------------------------------------------------------------------------------------------


@dc.workload
def bare(x: int) -> int:
    """Twice x."""
    return 2 * x


@dc.workload(timeout="30 s", cpus=1)
def with_arguments(x: int) -> int:
    return 3 * x


def test_a_decorated_function_is_still_the_function_and_a_workload(tmp_path: Path) -> None:
    """With and without arguments: called it returns what it returns, its name and text stay, dc.map takes it."""
    assert (bare(4), with_arguments(4)) == (8, 12)
    assert (bare.__name__, bare.__doc__) == ("bare", "Twice x.")
    done(dc.map(bare, [1, 2], tmp_path / "bare"))
    done(dc.map(with_arguments, [1, 2], tmp_path / "arguments"))
    assert table(tmp_path / "bare") == {"1": 2, "2": 4}
    assert table(tmp_path / "arguments") == {"1": 3, "2": 6}


def test_options_override_a_requirement_for_one_call(tmp_path: Path) -> None:
    """The overridden timeout kills; the workload it was made from keeps its own, and the dataset is the same workload's."""

    @dc.workload(timeout="60 s")
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    run = done(dc.map(nap.options(timeout="0.3 s"), [0.0, 20.0], tmp_path / "d"))
    assert run.summary().failed_by_kind == {"timeout": 1}
    assert nap.timeout == 60
    again = done(dc.map(nap, [0.0, 0.5], tmp_path / "d"))
    assert (again.summary().skipped, again.summary().succeeded) == (1, 1)


# -- set-up --------------------------------------------------------------------------------------------------------------------


class Model:
    """Loaded once a child; says in which process, and how often it was called there."""

    def __init__(self, path: str, factor: int = 1) -> None:
        with Path(path).open("a") as file:
            file.write(f"{os.getpid()}\n")
        self.factor, self.calls = factor, 0

    def __call__(self, x: int, offset: int = 0) -> dict[str, int]:
        self.calls += 1
        return {"y": x * self.factor + offset, "pid": os.getpid(), "call": self.calls}


def test_a_class_is_set_up_once_a_child_and_called_for_each_item(tmp_path: Path) -> None:
    """``__init__`` runs once in each process that executed items; params go where their names are taken."""
    params = {"path": str(tmp_path / "loads"), "factor": 10, "offset": 1}
    run = done(dc.map(dc.workload(Model), range(40), tmp_path / "d", params=params))
    frame = run.results().compute()
    assert sorted(frame["y"]) == [10 * x + 1 for x in range(40)]
    loads = Counter((tmp_path / "loads").read_text().split())
    assert set(loads.values()) == {1}
    assert {str(pid) for pid in frame["pid"]} <= set(loads)
    assert len(set(frame["pid"])) <= 2
    for _, mine in frame.groupby("pid"):
        assert sorted(mine["call"]) == list(range(1, len(mine) + 1))


def test_the_value_of_an_initializer_arrives_as_state(tmp_path: Path) -> None:
    """It is made once a child, and the function gets that object at each call."""

    def load(size: int) -> dict[str, Any]:
        return {"pid": os.getpid(), "size": size, "calls": 0}

    @dc.workload(initializer=load)
    def use(x: int, state: dict[str, Any]) -> dict[str, Any]:
        state["calls"] += 1
        return {"own": state["pid"] == os.getpid(), "size": state["size"], "calls": state["calls"]}

    frame = done(dc.map(use, range(12), tmp_path / "d", params={"size": 5})).results().compute()
    assert set(frame["own"]) == {True}
    assert set(frame["size"]) == {5}
    assert max(frame["calls"]) > 1


def test_a_setup_that_always_fails_ends_the_run_and_is_billed_to_no_item(tmp_path: Path) -> None:
    """Three failures in a row are an InitializerError with the text; no attempt is recorded, and a mended one goes on."""
    switch = tmp_path / "broken"
    switch.touch()

    def load(switch: str) -> int:
        if Path(switch).exists():
            raise OSError("the licence server says no")
        return 1

    @dc.workload(initializer=load)
    def use(x: int, state: int) -> int:
        return x + state

    run = dc.map(use, range(3), tmp_path / "d", params={"switch": str(switch)})
    with pytest.raises(InitializerError, match="the licence server says no"):
        run.wait(60, progress="quiet")
    assert len(run.attempts()) == 0
    switch.unlink()
    done(dc.map(use, range(3), tmp_path / "d", params={"switch": str(switch)}))
    assert table(tmp_path / "d") == {"0": 1, "1": 2, "2": 3}


# -- groups --------------------------------------------------------------------------------------------------------------------


def test_a_group_gives_its_function_lists_and_takes_as_many_results(tmp_path: Path) -> None:
    """Lists of at most ``group`` values; every item has its own row, with figures that say they are shared."""

    @dc.workload(group=4)
    def together(values: list[int]) -> list[dict[str, int]]:
        time.sleep(0.01)
        return [{"y": value + 1, "size": len(values)} for value in values]

    run = done(dc.map(together, range(10), tmp_path / "d", batch_size=8))
    frame = run.results().compute()
    assert dict(zip(frame["item_key"], frame["y"], strict=True)) == {str(x): x + 1 for x in range(10)}
    assert 1 < max(frame["size"]) <= 4
    assert set(attempts(run)["measured"]) == {"group"}


@pytest.mark.parametrize("way", ["exception", "number", "crash", "timeout"])
def test_a_group_that_fails_is_no_attempt_and_only_the_guilty_item_fails(way: str, tmp_path: Path) -> None:
    """However it fails, its items are executed again one by one, each as its first attempt."""

    @dc.workload(group=4, retries=0, timeout="1 s")
    def together(values: list[int], way: str) -> list[int]:
        if 2 in values:
            if way == "exception":
                raise ValueError("two")
            if way == "number":
                return []
            if way == "crash":
                os._exit(3)
            time.sleep(60)
        return values

    run = done(dc.map(together, range(4), tmp_path / "d", params={"way": way}, batch_size=4))
    frame = attempts(run)
    assert list(frame["attempt"]) == [1, 1, 1, 1]
    failed = frame[frame["outcome"] == "failed"]
    assert list(failed["item_key"]) == ["2"]
    assert list(failed["kind"]) == [{"exception": "permanent", "number": "permanent"}.get(way, way)]
    assert table(tmp_path / "d") == {"0": 0, "1": 1, "3": 3}


# -- inside an item ------------------------------------------------------------------------------------------------------------


def ask(x: int, unit: str) -> dict[str, Any]:
    """What an item sees of itself."""
    me = dc.current()
    (me.scratch / "file").write_text("x")
    me.progress(0.5, "half")
    me.metric("files", 12)
    me.metric("tool", "umap")
    if me.attempt == 1:
        raise ConnectionError("only the second attempt works")
    return {
        "key": me.key, "kind": me.key_kind, "attempt": me.attempt, "run": me.run, "unit": dict(me.params)["unit"],
        "scratch": str(me.scratch), "seed": me.seed,
    }  # fmt: skip


def test_an_item_sees_key_attempt_run_params_scratch_and_seed(tmp_path: Path) -> None:
    """All of it is right, is the same on a retry where it must be, and is recorded; the scratch folder is gone afterwards."""
    quick = dc.Retry(exceptions={ConnectionError: dc.Rule(retries=1)})
    asking = dc.workload(ask).options(retries=quick)
    run = done(dc.map(asking, [7, "7"], tmp_path / "d", params={"unit": "m"}, seed=3))
    frame = run.results().compute()
    assert set(zip(frame["key"], frame["kind"], strict=True)) == {("7", "int"), ("7", "str")}
    assert set(frame["attempt"]) == {2}
    assert set(frame["run"]) == {run.id}
    assert set(frame["unit"]) == {"m"}
    assert frame["seed"].nunique() == 2
    assert not any(Path(folder).exists() for folder in frame["scratch"])
    rows = attempts(run)
    by_kind = dict(zip(frame["kind"], frame["seed"], strict=True))
    assert [(row.key_kind, row.seed) for row in rows.itertuples()] == [(row.key_kind, by_kind[row.key_kind]) for row in rows.itertuples()]
    assert all('"files": 12' in text and '"tool": "umap"' in text for text in rows["metrics"])

    other = done(dc.map(asking, [7, "7"], tmp_path / "other", params={"unit": "km"}, seed=3)).results().compute()
    assert dict(zip(other["kind"], other["seed"], strict=True)) == by_kind


def test_another_seed_redoes_what_is_finished(tmp_path: Path) -> None:
    """The seed counts like a parameter: its change is a change of the workload."""

    def draw(x: int) -> int:
        return dc.current().seed

    done(dc.map(draw, [1], tmp_path / "d", seed=1))
    first = table(tmp_path / "d")
    assert done(dc.map(draw, [1], tmp_path / "d", seed=1)).summary().skipped == 1
    assert done(dc.map(draw, [1], tmp_path / "d", seed=2)).summary().redone == 1
    assert table(tmp_path / "d")["1"] not in (first["1"], 0)


def test_progress_of_an_item_is_seen_while_it_runs(tmp_path: Path) -> None:
    """What a long item says of itself shows in the run's status."""
    seen = tmp_path / "seen"

    def long(x: int, seen: str) -> int:
        dc.current().progress(0.4, "umap")
        until = time.monotonic() + 30
        while not Path(seen).exists() and time.monotonic() < until:
            time.sleep(0.02)
        return x

    run = dc.map(long, [5], tmp_path / "d", params={"seen": str(seen)})
    until = time.monotonic() + 20
    while not (said := run.status().item) and time.monotonic() < until:
        time.sleep(0.05)
    seen.touch()
    done(run)
    assert said == "'5': 40 % umap"
    assert run.status().item == ""


def test_outside_an_item_current_has_harmless_defaults() -> None:
    """The function can be called, tested and debugged as it is."""
    me = dc.current()
    assert (me.key, me.attempt, me.run, dict(me.params), me.seed) == (None, 1, "", {}, 0)
    me.progress(0.4, "nobody listens")
    me.metric("files", 12)
    assert me.scratch.is_dir()


# -- threads -------------------------------------------------------------------------------------------------------------------


def test_isolation_thread_executes_in_the_workers_own_process(tmp_path: Path) -> None:
    """No child: the item's process is the worker's; failures, current() and retries are as ever; memory says it is the process's."""

    @dc.workload(isolation="thread")
    def here(x: int) -> dict[str, Any]:
        if x == 2:
            raise ValueError("two")
        time.sleep(0.03)
        return {"pid": os.getpid(), "key": dc.current().key}

    run = done(dc.map(here, range(4), tmp_path / "d"))
    frame = run.results().compute()
    assert set(frame["pid"]) == {os.getpid()}
    assert sorted(frame["key"]) == ["0", "1", "3"]
    assert list(run.failures().compute()["message"]) == ["two"]
    assert set(attempts(run)["memory_measured"].dropna()) == {"process"}


@pytest.mark.parametrize("limit", [{"timeout": "1 s"}, {"memory": "1 GiB"}])
def test_isolation_thread_refuses_what_needs_a_process(limit: dict[str, Any]) -> None:
    """A thread cannot be killed: said when the workload is described, with what to do."""
    with pytest.raises(WorkloadError, match='isolation="process"'):
        dc.workload(isolation="thread", **limit)


def test_isolation_thread_refuses_modules_at_once(tmp_path: Path) -> None:
    """A module that a worker has imported stays as it is, so a changed one could be executed in its old form."""
    with pytest.raises(WorkloadError, match=r"modules=.*isolation"):
        dc.map(bare.options(isolation="thread"), [1], tmp_path / "d", modules=["tests"])


# -- results of all kinds travel -----------------------------------------------------------------------------------------------


def test_errors_raise_names_key_attempt_and_kind_with_the_remote_traceback(tmp_path: Path) -> None:
    """The first final failure ends the run; what the item's code was at stands in the error."""

    def inner() -> None:
        raise LookupError("deep down")

    def outer(x: int) -> None:
        inner()

    run = dc.map(outer, [1], tmp_path / "d", errors="raise")
    with pytest.raises(ItemError) as caught:
        run.wait(60, progress="quiet")
    assert (caught.value.key, caught.value.attempt, caught.value.kind) == ("1", 1, "permanent")
    assert "in inner" in caught.value.traceback
