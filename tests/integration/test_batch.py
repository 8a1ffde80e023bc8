"""Batches as Dask tasks, on in-process workers and on one in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import dcompute as dc
from dcompute.code import pack
from dcompute.dataset.names import started_name
from dcompute.dataset.parts import mark_name, read_receipt
from dcompute.dataset.store import Store
from dcompute.errors import ClusterError, InitializerError, ItemError, StoreError
from dcompute.graph import Packed, Placement, batch_task, pack_values, probe_task
from dcompute.records import BatchSpec, ItemKey, Kind, Receipt, RunSpec, batch_id
from dcompute.testing import Fault, FaultStore
from dcompute.worker import code_cache
from dcompute.worker.batch import BatchTask, run_batch
from dcompute.worker.delayed import run_delayed
from dcompute.worker.probe import probe, versions
from dcompute.worker.slot import Slot
from dcompute.worker.work import Execution
from dcompute.workload import Workload

RUN = "20240101T000000-00000001"


def _spec(dataset: Path | str, function: Any, *, params: dict[str, Any] | None = None, **more: Any) -> RunSpec:
    workload = Workload.of(function)
    code, code_digest, params_digest = pack(workload.options(group=more["group"]) if "group" in more else workload, params or {})
    return RunSpec(
        run=RUN, dataset=str(dataset), workload="w", code=code, code_digest=code_digest, params_digest=params_digest, **more
    )  # fmt: skip


def _batch(values: list[Any], number: int = 1, **more: Any) -> BatchSpec:
    count = len(values)
    return BatchSpec(
        id=batch_id(RUN, 1, number),
        keys=tuple(ItemKey(str(index), "int") for index in range(count)),
        attempts=(1,) * count,
        fingerprints=("",) * count,
        values=pack_values(values),
        **more,
    )


def _run_here(run: RunSpec, batch: BatchSpec) -> dict[str, Any]:
    return run_batch(pickle.dumps(run), pickle.dumps(batch))


def _stored(folder: Path, receipt: Receipt) -> dict[str, list[Any]]:
    """The results of a batch, by column."""
    tables = [pq.read_table(folder / part.name) for part in receipt.results]
    return tables[0].to_pydict() if tables else {}


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _wait_for(true: Callable[[], Any], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen"
        threading.Event().wait(0.01)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", worker_dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def other_process() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", worker_dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextlib.contextmanager
def _events(client: Client) -> Iterator[list[dict[str, Any]]]:
    """The events of the run, as its driver gets them."""
    told: list[dict[str, Any]] = []
    client.subscribe_topic(f"dcompute-{RUN}", lambda event: told.append(event[1]))
    try:
        yield told
    finally:
        client.unsubscribe_topic(f"dcompute-{RUN}")


def _send(client: Client, run: RunSpec, batch: BatchSpec, key: str | None = None) -> Any:
    task = batch_task(Packed.of(run), batch, Placement(resources={}), key=key or f"{batch.id}-{os.urandom(4).hex()}")
    return client.compute(task, optimize_graph=False)


def double(value: int) -> dict[str, int]:
    return {"twice": 2 * value}


def choosy(value: int) -> dict[str, int]:
    if value == 1:
        raise ValueError("not this one")
    if value == 2:
        os._exit(3)
    return {"x": value}


def test_nothing_is_written_into_another_dataset(client: Client, tmp_path: Path) -> None:
    """A folder that was begun anew or removed, before or while a batch is at work: it stays as it is, and the driver is told why.

    What can be seen before the first item is executed is seen then.
    """

    def replaced(how: str) -> None:
        if how == "removed":
            (tmp_path / "dataset.json").unlink()
        elif how == "at its begin":
            (tmp_path / "executed").touch()
        elif how == "replaced":
            (tmp_path / "dataset.json").write_text('{"format": [1, 0], "id": "other", "created": 0}')

    for number, how in enumerate(("at its begin", "replaced", "removed"), 1):
        (tmp_path / "dataset.json").write_text(f'{{"format": [1, 0], "id": "{"other" if number == 1 else "own"}", "created": 0}}')
        batch = _batch([how], number, dataset="own")
        assert "another one is in its place" in _send(client, _spec(tmp_path, replaced), batch).result()["nothing"]
    assert _files(tmp_path) == set()
    (tmp_path / "dataset.json").write_text('{"format": [1, 0], "id": "own", "created": 0}')
    assert "receipt" in _send(client, _spec(tmp_path, replaced), _batch(["not at all"], 4, dataset="own")).result()


def test_a_batch_is_executed_and_written(client: Client, tmp_path: Path) -> None:
    """Results and attempts lie in the dataset under the batch's names, the receipt is the one in the mark, and the driver is told."""
    batch = _batch([1, 2, 3])
    with _events(client) as told:
        receipt = Receipt.from_json(_send(client, _spec(tmp_path, double), batch).result()["receipt"])
        _wait_for(lambda: any(event["event"] == "receipt" for event in told))
    assert _stored(tmp_path, receipt) == {"item_key": ["0", "1", "2"], "key_kind": ["int"] * 3, "twice": [2, 4, 6]}
    assert read_receipt(Store.at(tmp_path), mark_name(batch.id)) == receipt
    assert _files(tmp_path) == {mark_name(batch.id), *(part.name for part in receipt.results)}
    started, *_, ended = told
    assert (started["event"], started["batch"], started["execution"]) == ("started", batch.id, receipt.execution)
    assert started["worker"] in client.scheduler_info()["workers"]
    assert Receipt.from_json(ended["receipt"]) == receipt


