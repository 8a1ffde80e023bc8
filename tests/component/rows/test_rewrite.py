"""Written batches that do not join: what is kept, what fails, and who wins the new mark."""

from __future__ import annotations

import datetime
import io
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcompute.dataset.parts import mark_name, read_attempts, read_receipt, read_results, write_attempts, write_results
from dcompute.dataset.schema import from_text, join, joins, marked, to_text
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, StoreError
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, BatchSpec, Failure, ItemKey, Kind, Receipt, RunSpec
from dcompute.testing import Fault, FaultStore
from dcompute.worker.rewrite import Rewriter, rewrite, schema_after
from dcompute.worker.rows import decode, encode, to_rows
from dcompute.worker.tables import Parts

OLD, NEW, NEWER = "r-000001-00000001", "r-000001-00000009", "r-000001-00000010"
WIDE = 2**53 + 1
#: What an item of the old batch did that is no result.
BROKEN = object()


class Dataset:
    """A dataset with batches written as workers write them."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.folder = folder
        self.store = store or Store.at(f"memory://{uuid.uuid4().hex}")  # a local one costs its fsyncs

    def write(
        self, results: Sequence[Any], *, batch: str = OLD, known: str | None = None, part_bytes: int = 2**27, size: int = 0
    ) -> Receipt:
        """A batch whose items returned ``results``, sent when the schema was ``known``; a ``BROKEN`` one failed."""
        run = RunSpec(run="r", dataset="/x", workload="w", code=b"", code_digest="c", params_digest="p")
        keys = tuple(ItemKey(str(index), "int" if index % 2 else "str") for index in range(len(results)))
        count = len(results)
        spec = BatchSpec(id=batch, keys=keys, attempts=(1,) * count, fingerprints=("f",) * count, values=b"", schema=known)
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        parts = Parts(folder, run, spec, uuid.uuid4().hex, part_bytes=part_bytes)
        attempts, failures = [], []
        for index, result in enumerate(results):
            broken = result is BROKEN
            rows = 0 if broken else parts.add(index, decode(encode(to_rows(result))), size)
            if broken:
                failures.append(Failure(index=index, kind=Kind.CRASH, error="SIGSEGV"))
            attempts.append(_attempt(keys[index], rows, batch, broken))
        receipt = parts.finish(attempts, failures=failures, slot_seconds=3.0, setup_seconds=1.0, leftovers=2)
        for path, name in parts.files[:-1]:
            self.store.upload(path, name)
        self.store.create_from(*parts.files[-1])
        return receipt

    def rewrite(self, schema: str | None, **more: Any) -> Receipt:
        return rewrite(self.store, OLD, NEW, schema, **more)

    def rows(self, receipt: Receipt) -> list[dict[str, Any]]:
        """All rows of a batch, without key_kind, in the types that its receipt tells."""
        schema = from_text(receipt.schema) if receipt.schema else pa.schema([])
        names = ["item_key", *schema.names]
        tables = [read_results(self.store, part.name, names) for part in receipt.results]
        return [{name: row.get(name) for name in names} for table in tables for row in table.to_pylist()]

    def attempts(self, batch: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_attempts(self.store, mark_name(batch), ATTEMPT_COLUMNS).to_pylist()
        return rows

    def files(self) -> set[str]:
        return {name for folder in ("attempts", "results") for name in self.store.names(folder)}


def _attempt(key: ItemKey, rows: int, batch: str, broken: bool) -> tuple[Any, ...]:
    known = {
        "item_key": key.text, "key_kind": key.kind, "attempt": 2, "outcome": FAILED if broken else SUCCEEDED, "started": 1.5,
        "kind": "crash" if broken else None, "error": "SIGSEGV" if broken else None, "duration": 0.25, "stdout": f"said {key.text}",
        "peak_memory": 1000, "rows": rows, "host": "h", "worker": "w", "batch": batch, "metrics": '{"files": 3}',
    }  # fmt: skip
    return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


def _schema(**types: pa.DataType) -> str:
    return to_text(pa.schema(list(types.items())))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


def _failed(receipt: Receipt) -> list[int]:
    return [failure.index for failure in receipt.failures]


# -- what fits ---------------------------------------------------------------------------------------------------------------------------


def test_items_without_a_value_in_the_guilty_column_are_kept(data: Dataset) -> None:
    """A column whose type cannot meet fails the items that have a value in it, and no others; other columns are kept and added."""
    data.write([{"x": 1, "y": 1.5}, {"y": 2.5}, {"x": None, "z": "new"}, {"x": 4}])
    receipt = data.rewrite(_schema(x=pa.string(), y=pa.int64()))
    assert _failed(receipt) == [0, 3]
    assert data.rows(receipt) == [{"item_key": "1", "y": 2.5, "z": None}, {"item_key": "2", "y": None, "z": "new"}]
    assert joins(_schema(x=pa.string(), y=pa.int64()), receipt.schema)


def test_rows_are_cast_to_the_type_in_which_columns_meet(data: Dataset) -> None:
    """Integers become the floats of the dataset, and a part has the types that its receipt tells."""
    data.write([{"x": 1, "b": True}, {"x": 2, "b": None}])
    receipt = data.rewrite(_schema(x=pa.float64(), b=pa.string()))
    assert (_failed(receipt), data.rows(receipt)) == ([0], [{"item_key": "1", "x": 2.0}])
    written = pq.read_schema(io.BytesIO(data.store.read(receipt.results[0].name)))
    assert written.field("x").type == pa.float64()
    assert written.names == ["item_key", "key_kind", "x"]


def test_a_wide_integer_fails_where_others_become_floats(data: Dataset) -> None:
    """An integer column with a wide value does not meet float as a whole; item by item only the wide one does not."""
    data.write([{"x": 1}, {"x": WIDE}, {"x": -3}])
    receipt = data.rewrite(_schema(x=pa.float64()))
    assert _failed(receipt) == [1]
    assert str(WIDE) in receipt.failures[0].message
    assert [row["x"] for row in data.rows(receipt)] == [1.0, -3.0]
    assert joins(_schema(x=pa.float64()), receipt.schema)


@pytest.mark.parametrize(
    ("known", "results", "failed"),
    [
        (pa.float64(), [Decimal("1.5"), 2], [0]),
        (pa.decimal128(5, 2), [1.5, 2, 0.25], [0, 2]),
        (pa.decimal128(30, 20), [Decimal("9" * 70), Decimal("1.1")], [0]),
        (pa.timestamp("s"), [np.datetime64("2020-01-01T00:00:00.000000001"), datetime.datetime(2020, 1, 1)], [0]),
        (pa.int64(), [2**63, -1, 2], []),
    ],
)
def test_what_neighbours_made_of_a_value_does_not_count(data: Dataset, known: pa.DataType, results: list[Any], failed: list[int]) -> None:
    """In the column of a batch 2 is a decimal beside a decimal, and a float beside a float: it fits what 2 fits."""
    schema = known_wide(known)
    data.write([{"x": value} for value in results])
    receipt = data.rewrite(schema)
    assert _failed(receipt) == failed
    kept = [value for index, value in enumerate(results) if index not in failed]
    assert [row["x"] for row in data.rows(receipt)] == kept
    for index in failed:
        data.write([{"x": results[index]}], batch=f"r-000001-1000000{index}")
        assert _failed(rewrite(data.store, f"r-000001-1000000{index}", f"r-000001-2000000{index}", schema)) == [0]


def known_wide(type_: pa.DataType) -> str:
    """The schema with a column of a type, of times with a date that nanoseconds do not reach."""
    values = [datetime.datetime(9999, 1, 1)] if pa.types.is_timestamp(type_) else [None]
    return to_text(marked(pa.table({"x": pa.array(values, type_)})).schema)


def test_all_rows_of_a_guilty_item_go(data: Dataset) -> None:
    """An item with one row that does not fit keeps none, in whatever place, and its neighbours with many rows keep all."""
    data.write([[{"x": None, "y": 1}, {"x": "a", "y": 2}], [{"y": 3}, {"y": 4}], None, [{"y": 5}, {"x": "b"}]])
    receipt = data.rewrite(_schema(x=pa.int64()))
    assert _failed(receipt) == [0, 3]
    assert [(row["item_key"], row["y"]) for row in data.rows(receipt)] == [("1", 3), ("1", 4)]
    assert receipt.rows == 2
    assert [row["rows"] for row in data.attempts(NEW)] == [0, 2, 0, 0]


def test_nested_values_are_judged_by_what_is_in_them(data: Dataset) -> None:
    """An empty list, and a structure without the guilty field, fit where the whole column does not."""
    data.write([{"x": [1]}, {"x": []}, {"s": {"a": 1, "b": 2}}, {"s": {"b": 3}}, {"l": [{"a": 5}]}, {"l": [{"b": 6}]}])
    text = pa.struct([("a", pa.string())])
    receipt = data.rewrite(_schema(x=pa.list_(pa.string()), s=text, l=pa.list_(text)))
    assert _failed(receipt) == [0, 2, 4]
    kept = {row["item_key"]: row for row in data.rows(receipt)}
    assert kept["1"]["x"] == []
    assert kept["3"]["s"] == {"a": None, "b": 3}
    assert kept["5"]["l"] == [{"a": None, "b": 6}]


def test_an_empty_mapping_fits_text(data: Dataset) -> None:
    """A structure with nothing in it is null on disk, whatever the column's type is."""
    data.write([{"x": {}, "y": 1}, {"x": {"a": 1}, "y": 2}])
    receipt = data.rewrite(_schema(x=pa.string()))
    assert _failed(receipt) == [1]
    assert data.rows(receipt) == [{"item_key": "0", "y": 1}]


