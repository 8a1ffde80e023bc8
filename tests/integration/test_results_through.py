"""Results from end to end: what a workload may return, how the schema grows, and what does not fit."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dcompute as dc


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Span(NamedTuple):
    low: int
    high: int


def generated() -> Iterator[dict[str, int]]:
    for number in range(3):
        yield {"i": number}


#: What a workload returns, and the rows of it that are expected, without columns that are null.
SHAPES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "mapping": ({"i": 1, "word": "one"}, [{"i": 1, "word": "one"}]),
    "dataclass": (Point(1, 2.5), [{"x": 1, "y": 2.5}]),
    "named tuple": (Span(1, 2), [{"low": 1, "high": 2}]),
    "scalar": (7, [{"value": 7}]),
    "numpy scalar": (np.int32(8), [{"value": 8}]),
    "list of mappings": ([{"i": 1}, {"i": 2}], [{"i": 1}, {"i": 2}]),
    "list of scalars": ([1, 2, 3], [{"value": 1}, {"value": 2}, {"value": 3}]),
    "list of dataclasses": ([Point(1, 2.0), Point(3, 4.0)], [{"x": 1, "y": 2.0}, {"x": 3, "y": 4.0}]),
    "empty list": ([], []),
    "none": (None, []),
    "array in a column": ({"array": np.array([1.5, 2.5], dtype="float32")}, [{"array": [1.5, 2.5]}]),
    "dataframe": (pd.DataFrame({"i": [1, 2], "word": ["a", None]}), [{"i": 1, "word": "a"}, {"i": 2}]),
    "dataframe with a named index": (
        pd.DataFrame({"i": [5]}, index=pd.Index(["a"], name="word")), [{"i": 5, "word": "a"}],
    ),
    "empty dataframe": (pd.DataFrame({"i": []}, dtype="int64"), []),
    "arrow table": (pa.table({"i": [1], "at": [datetime.date(2024, 5, 1)]}), [{"i": 1, "at": datetime.date(2024, 5, 1)}]),
    "records": ({"records": np.array([(1, 0.5)], dtype=[("a", "int8"), ("b", "float64")])}, [{"records": [{"a": 1, "b": 0.5}]}]),
    "nested": ({"nested": {"a": 1, "b": ["x"]}}, [{"nested": {"a": 1, "b": ["x"]}}]),
    "decimal": ({"amount": Decimal("1.50")}, [{"amount": Decimal("1.50")}]),
}  # fmt: skip


def shape(name: str) -> Any:
    return generated() if name == "generator" else SHAPES[name][0]


def finished(workload: Any, inputs: Any, url: Path, **options: Any) -> dc.Run:
    """The run, after its end."""
    run = dc.map(workload, inputs, url, **options)
    assert run.wait(60, progress="quiet")
    return run


def rows(url: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each item by the text of its key, without nulls."""
    table = pa.Table.from_pandas(dc.open(url).results().compute(), preserve_index=False)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row.pop("item_key"), []).append(
            {name: value for name, value in row.items() if value is not None and name != "key_kind"}
        )
    return found


def types(url: Path) -> dict[str, str]:
    """The columns' types as the reader gives them."""
    return {name: str(dtype.pyarrow_dtype) for name, dtype in dc.open(url).results().dtypes.items()}


def test_every_shape_of_result_becomes_rows(tmp_path: Path) -> None:
    """One row, many or none; each item its own, in its order."""
    run = finished(shape, [*SHAPES, "generator"], tmp_path / "d")
    assert run.failures().compute()[["item_key", "message"]].to_numpy().tolist() == []
    expected = {name: wanted for name, (_, wanted) in SHAPES.items() if wanted}
    assert rows(tmp_path / "d") == {**expected, "generator": [{"i": 0}, {"i": 1}, {"i": 2}]}
    found = types(tmp_path / "d")
    assert list(found)[:2] == ["item_key", "key_kind"]
    assert found["i"] == "int64"
    assert found["array"] == "list<element: float>"
    assert found["at"] == "date32[day]"
    attempts = run.attempts().compute().set_index("item_key")["rows"]
    assert (attempts["none"], attempts["generator"], attempts["dataframe"]) == (0, 3, 2)


def test_numpy_scalars_and_arrays_keep_their_types(tmp_path: Path) -> None:
    """Where all rows of a column agree; a one-dimensional array returned bare is a list in ``value``."""

    def arrays(number: int) -> dict[str, Any]:
        return {"small": np.int8(number), "single": np.float32(0.5), "vector": np.arange(number, dtype="uint16"), "flag": np.bool_(True)}

    finished(arrays, [1, 2], tmp_path / "d")
    found = types(tmp_path / "d")
    assert [found[name] for name in ("small", "single", "vector", "flag")] == ["int8", "float", "list<element: uint16>", "bool"]
    finished(lambda number: np.arange(number), [0, 3], tmp_path / "bare", name="bare")
    assert rows(tmp_path / "bare") == {"0": [{"value": []}], "3": [{"value": [0, 1, 2]}]}