def test_a_worker_in_another_process_does_the_same(other_process: Client, tmp_path: Path) -> None:
    """Nothing needs the driver's memory: code, values and outcomes cross as bytes, and failures as text."""
    batch = _batch([0, 1, 2, 3])
    receipt = Receipt.from_json(_send(other_process, _spec(tmp_path, choosy), batch).result()["receipt"])
    assert _stored(tmp_path, receipt)["x"] == [0, 3]
    assert [(failure.index, failure.kind) for failure in receipt.failures] == [(1, Kind.PERMANENT), (2, Kind.CRASH)]
    assert "not this one" in receipt.failures[0].message
    assert receipt.failures[1].exit_code == 3


def profiled(url: str) -> dict[str, Any]:
    from dcompute.config import storage_options

    shown = any("of-the-lab" in value for value in (*os.environ.values(), *sys.argv, *sys.orig_argv))
    return {"key": storage_options(url).get("key"), "options": len(storage_options(url)), "shown": shown}


def test_items_reach_storages_as_their_worker_does(tmp_path: Path) -> None:
    """What the settings of a worker hold for storages holds for user code in its children, and no environment or argument shows it."""
    options = {"key": "of-the-lab", "lock": threading.Lock()}
    with dask.config.set({"dcompute.storage": {"s3://lab/": options}}):
        receipt = Receipt.from_json(_run_here(_spec(tmp_path, profiled), _batch(["s3://lab/flux", "s3://other/flux"]))["receipt"])
    stored = _stored(tmp_path, receipt)
    assert stored["key"] == ["of-the-lab", None]
    assert stored["options"] == [1, 0]  # a lock does not travel
    assert stored["shown"] == [False, False]


def test_a_batch_that_was_written_is_not_executed(client: Client, tmp_path: Path) -> None:
    """Dask's repeat of a batch finds the mark and returns its receipt."""
    calls = tmp_path / "calls"
    calls.mkdir()

    def counted(value: int) -> int:
        (calls / os.urandom(8).hex()).touch()
        return value

    run, batch = _spec(tmp_path / "dataset", counted), _batch([1, 2])
    first, second = (_send(client, run, batch).result() for _ in range(2))
    assert first == second
    assert len(list(calls.iterdir())) == 2


def test_the_loser_of_the_race_for_the_mark_takes_its_results_away(client: Client, tmp_path: Path) -> None:
    """Of two executions at the same time one is written whole, and both return its receipt."""
    gate, dataset = tmp_path / "gate", tmp_path / "dataset"
    gate.mkdir()

    def meet(value: int) -> int:
        (gate / f"{os.getpid()}").touch()
        while len(list(gate.iterdir())) < 2:
            pass
        return value

    run, batch = _spec(dataset, meet), _batch([7])
    first, second = client.gather([_send(client, run, batch), _send(client, run, batch)])
    receipt = Receipt.from_json(first["receipt"])
    assert first == second
    assert _files(dataset) == {mark_name(batch.id), receipt.results[0].name}
    assert _stored(dataset, receipt)["value"] == [7]


