"""What schemas of pandera say of a row: by the row alone, whichever others share its table."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcompute.checks.forms import checks_of
from dcompute.checks.judging import judge
from dcompute.dataset.schema import marked
from dcompute.errors import CheckError
from dcompute.worker.blocks import table_of
from tests.sane import dtypes as pandera_dtypes
from tests.sane import pandera

Check, Column, Schema = pandera.Check, pandera.Column, pandera.DataFrameSchema

UTC, BERLIN = datetime.UTC, ZoneInfo("Europe/Berlin")
NOON = datetime.datetime(2024, 7, 1, 12)
LATE = datetime.datetime(2999, 7, 1, 12)
NAN = float("nan")

#: Values that can share a column.
FAMILIES: dict[str, list[Any]] = {
    "numbers": [0, 1, -1, 300, 2.0, 1.5, -0.25, NAN, float("inf"), 2**31],
    "large": [0, 1, -1, 2**53 + 1, 2**60],
    "decimals": [1, 20, Decimal(2), Decimal("1.5"), Decimal("2.50"), Decimal("-3.125")],
    "truths": [True, False],
    "texts": ["", "a", "bb", "1", "1.5", "2024-07-01", "01.07.2024"],
    "times": [NOON, NOON.replace(microsecond=5), LATE],
    "zoned": [NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=BERLIN), LATE.replace(tzinfo=UTC)],
    "dates": [NOON.date(), datetime.date(1969, 1, 2)],
    "spans": [datetime.timedelta(1), datetime.timedelta(microseconds=3)],
    "bytes": [b"", b"ab"],
    "lists": [[], [1], [1.5, 2], [None, 1], [2.0]],
    "mappings": [{"a": 1}, {"a": 1.5}, {"b": "x"}, {"a": None, "b": "y"}],
}


class Typed(pandera.DataFrameModel):  # type: ignore[misc]
    """A model with a rule across columns."""

    x: float = pandera.Field(ge=0, nullable=True)
    y: int

    @pandera.dataframe_check
    def in_order(cls, frame: Any) -> Any:
        return (frame.x <= frame.y) | frame.x.isna()


DTYPES: list[Any] = [
    None, int, float, bool, str, bytes, object, "int8", "uint64", "float32", "Int64", "UInt8", "Float64", "boolean", "string", "category",
    pd.CategoricalDtype([1, 2, "a"]), "datetime64[ns]", pd.DatetimeTZDtype(tz="UTC"), pd.DatetimeTZDtype("us", tz="Europe/Berlin"),
    "timedelta64[ns]", datetime.date, Decimal, list[int], list[float], dict, pd.ArrowDtype(pa.int64()), pd.ArrowDtype(pa.string()),
]  # fmt: skip
RULES: list[Any] = [
    None,
    Check(lambda values: values > 0),
    Check.isin([1, 1.5, "a", 2**60, True]),
    Check(lambda v: v != 2, element_wise=True),
]
ACROSS: list[Any] = [None, Check(lambda frame: frame["x"] <= frame["y"]), Check(lambda frame: frame["x"].notna() | (frame["y"] > 1))]


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    name, is_regex = draw(st.sampled_from([("x", False)] * 4 + [("x.*", True)]))
    column = Column(
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(RULES)),
        nullable=draw(st.booleans()),
        required=draw(st.booleans()),
        coerce=draw(st.sampled_from([False, False, True])),
        regex=is_regex,
    )
    columns = {name: column, "y": Column(int, required=draw(st.booleans()))}
    return Schema(columns, checks=draw(st.sampled_from(ACROSS)), strict=draw(st.booleans()), ordered=draw(st.booleans()))


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    values = st.sampled_from(FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))])
    others = st.sampled_from([0, 1, 2, 2.5])
    row = st.fixed_dictionaries({}, optional={"x": st.none() | values, "y": st.none() | others, "x2": st.none() | values})
    return draw(st.lists(row, min_size=1, max_size=6))


def verdicts(schema: Any, rows: Sequence[dict[str, Any]], places: Iterable[int] | None = None) -> dict[int, str]:
    """By place, what is said of each row where all of them share a table; as workers do, halves are judged where a check raises."""
    own = list(range(len(rows)) if places is None else places)
    table = marked(table_of([(place, rows[place]) for place in own])[0]) if any(rows[place] for place in own) else None
    if table is None:  # rows without a column
        table = pa.table({"item_key": pa.array(["k"] * len(own))})
    try:
        broken = judge(checks_of({"sane": schema}), table, ("item_key",))
    except CheckError:
        if len(own) == 1:
            return {own[0]: "raises"}
        middle = len(own) // 2
        return {**verdicts(schema, rows, own[:middle]), **verdicts(schema, rows, own[middle:])}
    bad = {own[place] for place in broken.rows.tolist()}
    return {place: "fails" if place in bad else "passes" for place in own}


def said(column: Any, values: Sequence[Any], **options: Any) -> list[str]:
    """Of each row with one of the values, by itself and with all others, which is the same."""
    schema, rows = Schema({"x": column}, **options), [value if isinstance(value, dict) else {"x": value} for value in values]
    alone = [verdicts(schema, rows, [place])[place] for place in range(len(rows))]
    assert list(verdicts(schema, rows).values()) == alone
    return [word[0] for word in alone]


def test_null_passes_where_it_may_be_and_nowhere_else() -> None:
    """Whether a neighbour gives the column its type or not, and for types of NumPy that know no null; a row may also lack the column."""
    for dtype, value in [
        (float, 1.5), (int, 1), (bool, True), (str, "a"), ("Int64", 1), ("boolean", False), ("datetime64[ns]", NOON), (bytes, b"a"),
        (pd.DatetimeTZDtype(tz="UTC"), NOON.replace(tzinfo=UTC)), (Decimal, Decimal(2)), (list[int], [1]), (datetime.date, NOON.date()),
    ]:  # fmt: skip
        assert said(Column(dtype, nullable=True), [None, value, {"y": 1}]) == ["p", "p", "p"], dtype
        assert said(Column(dtype), [None, value, {"y": 1}]) == ["f", "p", "f"], dtype
        assert said(Column(dtype, required=False), [None, value, {"y": 1}]) == ["p", "p", "p"], dtype


def test_whole_numbers_are_integers_and_floats() -> None:
    """A column has one type for both, so which a row returned cannot be asked; other floats are no integers, whoever is beside them."""
    assert said(Column(float), [1, 1.5, 2**31]) == ["p", "p", "p"]
    assert said(Column(float), [1, 2**60]) == ["p", "p"]
    assert said(Column(float), [1, 1.5, None]) == ["p", "p", "f"]
    assert said(Column(int), [1, 1.5, 2.0, NAN, float("inf")]) == ["p", "f", "p", "f", "f"]
    assert said(Column("Int64", nullable=True), [1, 1.5, None, NAN]) == ["p", "f", "p", "p"]
    assert said(Column("int8"), [1, 300, -129]) == ["p", "f", "f"]
    assert said(Column(Decimal), [1, Decimal("2.5"), Decimal("2.0")]) == ["p", "f", "p"]  # pandera's has no digit after the point
    assert said(Column(pandera_dtypes.Decimal(10, 1)), [1, Decimal("2.50"), Decimal("2.25")]) == ["p", "p", "f"]
    assert said(Column(list[int]), [[1], [2.5], [3.0], []]) == ["p", "f", "p", "p"]


def test_values_of_other_types_are_told_and_asked_no_further() -> None:
    """A rule that would raise for them is not asked, and the rows beside them are judged."""
    rows = pa.table({"x": ["a", "1"], "y": [1, -1]})
    broken = judge(checks_of({"sane": Schema({"x": Column(int, Check.gt(0)), "y": Column(int, Check.gt(0))})}), rows)
    assert broken.reasons == ["sane: x: dtype('int64') fails for 'a'", "sane: x: dtype('int64') fails for '1'"]
    broken = judge(checks_of({"sane": Schema({"x": Column(int, Check.gt(0), coerce=True), "y": Column(int, Check.gt(0))})}), rows)
    assert broken.reasons == ["sane: x: coerce_dtype('int64') fails for 'a'", "sane: y: greater_than(0) fails for -1"]


@pytest.mark.parametrize(
    ("dtype", "families"),
    [
        (float, "numbers large"), ("float32", "numbers large"), (int, "large"), ("UInt8", ""), (bool, "truths"), ("boolean", "truths"),
        (str, "texts"), ("string", "texts"), ("datetime64[ns]", "times"), ("timedelta64[ns]", "spans"),
        (pd.DatetimeTZDtype(tz="UTC"), "zoned"),
        (datetime.date, "dates"), (dict, "mappings"), (list[float | None], "lists"), (pd.ArrowDtype(pa.string()), "texts"),
        (pd.CategoricalDtype(["z"]), ""), (object, " ".join(FAMILIES)), (complex, ""),
    ],
)  # fmt: skip
def test_each_type_takes_its_own_values_only(dtype: Any, families: str) -> None:
    """All values of a family, or not all of another."""
    taken = [
        name for name, values in FAMILIES.items() if set(said(Column(dtype, nullable=True), [{"x": value} for value in values])) == {"p"}
    ]
    assert sorted(taken) == sorted(families.split())


def test_texts_are_made_what_is_asked_for_one_by_one() -> None:
    """Also times: the form of the first says nothing of the others."""
    assert said(Column("datetime64[ns]", coerce=True), ["2024-07-01", "no time", "01.07.2024", "2024-07-01T12"]) == ["p", "f", "p", "p"]
    before = Check(lambda values: values < pd.Timestamp("2024-02-01"))
    assert said(Column("datetime64[ns]", before, coerce=True), ["13/01/2024", "no time", "01/02/2024", "13/02/2024"]) == [
        "p",
        "f",
        "p",
        "f",
    ]
    assert said(Column(str, Check.isin(["1", "1.5"]), coerce=True), [1, 1.5, 2.0, 1.0]) == ["p", "p", "f", "p"]
    assert said(Column(int, Check.gt(1), coerce=True), ["1", "a", "2", None]) == ["f", "f", "p", "f"]


def test_times_with_a_zone_are_of_any_unit_and_zone() -> None:
    """Pandera's finest unit, its default, takes what datetimes are, and what no nanoseconds reach; a zone is asked for or not."""
    times = [NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=BERLIN), LATE.replace(tzinfo=UTC)]
    for dtype in (pd.DatetimeTZDtype(tz="UTC"), pd.DatetimeTZDtype("us", tz="Europe/Berlin")):
        assert said(Column(dtype), times) == ["p", "p", "p"]
        assert said(Column(dtype), [NOON]) == ["f"]
    assert said(Column("datetime64[ns]"), times) == ["f", "f", "f"]
    noon = Check(lambda values: values.dt.hour == 12)
    assert said(Column(pd.DatetimeTZDtype(tz="UTC"), noon), times) == ["p", "f", "p"]