def test_a_batch_of_which_nothing_fits_has_no_part(data: Dataset) -> None:
    """Its mark says that all its items failed, and tells neither rows nor a schema."""
    data.write([{"x": "a"}, {"x": "b"}])
    receipt = data.rewrite(_schema(x=pa.int64()))
    assert (_failed(receipt), receipt.results, receipt.rows, receipt.schema) == ([0, 1], (), 0, None)
    assert {row["outcome"] for row in data.attempts(NEW)} == {FAILED}


def test_parts_are_rewritten_one_by_one(data: Dataset) -> None:
    """A batch with several parts keeps what fits of each, and a part of which nothing fits is left out."""
    was = data.write([{"x": 1, "y": "a"}] * 600 + [{"y": "b" * 40}] * 1400, part_bytes=2**14, size=2**15)
    assert len(was.results) > 2
    receipt = data.rewrite(_schema(x=pa.string()))
    assert _failed(receipt) == list(range(600))
    assert receipt.rows == sum(part.rows for part in receipt.results) == 1400
    assert {row["y"] for row in data.rows(receipt)} == {"b" * 40}


def test_declared_schemas_refuse_other_columns(data: Dataset) -> None:
    """With a declared schema a value in another column fails its item, and values must fit the declared types as they are."""
    data.write([{"x": 1}, {"x": 2, "y": "extra"}, {"x": 3, "y": None}, {"x": 2**40}])
    schema = _schema(x=pa.int32(), z=pa.string())
    receipt = data.rewrite(schema, declared=True)
    assert _failed(receipt) == [1, 3]
    assert "'y'" in receipt.failures[0].message
    assert str(2**40) in receipt.failures[1].message
    assert data.rows(receipt) == [{"item_key": "0", "x": 1}, {"item_key": "2", "x": 3}]
    assert from_text(receipt.schema or "").field("x").type == pa.int32()


