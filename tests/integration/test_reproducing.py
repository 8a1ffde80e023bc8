"""Inputs beside the results, and one item executed again here, of datasets that real runs made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dcompute as dc
from dcompute.errors import UsageError
from dcompute.keys import derive


def simulated(alpha: float, member: int, scale: int = 1) -> dict[str, Any]:
    """Depends on all that an item is given; one combination fails."""
    if alpha == 0.5 and member == 1:
        raise ValueError(f"{dc.current().key} cannot be simulated")
    now = dc.current()
    assert now.items[0].seed == now.seed
    return {"y": alpha * member * scale, "drawn": random.Random(now.seed).random(), "scale": now.params["scale"], "member": member}


def lines(path: str) -> Iterator[dict[str, Any]]:
    """A row a line, yielded while the item is at work."""
    for line in Path(path).read_text().splitlines():
        yield {"line": line, "key": dc.current().key}


def named(name: str, size: int) -> dict[str, Any]:
    return {"text": name * size}


def kinds(**row: Any) -> dict[str, Any]:
    """Which types it was given, and in which zone."""
    return {name: f"{type(value).__name__} {getattr(value, 'tzinfo', None)}" for name, value in row.items()}


def kind(value: Any) -> dict[str, Any]:
    return {"value": type(value).__name__}


OF_PANDAS = {"a time": pd.Timestamp("2024-03-30", tz="Europe/Berlin"), "a duration": pd.Timedelta(1, "s"), "a missing value": pd.NA}


def typed(spans: Any) -> dict[str, Any]:
    return {"types": [type(spans).__name__, type(spans[0]).__name__]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of a grid, of files and of a table with a named index."""
    folder = tmp_path_factory.mktemp("reproducing")
    (folder / "raw.txt").write_text("one\ntwo\n")
    (folder / "other.txt").write_text("three\n")
    table = pd.DataFrame({"name": ["a", "b"], "size": [1, 2]}, index=pd.Index(["first", "second"], name="id"))
    runs = [
        dc.map(simulated, dc.grid(alpha=[0.5, 2.0], member=[1, 2]), folder / "grid", params={"scale": 3}, seed=7),
        dc.map(lines, dc.files(f"{folder}/*.txt"), folder / "files"),
        dc.map(named, table, folder / "table"),
        dc.map(kinds, pd.DataFrame({"value": pd.Series([*OF_PANDAS.values(), "b"], dtype=object)}), folder / "rows"),
        dc.map(kind, [np.int64(7), 8, datetime(2024, 5, 1)], folder / "kinds"),
        dc.map(typed, dc.grid(spans=[((1, 2),), [[3, 4]]]), folder / "spans"),
    ]
    for run in runs:
        assert run.wait(60, progress="quiet")
    return folder


def test_the_columns_of_a_grid_stand_beside_its_results(folder: Path) -> None:
    """With the results' own column of the same name untouched."""
    found = dc.open(folder / "grid").to_pandas(["alpha", "member_input", "member", "y"], inputs=True)
    assert sorted(found.itertuples(index=False, name=None)) == [(0.5, 2, 2, 3.0), (2.0, 1, 1, 6.0), (2.0, 2, 2, 12.0)]


def test_an_item_of_a_grid_is_reproduced(folder: Path) -> None:
    """By its key or by its values, with its params and its seed: the row that the run wrote comes out again."""
    dataset = dc.open(folder / "grid")
    row = dataset.to_arrow(filters=[("y", "==", 12.0)]).to_pylist()[0]
    expected = {name: row[name] for name in ("y", "drawn", "scale", "member")}
    assert dataset.reproduce(row["item_key"], simulated, params={"scale": 3}) == expected
    assert dataset.reproduce({"alpha": 2.0, "member": 2}, dc.workload(simulated), params={"scale": 3}) == expected
    assert dc.current().key is None


@pytest.mark.parametrize("spans", [((1, 2),), [[3, 4]]], ids=["tuples", "lists"])
def test_an_item_gets_tuples_again_where_it_had_them(folder: Path, spans: Any) -> None:
    """Its key writes them as lists are written, and its fingerprint tells which they were."""
    kind = type(spans).__name__
    assert dc.open(folder / "spans").reproduce({"spans": spans}, typed) == {"types": [kind, kind]}