def test_a_cancelled_batch_writes_what_is_finished(client: Client, tmp_path: Path) -> None:
    """The item at work is killed; the receipt, which comes as an event, says by index which items it holds."""
    reached, dataset = tmp_path / "reached", tmp_path / "dataset"

    def stuck_at_two(value: int) -> int:
        while value == 2:
            reached.touch()
        return value

    batch = _batch([0, 1, 2, 3])
    with _events(client) as told:
        future = _send(client, _spec(dataset, stuck_at_two), batch)
        _wait_for(reached.exists)
        client.cancel([future], force=True)
        _wait_for(lambda: any(event["event"] == "receipt" for event in told))
    receipt = Receipt.from_json(told[-1]["receipt"])
    assert receipt.holds == ((0, 2),)
    assert _stored(dataset, receipt)["value"] == [0, 1]
    assert pq.read_table(dataset / mark_name(batch.id)).num_rows == 2


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_closing_worker_writes_what_is_finished(tmp_path: Path, isolation: str) -> None:
    """When its cluster ends or its scheduler is lost, a worker kills the item at work and writes the others, before it is gone."""
    reached, leave, dataset = tmp_path / "reached", tmp_path / "leave", tmp_path / "dataset"

    def stuck_at_two(value: int) -> int:
        while value == 2 and not leave.exists():
            reached.touch()
        return value

    batch = _batch([0, 1, 2, 3])
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0", worker_dashboard_address=":0", memory_limit=0) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        future = _send(client, _spec(dataset, stuck_at_two, isolation=isolation), batch)
        _wait_for(reached.exists)
        (worker,) = cluster.workers.values()
        client.loop.add_callback(worker.close, timeout=20)
        if isolation == "thread":
            _wait_for(lambda: worker.status.value == "closing")
            leave.touch()
        _wait_for((dataset / mark_name(batch.id)).exists)
        future.release()
    receipt = read_receipt(Store.at(dataset), mark_name(batch.id))
    assert receipt.holds == ((0, 2 if isolation == "process" else 3),)
    assert _stored(dataset, receipt)["value"] == [0, 1, 2][: receipt.rows]


def test_a_dataset_in_memory_is_written_by_workers_of_this_process(client: Client) -> None:
    """Children of in-process workers make the parts, and the worker puts them into the memory that the driver reads."""
    receipt = Receipt.from_json(_send(client, _spec("memory://batch-test", double), _batch([1, 2])).result()["receipt"])
    store = Store.at("memory://batch-test")
    assert read_receipt(store, mark_name(receipt.batch)) == receipt
    assert store.size(receipt.results[0].name) == receipt.results[0].size


def test_a_batch_says_how_far_it_is(client: Client, tmp_path: Path) -> None:
    """Ticks tell the item at work, how many are done, and what the item says of itself."""
    leave = tmp_path / "leave"

    def slow(value: int) -> int:
        dc.current().progress(0.25, "a quarter")
        while value == 1 and not leave.exists():
            pass
        return value

    batch = _batch([0, 1])
    with _events(client) as told:
        future = _send(client, _spec(tmp_path / "dataset", slow), batch)
        _wait_for(lambda: any(event["event"] == "tick" and event["index"] == 1 for event in told))
        leave.touch()
        future.result()
    tick = next(event for event in told if event["event"] == "tick" and event["index"] == 1)
    assert (tick["done"], tick["progress"], tick["text"]) == (1, 0.25, "a quarter")


def test_a_large_description_is_fetched_once(other_process: Client, tmp_path: Path) -> None:
    """What is too large for every batch stays with the scheduler, and each worker fetches it by its digest."""
    run = _spec(tmp_path, lambda value, ballast: value, params={"ballast": os.urandom(200_000).hex()})
    packed = Packed.of(run)
    assert not packed.inline
    assert len(pickle.dumps(batch_task(packed, _batch([1]), Placement(resources={}), key="k").dask)) < 10_000
    with pytest.raises(ClusterError, match="does not have the description"):
        _send(other_process, run, _batch([1], 1)).result()
    other_process.set_metadata(["dcompute", packed.digest], packed.data)
    assert _send(other_process, run, _batch([1], 1)).result()["receipt"]
    other_process.set_metadata(["dcompute", packed.digest], None)
    assert _send(other_process, run, _batch([2], 2)).result()["receipt"]


