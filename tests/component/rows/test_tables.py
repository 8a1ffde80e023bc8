"""Parts made of rows: types, guilty items, and what the receipt says."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcompute.dataset.parts import RECEIPT, mark_name, results_name
from dcompute.dataset.schema import from_text, join, to_text
from dcompute.errors import SchemaError
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, BatchSpec, Failure, ItemKey, Kind, Receipt, RunSpec
from dcompute.worker.briefing import DETAILED
from dcompute.worker.rows import decode, encode, to_rows
from dcompute.worker.tables import Parts, ranges

UTC = datetime.UTC
NAIVE = datetime.datetime(2024, 1, 2, 3, 4, 5)
AWARE = NAIVE.replace(tzinfo=UTC)
WIDE = 2**53 + 1


def _run(schema: pa.Schema | None = None) -> RunSpec:
    text = None if schema is None else to_text(schema)
    return RunSpec(run="r", dataset="/x", workload="w", code=b"", code_digest="c", params_digest="p", schema=text)


def _batch(count: int, schema: pa.Schema | None = None) -> BatchSpec:
    return BatchSpec(
        id="r-000001-00000001",
        keys=tuple(ItemKey(f"k{index}", "str") for index in range(count)),
        attempts=(1,) * count,
        fingerprints=("",) * count,
        values=b"",
        schema=None if schema is None else to_text(schema),
    )


def _attempt(batch: BatchSpec, index: int, rows: int, outcome: str = SUCCEEDED) -> tuple[Any, ...]:
    known = {
        "item_key": batch.keys[index].text, "key_kind": batch.keys[index].kind, "attempt": 1, "outcome": outcome, "started": 1.5,
        "duration": 0.25, "peak_memory": 1000 + index, "rows": rows, "host": "h", "worker": "w", "batch": batch.id,
    }  # fmt: skip
    return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


class Made:
    """The parts of a batch whose items returned ``results``."""

    def __init__(self, folder: Path, results: Sequence[Any], *, known: Any = None, declared: Any = None, part_bytes: int = 2**27) -> None:
        batch = _batch(len(results), known)
        parts = Parts(folder, _run(declared), batch, "e1", part_bytes=part_bytes)
        rows = [parts.add(index, decode(encode(to_rows(result)))) for index, result in enumerate(results)]
        attempts = [_attempt(batch, index, number) for index, number in enumerate(rows)]
        self.receipt: Receipt = parts.finish(attempts, slot_seconds=2.0)
        self.files = parts.files
        tables = [pq.read_table(path) for path, name in parts.files if name.startswith("results/")]
        self.table = pa.concat_tables(tables, promote_options="permissive") if tables else None
        self.attempts = pq.read_table(parts.files[-1][0])

    def column(self, name: str = "value") -> list[Any]:
        assert self.table is not None
        return self.table.column(name).to_pylist()

    def type(self, name: str = "value") -> pa.DataType:
        assert self.table is not None
        return self.table.schema.field(name).type

    @property
    def failed(self) -> list[int]:
        return [failure.index for failure in self.receipt.failures]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    return lambda results, **more: Made(tmp_path, results, **more)


def test_rows_lie_under_their_items(make: Callable[..., Made]) -> None:
    """Each row has key and kind of its item; items without rows have none; absent columns are null."""
    made = make([{"a": 1}, None, [{"a": 2}, {"b": "x"}], [], {}])
    assert made.table.column_names == ["item_key", "key_kind", "a", "b"]
    assert made.column("item_key") == ["k0", "k2", "k2", "k4"]
    assert made.column("a") == [1, 2, None, None]
    assert made.column("b") == [None, None, "x", None]
    assert made.attempts.column("rows").to_pylist() == [1, 0, 2, 0, 1]
    assert made.receipt.rows == 4


def test_the_receipt_tells_what_lies_in_the_parts(make: Callable[..., Made]) -> None:
    """Names, sizes, rows, schema and sums of the receipt are those of the files, and it lies in the attempts part."""
    made = make([1, 2, 3])
    receipt = made.receipt
    (path, name), (attempts, mark) = made.files
    assert (name, mark) == (results_name("r-000001-00000001", "e1", 0), mark_name("r-000001-00000001"))
    assert [(part.name, part.size, part.rows) for part in receipt.results] == [(name, Path(path).stat().st_size, 3)]
    assert from_text(receipt.schema or "").names == ["value"]
    assert (receipt.holds, receipt.seconds, receipt.slot_seconds, receipt.peak_memory, receipt.host) == (((0, 3),), 0.75, 2.0, 1002, "h")
    assert RECEIPT in pq.read_metadata(attempts).metadata


def test_a_batch_without_rows_has_only_its_mark(make: Callable[..., Made]) -> None:
    """Workloads that return nothing make no results parts and no schema."""
    made = make([None, None])
    assert [name for _, name in made.files] == [mark_name("r-000001-00000001")]
    assert made.receipt.schema is None
    assert made.attempts.num_rows == 2


@pytest.mark.parametrize(
    ("results", "type_"),
    [
        ([1, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2.5, 1, None], pa.float64()),
        ([None, {"value": None}], pa.null()),
        ([{"value": None}, "x"], pa.string()),
        ([True, False], pa.bool_()),
        ([2**63, 1], pa.uint64()),
        ([WIDE], pa.int64()),
        ([np.int8(1), np.int8(2)], pa.int8()),
        ([np.int8(1), np.int32(2)], pa.int32()),
        ([np.datetime64("2024-01-01"), np.datetime64("NaT")], pa.date32()),
        ([[np.datetime64("2024-01-01")], [np.datetime64("2024-02", "M")]], pa.date32()),
        ([{"value": [np.datetime64("2024-01-01"), None]}], pa.list_(pa.date32())),
        ([np.datetime64("2024-01-01T05", "h")], pa.timestamp("ms")),
        ([np.array(["2024-01-01T05"], "M8[h]")], pa.list_(pa.timestamp("ms"))),
        ([np.timedelta64(5, "D"), np.timedelta64(5, "ns")], pa.duration("ns")),
        ([np.float32(1), np.float32(2)], pa.float32()),
        ([np.array([1, 2], "f4"), np.array([3], "f4")], pa.list_(pa.field("element", pa.float32()))),
        ([np.array([1, 2], "i4"), np.array([1.5])], pa.list_(pa.field("element", pa.float64()))),
        ([{"value": [1, 2]}, {"value": None}, {"value": []}], pa.list_(pa.field("element", pa.int64()))),
        ([{"value": [1]}, {"value": [2.5]}], pa.list_(pa.field("element", pa.float64()))),
        ([NAIVE], pa.timestamp("us")),
        ([AWARE], pa.timestamp("us", "UTC")),
        ([datetime.date(2024, 1, 2)], pa.date32()),
        ([datetime.time(1)], pa.time64("us")),
        ([datetime.timedelta(1)], pa.duration("us")),
        ([Decimal("1.5"), Decimal("100.25")], pa.decimal128(5, 2)),
        ([b"x"], pa.binary()),
        ([{"value": {"a": 1}}, {"value": {"a": 2.5, "b": "x"}}], pa.struct({"a": pa.float64(), "b": pa.string()})),
        ([pd.Timestamp("2024-01-01T00:00:00.000000001")], pa.timestamp("ns")),
    ],
)
def test_a_column_takes_the_type_in_which_all_its_values_meet(make: Callable[..., Made], results: list[Any], type_: pa.DataType) -> None:
    """Types of values meet by the rules of the dataset, and nobody fails."""
    made = make(results)
    assert made.failed == []
    assert made.type() == type_


@pytest.mark.parametrize(
    ("results", "guilty", "types"),
    [
        ([1, "x", 2], 1, ("int64", "string")),
        (["x", 1, "y"], 1, ("string", "int64")),
        ([1, True, 2], 1, ("int64", "bool")),
        (["x", b"x", "y"], 1, ("string", "binary")),
        ([datetime.date(2024, 1, 2), NAIVE], 1, ("date32[day]", "timestamp[us]")),
        ([NAIVE, AWARE, NAIVE], 1, ("timestamp[us]", "timestamp[us, tz=UTC]")),
        ([WIDE, 1.5, 2], 1, ("int64", "double")),
        ([1.5, WIDE, 2], 1, ("double", "int64")),
        ([1, 2, {"value": [1]}], 2, ("int64", "list")),
        ([1, [2, "x"], 3], 1, ("int64", "string")),
        ([np.array([1]), np.array(["x"])], 1, ("int64", "string")),
        ([np.array([WIDE]), np.array([1.5])], 1, ("int64", "double")),
        ([1, pa.table({"value": ["x"]}), 3], 1, ("int64", "string")),
        ([{"value": {"a": 1}}, {"value": {"a": "x"}}], 1, ("int64", "string")),
        ([{"value": [datetime.date(2024, 1, 2)]}, {"value": [NAIVE]}], 1, ("date32", "timestamp")),
    ],
)
def test_of_types_that_cannot_meet_the_later_item_fails(
    make: Callable[..., Made], results: list[Any], guilty: int, types: tuple[str, str]
) -> None:
    """The guilty item fails for good, with column, value and both types; its neighbours keep their rows."""
    made = make(results)
    assert made.failed == [guilty]
    (failure,) = made.receipt.failures
    assert (failure.kind, failure.error) == (Kind.PERMANENT, "dcompute.errors.SchemaError")
    assert "value" in failure.message
    assert all(each in failure.message for each in types)
    assert made.column("item_key") == [f"k{index}" for index in range(len(results)) if index != guilty]
    assert made.attempts.column("outcome").to_pylist()[guilty] == FAILED
    assert made.attempts.column("message").to_pylist()[guilty] == failure.message
    assert made.attempts.column("rows").to_pylist()[guilty] == 0
    assert made.attempts.column("outcome").to_pylist().count(FAILED) == 1


@pytest.mark.parametrize(
    "result",
    [
        {"a\0b": 1},
        [{"a": 1}, {"a\0": 1}],
        {"a": {"b\0": 1}},
        {"a": [{"b\0": 1}]},
        pd.DataFrame({"\0a": [1]}),
        pa.record_batch({"a\0b": [1]}),
    ],
    ids=repr,
)
def test_a_name_with_a_zero_character_fails_its_item_only(make: Callable[..., Made], result: Any) -> None:
    """Tools that end the name there would give the column another one, or not read the dataset at all."""
    made = make([{"a": None}, result, {"a": None}])
    assert (made.failed, made.column("item_key")) == ([1], ["k0", "k2"])
    assert "end a name at a zero character: leave it out" in made.receipt.failures[0].message


def test_a_name_with_a_zero_character_is_refused_before_polars_hands_it_over() -> None:
    """Where it would end the process."""
    polars = pytest.importorskip("polars")
    with pytest.raises(SchemaError, match="end a name at a zero character"):
        to_rows(polars.DataFrame({"a\0b": [1]}))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", Decimal("NaN"), np.longdouble(1), Decimal("1E+80")])
def test_a_value_without_an_arrow_type_fails_its_item_only(make: Callable[..., Made], value: Any) -> None:
    """What Arrow has no form for is the failure of whoever returned it."""
    made = make([{"a": 1, "b": 0}, {"a": value, "b": "not even this counts"}, {"a": 3, "b": 2}])
    assert made.failed == [1]
    assert made.column("a") == [1, 3]
    assert made.type("b") == pa.int64()


def test_the_schema_that_the_dataset_has_wins(make: Callable[..., Made]) -> None:
    """Items that cannot meet the schema of when the batch was sent fail, even where all of the batch agree against it."""
    known = pa.schema({"a": pa.int64(), "other": pa.string()})
    made = make([{"a": "x"}, {"a": "y"}, {"a": 1}, {"a": 2.5}, {"other": "z"}], known=known)
    assert made.failed == [0, 1]
    assert made.type("a") == pa.float64()
    assert from_text(made.receipt.schema or "").names == ["a", "other"]
    joined = join(to_text(known), made.receipt.schema)
    assert from_text(joined or "").field("a").type == pa.float64()
    assert "'x'" in made.receipt.failures[0].message


def test_a_wide_column_of_the_dataset_does_not_meet_floats(make: Callable[..., Made], tmp_path: Path) -> None:
    """That a column has integers beyond 2**53 is known from batch to batch."""
    (tmp_path / "first").mkdir()
    first = Made(tmp_path / "first", [WIDE])
    made = make([0.5, 3], known=from_text(first.receipt.schema or ""))
    assert made.failed == [0]
    assert made.column() == [3]


DECLARED = pa.schema({"a": pa.int32(), "b": pa.float64(), "c": pa.struct({"x": pa.int64()}), "t": pa.timestamp("ns", "UTC")})


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"a": "x"}, "string"),
        ({"a": 2**40}, str(2**40)),
        ({"a": 1.5}, "1.5"),
        ({"a": True}, "bool"),
        ({"d": 1}, "'d' is not in the declared schema"),
        ({"c": {"x": 1, "y": 2}}, "'c.y' is not in the declared schema"),
        ({"b": WIDE}, str(WIDE)),
        ({"t": NAIVE}, "timestamp"),
        (pa.table({"a": ["x"]}), "string"),
    ],
)
def test_what_does_not_fit_a_declared_schema_fails(make: Callable[..., Made], result: Any, said: str) -> None:
    """With a declared schema values of other types, values that do not fit and extra columns fail; the others have the declared types."""
    good = {"a": 1, "b": 2, "c": {"x": 3}, "t": AWARE}
    made = make([good, result, {"a": 5.0}, {"a": None}], declared=DECLARED)
    assert made.failed == [1]
    assert said in made.receipt.failures[0].message
    assert made.column("a") == [1, 5, None]
    assert from_text(made.receipt.schema or "").equals(DECLARED.with_metadata(None))


def test_many_guilty_items_among_many(make: Callable[..., Made]) -> None:
    """Every guilty item of a large batch is found, and none else."""
    guilty = {index for index in range(3000) if index % 7 == 3}
    made = make([{"n": "no number" if index in guilty else index} for index in range(3000)])
    assert set(made.failed) == guilty
    assert made.column("n") == [index for index in range(3000) if index not in guilty]
    assert sum(bool(failure.message) for failure in made.receipt.failures) == len(guilty)


def test_large_results_are_written_in_several_parts(make: Callable[..., Made]) -> None:
    """Beyond the size of a part a new one begins, and types may still grow between two."""
    table = pa.table({"x": np.arange(300_000)})
    made = make([table, table, pa.table({"x": np.arange(300_000) + 0.5})], part_bytes=2**20)
    assert len(made.receipt.results) > 1
    assert [part.name.rpartition("-")[2] for part in made.receipt.results] == [
        f"{number}.parquet" for number in range(len(made.receipt.results))
    ]
    assert made.receipt.rows == made.table.num_rows == 900_000
    assert from_text(made.receipt.schema or "").field("x").type == pa.float64()


def test_no_dictionary_or_view_types_on_disk(make: Callable[..., Made]) -> None:
    """Categories and views of a dataframe lie on disk as what they stand for."""
    made = make([pa.table({"c": pa.array(["a", "b", "a"]).dictionary_encode(), "v": pa.array(["x"] * 3, pa.string_view())})])
    assert (made.type("c"), made.type("v")) == (pa.string(), pa.string())
    assert made.column("c") == ["a", "b", "a"]


def test_failures_of_the_items_themselves_are_in_the_receipt(tmp_path: Path) -> None:
    """The child's failures come in with those of the schema, in the order of the batch; only the first of a sort have tracebacks."""
    batch = _batch(8)
    parts = Parts(tmp_path, _run(), batch, "e")
    parts.add(0, {"a": 1})
    parts.add(1, {"a": "x"})
    own = [Failure(index=index, kind=Kind.CRASH, error="SIGSEGV", message="m" * 5000, traceback="tb") for index in range(2, 7)]
    rows = [_attempt(batch, index, 1, SUCCEEDED if index < 2 else FAILED) for index in range(7)]
    receipt = parts.finish(rows, failures=own)
    assert [failure.index for failure in receipt.failures] == [1, 2, 3, 4, 5, 6]
    assert [bool(failure.traceback) for failure in receipt.failures][1:] == [True] * DETAILED + [False] * (5 - DETAILED)
    assert len(receipt.failures[-1].message) < 500
    assert receipt.holds == ((0, 7),)