def test_what_the_workload_raises_comes_out_as_it_is(folder: Path) -> None:
    """The failed item fails here with its own exception, which a debugger stops at."""
    dataset = dc.open(folder / "grid")
    failed = dataset.failures().compute()["item_key"].tolist()
    with pytest.raises(ValueError, match="cannot be simulated") as caught:
        dataset.reproduce(failed[0], simulated, params={"scale": 3})
    assert caught.traceback[-1].name == "simulated"
    assert dc.current().key is None


def test_other_params_are_no_reproduction(folder: Path) -> None:
    """What differs is named: params that are missing, that are others, or that the run did not have."""
    key = {"alpha": 2.0, "member": 2}
    with pytest.raises(UsageError, match="got no params, and the item was executed with others"):
        dc.open(folder / "grid").reproduce(key, simulated)
    with pytest.raises(UsageError, match=r"got params=\{'scale'\}, and the item was executed with others"):
        dc.open(folder / "grid").reproduce(key, simulated, params={"scale": 4})
    with pytest.raises(UsageError, match="executed with no params"):
        dc.open(folder / "table").reproduce("first", named, params={"size": 1}, value={"name": "a"})


def test_a_file_is_reproduced_while_it_is_the_same(folder: Path) -> None:
    """Its path is its key, its stamp tells whether it changed; what is yielded is yielded while the item is at work."""
    dataset, path = dc.open(folder / "files"), str(folder / "raw.txt")
    assert dataset.reproduce(path, lines) == [{"line": "one", "key": path}, {"line": "two", "key": path}]
    changed = folder / "other.txt"
    changed.write_text("changed since")
    with pytest.raises(UsageError, match="another one than the item was executed with"):
        dataset.reproduce(str(changed), lines)
    assert dataset.reproduce(str(changed), lines, value=str(changed))[0]["line"] == "changed since"


def test_an_input_that_the_key_does_not_hold_is_passed(folder: Path) -> None:
    """A row of a table with a named index comes from the caller."""
    dataset = dc.open(folder / "table")
    with pytest.raises(UsageError, match=r"does not hold the input.*value="):
        dataset.reproduce("second", named)
    assert dataset.reproduce("second", named, value={"name": "b", "size": 2}) == {"text": "bb"}
    with pytest.raises(UsageError, match=r"the key '\w+' \(str\) does not hold its input"):
        dataset.results(inputs=True)


@pytest.mark.parametrize("what", OF_PANDAS)
def test_a_row_is_reproduced_with_the_types_that_it_had(folder: Path, what: str) -> None:
    """A key does not tell those of pandas from Python's: its text is refused where that matters, and the row itself is passed as it is."""
    dataset, row = dc.open(folder / "rows"), {"value": OF_PANDAS[what]}
    text, _ = derive(row)
    with pytest.raises(UsageError, match=f"holds {what}, and does not tell of which type it was.*value="):
        dataset.reproduce(text, kinds)
    expected = dataset.to_arrow(["value"], filters=[("item_key", "==", text)]).to_pylist()[0]
    assert dataset.reproduce(row, kinds) == dataset.reproduce(text, kinds, value=row) == expected == kinds(**row)


def test_a_value_in_the_place_of_its_key_is_the_input(folder: Path) -> None:
    """Of the type that it has there; texts of keys that leave nothing open are enough."""
    dataset = dc.open(folder / "kinds")
    assert dataset.to_arrow(["value"], filters=[("item_key", "==", "7")]).to_pylist() == [dataset.reproduce(np.int64(7), kind)]
    assert dataset.reproduce(np.int64(7), kind) == {"value": "int64"}
    assert dataset.reproduce("8", kind) == dataset.reproduce(("8", "int"), kind) == {"value": "int"}
    assert dataset.reproduce(datetime(2024, 5, 1), kind) == {"value": "datetime"}
    with pytest.raises(UsageError, match="holds a time"):
        dataset.reproduce("2024-05-01T00:00:00", kind)
    assert dc.open(folder / "rows").reproduce('{"value":"b"}', kinds) == {"value": "str None"}


def test_an_item_that_is_not_there_is_named(folder: Path) -> None:
    """With its key and where it was looked for."""
    with pytest.raises(UsageError, match="no attempt of an item with the key 'third'"):
        dc.open(folder / "table").reproduce("third", named)