def test_what_cannot_be_set_up_is_no_failure_of_an_item(tmp_path: Path) -> None:
    """A set-up that fails comes back with its traceback and log; nothing is written."""

    class Broken:
        def __init__(self) -> None:
            print("loading the model")
            raise RuntimeError("no model")

        def __call__(self, value: int) -> int:
            return value

    answer = _run_here(_spec(tmp_path, Broken), _batch([1]))
    error = answer["setup_error"]
    assert "no model" in error["text"]
    assert "Traceback" in error["traceback"]
    assert "loading the model" in error["log"]
    assert "receipt" not in answer
    assert _files(tmp_path) == set()


def test_excluded_items_are_not_executed(tmp_path: Path) -> None:
    """Items that have an outcome already take no part, and the receipt does not hold them."""
    receipt = Receipt.from_json(_run_here(_spec(tmp_path, double), _batch([1, 2, 3], exclude=(1,)))["receipt"])
    assert receipt.holds == ((0, 1), (2, 3))
    assert _stored(tmp_path, receipt)["twice"] == [2, 6]


class Faulty(Store):
    """Fails so many times before, and so many times after, a mark is created (its answer is lost)."""

    before = after = 0

    def create_from(self, local_path: Any, name: str) -> None:
        if self.before:
            self.before -= 1
            raise StoreError("the connection was cut before")
        super().create_from(local_path, name)
        if self.after:
            self.after -= 1
            raise StoreError("the connection was cut after")


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 1), (1, 2)])
def test_a_failing_storage_is_asked_again(tmp_path: Path, before: int, after: int) -> None:
    """A mark whose answer was lost is recognised as one's own, and its results parts stay."""
    pauses: list[float] = []
    task = BatchTask(Slot(), _spec(tmp_path, double), _batch([1]), sleep=pauses.append)
    task._store = store = Faulty.at(tmp_path)
    store.before, store.after = before, after
    with dask.config.set({"dcompute.store.retries": 4, "dcompute.store.delay": "1 s"}):
        receipt = Receipt.from_json(task.execute()["receipt"])
    assert _stored(tmp_path, receipt)["twice"] == [2]
    assert pauses == [1.0, 2.0, 4.0][: before + min(after, 1)]


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_part_that_a_killed_server_forgot_is_written_again(tmp_path: Path, how: str) -> None:
    """It was acknowledged before the mark, whose answer did not come, and is gone after it."""

    def forget() -> None:
        store.inner.remove(store.names("results"))

    store = FaultStore(Store.at(tmp_path), [Fault("create_from", how=how, act=forget)])
    task = BatchTask(Slot(), _spec(tmp_path, double, isolation="thread"), _batch([1]), sleep=lambda _: None)
    task._store = store
    receipt = Receipt.from_json(task.execute()["receipt"])
    assert _stored(tmp_path, receipt)["twice"] == [2]


def test_a_storage_that_fails_for_good_is_an_error(tmp_path: Path) -> None:
    """After all repetitions the storage's error comes out; results parts stay, as the mark may be there and name them."""
    pauses: list[float] = []
    task = BatchTask(Slot(), _spec(tmp_path, double), _batch([1]), sleep=pauses.append)
    task._store = store = Faulty.at(tmp_path)
    store.before = 100
    with dask.config.set({"dcompute.store.retries": 2}), pytest.raises(StoreError, match="cut before"):
        task.execute()
    assert len(pauses) == 2
    assert [name.partition("/")[0] for name in _files(tmp_path)] == ["results"]


def test_an_execution_that_began_before_is_waited_for(tmp_path: Path) -> None:
    """What may be executed once only is not begun again: the mark counts that the first still writes; without one, nothing does."""
    run, batch = _spec(tmp_path, double, isolation="thread", idempotent=False), _batch([1], once=True)
    store = Store.at(tmp_path)
    first = BatchTask(Slot(), run, batch)
    store.create(started_name(batch.id), first._execution.encode())
    pauses: list[float] = []
    assert "once only" in BatchTask(Slot(), run, batch, sleep=pauses.append).execute()["nothing"]
    assert 2 <= sum(pauses) <= 5
    answers: list[dict[str, Any]] = []
    second = BatchTask(Slot(), run, batch, sleep=lambda _: answers.append(first.execute())).execute()
    assert answers == [second]
    assert Receipt.from_json(second["receipt"]).execution == first._execution


