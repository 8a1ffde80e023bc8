"""The inputs' columns beside the results, and inputs from their keys."""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset import Store, reading
from dcompute.dataset.spelled import value_of
from dcompute.errors import UsageError
from dcompute.keys import derive
from dcompute.records import ItemKey

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.times(), st.datetimes(), st.timedeltas(), st.uuids(),
    st.decimals(allow_nan=False), st.fractions(),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS.filter(lambda value: value is not None),
    st.dictionaries(st.text(max_size=3), st.one_of(SCALARS, st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)), max_size=3),
    st.lists(SCALARS, max_size=3).map(tuple),
)


def same(a: Any, b: Any) -> bool:
    """Equal, of one type, and nan like nan."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and bool(a == b)


@given(VALUES)
def test_a_key_gives_its_value_back(value: Any) -> None:
    """Whatever gave a key by itself is read from the key, in its own type."""
    assert same(value_of(derive(value)), value)


HALVES = st.lists(st.sampled_from(["\\", "\udcff", "\\udcff", "u", "dcff", "\udc80", "a"])).map("".join)


@given(HALVES)
def test_a_key_gives_half_characters_back(text: str) -> None:
    """File names that are no text come back as they were, alone, as a path and inside others."""
    for value in (text, Path(f"x{text}"), (text,), {"a": text, "b": datetime.date(2024, 5, 1)}):
        assert same(value_of(derive(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        Path("a/b"),
        2**70,
        -(2**20_000),
        {1: "a", (2, 3): "b"},
        {"$x": {"$date": 1}},
        1 + 2j,
        {"p": Path("q")},
        datetime.timedelta(days=999_999_999, microseconds=999_999),
    ],
    ids=["path", "wide", "very wide", "mapping", "mark", "complex", "path within", "long"],
)
def test_rarer_values_come_back_too(value: Any) -> None:
    """Paths, integers beyond every column, mappings by other things than text, names that look like marks."""
    assert value_of(derive(value)) == value


def test_a_kind_that_is_not_known_is_its_text() -> None:
    """A key of a newer version is still a text."""
    assert value_of(ItemKey("x", "colour")) == "x"


def key(**values: Any) -> str:
    return derive(values).text


@pytest.fixture
def grid(scene: Any, did: Any) -> Any:
    """Results of a grid, one item of which has two rows and one a value of another type."""
    scene.open()
    for batch in (
        [did(key(a=1, b="x"), rows=[{"y": 1.0}, {"y": 2.0}]), did(key(a=2, b="x"), rows=[{"y": 3.0}])],
        [did(key(a=0.5, b=None, day=datetime.date(2024, 5, 1)), rows=[{"y": 4.0, "a": 9}])],
    ):
        made = scene.batch(*batch)
        _as_mappings(scene, made)
        from dcompute.dataset.entries import Add

        scene.commit(*scene.schema_action(made), Add(batches=(made,)))
    scene.publish()
    return dc.open(scene.store.url)


def _as_mappings(scene: Any, batch: Any) -> None:
    """Rewrites the kind of key in the parts of a batch: scenes write texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in batch.results:
        path = scene.store.path(part.name)
        table = pq.read_table(path)
        place = table.schema.get_field_index("key_kind")
        pq.write_table(table.set_column(place, "key_kind", pa.array(["dict"] * table.num_rows)), path)