# ------------------------------------------------------------------------------------------------------------------------- growth


def test_the_schema_grows_with_the_results(tmp_path: Path) -> None:
    """New columns are added and absent ones are null, integers and floats meet in float, null takes the later type."""

    def growing(number: int) -> dict[str, Any]:
        made: list[dict[str, Any]] = [
            {"a": 1, "b": None},
            {"a": 2.5, "b": "text"},
            {"a": None, "c": True},
            {"c": None, "d": []},
            {"d": [1]},
        ]
        return made[number]

    finished(growing, [0], tmp_path / "d")
    assert types(tmp_path / "d") == {"item_key": "string", "key_kind": "string", "a": "int64", "b": "null"}
    run = finished(growing, [0, 1, 2], tmp_path / "d")
    assert run.summary().skipped == 1
    run = finished(growing, range(5), tmp_path / "d")
    assert run.summary().failed == 0
    assert types(tmp_path / "d") == {
        "item_key": "string", "key_kind": "string", "a": "double", "b": "string", "c": "bool", "d": "list<element: int64>",
    }  # fmt: skip
    assert rows(tmp_path / "d") == {
        "0": [{"a": 1.0}],
        "1": [{"a": 2.5, "b": "text"}],
        "2": [{"c": True}],
        "3": [{"d": []}],
        "4": [{"d": [1]}],
    }


def test_wide_integers_stay_exact(tmp_path: Path) -> None:
    """Beyond 2**53 they do not meet floats, and up to 64 bits nothing is lost."""
    numbers = [2**53 + 1, -(2**63), 2**63 - 1]
    finished(lambda number: number, numbers, tmp_path / "d", name="wide")
    assert rows(tmp_path / "d") == {str(number): [{"value": number}] for number in numbers}
    run = finished(lambda number: number, [*numbers, 0.5], tmp_path / "d", name="wide")
    (failure,) = run.failures().compute().to_dict("records")
    assert (failure["item_key"], failure["kind"]) == ("0.5", "permanent")
    for word in ("'value'", "int64", "double", "2**53", "0.5"):
        assert word in failure["message"]
    assert rows(tmp_path / "d") == {str(number): [{"value": number}] for number in numbers}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_types_that_cannot_meet_fail_that_item_alone(tmp_path: Path, batch_size: int) -> None:
    """A permanent failure that names column, value and both types, in one batch or in several at once."""

    def mixed(number: int) -> dict[str, Any]:
        return {"a": "seven" if number == 7 else number}

    finished(mixed, [0], tmp_path / "d")
    run = finished(mixed, range(9), tmp_path / "d", batch_size=batch_size)
    (failure,) = run.failures().compute().to_dict("records")
    assert (failure["item_key"], failure["kind"], failure["error"]) == ("7", "permanent", "dcompute.errors.SchemaError")
    for word in ("'a'", "'seven'", "int64", "string"):
        assert word in failure["message"]
    assert rows(tmp_path / "d") == {str(number): [{"a": number}] for number in range(9) if number != 7}
    assert (run.summary().succeeded, run.summary().failed) == (7, 1)


def test_first_batches_that_do_not_meet_leave_one_type(tmp_path: Path) -> None:
    """Batches under way at once that differ: the commit that comes first decides, and nothing is lost without a word."""
    run = finished(lambda number: number if number % 2 else f"text {number}", range(8), tmp_path / "d", batch_size=1, name="both")
    summary = run.summary()
    assert (summary.succeeded, summary.failed) == (4, 4)
    assert types(tmp_path / "d")["value"] in ("int64", "string")
    assert len(rows(tmp_path / "d")) == 4
    assert len(run.failures().compute()) == 4
    assert run.failures(by="error")["items"].tolist() == [4]


# ----------------------------------------------------------------------------------------------------------------------- declared


def test_a_declared_schema_decides(tmp_path: Path) -> None:
    """Values are brought to its types; what does not fit and columns it does not have fail that item."""

    @dc.workload(schema={"a": pa.float64(), "b": pa.string()})
    def declared(number: int) -> dict[str, Any]:
        made: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"b": None}, {"a": "text"}, {"a": 1.0, "c": 1}]
        return made[number]

    run = finished(declared, range(4), tmp_path / "d")
    assert types(tmp_path / "d") == {"item_key": "string", "key_kind": "string", "a": "double", "b": "string"}
    assert rows(tmp_path / "d") == {"0": [{"a": 1.0, "b": "x"}], "1": [{}]}
    failed = run.failures().compute().set_index("item_key")
    assert set(failed["kind"]) == {"permanent"}
    for word in ("'a'", "'text'", "string", "double"):
        assert word in failed.loc["2", "message"]
    for word in ("'c'", "declared"):
        assert word in failed.loc["3", "message"]