# -- what the mark says ------------------------------------------------------------------------------------------------------------------


def test_the_failed_attempt_says_what_does_not_fit(data: Dataset) -> None:
    """It is permanent, of SchemaError, with column, value and both types; all else of the row stays as it was."""
    data.write([{"x": 17}, {"y": 1}])
    receipt = data.rewrite(_schema(x=pa.string()))
    (failure,) = receipt.failures
    assert (failure.index, failure.kind, failure.error) == (0, Kind.PERMANENT, "dcompute.errors.SchemaError")
    for said in ("'x'", "17", "string", "int64"):
        assert said in failure.message
    was, now = data.attempts(OLD), data.attempts(NEW)
    changed = {"outcome": FAILED, "kind": "permanent", "error": "dcompute.errors.SchemaError", "message": failure.message, "rows": 0}
    assert now == [was[0] | changed, was[1]]


def test_the_receipt_stands_for_the_old_batch(data: Dataset) -> None:
    """It keeps figures, ranges and failures of the old one, under its own id, and it is the one in the mark."""
    was = data.write([BROKEN, {"x": 1}, {"y": 2}])
    receipt = data.rewrite(_schema(x=pa.string()))
    assert (receipt.batch, receipt.stands_for, receipt.joins) == (NEW, OLD, True)
    assert [(failure.index, failure.kind) for failure in receipt.failures] == [(0, Kind.CRASH), (1, Kind.PERMANENT)]
    own = {"batch", "execution", "failures", "results", "schema", "stands_for", "rows"}
    assert {name: value for name, value in receipt.to_json().items() if name not in own} == {
        name: value for name, value in was.to_json().items() if name not in own
    }
    assert read_receipt(data.store, mark_name(NEW)) == receipt
    assert read_receipt(data.store, mark_name(OLD)) == was


