"""How column types meet, and what a cast may and may not do."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.dataset.schema import cast, cast_column, declared, from_text, join, join_schemas, joins, marked, meet, to_text
from dcompute.errors import SchemaError, WorkloadError

MEETINGS = [
    (pa.int8(), pa.uint8(), pa.int16()),
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.int8(), pa.uint64(), pa.int64()),
    (pa.uint8(), pa.uint32(), pa.uint32()),
    (pa.int64(), pa.float32(), pa.float64()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.null(), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
    (pa.string_view(), pa.string(), pa.string()),
    (pa.binary(3), pa.binary(4), pa.binary()),
    (pa.date32(), pa.date64(), pa.date32()),
    (pa.time32("s"), pa.time64("us"), pa.time64("us")),
    (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Berlin"), pa.timestamp("ns", "UTC")),
    (pa.duration("s"), pa.duration("ns"), pa.duration("ns")),
    (pa.decimal128(10, 2), pa.decimal128(8, 4), pa.decimal128(12, 4)),
    (pa.decimal128(10, 2), pa.int64(), pa.decimal128(22, 2)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.list_(pa.int8()), pa.large_list(pa.float64()), pa.large_list(pa.float64())),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 2)),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())),
    (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.string())]), pa.struct([("a", pa.int8()), ("b", pa.string())])),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.float32()), pa.map_(pa.string(), pa.float64())),
    (pa.uuid(), pa.binary(16), pa.binary(16)),
]

REFUSED = [
    (pa.string(), pa.int64()),
    (pa.bool_(), pa.int64()),
    (pa.string(), pa.binary()),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.date32(), pa.timestamp("us")),
    (pa.decimal128(5, 2), pa.float64()),
    (pa.decimal256(76, 0), pa.decimal128(5, 4)),
    (pa.list_(pa.int8()), pa.int8()),
    (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.string())])),
    (pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8())),
]


@pytest.mark.parametrize(("a", "b", "both"), MEETINGS, ids=str)
def test_two_types_meet_in_one_that_holds_both(a: pa.DataType, b: pa.DataType, both: pa.DataType) -> None:
    """Types meet in the narrowest one that can tell every value of both, whichever came first."""
    assert meet(a, b) == both
    forth, back = meet(a, b), meet(b, a)
    assert forth == back or {child.name for child in forth} == {child.name for child in back}


@pytest.mark.parametrize(("a", "b"), REFUSED, ids=str)
def test_types_that_cannot_meet_are_named(a: pa.DataType, b: pa.DataType) -> None:
    """An error says which column, and which two types."""
    with pytest.raises(SchemaError, match="'price'") as caught:
        meet(a, b, column="price")
    assert caught.value.column == "price"
    assert caught.value.types == (str(a), str(b))


@pytest.mark.parametrize("type_", [pa.month_day_nano_interval(), pa.decimal256(76, -1)], ids=str)
def test_types_that_parquet_has_no_form_for_are_refused(type_: pa.DataType) -> None:
    """A type that cannot lie on disk is an error before anything is written."""
    with pytest.raises(SchemaError, match="Parquet"):
        join_schemas(None, pa.schema([("when", type_)]))


@pytest.mark.parametrize(
    "shape", [lambda value: value, lambda value: [value], lambda value: {"a": {"b": value}}, lambda value: [{"a": [value]}]]
)
def test_integers_beyond_floats_do_not_meet_floats(shape: Any) -> None:
    """An integer that float64 cannot hold exactly keeps its column from floats, at any depth and in either order."""
    small = marked(pa.table({"x": [shape(2**53)]})).schema
    large = marked(pa.table({"x": [shape(-(2**53) - 1)]})).schema
    floats = marked(pa.table({"x": [shape(0.5)]})).schema
    assert joins(to_text(small), to_text(floats))
    assert not joins(to_text(large), to_text(floats))
    assert not joins(to_text(floats), to_text(large))
    # the mark outlives a meeting with small integers
    assert not joins(join(to_text(small), to_text(large)), to_text(floats))


def test_unsigned_integers_beyond_int64_meet_signed_ones_as_decimals() -> None:
    """A column of uint64 meets int64 as long as no value of it is too large for that; else each value of both is a decimal of 20 digits."""
    signed = marked(pa.table({"x": pa.array([-1])})).schema
    fits = marked(pa.table({"x": pa.array([2**63 - 1], pa.uint64())})).schema
    beyond = marked(pa.table({"x": pa.array([2**63], pa.uint64())})).schema
    assert join_schemas(signed, fits).field("x").type == pa.int64()
    both = join_schemas(beyond, signed)
    assert both.field("x").type == join_schemas(signed, beyond).field("x").type == pa.decimal128(20, 0)
    for table in (pa.table({"x": pa.array([0, 2**64 - 1], pa.uint64())}), pa.table({"x": [-(2**63), 2**63 - 1]})):
        assert cast(table, both).column("x").to_pylist() == table.column("x").to_pylist()


def test_times_beyond_nanoseconds_do_not_meet_nanoseconds() -> None:
    """A date that 64 bits of nanoseconds do not reach would make all earlier parts unreadable: it does not join."""
    late = marked(pa.table({"t": [dt.datetime(9999, 12, 31)]})).schema
    usual = marked(pa.table({"t": [dt.datetime(2024, 1, 1)]})).schema
    fine = marked(pa.table({"t": pa.array([1], pa.timestamp("ns"))})).schema
    assert joins(to_text(usual), to_text(fine))
    assert not joins(to_text(late), to_text(fine))
    assert joins(to_text(late), to_text(usual))


def test_columns_are_added_at_the_end() -> None:
    """Known columns keep their order; new ones follow."""
    old = pa.schema([("item_key", pa.string()), ("b", pa.int64())])
    new = pa.schema([("item_key", pa.string()), ("a", pa.int64()), ("b", pa.float64())])
    assert join_schemas(old, new).names == ["item_key", "b", "a"]


def test_a_column_name_that_stands_twice_is_refused() -> None:
    """Two columns of one name cannot be told apart on reading."""
    with pytest.raises(SchemaError, match="'a'"):
        join_schemas(None, pa.schema([("a", pa.int64()), ("b", pa.int64()), ("a", pa.int64())]))


def test_the_text_of_a_schema_tells_all_of_it() -> None:
    """Text and back gives the schema with its marks; equal schemas have equal text, whatever metadata their files carried."""
    table = marked(pa.table({"i": [2**60], "l": [[2**60]], "s": [{"a": "x"}]}))
    text = to_text(table.schema)
    assert from_text(text).equals(table.schema, check_metadata=True)
    assert to_text(table.schema.with_metadata({"pandas": "{}"})) == text
    assert '"i": "int64"' in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "{}", "null", '{"arrow": "%%%"}', '{"arrow": "AAAA"}'])
def test_damaged_schema_text_is_an_error_of_ours(text: str) -> None:
    """What is no schema's text raises SchemaError and nothing of Arrow's."""
    with pytest.raises(SchemaError):
        from_text(text)


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (pa.array(["1", "2"]), pa.int64()),
        (pa.array([1, 2]), pa.string()),
        (pa.array([1, 0]), pa.bool_()),
        (pa.array([0.5]), pa.int64()),
        (pa.array([300]), pa.int8()),
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array([1, None]), pa.null()),
        (pa.array([[1]]), pa.list_(pa.null())),
        (pa.array([[1, 2], [1, 2, 3]]), pa.list_(pa.int64(), 2)),
    ],
    ids=str,
)
def test_a_cast_never_changes_a_value(values: pa.Array, type_: pa.DataType) -> None:
    """What does not fit a type is an error with column, types and the value; nothing is parsed, rounded or cut."""
    with pytest.raises(SchemaError, match="does not fit") as caught:
        cast_column(pa.chunked_array([values]), type_, "x")
    assert caught.value.column == "x"
    assert caught.value.types == (str(type_), str(values.type))


def test_the_first_value_that_does_not_fit_is_named() -> None:
    """Of many values the error shows the first one that does not fit."""
    values = pa.chunked_array([list(range(100)), [*range(20), 1000, 2000]])
    with pytest.raises(SchemaError) as caught:
        cast_column(values, pa.int8(), "x")
    assert caught.value.value == "1000"


def test_absent_columns_are_null_and_others_are_left_out() -> None:
    """A table is brought to exactly the columns of a schema, in its order."""
    schema = pa.schema([("b", pa.float64()), ("a", pa.struct([("x", pa.int64()), ("y", pa.string())]))])
    table = cast(pa.table({"a": [{"x": 1}], "z": [0]}), schema)
    assert table.to_pylist() == [{"b": None, "a": {"x": 1, "y": None}}]
    assert table.schema == schema


def test_list_views_keep_their_elements() -> None:
    """A list view becomes a list with the same elements (pyarrow's own cast loses them without a word)."""
    views = pa.table({"x": pa.array([{"a": ["v"]}], pa.struct([("a", pa.list_view(pa.string_view()))]))})
    assert marked(views).to_pylist() == [{"x": {"a": ["v"]}}]


def test_empty_mappings_are_null() -> None:
    """Parquet has no struct without fields: an empty mapping is stored as null, in lists too."""
    table = pa.table({"x": pa.array([{}], pa.struct([])), "l": pa.array([[{}]], pa.list_(pa.struct([])))})
    assert marked(table).to_pylist() == [{"x": None, "l": [None]}]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-100, 100),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-1000, max_value=1000),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)), max_leaves=4
)


