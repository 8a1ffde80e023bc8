"""Batches that do not join, end to end: rewritten by a worker for their driver, and by a successor for a driver that died."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

import dcompute as dc
from dcompute.dataset.parts import mark_name, read_mark, read_receipt
from dcompute.dataset.schema import to_text
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer
from dcompute.errors import DcomputeError, ItemError, TooManyFailures
from dcompute.graph import Packed, rewrite_task
from dcompute.records import ATTEMPT_COLUMNS, SUCCEEDED, BatchSpec, ItemKey, Kind, Receipt, RunSpec, batch_id
from dcompute.worker.rewrite import Rewriter
from dcompute.worker.tables import Parts

RUN = "20240101T000000-00000001"
OLD, NEW = batch_id(RUN, 1, 1), batch_id(RUN, 1, 2)
TEXT = to_text(pa.schema([("x", pa.string())]))


def _spec(dataset: Path, **more: Any) -> RunSpec:
    # bytes that no pickle opens: whoever loaded them would fail
    known = {"code": b"not to be loaded", "code_digest": "c", "params_digest": "p"} | more
    return RunSpec(run=RUN, dataset=str(dataset), workload="w", **known)


def _write(folder: Path, store: Store, batch: str, rows: dict[str, dict[str, Any]]) -> Receipt:
    """A batch as a worker writes it: of each key the row."""
    spec = BatchSpec(
        id=batch, keys=tuple(ItemKey(key, "str") for key in rows), attempts=(1,) * len(rows), fingerprints=("",) * len(rows), values=b""
    )
    place = folder / batch
    place.mkdir()
    parts = Parts(place, _spec(folder), spec, os.urandom(8).hex())
    known = {"key_kind": "str", "attempt": 1, "outcome": SUCCEEDED, "started": 1.5, "duration": 0.1, "batch": batch, "host": "h"}
    attempts = []
    for index, (key, row) in enumerate(rows.items()):
        of_item = known | {"item_key": key, "rows": parts.add(index, row)}
        attempts.append(tuple(of_item.get(name) for name in ATTEMPT_COLUMNS))
    receipt = parts.finish(attempts)
    for path, name in parts.files[:-1]:
        store.upload(path, name)
    store.create_from(*parts.files[-1])
    return receipt


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


@pytest.mark.parametrize("large", [False, True], ids=["inline", "by digest"])
def test_a_worker_rewrites_a_batch(client: Client, tmp_path: Path, large: bool) -> None:
    """The receipt comes as the task's result and as an event under the new id, it is the one in the mark, and no code is loaded."""
    store = Store.at(tmp_path / "dataset")
    _write(tmp_path, store, OLD, {"a": {"x": 1}, "b": {"y": 2}})
    run = Packed.of(_spec(tmp_path / "dataset", **({"code": b"-" * 100_000} if large else {})))
    assert run.inline is not large
    client.set_metadata(["dcompute", run.digest], run.data)
    told: list[dict[str, Any]] = []
    client.subscribe_topic(f"dcompute-{RUN}", lambda event: told.append(event[1]))
    try:
        task = rewrite_task(run, OLD, NEW, TEXT, workers=tuple(client.scheduler_info()["workers"]), key=f"rewrite-{os.urandom(4).hex()}")
        answer = client.compute(task, optimize_graph=False).result()
        _wait_for(lambda: told)
    finally:
        client.unsubscribe_topic(f"dcompute-{RUN}")
    receipt = Receipt.from_json(answer["receipt"])
    (event,) = told
    assert (event["event"], event["batch"]) == ("receipt", NEW)
    assert Receipt.from_json(event["receipt"]) == receipt == read_receipt(store, mark_name(NEW))
    assert (receipt.stands_for, [(failure.index, failure.kind) for failure in receipt.failures]) == (OLD, [(0, Kind.PERMANENT)])
    assert pq.read_table(tmp_path / "dataset" / receipt.results[0].name).to_pydict() == {"item_key": ["b"], "key_kind": ["str"], "y": [2]}


def test_a_declared_schema_comes_before_the_one_that_is_given(tmp_path: Path) -> None:
    """A run that declares its schema rewrites to that, and other columns fail."""
    from dcompute.worker.rewrite import rewrite_batch

    store = Store.at(tmp_path / "dataset")
    _write(tmp_path, store, OLD, {"a": {"x": "t"}, "b": {"x": "u", "y": 2}})
    run = pickle.dumps(_spec(tmp_path / "dataset", schema=TEXT))
    receipt = Receipt.from_json(rewrite_batch(run, OLD, NEW, to_text(pa.schema([("x", pa.int64())])))["receipt"])
    assert [failure.index for failure in receipt.failures] == [1]