def test_indexes_are_those_of_a_batch_that_was_cut_short(data: Dataset) -> None:
    """The mark of a batch that holds some of its items has rows of these only; a failure has the index in the batch, not the row's."""
    was = data.write([{"x": 1}, {"x": None, "y": 1}, {"x": 3}])
    cut = replace(was, holds=((4, 5), (7, 9)))
    table = read_attempts(data.store, mark_name(OLD), ATTEMPT_COLUMNS)
    data.store.remove([mark_name(OLD)])
    _put_mark(data, OLD, table, cut)
    receipt = data.rewrite(_schema(x=pa.string()))
    assert (_failed(receipt), receipt.holds) == ([4, 8], ((4, 5), (7, 9)))


def test_the_same_text_under_two_kinds_is_two_items(data: Dataset) -> None:
    """Rows belong to the item of their key and kind, in whatever order they lie."""
    was = data.write([[{"x": 1}, {"z": 1}], [{"y": 2}, {"y": 3}]])
    table = read_attempts(data.store, mark_name(OLD), ATTEMPT_COLUMNS)
    same = table.set_column(0, "item_key", pa.array(["k", "k"]))
    data.store.remove([mark_name(OLD)])
    _put_mark(data, OLD, same, was)
    (part,) = was.results
    rows = pq.read_table(io.BytesIO(data.store.read(part.name))).set_column(0, "item_key", pa.array(["k"] * 4))
    changed = io.BytesIO()
    write_results(changed, rows.take([3, 1, 2, 0]))
    data.store.write(part.name, changed.getvalue())
    receipt = data.rewrite(_schema(x=pa.string()))
    assert _failed(receipt) == [0]
    assert data.rows(receipt) == [{"item_key": "k", "y": 3, "z": None}, {"item_key": "k", "y": 2, "z": None}]


def _put_mark(data: Dataset, batch: str, table: pa.Table, receipt: Receipt) -> None:
    path = data.folder / "mark"
    write_attempts(str(path), table, receipt)
    data.store.create_from(path, mark_name(batch))


def test_a_rewrite_that_does_not_join_any_more_is_rewritten_from_there(data: Dataset) -> None:
    """It stands for the first batch, and what failed in the first rewrite has failed in the second."""
    data.write([{"x": 1}, {"y": 2}, {"z": 3}])
    data.rewrite(_schema(x=pa.string()))
    receipt = rewrite(data.store, NEW, NEWER, _schema(x=pa.string(), y=pa.string()))
    assert (receipt.stands_for, _failed(receipt)) == (OLD, [0, 1])
    assert data.rows(receipt) == [{"item_key": "2", "z": 3}]


def test_many_misfits_have_short_messages(data: Dataset) -> None:
    """The receipt stays small however many items fail; the attempts part has the whole messages."""
    data.write([{"x": "long " * 100}] * 50)
    receipt = data.rewrite(_schema(x=pa.list_(pa.struct([(f"field number {n}", pa.int64()) for n in range(50)]))))
    assert [len(failure.message) for failure in receipt.failures[3:]] == [300] * 47
    assert min(len(row["message"]) for row in data.attempts(NEW)) > 300


# -- races and faults --------------------------------------------------------------------------------------------------------------------


