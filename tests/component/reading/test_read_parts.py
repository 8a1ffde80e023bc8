"""Names and content of parts."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcompute.dataset.fetching import fetch
from dcompute.dataset.merging import opened
from dcompute.dataset.parts import (
    ATTEMPTS_SCHEMA,
    attempts_table,
    mark_name,
    read_attempts,
    read_mark,
    read_receipt,
    read_results,
    results_name,
    write_attempts,
)
from dcompute.dataset.pieces import File
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, StoreError
from dcompute.records import ATTEMPT_COLUMNS, Failure, PartRef, Receipt
from dcompute.testing import Fault, FaultStore

RECEIPT = Receipt(
    batch="r-000001-00000001",
    execution="e",
    holds=((0, 2), (3, 4)),
    failures=(Failure(index=1, kind="crash", error="SIGSEGV", bases=("a", "b"), signal=11),),
    results=(PartRef(name="results/x.parquet", size=5, rows=6),),
    schema="{}",
    rows=6,
    seconds=1.5,
)


def row(**known: Any) -> tuple[Any, ...]:
    return tuple({"item_key": "k", "key_kind": "str", "attempt": 1, "outcome": "succeeded", **known}.get(name) for name in ATTEMPT_COLUMNS)


def write(path: Path, *rows: tuple[Any, ...], receipt: Receipt = RECEIPT) -> Store:
    (path / "attempts").mkdir()
    write_attempts(path / mark_name(receipt.batch), attempts_table(rows), receipt)
    return Store.at(path)


def test_names_say_batch_and_execution() -> None:
    """A mark is named by its batch alone, a results part by its execution too."""
    assert mark_name("r-1-2") == "attempts/r-1-2.parquet"
    assert results_name("r-1-2", "ab", 3) == "results/r-1-2-ab-3.parquet"


def test_a_mark_gives_back_its_receipt_and_who_is_in_it(tmp_path: Path) -> None:
    """Receipt and keys come back as they were written, in the order of the batch."""
    store = write(tmp_path, row(item_key="b"), row(item_key="a", key_kind="int", attempt=2, outcome="failed", kind="crash"))
    receipt, table = read_mark(store, mark_name(RECEIPT.batch))
    assert receipt == RECEIPT == read_receipt(store, mark_name(RECEIPT.batch))
    assert list(zip(*table.to_pydict().values(), strict=True)) == [("b", "str", 1, "succeeded", None), ("a", "int", 2, "failed", "crash")]


def test_every_column_keeps_its_type(tmp_path: Path) -> None:
    """The file has all columns of an attempt in the types of the schema, the time of its start to the microsecond."""
    store = write(tmp_path, row(started=1700000000.000001, seed=2**63 - 1, peak_memory=2**40, metrics="{}"))
    table = read_attempts(store, mark_name(RECEIPT.batch), ATTEMPT_COLUMNS)
    assert table.schema == ATTEMPTS_SCHEMA
    found = table.to_pylist()[0]
    assert found["started"].timestamp() == 1700000000.000001
    assert (found["seed"], found["peak_memory"], found["worker"]) == (2**63 - 1, 2**40, None)
    assert pq.read_schema(store.path(mark_name(RECEIPT.batch))) == ATTEMPTS_SCHEMA


def test_text_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    """A lone surrogate in a message or an output harms no row."""
    store = write(tmp_path, row(message="bad \udcff", stdout=None), row(message="good"))
    messages = read_attempts(store, mark_name(RECEIPT.batch), ["message"]).column("message").to_pylist()
    assert messages == ["bad \\udcff", "good"]


def test_a_part_without_a_newer_column_reads_as_null(tmp_path: Path) -> None:
    """Parts of an older version lack columns: they are null, not an error."""
    (tmp_path / "attempts").mkdir()
    pq.write_table(pa.table({"item_key": ["k"], "attempt": pa.array([1], pa.int8())}), tmp_path / "attempts/a.parquet")
    table = read_attempts(Store.at(tmp_path), "attempts/a.parquet", ["seed", "attempt", "item_key"])
    assert table.to_pylist() == [{"seed": None, "attempt": 1, "item_key": "k"}]


def test_a_missing_mark_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    """No mark is FileNotFoundError (the batch was not written); a file that is none is corruption, by name."""
    store = write(tmp_path, row())
    with pytest.raises(FileNotFoundError):
        read_receipt(store, "attempts/other.parquet")
    (tmp_path / "attempts/torn.parquet").write_bytes((tmp_path / mark_name(RECEIPT.batch)).read_bytes()[:200])
    with pytest.raises(DatasetCorruptError, match=r"attempts/torn\.parquet"):
        read_mark(store, "attempts/torn.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "attempts/foreign.parquet")
    with pytest.raises(DatasetCorruptError, match="no receipt"):
        read_receipt(store, "attempts/foreign.parquet")


def test_a_counted_part_that_is_gone_is_corruption(tmp_path: Path) -> None:
    """Whatever counts must be there: its absence is an error that names it, never fewer rows."""
    store = Store.at(tmp_path)
    with pytest.raises(DatasetCorruptError, match=r"attempts/a\.parquet is gone"):
        read_attempts(store, "attempts/a.parquet", ["item_key"])
    with pytest.raises(DatasetCorruptError, match=r"results/a\.parquet is gone"):
        read_results(store, "results/a.parquet", ["item_key"])


def test_no_rows_make_an_empty_table() -> None:
    """A batch that ended with nothing has an attempts table all the same."""
    assert attempts_table([]).schema == ATTEMPTS_SCHEMA


def _whole(store: Store, name: str) -> int:
    return read_results(store, name, ["n"]).num_rows


def _shares(store: Store, name: str) -> int:
    wanted = pa.schema([("n", pa.int64())])
    return sum(fetch(store, File(name, 0, share=(index, 2)), wanted).num_rows for index in range(2))


def _in_pieces(store: Store, name: str) -> int:
    with opened(store, name) as file:
        return sum(batch.num_rows for batch in file.iter_batches(100))


@pytest.mark.parametrize("act", [_whole, _shares, _in_pieces])
def test_a_storage_that_fails_is_not_a_damaged_part(act: Callable[[Store, str], int]) -> None:
    """Wherever in a part the storage fails, that is said; what is damaged is said to be so, on the same storage."""
    name, sink = "results/a.parquet", io.BytesIO()
    pq.write_table(pa.table({"n": range(1000)}), sink, row_group_size=250)
    store = FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))
    store.write(name, sink.getvalue())
    assert act(store, name) == 1000
    reads = sum(op == "stream" for op, _ in store.calls)
    assert reads > 1
    for skip in range(reads):
        store.faults = [Fault("stream", name, skip=skip)]
        with pytest.raises(StoreError, match="fault table"):
            act(store, name)
    store.write(name, sink.getvalue()[:-100])
    with pytest.raises(DatasetCorruptError, match=name):
        act(store, name)
