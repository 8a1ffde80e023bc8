"""Results in the hands of other tools: Arrow, pandas, Polars, DuckDB, and bare files."""

from __future__ import annotations

import datetime
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dcompute as dc
from dcompute.dataset import Dataset, Store, duck
from dcompute.errors import DatasetCorruptError, MissingExtraError, UsageError

duckdb = pytest.importorskip("duckdb")
polars = pytest.importorskip("polars")

_names = itertools.count()


def rows_of(relation: Any) -> list[tuple[Any, ...]]:
    return sorted(relation.fetchall(), key=repr)


def expected(dataset: Any) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for row in dataset.to_arrow().to_pylist()), key=repr)


@pytest.fixture
def dataset(scene: Any, did: Any) -> Dataset:
    """Two parts with other columns; one item was run again, one left out."""
    scene.open().add(did("a", rows=[{"n": 1, "x": 1}, {"n": 2, "x": 2}]), did("b", rows=[{"n": 3, "x": 3}]))
    scene.add(did("c", rows=[{"x": 0.5, "s": "t"}]), did("d", rows=[{"x": 9.5, "s": "u"}]), left_out=["d"])
    scene.hide("a").add(did("a", 2, rows=[{"n": 7, "x": 7}])).publish()
    return dc.open(scene.store.url)


def test_all_tools_get_the_same_rows(dataset: Dataset) -> None:
    """Arrow, pandas, Polars and DuckDB have the rows that count, with the dataset's types."""
    table = dataset.to_arrow()
    assert sorted(table["x"].to_pylist()) == [0.5, 3.0, 7.0]
    assert dataset.to_pandas().to_dict("records") == dataset.results().compute(scheduler="synchronous").to_dict("records")
    assert str(dataset.to_pandas().dtypes["n"]) == "int64[pyarrow]"
    assert dataset.to_polars().to_arrow().cast(table.schema).equals(table)
    relation = dataset.to_duckdb()
    assert relation.columns == table.column_names
    assert list(map(str, relation.types)) == ["VARCHAR", "VARCHAR", "BIGINT", "DOUBLE", "VARCHAR"]
    assert rows_of(relation) == expected(dataset)


def test_columns_and_filters_hold_for_all_in_memory(dataset: Dataset) -> None:
    """The same words choose columns and rows everywhere."""
    chosen = {"columns": ["item_key"], "filters": [("x", ">", 1)]}
    assert dataset.to_arrow(**chosen).to_pydict() == {"item_key": ["b", "a"]}
    assert dataset.to_pandas(**chosen)["item_key"].tolist() == ["b", "a"]
    assert dataset.to_polars(**chosen)["item_key"].to_list() == ["b", "a"]


def test_a_relation_is_of_the_connection_it_was_made_for(dataset: Dataset) -> None:
    """DuckDB's own SQL reads it by its name, on a connection of one's own and on the default one."""
    with duckdb.connect() as connection:
        relation = dataset.to_duckdb(connection)
        assert connection.sql("SELECT sum(n) FROM relation").fetchall() == relation.sum("n").fetchall() == [(10,)]
    results = dataset.to_duckdb()
    assert duckdb.sql("SELECT max(x) FROM results").fetchall() == [(7.0,)]
    del results


def test_duckdb_reads_the_files_itself(dataset: Dataset) -> None:
    """The relation holds no rows: where a file goes, the query fails."""
    with duckdb.connect() as connection:
        relation = dataset.to_duckdb(connection)
        for name in Store.at(dataset.url).names("results"):
            Path(dataset.url, name).unlink()
        with pytest.raises(duckdb.Error):
            relation.fetchall()


@pytest.mark.parametrize(
    "condition", ["x <> 1", "isnan(x)", "x > 5", "NOT (x < 3)", "x = 'nan'", "f <> 1", "p.x <> 1", "isnan(q[1])"], ids=str
)
def test_duckdb_finds_nan(scene: Any, did: Any, condition: str) -> None:
    """To its conditions NaN is the greatest number: the bounds of a file, which say nothing of NaN, decide nothing."""
    values = [1.0, 1.0, float("nan")]
    scene.open().add(did("a", rows=[{"x": x, "f": np.float32(x), "p": {"x": x}, "q": [x]} for x in values]))
    scene.add(did("b", rows=[{"f": 1.0}])).publish()  # "f" is of floats of two widths
    with duckdb.connect() as connection:
        relation = dc.open(scene.store.url).to_duckdb(connection)
        assert relation.filter(condition).project("item_key").fetchall() == [("a",)]


def test_what_duckdb_takes_for_another_type_comes_through_arrow(scene: Any, did: Any) -> None:
    """A duration lies in Parquet as a number: it is an interval all the same."""
    scene.open().add(did("a", rows=[{"d": datetime.timedelta(seconds=1), "name": "p"}])).publish()
    relation = dc.open(scene.store.url).to_duckdb()
    assert (relation.fetchall(), str(relation.types[2])) == ([("a", "str", datetime.timedelta(seconds=1), "p")], "INTERVAL")