@pytest.mark.parametrize("schema", [{"a": "floaty"}, 7, {"item_key": pa.string()}, ["a"]])
def test_a_schema_that_is_none_is_refused_at_once(tmp_path: Path, schema: Any) -> None:
    """dc.map raises, and says what is wrong with it."""
    with pytest.raises(dc.errors.DcomputeError, match="schema"):
        dc.map(dc.workload(schema=schema)(lambda number: number), [1], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_arrow_types_may_be_declared_by_name(tmp_path: Path) -> None:
    """As pyarrow and pandas call them, and Python's own types."""
    work = dc.workload(schema={"a": "int32", "b": float, "c": "string"})(lambda number: {"a": number, "b": 1, "c": "x"})
    finished(work, [1], tmp_path / "d", name="named")
    assert types(tmp_path / "d") == {"item_key": "string", "key_kind": "string", "a": "int32", "b": "double", "c": "string"}


# ------------------------------------------------------------------------------------------------------------------------ refused


def test_what_has_no_place_in_a_table_fails_by_name(tmp_path: Path) -> None:
    """Reserved columns, objects, names that are no text; neighbours are not touched."""
    bad = {
        "reserved": {"item_key": 1},
        "reserved in a table": pd.DataFrame({"key_kind": [1]}),
        "object": {"a": object()},
        "name": {1: "a"},
        "huge": {"a": 2**70},
        "set": {"a": {1, 2}},
        "list of dataframes": [pd.DataFrame({"a": [1]})],
        "not computed": dask.delayed(len)("ab"),
    }
    expected = {
        "reserved": "item_key", "reserved in a table": "key_kind", "object": "object", "name": "column name",
        "huge": str(2**70), "set": "set", "list of dataframes": "pandas.concat", "not computed": ".compute()",
    }  # fmt: skip
    run = finished(lambda name: bad.get(name, {"a": 1}), [*bad, "good"], tmp_path / "d", name="bad")
    failed = run.failures().compute().set_index("item_key")
    assert set(failed.index) == set(bad)
    assert set(failed["kind"]) == {"permanent"}
    for name, word in expected.items():
        assert word in failed.loc[name, "message"], failed.loc[name, "message"]
    assert rows(tmp_path / "d") == {"good": [{"a": 1}]}


def test_a_generator_that_raises_gives_no_rows(tmp_path: Path) -> None:
    """It is consumed within the attempt: what it yielded before is not seen."""

    def half(number: int) -> Iterator[int]:
        yield number
        if number == 1:
            raise ValueError("half way")

    run = finished(half, range(3), tmp_path / "d")
    assert set(rows(tmp_path / "d")) == {"0", "2"}
    assert run.failures().compute()["message"].tolist() == ["half way"]


# ------------------------------------------------------------------------------------------------------------------------ reading


def test_failures_are_grouped_and_the_dataset_reads_without_a_cluster(tmp_path: Path) -> None:
    """By kind, error or host, most first; status() counts items, rows and attempts."""

    def picky(number: int) -> list[int]:
        if number % 3 == 0:
            raise ValueError(f"no {number}")
        if number == 4:
            raise LookupError("no four")
        return [number, number]

    run = finished(picky, range(8), tmp_path / "d")
    by_error = run.failures(by="error")
    assert by_error[["error", "items"]].to_numpy().tolist() == [["ValueError", 3], ["LookupError", 1]]
    assert run.failures(by="kind")["items"].tolist() == [4]
    assert len(run.failures(by="host")) == 1
    dataset = dc.open(tmp_path / "d")
    status = dataset.status()
    assert (status.workload, status.state, status.succeeded, status.failed, status.stored_rows, status.attempts) == (
        "picky",
        "idle",
        4,
        4,
        8,
        8,
    )
    assert status.failed_by_kind == {"permanent": 4}
    assert "picky" in dataset._repr_html_()
    assert dataset.results(columns=["value"]).compute()["value"].sum() == 2 * (1 + 2 + 5 + 7)
    with pytest.raises(dc.errors.UsageError, match="kind"):
        run.failures(by="day")  # type: ignore[arg-type]
    with pytest.raises(dc.errors.DatasetNotFoundError):
        dc.open(tmp_path / "none")


def test_metrics_and_seed_of_an_item_are_in_its_attempt(tmp_path: Path) -> None:
    """dc.current() gives the key and the seed, and takes figures."""

    def noted(number: int, window: int) -> dict[str, Any]:
        here = dc.current()
        here.metric("squares", number * number)
        return {"key": here.key, "seed": here.seed, "attempt": here.attempt, "window": window, "params": dict(here.params)}

    run = finished(noted, [3], tmp_path / "d", params={"window": 5}, seed=11)
    (row,) = run.results().compute().to_dict("records")
    (attempt,) = run.attempts().compute().to_dict("records")
    assert (row["key"], row["attempt"], row["window"], row["params"]) == ("3", 1, 5, {"window": 5})
    assert row["seed"] == attempt["seed"]
    assert attempt["metrics"] == '{"squares": 9}'