def test_a_rewrite_that_was_done_is_not_done_again(data: Dataset) -> None:
    """The receipt of the mark that is there is returned, and nothing is written."""
    data.write([{"x": 1}, {"y": 1}])
    receipt = data.rewrite(_schema(x=pa.string()))
    before = data.files()
    assert data.rewrite(_schema(y=pa.string())) == receipt
    assert data.files() == before


def test_the_loser_of_the_race_takes_its_parts_away(data: Dataset) -> None:
    """Of two rewrites at the same time one counts; the other returns its receipt and leaves nothing."""
    data.write([{"x": 1}, {"y": 1}])
    winners: list[Receipt] = []
    schema = _schema(x=pa.string())

    def meanwhile() -> None:
        winners.append(data.rewrite(schema))

    faulty = FaultStore(data.store, [Fault("upload", how="slow", act=meanwhile)])
    receipt = rewrite(faulty, OLD, NEW, schema)
    assert [receipt] == winners
    assert {name for name in data.files() if name.startswith(f"results/{NEW}")} == {part.name for part in receipt.results}


def test_an_answer_that_was_lost_costs_no_part(data: Dataset) -> None:
    """A mark that was created without anybody hearing of it is found by the next try, with all the parts that it names."""
    data.write([{"x": 1}, {"y": 1}])
    faulty = FaultStore(data.store, [Fault("create", how="after")])
    with pytest.raises(StoreError):
        rewrite(faulty, OLD, NEW, _schema(x=pa.string()))
    receipt = rewrite(faulty, OLD, NEW, _schema(x=pa.string()))
    assert data.rows(receipt) == [{"item_key": "1", "y": 1}]
    assert {name for name in data.files() if name.startswith(f"results/{NEW}")} == {part.name for part in receipt.results}


def test_an_own_mark_that_is_met_is_no_lost_race(data: Dataset) -> None:
    """A client that repeats a write whose answer was lost meets its own mark: its parts stay."""
    data.write([{"x": 1}, {"y": 1}])
    faulty = FaultStore(data.store, [Fault("create", how="after", error=FileExistsError("there"))])
    receipt = rewrite(faulty, OLD, NEW, _schema(x=pa.string()))
    assert data.rows(receipt) == [{"item_key": "1", "y": 1}]


@pytest.mark.parametrize("op", ["exists", "upload", "create"])
def test_a_rewrite_may_begin_anew_after_any_failure(data: Dataset, op: str) -> None:
    """Whatever fails, no mark is there that names parts which are not, and the next try succeeds."""
    data.write([{"x": 1}, {"y": 1}])
    faulty = FaultStore(data.store, [Fault(op)])
    with pytest.raises(StoreError):
        rewrite(faulty, OLD, NEW, _schema(x=pa.string()))
    assert not data.store.exists(mark_name(NEW))
    receipt = rewrite(faulty, OLD, NEW, _schema(x=pa.string()))
    assert data.rows(receipt) == [{"item_key": "1", "y": 1}]


def test_parts_that_are_gone_are_named(data: Dataset) -> None:
    """A part that the old mark names and that is not there is an error, and no mark is written."""
    was = data.write([{"x": 1}])
    data.store.remove([part.name for part in was.results])
    with pytest.raises(DatasetCorruptError, match=was.results[0].name):
        data.rewrite(_schema(x=pa.string()))
    assert not data.store.exists(mark_name(NEW))


def test_a_mark_with_rows_missing_is_refused(data: Dataset) -> None:
    """Rows that do not go with the receipt cannot be told apart: nothing is written."""
    data.write([{"x": 1}, {"x": 2}])
    table, receipt = read_attempts(data.store, mark_name(OLD), ATTEMPT_COLUMNS), read_receipt(data.store, mark_name(OLD))
    data.store.remove([mark_name(OLD)])
    _put_mark(data, OLD, table.slice(0, 1), receipt)
    with pytest.raises(DatasetCorruptError, match=OLD):
        data.rewrite(_schema(x=pa.string()))


