"""What a workload may return, and what becomes of it."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dcompute.errors import SchemaError
from dcompute.worker.rows import count, decode, encode, to_rows


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Pair(NamedTuple):
    left: str
    right: int


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    pass


class Anything:
    pass


class Mocking:
    """Says yes to every question about its attributes, as mocks do."""

    def __getattr__(self, name: str) -> Any:
        return self


def _generator() -> Any:
    yield {"a": 1}
    yield {"a": 2}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, None),
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x"}),
        ({}, {}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        (Pair("l", 3), {"left": "l", "right": 3}),
        (7, {"value": 7}),
        (True, {"value": True}),
        ("text", {"value": "text"}),
        (b"bytes", {"value": b"bytes"}),
        ([1, 2], [{"value": 1}, {"value": 2}]),
        ((1, None), [{"value": 1}, {"value": None}]),
        ([], []),
        ([{"a": 1}, Point(1, 2.0), Pair("l", 3)], [{"a": 1}, {"x": 1, "y": 2.0}, {"left": "l", "right": 3}]),
        (range(2), [{"value": 0}, {"value": 1}]),
        (iter(["a"]), [{"value": "a"}]),
        ({"a": 1}.keys(), [{"value": "a"}]),
        ([[1, 2], [3]], [{"value": [1, 2]}, {"value": [3]}]),
        ({"a": (1, 2), "b": {"c": Point(1, 2.0)}}, {"a": [1, 2], "b": {"c": {"x": 1, "y": 2.0}}}),
        ({"a": {}}, {"a": None}),
        (Colour.RED, {"value": "red"}),
        (Text("t"), {"value": "t"}),
        (bytearray(b"b"), {"value": b"b"}),
        (pathlib.PurePosixPath("/a/b"), {"value": "/a/b"}),
        (uuid.UUID(int=1), {"value": "00000000-0000-0000-0000-000000000001"}),
        (decimal.Decimal("1.5"), {"value": decimal.Decimal("1.5")}),
        (pd.Timestamp("2024-01-02T03:04:05"), {"value": datetime.datetime(2024, 1, 2, 3, 4, 5)}),
        (pd.NaT, {"value": None}),
        (pd.NA, {"value": None}),
        (np.ma.masked, {"value": None}),
        (np.str_("s"), {"value": "s"}),
        (pa.scalar(3), {"value": 3}),
        (pa.chunked_array([[1], [2]]), {"value": [1, 2]}),
        (np.array([1, "a"], dtype=object), {"value": [1, "a"]}),
    ],
)
def test_each_kind_of_result_becomes_its_rows(result: Any, expected: Any) -> None:
    """A result becomes no row, one row or many, and these survive encoding, with nothing but known types in them."""
    rows = to_rows(result)
    assert rows == expected
    assert decode(encode(rows)) == expected
    assert type(decode(encode(rows))) is type(expected)


def test_a_generator_is_consumed_and_its_errors_come_out() -> None:
    """Rows of a generator are made inside the attempt, so that what it raises is the attempt's."""
    assert to_rows(_generator()) == [{"a": 1}, {"a": 2}]

    def broken() -> Any:
        yield 1
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        to_rows(broken())


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float16", "float32", "bool", "datetime64[s]", "timedelta64[ms]"])
def test_numpy_scalars_and_arrays_keep_their_types(dtype: str) -> None:
    """A NumPy scalar or one-dimensional array is a value with its own type, also after encoding and for foreign byte orders."""
    array = np.array([0, 1], dtype)
    scalar = decode(encode(to_rows(array[1])))["value"]
    whole = decode(encode(to_rows(array.astype(array.dtype.newbyteorder()))))["value"]
    assert scalar.dtype == array.dtype
    assert scalar == array[1]
    assert whole.dtype == array.dtype
    assert (whole == array).all()


@pytest.mark.parametrize(
    ("unit", "kept"), [("Y", "D"), ("M", "D"), ("W", "D"), ("D", "D"), ("h", "s"), ("m", "s"), ("25s", "s"), ("ms", "ms")]
)
def test_dates_take_a_unit_that_arrow_has(unit: str, kept: str) -> None:
    """Scalars and arrays alike, with the moment as it was; a scalar that is no time is null."""
    array = np.array([1, 2], f"M8[{unit}]")
    assert to_rows(array[1]) == {"value": array[1]}
    assert to_rows(array[1])["value"].dtype == f"M8[{kept}]"
    whole = to_rows(array)["value"]
    assert whole.dtype == f"M8[{kept}]"
    assert (whole == array).all()
    assert to_rows(np.datetime64("NaT", unit)) == {"value": None}