def test_ranges_are_half_open_and_ascending() -> None:
    """Indexes in any order become the fewest ranges."""
    assert ranges([4, 0, 1, 2, 7, 6]) == ((0, 3), (4, 5), (6, 8))
    assert ranges([]) == ()


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3),
    st.dates(), st.datetimes(), st.timedeltas(), st.decimals(-100, 100, allow_nan=False, allow_infinity=False, places=2),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner)), max_leaves=6
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.dictionaries(st.sampled_from("xyz"), _VALUES)), max_size=8))
def test_any_results_make_parts_as_they_would_one_by_one(tmp_path_factory: pytest.TempPathFactory, results: list[Any]) -> None:
    """All at once, the same items fail and the same schema comes out as when each item's rows are settled for itself."""
    together, apart = (Parts(tmp_path_factory.mktemp("p"), _run(), _batch(len(results)), "e") for _ in range(2))
    for index, result in enumerate(results):
        together.add(index, to_rows(result))
        apart.add(index, to_rows(result))
        apart._settle_waiting()
    receipts = [parts.finish([]) for parts in (together, apart)]
    assert [failure.index for failure in receipts[0].failures] == [failure.index for failure in receipts[1].failures]
    assert receipts[0].schema == receipts[1].schema
    assert receipts[0].rows == receipts[1].rows
    stored = [pq.read_table(parts.files[0][0]).to_pylist() if receipts[0].results else [] for parts in (together, apart)]
    assert stored[0] == stored[1]