def test_it_works_on_disk(tmp_path: Path) -> None:
    """A dataset in a folder is rewritten as well, and nothing is left in the scratch folder."""
    data = Dataset(tmp_path, Store.at(tmp_path / "dataset"))
    data.write([{"x": 1}, {"y": 1}])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    receipt = data.rewrite(_schema(x=pa.string()), scratch=scratch)
    assert data.rows(receipt) == [{"item_key": "1", "y": 1}]
    assert list(scratch.iterdir()) == []


# -- what others need --------------------------------------------------------------------------------------------------------------------


def test_the_schema_after_joins_what_can_meet() -> None:
    """Columns that can meet are joined, new ones added, others left as they are; nothing changes where nothing is known."""
    after = from_text(schema_after(_schema(x=pa.string(), y=pa.int64()), _schema(x=pa.int64(), y=pa.float64(), z=pa.date32())) or "")
    assert after == pa.schema([("x", pa.string()), ("y", pa.float64()), ("z", pa.date32())])
    assert schema_after(None, _schema(x=pa.int64())) == _schema(x=pa.int64())
    assert schema_after(_schema(x=pa.int64()), None) == _schema(x=pa.int64())
    assert schema_after(None, None) is None


def test_the_rewriter_takes_the_schema_that_was_not_joined(data: Dataset) -> None:
    """Where joining fails the batch is rewritten to the schema as it was then, under the next id."""
    was = data.write([{"x": 1}, {"y": 2}])
    rewriter = Rewriter(data.store, iter([NEW, NEWER]).__next__)
    first, schema = _schema(z=pa.int64()), _schema(x=pa.string())
    assert rewriter.join(first, schema) == join(first, schema)
    with pytest.raises(Exception, match="cannot meet"):
        rewriter.join(schema, was.schema)
    assert rewriter.rewrite(was) == mark_name(NEW)
    assert _failed(read_receipt(data.store, mark_name(NEW))) == [0]
    data.store.remove([part.name for part in was.results])
    assert rewriter.rewrite(was) is None


# -- against batches that knew the schema ------------------------------------------------------------------------------------------------

FAMILIES: list[Any] = [
    st.integers(-5, 5) | st.just(WIDE),
    st.floats(allow_nan=False, width=32),
    st.text("abc", max_size=3),
    st.booleans(),
    st.dates(),
    st.datetimes(min_value=datetime.datetime(1990, 1, 1), max_value=datetime.datetime(2040, 1, 1)),
    st.lists(st.integers(0, 3), max_size=2),
    st.lists(st.text("ab", max_size=2), max_size=2),
    st.fixed_dictionaries({}, optional={"a": st.integers(0, 3), "b": st.text("ab", max_size=1)}),
    st.fixed_dictionaries({}, optional={"a": st.text("ab", max_size=1), "b": st.text("ab", max_size=1), "c": st.integers(0, 2)}),
]


@st.composite
def _column_of_each(draw: Callable[..., Any]) -> tuple[list[Any], list[Any]]:
    """Results of two batches; in each a column holds values of one family."""
    batches = []
    for _ in range(2):
        families = {name: draw(st.sampled_from(FAMILIES)) for name in ("p", "q")}
        row = st.fixed_dictionaries({}, optional={name: st.none() | family for name, family in families.items()})
        batches.append(draw(st.lists(row | st.lists(row, max_size=3), min_size=1, max_size=6)))
    return batches[0], batches[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(both=_column_of_each())
def test_a_rewrite_ends_as_if_the_schema_had_been_known(tmp_path: Path, both: tuple[list[Any], list[Any]]) -> None:
    """A batch rewritten to a schema has the failures and rows of the same batch sent when that schema was known."""
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    data = Dataset(folder)
    schema = data.write(both[0], batch="r-000001-00000005").schema
    was = data.write(both[1])
    knowing = data.write(both[1], batch="r-000001-00000006", known=schema)
    receipt = data.rewrite(schema)
    assert _failed(receipt) == _failed(knowing)
    assert _plain(data.rows(receipt)) == _plain(data.rows(knowing))
    assert joins(schema, receipt.schema)
    assert joins(schema_after(schema, was.schema), receipt.schema)


def _plain(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows without what is null, which columns that nobody has a value in may differ by."""
    return [_without_nulls(row) for row in rows]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain for name, inner in value.items() if (plain := _without_nulls(inner)) not in (None, {})}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