@pytest.mark.parametrize("value", [np.timedelta64(1, "M"), np.timedelta64(1), np.datetime64(1, "ps"), np.array([2**62], "m8[D]")], ids=str)
def test_times_without_an_arrow_form_are_refused(value: Any) -> None:
    """No unit of Arrow holds them as they are."""
    with pytest.raises(SchemaError, match="has no place in a table"):
        to_rows(value)


def test_arrays_of_more_dimensions_are_lists_of_arrays() -> None:
    """A matrix in a column is a list of its rows."""
    (value,) = to_rows(np.zeros((2, 3), "f4")).values()
    assert [type(row) for row in value] == [np.ndarray, np.ndarray]
    assert value[0].dtype == np.float32


def test_dataframes_become_tables() -> None:
    """Any dataframe gives its rows; a named index gives columns, a nameless one does not."""
    plain = pd.DataFrame({"a": [1, 2]})
    named = plain.set_index(pd.Index(["x", "y"], name="who"))
    assert to_rows(plain).to_pydict() == {"a": [1, 2]}
    assert to_rows(named).to_pydict() == {"who": ["x", "y"], "a": [1, 2]}
    arrow = pa.table({"a": [1]}, metadata={"k": "v"})
    assert decode(encode(to_rows(arrow))).equals(pa.table({"a": [1]}))
    reader = pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches())
    assert to_rows(reader).num_rows == 1
    assert count(to_rows(plain)) == 2


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"item_key": 1}, "item_key"),
        ({"a": 1, "key_kind": 1}, "key_kind"),
        ([{"a": 1}, {"item_key": 2}], "item_key"),
        (pd.DataFrame({"item_key": [1]}), "item_key"),
        (Anything(), "Anything"),
        ({"a": [Anything()]}, "'a'.*Anything"),
        ({"a": {1, 2}}, "'a'.*set"),
        ({"a": 1j}, "complex"),
        ({1: 2}, "1 .int. for a column name"),
        ({"a": {1: 2}}, "column name"),
        (pd.DataFrame({1: [1]}), "column name"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names.*'a'"),
        (pa.table([[1], [2]], names=["a", "a"]), "'a' 2 times"),
        (pd.Series([1]), "to_frame"),
        (pd.DataFrame({"a": [1, "x"]}), "DataFrame.*Arrow"),
        (lambda: 1, "function"),
        (Mocking(), "Mocking"),
        (np.zeros(2, "c8"), "complex64"),
        (Point, "type"),
    ],
)
def test_what_no_table_holds_is_refused_by_name(result: Any, said: str) -> None:
    """Reserved columns and unknown types are refused, and the message names them."""
    with pytest.raises(SchemaError, match=said):
        to_rows(result)


#: What Arrow takes for text, though it is none.
NO_TEXT = pa.array([["", b"\x80"]])
#: An index beyond its values, as a library that counts wrongly hands it over.
TORN = pa.DictionaryArray.from_arrays(pa.array([0, 5]), ["a"], safe=False)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (pa.table({"good": ["a"], "bad": NO_TEXT}), "'bad'.*UTF8.*Make it binary"),
        (pa.record_batch({"bad": NO_TEXT}), "'bad'.*UTF8"),
        (pa.RecordBatchReader.from_batches(pa.schema({"bad": NO_TEXT.type}), [pa.record_batch({"bad": NO_TEXT})]), "'bad'.*UTF8"),
        (pd.DataFrame({"good": [1], "bad": [["", b"\x80"]]}), "DataFrame.*'bad'.*UTF8"),
        (pa.table({"good": ["a", "b"], "bad": TORN}), "'bad'.*out of bounds.*anew from plain values"),
        ({"bad": NO_TEXT}, "'bad'.*UTF8"),
        ({"good": 1, "bad": TORN}, "'bad'.*out of bounds"),
    ],
    ids=["table", "batch", "reader", "frame", "index beyond its values", "array in a column", "broken array in a column"],
)
def test_arrow_data_that_breaks_its_own_type_is_refused(result: Any, said: str) -> None:
    """Written, it would break the reading of everybody's results; the message names the column."""
    with pytest.raises(SchemaError, match=said):
        to_rows(result)


def test_a_value_that_holds_itself_is_refused() -> None:
    """Endless nesting is the item's error, not a crash of its child."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SchemaError, match="holds itself"):
        to_rows({"a": loop})


def test_rows_do_not_change_with_the_result_they_were_made_of() -> None:
    """What is encoded is what was returned, even where the workload goes on to change it."""
    kept = {"a": [1]}
    data = encode(to_rows(kept))
    kept["a"].append(2)
    assert decode(data) == {"a": [1]}