def test_a_claim_is_taken_back_once(tmp_path: Path) -> None:
    """Where the answer to that was lost, the claim that stands there when it is asked for again is another's, and stays."""

    def broken(value: int) -> int:
        return value

    run, batch = _spec(tmp_path, broken, isolation="thread", idempotent=False, timeout=1.0), _batch([1], once=True)
    store = FaultStore(Store.at(tmp_path), [Fault("remove", how="after")])
    task = BatchTask(Slot(), run, batch, sleep=lambda _: store.create(started_name(batch.id), b"another"))
    task._store = store
    assert "setup_error" in task.execute()
    assert store.read(started_name(batch.id)) == b"another"


def test_no_local_files_are_left(client: Client, tmp_path: Path) -> None:
    """What was uploaded is removed from the worker's scratch."""
    _send(client, _spec(tmp_path, double), _batch([1])).result()
    (scratch,) = client.run(lambda dask_worker: Slot(dask_worker).scratch).values()
    assert [path.name for path in Path(scratch).iterdir() if RUN in path.name] == []


def test_without_a_child_the_outcomes_are_the_same(client: Client, tmp_path: Path) -> None:
    """With isolation="thread" items execute in the worker's process; failures are the item's, and the rows say what was measured how."""

    def where(value: int) -> dict[str, Any]:
        if value == 1:
            raise KeyError("one")
        dc.current().metric("key", dc.current().key)
        until = time.thread_time() + (0.05 if value == 2 else 0)
        while time.thread_time() < until:
            pass
        return {"pid": os.getpid()}

    batch = _batch([0, 1, 2])
    receipt = Receipt.from_json(_send(client, _spec(tmp_path, where, isolation="thread"), batch).result()["receipt"])
    assert _stored(tmp_path, receipt)["pid"] == [os.getpid()] * 2
    assert [(failure.index, failure.error) for failure in receipt.failures] == [(1, "KeyError")]
    rows = pq.read_table(tmp_path / mark_name(batch.id)).to_pydict()
    assert rows["memory_measured"] == [None, None, "process"]
    assert rows["cpu_user"][2] >= 0.04
    assert [None if text is None else json.loads(text) for text in rows["metrics"]] == [{"key": "0"}, None, {"key": "2"}]


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_full_scratch_folder_keeps_what_a_thread_finished(tmp_path: Path, idempotent: bool) -> None:
    """The receipt holds what was noted, and the item at work only where it must not be executed again; the answer names the folder."""
    calls = tmp_path / "calls"

    def grow(x: int) -> str:
        with calls.open("a") as file:
            file.write("x")
        return "x" * 200_000

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        run = _spec(tmp_path / "d", grow, isolation="thread", idempotent=idempotent)
        answer = _run_here(run, _batch(list(range(8))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    receipt = Receipt.from_json(answer["receipt"])
    begun = len(calls.read_text())
    assert 1 < begun < 8
    assert receipt.holds == ((0, begun - idempotent),)
    assert [(failure.index, failure.kind) for failure in receipt.failures] == ([] if idempotent else [(begun - 1, "infrastructure")])
    assert "is full" in answer["setup_error"]["text"]


def test_a_thread_keeps_the_promises_it_can(tmp_path: Path) -> None:
    """Groups fall apart where they fail, a stop is heeded between items, and timeouts are refused."""

    def pairs(values: list[int]) -> list[int]:
        if 3 in values and len(values) > 1:
            raise ValueError
        return [10 * value for value in values]

    run = _spec(tmp_path, pairs, isolation="thread", group=2)
    receipt = Receipt.from_json(_run_here(run, _batch([1, 2, 3, 4, 5]))["receipt"])
    assert _stored(tmp_path, receipt)["value"] == [10, 20, 30, 40, 50]
    assert receipt.failures == ()

    class Stopping(Slot):
        asked = 0

        def stopped(self) -> str | None:
            self.asked += 1
            return "closing" if self.asked > 2 else None

    cut = BatchTask(Stopping(), _spec(tmp_path, double, isolation="thread"), _batch([1, 2, 3], 2)).execute()
    assert Receipt.from_json(cut["receipt"]).holds == ((0, 2),)
    refused = _run_here(_spec(tmp_path, double, isolation="thread", timeout=1.0), _batch([1], 3))
    assert "timeout" in refused["setup_error"]["text"]


def test_a_probe_shows_what_the_driver_must_know(other_process: Client, tmp_path: Path) -> None:
    """A worker that can do the work says so, and leaves a file in the dataset for the driver to find."""
    packed = Packed.of(_spec(tmp_path, double))
    (address,) = other_process.scheduler_info()["workers"]
    answer = other_process.compute(probe_task(packed, RUN, worker=address, key="probe-1"), optimize_graph=False).result()
    assert answer["ok"], answer
    assert (answer["problem"], answer["fault"], answer["cpus"], answer["worker"]) == (None, None, 1, address)
    assert answer["versions"] == versions()
    assert answer["pid"] != os.getpid()
    assert answer["memory"] > 0
    assert json.loads((tmp_path / answer["file"]).read_bytes())["pid"] == answer["pid"]


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_a_probe_names_what_cannot_be_opened(tmp_path: Path, isolation: str) -> None:
    """A module that the worker lacks is a problem of the workload, told with its name; nothing of it is imported by the supervisor."""
    run = dataclasses.replace(_spec(tmp_path, double), code=b"cno_such_module_anywhere\nfunction\n.", code_digest="x", isolation=isolation)
    answer = probe(pickle.dumps(run), RUN)
    assert (answer["ok"], answer["fault"]) == (False, "workload")
    assert "no_such_module_anywhere" in answer["problem"]


def test_a_probe_names_a_storage_that_cannot_be_written(tmp_path: Path) -> None:
    """A dataset that the worker cannot write is a problem of the storage."""
    (tmp_path / "file").write_text("in the way")
    answer = probe(pickle.dumps(_spec(tmp_path / "file" / "dataset", double)), RUN)
    assert (answer["ok"], answer["fault"], answer["file"]) == (False, "store", None)
    assert "file" in answer["problem"]


def test_a_set_up_that_fails_is_left_to_the_batches(tmp_path: Path) -> None:
    """The probe judges whether a workload can be opened; failures of its set-up are counted by the run."""

    def initializer() -> Any:
        raise RuntimeError("not now")

    def with_state(value: int, state: Any) -> int:
        return value

    work = dc.workload(initializer=initializer)(with_state)
    assert probe(pickle.dumps(_spec(tmp_path, work)), RUN)["ok"]


def test_a_long_set_up_does_not_hold_the_run_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that has seen the workload opened waits for its set-up for a while only."""
    reached = tmp_path / "reached"

    def initializer() -> Any:
        reached.touch()
        while True:
            pass

    def with_state(value: int, state: Any) -> int:
        return value

    monkeypatch.setattr("dcompute.worker.probe.PATIENCE", 0.5)
    assert probe(pickle.dumps(_spec(tmp_path / "dataset", dc.workload(initializer=initializer)(with_state))), RUN)["ok"]
    assert reached.exists()


def test_a_delayed_call_gives_its_plain_result(client: Client, tmp_path: Path) -> None:
    """Results of a user's own graph are what the workload returned, of any type; the call knows its params."""

    def anything(value: int, more: int) -> Any:
        return {"sum": value + more, "pid": os.getpid(), "set": {1, 2}, "more": dc.current().params["more"]}

    run = pickle.dumps(_spec("", anything, params={"more": 3}))
    result = client.submit(run_delayed, run, 4, pure=False).result()
    assert (result["sum"], result["set"], result["more"]) == (7, {1, 2}, 3)
    assert result["pid"] != os.getpid()


def test_a_delayed_call_that_fails_raises_what_happened() -> None:
    """The error has kind and remote traceback; a crash is one of them, and a set-up that fails is another error."""
    run = pickle.dumps(_spec("", choosy))
    with pytest.raises(ItemError, match="not this one") as failed:
        run_delayed(run, 1)
    assert failed.value.kind == Kind.PERMANENT
    assert "choosy" in failed.value.traceback
    with pytest.raises(ItemError, match="exit code 3"):
        run_delayed(run, 2)

    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no model")

        def __call__(self, value: int) -> int:
            return value

    with pytest.raises(InitializerError, match="no model"):
        run_delayed(pickle.dumps(_spec("", Broken)), 1)


def test_a_worker_keeps_few_descriptions() -> None:
    """Old runs' descriptions do not fill a worker's memory."""
    for number in range(2 * code_cache.MOST):
        code_cache.run_spec(pickle.dumps(_spec("", double, seed=number)))
    assert len(code_cache._known) == code_cache.MOST


def test_nothing_finished_is_nothing(tmp_path: Path) -> None:
    """A batch that was stopped before its first item ended writes nothing and says why."""
    task = BatchTask(Slot(), _spec(tmp_path, double), _batch([1]))
    assert task._outcome(Execution(cut_short="closing")) == {"nothing": "no item was finished: closing"}