@pytest.mark.parametrize(
    ("row", "named"), [({"n": 1, "x": 3, "N": 7}, "'n', 'N'"), ({"": 1, "x": 2}, "''"), ({"a\0b": 1}, r"'a\\x00b'")], ids=str
)
def test_names_that_duckdb_does_not_have_are_told(scene: Any, did: Any, row: dict[str, Any], named: str) -> None:
    """It would give the columns other ones; all other tools have them as they are."""
    opened = dc.open(scene.open().add(did("a", rows=[row])).publish().store.url)
    for one in (opened, dc.open([opened])):
        with pytest.raises(UsageError, match=f"other names to some of the columns {named}: its names"):
            one.to_duckdb()
    for found in (opened.to_arrow().to_pylist(), opened.to_polars().to_dicts(), opened.to_pandas().to_dict("records")):
        assert found == [{"item_key": "a", "key_kind": "str", **row}]


KEYS = "abc"
VALUE = st.one_of(st.none(), st.integers(-9, 9), st.floats(allow_nan=False, width=32))
ROW = st.fixed_dictionaries({}, optional={"n": VALUE, "filename": st.text(max_size=2), "list": st.lists(st.integers(0, 3), max_size=2)})
ITEM = st.tuples(st.sampled_from(KEYS), st.lists(ROW, max_size=2), st.booleans())
BATCH = st.tuples(st.lists(ITEM, min_size=1, max_size=3, unique_by=lambda one: one[0]), st.sets(st.sampled_from(KEYS), max_size=2))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BATCH, min_size=1, max_size=4), st.sampled_from([0, 32]))
def test_duckdb_has_the_rows_of_arrow(new_scene: Any, did: Any, batches: list[Any], kinds: int) -> None:
    """For any parts, hides and keys left out, whether DuckDB brings the columns together or we do."""
    scene = new_scene(Store.at(f"memory://duck-{next(_names)}")).open()
    for items, hidden in batches:
        if hidden:
            scene.hide(*hidden)
        made = [did(key, rows=rows) for key, rows, _ in items]
        scene.add(*made, left_out=[key for key, _, left in items if left])
    dataset = dc.open(scene.publish().store.url)
    found, duck._MOST_KINDS = duck._MOST_KINDS, kinds
    try:
        with duckdb.connect() as connection:
            assert rows_of(dataset.to_duckdb(connection)) == expected(dataset)
    finally:
        duck._MOST_KINDS = found


@pytest.mark.parametrize("name", ["it's", "flux[1]", "what?", 'a "b"', "100 %"])
def test_duckdb_reads_a_folder_of_any_name(tmp_path: Path, new_scene: Any, did: Any, name: str) -> None:
    """A name is no pattern and no SQL, where rows are hidden neither: it is DuckDB that reads, for without the file it cannot."""
    scene = new_scene(Store.at(tmp_path / name)).add(did("a", rows=[{"n": 1}]), did("b", rows=[{"n": 2}])).hide("a").publish()
    with duckdb.connect() as connection:
        assert dc.open(scene.store.url).to_duckdb(connection).fetchall() == [("b", "str", 2)]
        relation = dc.open(scene.store.url).to_duckdb(connection)
        scene.store.remove(scene.store.names("results"))
        with pytest.raises(duckdb.Error):
            relation.fetchall()


def test_several_datasets_are_a_relation(tmp_path: Path, new_scene: Any, did: Any) -> None:
    """With the joined types; with keys found twice, of the first dataset only."""
    new_scene(Store.at(tmp_path / "a")).add(did("a", rows=[{"n": 1}])).publish()
    new_scene(Store.at(tmp_path / "b")).add(did("b", rows=[{"n": 0.5, "z": "t"}])).publish()
    new_scene(Store.at(tmp_path / "c")).add(did("a", rows=[{"n": 8}])).publish()
    for names, rows in (("ab", 2), ("abc", 2)):
        opened = dc.open([tmp_path / name for name in names])
        assert rows_of(opened.to_duckdb()) == expected(opened)
        assert len(opened.to_polars()) == rows


def test_an_empty_dataset_is_a_relation_without_rows(scene: Any) -> None:
    """Before there are results there are the key's columns."""
    scene.open().publish()
    assert dc.open(scene.store.url).to_duckdb().columns == ["item_key", "key_kind"]
    assert dc.open(scene.store.url).to_polars().shape == (0, 2)


@pytest.mark.parametrize(("method", "package"), [("to_polars", "polars"), ("to_duckdb", "duckdb")])
def test_what_is_not_installed_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, method: str, package: str) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "dcompute\[{package}\]"'):
        getattr(dataset, method)()