def test_categories_are_what_may_be_in_them() -> None:
    """They lie as their values: one that is not named is none, and without names any is."""
    assert said(Column("category"), ["a", "b", None]) == ["p", "p", "f"]
    assert said(Column(pd.CategoricalDtype(["a", "b"])), ["a", "c"]) == ["p", "f"]
    assert said(Column(pd.CategoricalDtype([1, 2])), [1, 2.5, 2]) == ["p", "f", "p"]


def test_columns_have_no_order() -> None:
    """Which column comes first in a batch is chance."""
    schema = Schema({"x": Column(int), "y": Column(int)}, ordered=True)
    assert list(verdicts(schema, [{"y": 2, "x": 1}, {"x": 1, "y": 2}]).values()) == ["passes", "passes"]


def test_a_rule_that_raises_for_rows_together_is_asked_of_fewer() -> None:
    """Where it raises for none alone, each passes or not."""
    schema = Schema({"x": Column(int, Check(lambda values: values.item() > 0))})
    assert judge(checks_of(schema), pa.table({"x": [1, -1, 2, 3, -3]})).rows.tolist() == [1, 4]


def test_a_rule_that_raises_what_is_called_no_error_is_at_fault() -> None:
    """Its rows are not said to fail."""

    def stopping(_: Any) -> Any:
        raise StopIteration("enough")

    with pytest.raises(CheckError, match=r'"?sane"?.*StopIteration\("enough"\)'):
        judge(checks_of({"sane": Schema({"x": Column(int, Check(stopping))})}), pa.table({"x": [1]}))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(schema=schemas() | st.just(Typed), rows=tables(), data=st.data())
def test_a_row_passes_or_not_whichever_rows_share_its_table(schema: Any, rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Each alone, all together, and in random parts: for each row the same is said."""
    alone = {place: said for place in range(len(rows)) for said in verdicts(schema, rows, [place]).values()}
    assert verdicts(schema, rows) == alone
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    for part in set(parts):
        own = [place for place, its in enumerate(parts) if its == part]
        assert verdicts(schema, rows, own) == {place: alone[place] for place in own}