@pytest.mark.parametrize("files", [1, 500])
def test_columns_of_a_grid_stand_beside_the_results(grid: Any, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """Types meet over all keys of all partitions, absent ones are null, and a name that the results have is not overwritten."""
    monkeypatch.setattr(reading, "PARTITION_FILES", files)
    rows = grid.to_arrow(["y", "a", "a_input", "b", "day"], inputs=True).to_pylist()
    assert rows == [
        {"y": 1.0, "a": None, "a_input": 1.0, "b": "x", "day": None},
        {"y": 2.0, "a": None, "a_input": 1.0, "b": "x", "day": None},
        {"y": 3.0, "a": None, "a_input": 2.0, "b": "x", "day": None},
        {"y": 4.0, "a": 9, "a_input": 0.5, "b": None, "day": datetime.date(2024, 5, 1)},
    ]


def test_inputs_group_and_filter_as_other_columns(grid: Any) -> None:
    """A lazy frame has them, filters may name them, and counting rows needs none."""
    frame = grid.results(inputs=True)
    sums = frame.groupby("b", dropna=True)["y"].sum().compute(scheduler="synchronous")
    assert sums.to_dict() == {"x": 6.0}
    assert grid.to_arrow(["y"], [("a_input", ">", 0.5), ("y", "<", 3)], inputs=True)["y"].to_pylist() == [1.0, 2.0]
    assert len(frame) == 4
    assert len(grid.results(filters=[("b", "==", "x")], inputs=True)) == 3


def test_inputs_of_several_datasets(grid: Any, tmp_path: Path, new_scene: Any) -> None:
    """One that holds no results stands in nobody's way."""
    new_scene(Store.at(tmp_path / "empty")).open().publish()
    both = dc.open([grid, tmp_path / "empty"]).labelled()
    assert both.to_arrow(["b", "dataset"], inputs=True)["b"].to_pylist() == ["x", "x", "x", None]


def test_keys_that_do_not_hold_the_input_are_refused(scene: Any, did: Any) -> None:
    """With a key that shows why, and what to do."""
    scene.open().add(did("row 17", rows=[{"y": 1}])).publish()
    with pytest.raises(UsageError, match=r"key 'row 17' \(str\) does not hold its input.*Merge"):
        dc.open(scene.store.url).results(inputs=True)


def test_inputs_whose_types_cannot_meet_are_refused(scene: Any, did: Any) -> None:
    """A column of numbers and texts is no column."""
    from dcompute.dataset.entries import Add

    scene.open()
    made = scene.batch(did(key(a=1), rows=[{"y": 1}]), did(key(a="x"), rows=[{"y": 1}]))
    _as_mappings(scene, made)
    scene.commit(*scene.schema_action(made), Add(batches=(made,))).publish()
    with pytest.raises(UsageError, match="'a': int, str"):
        dc.open(scene.store.url).results(inputs=True)


@pytest.fixture(params=["one batch", "a batch each"])
def of_inputs(request: pytest.FixtureRequest, scene: Any, did: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the results of items with these values of "a", all in one partition or each in one of its own."""
    from dcompute.dataset.entries import Add

    def make(values: list[Any]) -> Any:
        monkeypatch.setattr(reading, "PARTITION_FILES", 1)
        all_done = [did(key(a=value), rows=[{"y": index}]) for index, value in enumerate(values)]
        scene.open()
        for batch in [all_done] if request.param == "one batch" else [[one] for one in all_done]:
            made = scene.batch(*batch)
            _as_mappings(scene, made)
            scene.commit(*scene.schema_action(made), Add(batches=(made,)))
        scene.publish()
        return dc.open(scene.store.url)

    return make


NAIVE = datetime.datetime(2024, 5, 1, 12)
GAP = float("nan")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x", GAP, None], ["x", None, None]),
        ([GAP, datetime.date(2024, 5, 1)], [None, datetime.date(2024, 5, 1)]),
        ([True, GAP], [True, None]),
        ([GAP, 0.5, None], [GAP, 0.5, None]),
        ([GAP, 3], [GAP, 3.0]),
        ([GAP, GAP], [GAP, GAP]),
        ([2**60 + 1, 2**60 + 2], [2**60 + 1, 2**60 + 2]),
        ([2**53, 0.5], [2.0**53, 0.5]),
    ],
    ids=str,
)
def test_what_a_table_lacks_is_null_in_its_column(of_inputs: Any, values: list[Any], expected: list[Any]) -> None:
    """pandas has NaN for it; among numbers that is a number, in any other column it is nothing."""
    found = of_inputs(values).to_arrow(["a"], inputs=True)["a"].to_pylist()
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([2**60 + 1, 2**60 + 2, 0.5], r"beyond ±2\*\*53"),
        ([2**60 + 1, GAP], r"beyond ±2\*\*53"),
        ([2**62, 2**70], "'a': integers beyond 64 bits"),
        ([NAIVE, NAIVE.replace(tzinfo=datetime.UTC)], "cannot meet"),
        ([NAIVE.date(), NAIVE], "cannot meet"),
        ([np.datetime64("2024-05-01T00:00:00.123456789"), np.datetime64("2024-05-01")], "00.123456789.* holds nanoseconds"),
        ([pd.Timedelta(5, "ns")], "holds nanoseconds"),
    ],
    ids=str,
)
def test_inputs_that_would_be_changed_are_refused(of_inputs: Any, values: list[Any], says: str) -> None:
    """No column has another value than the input had, wherever in the files the values lie."""
    with pytest.raises(UsageError, match=says):
        of_inputs(values).to_arrow(inputs=True)


def test_a_key_with_half_characters_is_looked_for(scene: Any, did: Any) -> None:
    """No column holds them: where there is no such item, that is what is said."""
    scene.open().add(did("a", rows=[{"y": 1}])).publish()
    opened = dc.open(scene.store.url)
    for name in ("\ud800", ("\ud800", "str")):
        with pytest.raises(UsageError, match="has no attempt of an item with the key"):
            opened.reproduce(name, len)


def test_what_no_column_holds_is_text() -> None:
    """Paths, UUIDs, fractions and half characters of an input are text in its column."""
    from dcompute.dataset.spelled import arguments_of

    number = uuid.UUID(int=7)
    found = arguments_of(key(p=Path("a/b"), u=number, f=fractions.Fraction(1, 3), d=decimal.Decimal("1.5"), l=[Path("c")], h="\udcff"))
    assert found == {"p": "a/b", "u": str(number), "f": "1/3", "d": decimal.Decimal("1.5"), "l": ["c"], "h": "\\udcff"}