def test_files_say_whether_they_are_the_truth(dataset: Dataset, scene: Any) -> None:
    """What stands against it is listed, with the commands that change it."""
    found = dataset.files()
    assert [url.rpartition("/")[2] for url in found] == [name.rpartition("/")[2] for name in scene.store.names("results")]
    assert not found.are_the_truth
    assert [reason.partition(" of them")[0] for reason in found.reasons] == ["2", "1 items in them do not count", "3"]
    assert f"dcompute compact --all {dataset.url}" in str(found)


def test_files_that_are_the_truth_say_so(scene: Any, did: Any) -> None:
    """Files alone are the truth where all their rows count in the same types; the folder is, where no others lie there."""
    scene.open().add(did("a", rows=[{"n": 1}])).add(did("b", rows=[{"n": 2}])).publish()
    found = dc.open(scene.store.url).files()
    assert (found.are_the_truth, found.folder_is_the_truth, len(found)) == (True, True, 2)
    assert duckdb.read_parquet(list(found)).aggregate("sum(n)").fetchall() == [(3,)]
    scene.store.write("results/left-behind.parquet", b"")
    found = dc.open(scene.store.url).files()
    assert (found.are_the_truth, found.folder_is_the_truth, found.strangers) == (True, False, 1)
    assert "1 Parquet files that lie beside them do not count" in str(found)


def test_a_part_that_is_gone_is_named_by_all(scene: Any, did: Any) -> None:
    """A file that counts and is not there is corruption, whoever asks."""
    scene.open().add(did("a", rows=[{"n": 1}])).publish()
    scene.store.remove(scene.store.names("results"))
    opened = dc.open(scene.store.url)
    for ask in (opened.files, opened.to_duckdb, opened.to_arrow):
        with pytest.raises(DatasetCorruptError, match="is gone"):
            ask()


def test_files_of_several_datasets(tmp_path: Path, new_scene: Any, did: Any) -> None:
    """All of them; a key found twice makes them no truth."""
    new_scene(Store.at(tmp_path / "a")).add(did("a", rows=[{"n": 1}])).publish()
    new_scene(Store.at(tmp_path / "b")).add(did("b", rows=[{"n": 2}])).publish()
    assert dc.open(f"{tmp_path}/*").files().are_the_truth
    new_scene(Store.at(tmp_path / "c")).add(did("a", rows=[{"n": 8}])).publish()
    found = dc.open(f"{tmp_path}/*").files()
    assert (len(found), found.are_the_truth) == (3, False)
    assert "1 outcomes are of keys that an earlier dataset has" in found.reasons[-1]
    assert "compact" not in str(found)


def test_types_of_arrow_survive(scene: Any, did: Any) -> None:
    """Times with zones, decimals, bytes, lists and structures come out of every tool as they went in."""
    from decimal import Decimal

    row = {
        "when": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
        "price": Decimal("1.50"),
        "raw": b"\x00\xff",
        "list": [1, None],
        "map": {"a": 1, "b": "t"},
    }
    scene.open().add(did("a", rows=[row])).publish()
    opened = dc.open(scene.store.url)
    table = opened.to_arrow()
    assert table.to_pylist() == [{"item_key": "a", "key_kind": "str", **row}]
    assert opened.to_polars().row(0, named=True) == table.to_pylist()[0]
    found = opened.to_duckdb().to_arrow_table() if hasattr(duckdb.DuckDBPyRelation, "to_arrow_table") else opened.to_duckdb().arrow()
    assert [when for when, *_ in opened.to_duckdb().project('"when"').fetchall()] == [row["when"]]
    assert (found if isinstance(found, pa.Table) else found.read_all()).cast(table.schema).to_pylist() == table.to_pylist()


def test_nan_is_missing_where_pandas_computes(scene: Any, did: Any) -> None:
    """Sums and means of groups leave it out, as they do in columns of NumPy; Arrow's tools still tell it from null."""
    values = [("a", math.nan), ("b", 1.0), ("b", None), ("c", math.nan), ("c", 5.0)]
    scene.open().add(did("k", rows=[{"g": group, "f": value} for group, value in values])).publish()
    opened = dc.open(scene.store.url)
    for frame in (opened.to_pandas(), opened.results()):
        groups = frame.groupby("g").f
        found = [groups.sum(min_count=1), groups.mean(), groups.max()]
        for one in found if isinstance(frame, pd.DataFrame) else dask.compute(*found):
            assert one.sort_index().tolist() == [pd.NA, 1.0, 5.0]
    assert str(opened.to_arrow(["f"])["f"].to_pylist()) == "[nan, 1.0, None, nan, 5.0]"


def test_a_folder_is_not_taken_for_another_that_its_name_matches(new_scene: Any, did: Any) -> None:
    """On a storage that is asked for patterns, ``flux[1]`` is not ``flux1``."""
    root = f"memory://alike-{next(_names)}"
    for name, n in (("flux1", 1), ("flux[1]", 2)):
        new_scene(Store.at(f"{root}/{name}")).add(did("a", rows=[{"n": n}])).publish()
    assert dc.open(f"{root}/flux[1]").to_duckdb().fetchall() == [("a", "str", 2)]