def _as_table(values: list[Any]) -> pa.Table | None:
    try:
        table = marked(pa.table({"x": pa.array(values)}))
        table.validate(full=True)  # Arrow takes bytes beside text in a list for text
        table.column("x").to_pylist()  # an integer beside times is a time, and may be one that Python cannot write
        return table
    except (pa.ArrowException, SchemaError, OverflowError):
        return None  # values that do not make one column are not what is asked here


def _same(a: Any, b: Any) -> bool:
    """Equal but for keys that a struct gained, and an empty mapping that became null."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_same(a.get(name), b.get(name)) for name in a.keys() | b.keys())
    if a in (None, {}) or b in (None, {}):
        return _empty(a) and _empty(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, decimal.Decimal) or isinstance(b, decimal.Decimal):
        return decimal.Decimal(a) == decimal.Decimal(b)
    return bool(a == b)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(map(_empty, value.values())))


@given(st.lists(st.lists(VALUES, min_size=1, max_size=3), min_size=2, max_size=3))
def test_every_part_reads_back_in_a_schema_it_joined(columns: list[list[Any]]) -> None:
    """Whatever was brought together, in whatever order: each part's values are the same in the joined schema."""
    joined: pa.Schema | None = None
    inside = []
    for table in filter(None, map(_as_table, columns)):
        try:
            joined = join_schemas(joined, table.schema)
        except SchemaError:
            continue
        inside.append(table)
    for table in inside:
        assert all(map(_same, cast(table, joined).column("x").to_pylist(), table.column("x").to_pylist()))


STRICT = pa.field("v", pa.int64(), nullable=False)


@pytest.mark.parametrize(
    "schema",
    [pa.schema([STRICT]), [STRICT], {"a": pa.struct([STRICT])}, {"a": pa.list_(STRICT)}, {"a": pa.map_(pa.string(), STRICT)}],
    ids=["schema", "fields", "struct", "list", "map"],
)
def test_a_schema_that_forbids_nulls_is_refused(schema: Any) -> None:
    """Results parts have nulls in any column, so that a promise of none would be dropped silently."""
    with pytest.raises(WorkloadError, match="leave nullable=False out"):
        declared(schema)


def test_what_is_never_null_by_its_type_may_be_declared() -> None:
    """Keys of maps, and ends of runs."""
    assert declared({"a": pa.map_(pa.string(), pa.int8())}).field("a").type == pa.map_(pa.string(), pa.int8())
    assert declared({"a": pa.run_end_encoded(pa.int32(), pa.int8())}).field("a").type == pa.int8()
