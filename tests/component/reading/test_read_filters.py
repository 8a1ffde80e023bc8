"""What is not asked for is not read: columns, rows, files."""

from __future__ import annotations

import io
import itertools
import math
import operator
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset import fetching, reading
from dcompute.dataset.compaction import compact
from dcompute.dataset.entries import Replace
from dcompute.dataset.filters import Filter
from dcompute.dataset.frames import Reading
from dcompute.dataset.pieces import File, Piece, by_rows, by_size
from dcompute.errors import DatasetCorruptError, UsageError
from dcompute.records import PartRef

SCHEMA = pa.schema([("item_key", pa.string()), ("key_kind", pa.string()), ("n", pa.int64()), ("x", pa.float64())])
SIGNS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
TIMES = SCHEMA.append(pa.field("t", pa.timestamp("us", "UTC")))


class Noting:
    """Rows that note what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.schema = SCHEMA

    def __dask_tokenize__(self) -> str:
        return "noting"

    def table(self, piece: Piece, names: Sequence[str]) -> pa.Table:
        self.asked.append(list(names))
        return pa.table({"item_key": ["a"], "key_kind": ["str"], "n": [1], "x": [0.5]}).select(list(names))


def compute(frame: Any) -> Any:
    return frame.compute(scheduler="synchronous")


def test_dask_asks_for_the_columns_that_are_used() -> None:
    """A projection, a group-by and a condition reach what reads, and nothing else is asked for."""
    rows = Noting()
    frame = Reading(rows, [Piece((File("f", 1),))], SCHEMA.names, "test").to_dask()
    compute(frame[["n"]])
    compute(frame.groupby("key_kind")["x"].mean())
    compute(frame[frame.n > 0]["x"])
    assert [sorted(names) for names in rows.asked] == [["n"], ["key_kind", "x"], ["n", "x"]]


def test_counting_rows_asks_for_no_column() -> None:
    """``len`` asks for no column at all."""
    rows = Noting()
    frame = Reading(rows, [Piece((File("f", 1),))], SCHEMA.names, "test").to_dask()
    assert len(frame) == 1
    assert len(frame[["n"]]) == len(frame["x"]) == 1
    assert rows.asked == [[], [], []]


def test_counting_rows_reads_no_file(scene: Any, did: Any) -> None:
    """Where all rows count, the log knows how many there are."""
    state = scene.add(did("a", rows=[{"n": 1}, {"n": 2}])).add(did("b", rows=[{"n": 3}])).state
    scene.store.remove(scene.store.names("results"))
    assert len(reading.results(scene.store, state)) == 3


FILTERS = [
    [("n", ">", 1)],
    [("n", ">", 0), ("x", "<=", 1.5)],
    [[("n", "==", 1)], [("s", "==", "late")]],
    [("s", "in", {"late", "other"})],
    pc.field("x").is_null(),
    pc.field("n") + 1 > 3,
    pc.field("item_key") == "a",
]


@pytest.mark.parametrize("filters", FILTERS)
def test_filters_give_the_rows_for_which_they_are_true(scene: Any, did: Any, filters: Any) -> None:
    """Whatever the parts look like, a filter gives what it gives on the whole table."""
    scene.add(did("a", rows=[{"n": 1, "x": 1}, {"n": 2, "x": 2}]), did("gone", rows=[{"n": 9, "x": 9}]))
    scene.add(did("b", rows=[{"x": 0.5, "s": "late"}]), did("left", rows=[{"x": 0.5, "s": "late"}]), left_out=["left"])
    scene.add(did("c", rows=[{"n": 3, "s": None}, {"n": None}])).hide("gone")
    whole = reading.results_arrow(scene.store, scene.state)
    expression = filters if isinstance(filters, pc.Expression) else pq.filters_to_expression(filters)
    expected = whole.filter(expression).to_pylist()
    assert 0 < len(expected) < whole.num_rows
    assert reading.results_arrow(scene.store, scene.state, filters=filters).to_pylist() == expected
    lazy = reading.results(scene.store, scene.state, ["item_key"], filters)
    assert compute(lazy)["item_key"].tolist() == [row["item_key"] for row in expected]
    assert len(lazy) == len(expected)


def test_attempts_and_failures_take_filters(scene: Any, did: Any) -> None:
    """All three tables are filtered alike."""
    scene.add(did("a", failed="crash"), did("b", failed="timeout"), did("c"))
    assert reading.attempts_arrow(scene.store, scene.state, ["item_key"], [("kind", "==", "crash")]).to_pylist() == [{"item_key": "a"}]
    assert len(reading.failures(scene.store, scene.state, filters=[("kind", "!=", "crash")])) == 1


def compacted(scene: Any, did: Any, table: pa.Table, **options: Any) -> Any:
    """A dataset whose only part is this table, as a compaction would leave it."""
    scene.add(did("a", rows=table.slice(0, 1).drop_columns(["item_key", "key_kind"]).to_pylist()))
    old = scene.state.batches[0].batch.results[0].name
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    part = PartRef(name="results/compacted.parquet", size=len(buffer.getvalue()), rows=table.num_rows)
    scene.store.write(part.name, buffer.getvalue())
    return scene.commit(Replace(parts=(old,), by=(part,), read_at=len(scene.entries))).state


def sorted_table(rows: int) -> pa.Table:
    return pa.table({"item_key": ["a"] * rows, "key_kind": ["str"] * rows, "n": range(rows)})


def test_row_groups_that_hold_no_such_row_are_not_read(scene: Any, did: Any) -> None:
    """By the statistics of a sorted part one row group is read: the bytes of the others may be rubbish."""
    state = compacted(scene, did, sorted_table(4000), row_group_size=1000, compression="none", use_dictionary=False)
    path = Path(scene.store.path("results/compacted.parquet"))
    groups = pq.ParquetFile(path).metadata
    data = bytearray(path.read_bytes())
    for group in (0, 1, 3):
        column = groups.row_group(group).column(2)
        data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    assert reading.results_arrow(scene.store, state, ["n"], [("n", ">=", 2990), ("n", "<", 3000)]).num_rows == 10
    with pytest.raises(DatasetCorruptError):
        reading.results_arrow(scene.store, state, ["n"], [("n", ">=", 2990), ("n", "<", 3001)])


def test_a_large_part_gives_several_partitions(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part larger than a partition is read in shares of its row groups, each row once."""
    state = compacted(scene, did, sorted_table(5000), row_group_size=1000)
    monkeypatch.setattr(reading, "PARTITION_BYTES", 5000 * (24 + 24 + 8) // 3)
    frame = reading.results(scene.store, state, ["n"])
    assert frame.npartitions == 4
    parts = [len(compute(frame.partitions[index])) for index in range(4)]
    assert (sum(parts), max(parts)) == (5000, 2000)
    assert sorted(compute(frame)["n"]) == list(range(5000))
    assert len(frame) == 5000


def test_partitions_are_bounded_in_memory_and_not_as_stored(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are stored in next to nothing take their place in memory all the same."""
    rows = 64_000
    table = pa.table({"item_key": ["a"] * rows, "key_kind": ["str"] * rows, "n": [7] * rows, "x": [0.5] * rows})
    state = compacted(scene, did, table, row_group_size=4000)
    monkeypatch.setattr(reading, "PARTITION_BYTES", 1 << 20)
    reader = reading.reading_results(scene.store, state)
    sizes = [reader.rows.table(piece, reader.columns).nbytes for piece in reader.pieces]
    assert len(sizes) == 4
    assert max(sizes) < 1 << 20


@pytest.mark.parametrize("merged", [False, True])
def test_partitions_of_text_that_repeats_are_bounded_too(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch, merged: bool) -> None:
    """Long texts, lists and structures are stored in next to nothing where they are alike."""
    long = [{"t": f"{row % 3}" * 5000, "l": [row] * 10, "s": {"a": "b" * 100}} for row in range(20)]
    monkeypatch.setattr("dcompute.dataset.parts._GROUP_BYTES", 1 << 18)
    scene.open().add(*[did(f"k{number}", rows=long) for number in range(10)])
    for number in range(10, 20):
        scene.add(did(f"k{number}", rows=long))
    scene.publish()
    if merged:
        monkeypatch.setattr("dcompute.dataset.merging.GROUP_BYTES", 1 << 18)
        compact(scene.store, all=True)
    monkeypatch.setattr(reading, "PARTITION_BYTES", 1 << 19)
    opened = dc.open(scene.store.url)
    reader = reading.reading_results(scene.store, opened.state)
    sizes = [reader.rows.table(piece, reader.columns).nbytes for piece in reader.pieces]
    assert 4 <= len(sizes) <= 20
    assert max(sizes) < 1 << 20


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 200_000)), max_size=20), st.integers(1, 3000), st.integers(1, 5))
def test_partitions_hold_all_of_every_file(sizes: list[tuple[int, int]], most_bytes: int, most_files: int) -> None:
    """For any files, each is whole in one partition, or in as many shares as it says, and no partition is too large."""
    files = [File(f"f{index}", 1, size=size, count=count) for index, (size, count) in enumerate(sizes)]
    pieces = by_size(files, most_files=most_files, most_bytes=most_bytes)
    found: dict[str, list[tuple[int, int]]] = {}
    for piece in pieces:
        assert 0 < len(piece.files) <= most_files
        assert sum(file.size for file in piece.files) <= most_bytes or len(piece.files) == 1
        for file in piece.files:
            found.setdefault(file.name, []).append(file.share)
    assert found == {file.name: [(index, len(found[file.name])) for index in range(len(found[file.name]))] for file in files}


def test_partitions_of_attempts_are_bounded_by_rows() -> None:
    """Of failures the rows that are taken count, of attempts all."""
    files = [File("a", 1, count=3), File("b", 1, count=3), File("c", 1, rows=(7,), count=9), File("d", 1, count=9)]
    assert [[file.name for file in piece.files] for piece in by_rows(files, most_files=9, most_rows=4)] == [["a"], ["b", "c"], ["d"]]


@pytest.mark.parametrize("written", ["as written", "compacted"])
@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([("n", "==", 1.5)], []),
        ([("n", "!=", 1.5)], [1, 2**24 + 1, 2**60 + 1]),
        ([("n", ">", 1.5)], [2**24 + 1, 2**60 + 1]),
        ([("n", ">=", 16777216.5)], [2**24 + 1, 2**60 + 1]),
        ([("n", "<", 1e30)], [1, 2**24 + 1, 2**60 + 1]),
        ([("n", "==", 16777217.0)], [2**24 + 1]),
        ([("n", "==", 2.0**60)], []),
        ([("n", "in", [1.0, 1.5, 2**60 + 1])], [1, 2**60 + 1]),
        ([("n", "not in", [1.5, 1])], [2**24 + 1, 2**60 + 1, None]),
        ([("n", "in", [])], []),
        ([("n", "in", [None])], [None]),
        ([("n", "not in", ())], [1, 2**24 + 1, 2**60 + 1, None]),
        ([("n", "in", ["1"])], [1]),
        ([("n", "==", 10**30)], []),
        ([("n", "!=", 10**30)], [1, 2**24 + 1, 2**60 + 1]),
        ([("n", "<", Decimal("1e30"))], [1, 2**24 + 1, 2**60 + 1]),
        ([("n", ">=", -(10**30))], [1, 2**24 + 1, 2**60 + 1]),
        ([("n", "<=", -math.inf)], []),
        ([("n", "!=", math.nan)], [1, 2**24 + 1, 2**60 + 1]),
        ([("n", "<", math.nan)], []),
        ([("n", "in", [10**30, 1])], [1]),
        ([("n", "not in", [10**30, 1])], [2**24 + 1, 2**60 + 1, None]),
        ([("n", "==", np.uint64(2**24 + 1))], [2**24 + 1]),
        ([("n", "in", np.array([1, 2]))], [1]),
    ],
    ids=str,
)
def test_integers_are_compared_with_other_numbers(scene: Any, did: Any, written: str, filters: Any, found: list[Any]) -> None:
    """Exactly, however large they are and however small the numbers that they are compared with."""
    values = pa.array([1, 2**24 + 1, 2**60 + 1, None], pa.int64())
    table = pa.table({"item_key": ["a"] * 4, "key_kind": ["str"] * 4, "n": values})
    if written == "compacted":
        state = compacted(scene, did, table)
    else:
        state = scene.add(did("a", rows=[{"n": value} for value in values.to_pylist()])).state
    assert reading.results_arrow(scene.store, state, ["n"], filters)["n"].to_pylist() == found


NUMBERS = {
    pa.uint64(): [0, 7, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, None],
    pa.int64(): [-(2**63), -1, 0, 7, 2**63 - 1, None],
    pa.decimal128(20, 2): [Decimal("-1.50"), Decimal(7), Decimal("7.01"), Decimal("7.10"), Decimal("999999999999999999.99"), None],
    pa.decimal256(76, 0): [Decimal(-1), Decimal(7), Decimal("9" * 76), None],
    pa.float16(): [-1.5, 0.0, 7.0, 7.5, math.inf, None],
    pa.float32(): [-1.5, 0.0, 7.0, 7.5, 2.0**20, None],
}
OTHERS = [0, 7, -1, 2**24 + 1, 2**53 + 1, 2**63 - 1, 2**63 + 1, 2**64, -(2**63), 10**80, -(10**400), 7.5, 1e30, -math.inf, Decimal("7.015")]


def found_in(buffer: io.BytesIO, type_: pa.DataType, filters: Any, stored: str) -> list[Any]:
    """The values of a column n that pass, from the row groups that may hold them."""
    schema = pa.schema([("n", type_)])
    where = Filter.of(filters, schema)
    assert where is not None
    opened = pq.ParquetFile(buffer)
    groups = fetching._that_may_match(buffer, opened, list(range(opened.num_row_groups)), schema, where=where, stored={"n": stored})
    read = opened.read_row_groups(groups).rename_columns(["n"]) if groups else schema.empty_table()
    found: list[Any] = where.apply(read)["n"].to_pylist()
    return found


@pytest.mark.parametrize("stored", ["n", "before"])
@pytest.mark.parametrize("type_", NUMBERS, ids=str)
def test_all_numbers_are_compared_with_all(type_: pa.DataType, stored: str) -> None:
    """Unsigned integers, decimals and half floats too, with numbers that their type does not hold: as Python compares them."""
    values = NUMBERS[type_]
    there = [one for one in values if one is not None]
    buffer = io.BytesIO()
    typed = [np.float16(one) for one in there] if pa.types.is_float16(type_) else there
    pq.write_table(pa.table({stored: pa.array([*typed, None], type_)}), buffer, row_group_size=2)
    for other, (sign, holds) in itertools.product(OTHERS, SIGNS.items()):
        assert found_in(buffer, type_, [("n", sign, other)], stored) == [one for one in there if holds(one, other)], (sign, other)
    among = [one for one in there if one in OTHERS]
    assert found_in(buffer, type_, [("n", "in", OTHERS)], stored) == among
    assert found_in(buffer, type_, [("n", "not in", [*OTHERS, None])], stored) == [one for one in there if one not in among]


@pytest.mark.parametrize("sign", ["==", "<=", "in"])
def test_decimals_are_compared_with_what_a_float_is_written_as(scene: Any, did: Any, sign: str) -> None:
    """Who writes 0.1 means it."""
    state = scene.add(did("a", rows=[{"n": Decimal("0.10")}, {"n": Decimal("0.11")}])).state
    found = reading.results_arrow(scene.store, state, ["n"], [("n", sign, [0.1] if sign == "in" else 0.1)])
    assert found["n"].to_pylist() == [Decimal("0.10")]


@pytest.mark.parametrize("filters", [[], (), [[]]], ids=str)
def test_an_empty_list_asks_for_nothing(scene: Any, did: Any, filters: Any) -> None:
    """As Dask has it: all rows come."""
    assert reading.results_arrow(scene.store, scene.add(did("a", rows=[{"n": 1}, {"n": 2}])).state, filters=filters).num_rows == 2


def test_a_value_that_cannot_be_compared_is_the_filters_fault(scene: Any, did: Any) -> None:
    """It is told as that, and no dataset is called damaged."""
    state = scene.add(did("a", rows=[{"n": 2**24 + 1}, {"n": 1}])).state
    with pytest.raises(UsageError, match=r"cannot be asked of a value in 'n': .*cast the column"):
        reading.results_arrow(scene.store, state, filters=pc.field("n") > 1.5)


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ([("nn", ">", 1)], "no column 'nn': did you mean 'n'"),
        (pc.field("nn") > 1, r"cannot be asked of columns item_key \(string\), .*nn"),
        ([("n", ">", "text")], "cannot be asked of columns"),
        ([("n", "in", [1, "x"])], "cannot be read"),
        ([("t", ">", datetime(2024, 1, 1))], "cannot be asked of columns.* timezone"),
        ([("t", "in", [datetime(2024, 1, 1)])], "cannot be asked of columns.* timezone"),
        ([("t", "in", ["2024-01-02"])], "cannot be asked of columns"),
        ([("n", "~", 1)], "list of .column, operator, value."),
        ("n > 1", "list of .column, operator, value."),
        ([[("n", ">", 1)], []], "list of .column, operator, value."),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_is_refused(filters: Any, says: str) -> None:
    """Before anything is read, with what is wrong."""
    with pytest.raises(UsageError, match=says):
        Filter.of(filters, TIMES)


def test_columns_are_a_list(scene: Any, did: Any) -> None:
    """One name is no list of names, and is not read as its letters."""
    with pytest.raises(UsageError, match=r"such as \['n'\]"):
        reading.results(scene.store, scene.add(did("a", rows=[{"n": 1}])).state, "n")


def test_columns_may_come_one_by_one(scene: Any, did: Any) -> None:
    """What gives names only once is asked once, of one dataset and of several."""
    opened = dc.open(scene.open().add(did("a", rows=[{"n": 1, "x": 2}])).publish().store.url)
    for readable in (opened, dc.open([opened])):
        assert readable.to_arrow(name for name in ("n", "item_key")).to_pylist() == [{"n": 1, "item_key": "a"}]


def test_no_column_has_all_rows(scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory as in a lazy frame."""
    monkeypatch.setattr(reading, "PARTITION_FILES", 1)
    scene.open().add(did("a", rows=[{"n": 1}, {"n": 2}])).add(did("b", rows=[{"n": 3}])).publish()
    opened = dc.open(scene.store.url)
    assert opened.to_arrow([]).num_rows == len(opened.to_pandas([])) == len(opened.results([])) == 3
    assert opened.to_arrow([], [("n", ">", 1)]).num_rows == 2