def test_a_successor_rewrites_what_its_predecessor_left(tmp_path: Path) -> None:
    """Two written batches whose types cannot meet are adopted: the first as it is, the second as its rewrite, whose misfit has failed."""
    store = Store.at(tmp_path / "dataset")
    Writer.acquire(store, workload="w", run=RUN).abandon()
    _write(tmp_path, store, OLD, {"a": {"x": "text"}})
    _write(tmp_path, store, NEW, {"b": {"x": 1}, "c": {"y": 2}})
    second = "20240101T000000-00000002"
    writer = Writer.acquire(store, workload="w", run=second)
    own = batch_id(second, 2, 7)
    rewriter = Rewriter(store, lambda: own)
    assert writer.adopt(read_mark, lambda _kind, _attempt: True, join=rewriter.join, rewrite=rewriter.rewrite) == [OLD, own]
    writer.close()
    rows = dc.open(tmp_path / "dataset").results().compute().sort_values("item_key")
    assert rows["item_key"].tolist() == ["a", "c"]
    failed = dc.open(tmp_path / "dataset").failures().compute()
    assert (failed["item_key"].tolist(), failed["error"].tolist()) == (["b"], ["dcompute.errors.SchemaError"])


def _disagreeing(gate: Path) -> Callable[[int], dict[str, Any]]:
    """A workload of which two items are at work at the same time and return types that cannot meet."""
    gate.mkdir()

    def disagree(x: int) -> dict[str, Any]:
        (gate / str(x)).touch()
        until = time.monotonic() + 20
        while len(list(gate.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        return {"value": x, "same": x} if x else {"value": "text", "same": x}

    return disagree


def test_two_batches_that_meet_a_new_column_at_once(client: Client, tmp_path: Path) -> None:
    """Of two items at work at the same time with types that cannot meet one succeeds, the other fails, and both stay as they are."""
    disagree = _disagreeing(tmp_path / "gate")
    first = dc.map(disagree, [0, 1], tmp_path / "d", client=client, batch_size=1)
    first.wait(progress="quiet")
    summary = first.summary()
    assert (summary.succeeded, summary.failed, summary.failed_by_kind) == (1, 1, {"permanent": 1})
    failed = dc.open(tmp_path / "d").failures().compute()
    assert failed["error"].tolist() == ["dcompute.errors.SchemaError"]
    rows = dc.open(tmp_path / "d").results().compute()
    assert len(rows) == 1
    assert {*rows["item_key"], *failed["item_key"]} == {"0", "1"}
    again = dc.map(disagree, [0, 1], tmp_path / "d", client=client, batch_size=1)
    again.wait(progress="quiet")
    assert (again.summary().skipped, again.summary().skipped_failed) == (1, {"permanent": 1})


@pytest.mark.parametrize(
    ("options", "error"), [({"errors": "raise"}, ItemError), ({"max_failures": 0}, TooManyFailures)], ids=["errors", "max_failures"]
)
def test_a_failure_that_a_rewrite_makes_ends_a_run(
    client: Client, tmp_path: Path, options: dict[str, Any], error: type[DcomputeError]
) -> None:
    """As any other failure does, although all items had ended: the error names the item, and whoever counts counts it as failed."""
    run = dc.map(_disagreeing(tmp_path / "gate"), [0, 1], tmp_path / "d", client=client, batch_size=1, **options)
    ended: dict[str, bool] = {}
    with pytest.raises(error) as caught:
        ended.update((outcome.key.text, outcome.succeeded) for outcome in run.as_completed())
    (key,) = dc.open(tmp_path / "d").failures().compute()["item_key"]
    if isinstance(caught.value, ItemError):
        assert (caught.value.key, caught.value.attempt, caught.value.kind) == (key, 1, "permanent")
        assert "SchemaError" in str(caught.value)
    summary = run.summary()
    assert (summary.state, summary.succeeded, summary.failed, summary.failed_by_kind) == ("failed", 1, 1, {"permanent": 1})
    assert ended == {"0": key != "0", "1": key != "1"}
