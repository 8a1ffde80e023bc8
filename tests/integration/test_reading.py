"""A dataset that a real writer made, read by Dask in this process and in others."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pyarrow as pa
import pytest

from dcompute.dataset import Dataset, Store, Writer, reading
from dcompute.dataset import open as open_dataset
from dcompute.dataset.entries import Add, AddBatch, SetSchema
from dcompute.dataset.parts import attempts_table, mark_name, results_name, write_attempts, write_results
from dcompute.dataset.schema import join, marked, to_text
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, ItemKey, PartRef, Receipt, batch_id

BATCHES, ITEMS = 6, 50


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six batches of 50 items, two rows each; every tenth item failed; a later batch has one more column."""
    store = Store.at(tmp_path_factory.mktemp("reading") / "dataset")
    writer = Writer.acquire(store, workload="w", run="run")
    schema = None
    for number in range(1, BATCHES + 1):
        batch, text = _write(store, number)
        schema = join(schema, text)
        assert schema is not None
        writer.commit([SetSchema(schema=schema), Add(batches=(batch,))])
    writer.close()
    return store


def _write(store: Store, number: int) -> tuple[AddBatch, str]:
    batch = batch_id("run", 1, number)
    keys = [f"{number}-{index}" for index in range(ITEMS)]
    good = [key for index, key in enumerate(keys) if index % 10]
    columns: dict[str, Any] = {"item_key": good * 2, "key_kind": ["str"] * 2 * len(good), "n": list(range(2 * len(good)))}
    columns["pair"] = [[number, n] for n in columns["n"]]
    if number == BATCHES:
        columns["late"] = ["x"] * 2 * len(good)
    table = marked(pa.table(columns))
    results, marks = io.BytesIO(), io.BytesIO()
    write_results(results, table)
    ref = PartRef(name=results_name(batch, "e", 0), size=len(results.getvalue()), rows=table.num_rows)
    store.create(ref.name, results.getvalue())
    receipt = Receipt(batch=batch, execution="e", holds=((0, ITEMS),), results=(ref,), schema=to_text(table.schema), rows=ref.rows)
    write_attempts(marks, attempts_table([_row(key, batch, key in good) for key in keys]), receipt)
    store.create(mark_name(batch), marks.getvalue())
    failed = tuple(ItemKey(key, "str") for key in keys if key not in good)
    added = AddBatch(
        id=batch,
        holds=receipt.holds,
        final=failed,
        results=(ref,),
        succeeded=len(good),
        failed=(("permanent", len(failed)),),
        rows=ref.rows,
    )
    return added, to_text(table.schema)


def _row(key: str, batch: str, good: bool) -> tuple[Any, ...]:
    outcome = {"outcome": SUCCEEDED} if good else {"outcome": FAILED, "kind": "permanent", "error": "ValueError"}
    known = {"item_key": key, "key_kind": "str", "attempt": 1, "started": 1.0, "duration": 0.5, "batch": batch, "host": "h", **outcome}
    return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A cluster of two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", worker_dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def check(dataset: Dataset) -> None:
    results = dataset.results()
    assert len(results) == BATCHES * 90
    assert int(results["n"].sum().compute()) == BATCHES * sum(range(90))
    assert int(results["late"].count().compute()) == 90
    assert len(dataset.attempts()) == BATCHES * ITEMS
    grouped = dataset.attempts().groupby("outcome")["duration"].sum().compute()
    assert grouped.to_dict() == {SUCCEEDED: BATCHES * 22.5, FAILED: BATCHES * 2.5}
    assert sorted(dataset.failures()["item_key"].compute()) == sorted(
        f"{n}-{i}" for n in range(1, BATCHES + 1) for i in range(0, ITEMS, 10)
    )
    assert dataset.failures(by="kind")["items"].tolist() == [BATCHES * 5]


def test_a_dataset_reads_with_no_cluster(written: Store) -> None:
    """Results, attempts and failures are there with the directory alone."""
    check(open_dataset(written.url))


def test_a_dataset_reads_on_workers_in_other_processes(written: Store, client: Any) -> None:
    """What a partition needs travels to a worker."""
    check(open_dataset(written.url))
    assert client.cluster is not None


def test_columns_with_lists_are_shuffled_in_tasks(written: Store, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that the documentation gives where Dask's own shuffle on a cluster does not know Arrow's nested types."""
    monkeypatch.setattr(reading, "PARTITION_FILES", 2)
    results = open_dataset(written.url).results(columns=["n", "pair"])
    assert results.npartitions > 1
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        found = results.set_index("n").compute()
        both = results.merge(results[["n"]].drop_duplicates(), on="n").compute()
    assert client.cluster is not None
    for pairs in (zip(found.index, found["pair"], strict=True), zip(both["n"], both["pair"], strict=True)):
        told = sorted((n, *map(int, pair)) for n, pair in pairs)
        assert told == [(n, number, n) for n in range(90) for number in range(1, BATCHES + 1)]


def test_a_dataset_travels(written: Store) -> None:
    """A lazy frame and the dataset itself can be pickled, without the rows."""
    dataset = open_dataset(written.url)
    assert len(pickle.loads(pickle.dumps(dataset)).results()) == BATCHES * 90
    assert len(pickle.dumps(dataset.results())) < 20_000


def test_status_of_a_closed_dataset_counts_items(written: Store) -> None:
    """The figures of status are those of the rows."""
    found = open_dataset(written.url).status()
    assert (found.state, found.succeeded, found.failed, found.attempts) == ("idle", BATCHES * 45, BATCHES * 5, BATCHES * ITEMS)
    assert found.stored_rows == BATCHES * 90


def test_reading_imports_no_scheduler(written: Store, tmp_path: Path) -> None:
    """Status and outcomes come without distributed, and without Dask."""
    script = tmp_path / "status.py"
    script.write_text(
        "import sys, dcompute.dataset as d\n"
        f"status = d.open({written.url!r}).status()\n"
        "assert status.succeeded == 270, status\n"
        "assert not {'distributed', 'dask'} & set(sys.modules), [m for m in sys.modules if m.startswith('dask')][:5]\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
