"""Rows that do not pass a check: what stays in the results, what goes to the quarantine, and what the item's attempt says."""

from __future__ import annotations

import datetime
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcompute.checks.forms import checks_of
from dcompute.checks.travel import RunChecks, packed
from dcompute.dataset.schema import from_text
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, BatchSpec, ItemKey, Receipt, RunSpec
from dcompute.worker.rows import decode, encode, to_rows
from dcompute.worker.tables import Parts
from tests.sane import config_context, pandera

X, Y = pc.field("x"), pc.field("y")


class Made:
    """The parts of a batch whose items returned ``results``."""

    def __init__(self, folder: Path, results: Sequence[Any], checks: Any, *, refuses: bool = False, part_bytes: int = 2**27) -> None:
        data = packed(RunChecks(checks_of(checks), refuses))
        run = RunSpec(run="r", dataset="/x", workload="w", code=b"", code_digest="c", params_digest="p", checks=data)
        keys = tuple(ItemKey(f"k{index}", "str") for index in range(len(results)))
        batch = BatchSpec(id="r-000001-00000001", keys=keys, attempts=(2,) * len(keys), fingerprints=("f",) * len(keys), values=b"")
        folder.mkdir(exist_ok=True)
        parts = Parts(folder, run, batch, "e1", part_bytes=part_bytes)
        counts = [parts.add(index, decode(encode(to_rows(result)))) for index, result in enumerate(results)]
        self.receipt: Receipt = parts.finish([_attempt(batch, index, count) for index, count in enumerate(counts)])
        self.names = [name for _, name in parts.files]
        self._files = {name: pq.read_table(path) for path, name in parts.files}
        self.attempts = self._files[self.names[-1]].to_pylist()

    def rows(self, folder: str = "results") -> list[dict[str, Any]]:
        return [row for name in self.names if name.startswith(folder) for row in self._files[name].to_pylist()]

    @property
    def kept(self) -> list[Any]:
        return [(row["item_key"], row["x"]) for row in self.rows()]

    @property
    def quarantined(self) -> list[Any]:
        return [(row["item_key"], row["check"], json.loads(row["record"])) for row in self.rows("quarantine")]

    @property
    def failures(self) -> dict[int, Any]:
        return {failure.index: (failure.kind, failure.error) for failure in self.receipt.failures}


def _attempt(batch: BatchSpec, index: int, rows: int) -> tuple[Any, ...]:
    known = {"item_key": batch.keys[index].text, "key_kind": "str", "attempt": 2, "outcome": SUCCEEDED, "started": 1.5, "rows": rows}
    return tuple(known.get(name) for name in ATTEMPT_COLUMNS)


def test_rows_that_do_not_pass_are_in_the_quarantine_and_the_others_in_the_results(tmp_path: Path) -> None:
    """The record has whose it is, the names of all checks that it does not pass, its values, and its own columns."""
    made = Made(
        tmp_path, [[{"x": 1, "y": "a"}, {"x": -2, "y": "bb"}], {"x": 3, "y": "c"}], {"positive": X > 0, "short": pc.utf8_length(Y) < 2}
    )
    assert made.kept == [("k0", 1), ("k1", 3)]
    (record,) = made.rows("quarantine")
    assert (record["item_key"], record["key_kind"], record["attempt"], record["source"]) == ("k0", "str", 2, "result")
    assert (record["check"], record["run"], record["fingerprint"]) == ("positive; short", "r", "f")
    assert "x = -2" in record["reason"]
    assert "y = 'bb'" in record["reason"]
    assert json.loads(record["record"]) == {"x": -2, "y": "bb"}
    assert (record["row.x"], record["row.y"]) == (-2, "bb")


def test_attempts_say_how_many_rows_went(tmp_path: Path) -> None:
    """An item that is kept succeeds with the rows that stay; the receipt names the part."""
    made = Made(tmp_path, [[{"x": 1}, {"x": -1}, {"x": -2}], {"x": 1}], X > 0)
    assert [(row["outcome"], row["rows"], row["quarantined"]) for row in made.attempts] == [("succeeded", 1, 2), ("succeeded", 1, None)]
    assert [(part.name, part.rows) for part in made.receipt.quarantined] == [(made.names[1], 2)]
    assert (made.receipt.rows, made.receipt.failures) == (2, ())


def test_values_of_columns_named_as_secrets_are_in_no_reason(tmp_path: Path) -> None:
    """The record has them, as results would; what is told to people about it has not."""
    schema = pandera.DataFrameSchema({"api_token": pandera.Column(str, pandera.Check.str_length(max_value=3))})
    checks = {"short": pc.utf8_length(pc.field("api_token")) < 4, "sane": schema}
    made = Made(tmp_path, [{"api_token": "s3cret-value", "x": 1}], checks, refuses=True)
    (record,) = made.rows("quarantine")
    assert record["check"] == "short; sane"
    assert "s3cret" not in record["reason"] + made.attempts[0]["message"]
    assert json.loads(record["record"])["api_token"] == "s3cret-value"


def test_nothing_is_written_where_all_rows_pass(tmp_path: Path) -> None:
    """A check that everything passes leaves no file and no trace."""
    made = Made(tmp_path, [{"x": 1}, {"x": 2}], X > 0)
    assert [name.partition("/")[0] for name in made.names] == ["results", "attempts"]
    assert made.receipt.quarantined == ()


def test_an_item_is_refused_with_all_of_its_rows(tmp_path: Path) -> None:
    """With ``refuse`` it fails for good, its bad rows alone are in the quarantine, and its neighbours are untouched."""
    made = Made(tmp_path, [[{"x": 1}, {"x": -1}], {"x": 3}], {"positive": X > 0}, refuses=True)
    assert made.kept == [("k1", 3)]
    assert made.quarantined == [("k0", "positive", {"x": -1})]
    assert made.failures == {0: ("permanent", "dcompute.errors.CheckFailed")}
    first, second = made.attempts
    assert (first["outcome"], first["rows"], first["quarantined"], second["outcome"]) == (FAILED, 0, 1, SUCCEEDED)
    assert first["message"].startswith("1 of its 2 rows do not pass: positive: (x > 0) is not true of x = -1")


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_nobody_knows_does_not_pass(tmp_path: Path, value: Any) -> None:
    """Null and not a number are not true."""
    made = Made(tmp_path, [{"x": value}, {"x": 1.0}], X > 0)
    assert [key for key, *_ in made.quarantined] == ["k0"]


@pytest.mark.parametrize("check", [X > 0, pc.match_substring(X, "a"), pc.field("s", "x") > 0, pc.field("zz") > 0])
def test_a_column_that_is_not_there_does_not_pass(tmp_path: Path, check: Any) -> None:
    """Whether a neighbour has it decides nothing: no row without it passes, and the item does not fail of it."""
    made = Made(tmp_path, [{"other": 1}], check)
    assert (len(made.quarantined), made.failures) == (1, {})


def test_an_expression_may_let_pass_what_is_missing(tmp_path: Path) -> None:
    """Who allows null says so, of a column that is not there too."""
    made = Made(tmp_path, [{"x": None, "y": 1}, {"x": None, "y": 2}], pc.is_null(X) | (X > 0))
    assert made.quarantined == []


def test_a_check_that_raises_fails_only_the_items_that_it_raises_for(tmp_path: Path) -> None:
    """It is told as the check's fault, by its name, and the rows of the others are judged."""

    def steady(table: pa.Table) -> Any:
        if -7 in table["x"].to_pylist():
            raise LookupError("seven")
        return pc.greater(table["x"], 0)

    made = Made(tmp_path, [{"x": 1}, {"x": -7}, {"x": -1}, {"x": 4}], steady)
    assert made.kept == [("k0", 1), ("k3", 4)]
    assert made.quarantined == [("k2", "steady", {"x": -1})]
    assert made.failures == {1: ("permanent", "dcompute.errors.CheckError")}
    assert made.attempts[1]["message"] == "the check 'steady' raised LookupError: seven"


def test_a_check_that_ends_its_process_fails_as_one_that_raises(tmp_path: Path) -> None:
    """It is a script's way out, and no way out of a batch."""

    def leaving(table: pa.Table) -> Any:
        raise SystemExit(3)

    made = Made(tmp_path, [{"x": 1}], leaving)
    assert made.failures == {0: ("permanent", "dcompute.errors.CheckError")}


@pytest.mark.parametrize("answer", [True, [True, True], ["yes"], pa.array([1]), pd.DataFrame({"x": [True]}), None])
def test_a_check_that_does_not_say_of_each_row_is_at_fault(tmp_path: Path, answer: Any) -> None:
    """One value for all, too many, or no truth values: nothing passes silently."""
    made = Made(tmp_path, [{"x": 1}], {"odd": lambda _: answer})
    assert made.failures == {0: ("permanent", "dcompute.errors.CheckError")}
    assert "'odd'" in made.attempts[0]["message"]


@pytest.mark.parametrize("of", ["arrow", "numpy", "pandas", "list"])
def test_functions_answer_with_any_array(tmp_path: Path, of: str) -> None:
    """True or false for each row, null for what nobody knows."""
    ways: dict[str, Any] = {
        "arrow": lambda table: pc.greater(table["x"], 0),
        "numpy": lambda table: table["x"].to_numpy() > 0,
        "pandas": lambda table: table.to_pandas()["x"] > 0,
        "list": lambda table: [None if value < 0 else True for value in table["x"].to_pylist()],
    }
    made = Made(tmp_path, [{"x": 1}, {"x": -1}], ways[of])
    assert made.kept == [("k0", 1)]


def test_pandera_judges_row_by_row(tmp_path: Path) -> None:
    """Its rules and those of its columns name the row; a float in one item does not make its neighbours fail."""
    schema = pandera.DataFrameSchema(
        {"x": pandera.Column(int, pandera.Check.gt(0)), "y": pandera.Column(str, nullable=True, required=False)}, name="sane"
    )
    made = Made(tmp_path, [{"x": 1}, {"x": 2.5}, {"x": -3}, {"x": None}, {"x": 5}], schema)
    assert [key for key, *_ in made.kept] == ["k0", "k4"]
    assert {key for key, *_ in made.quarantined} == {"k1", "k2", "k3"}
    reasons = {row["item_key"]: row["reason"] for row in made.rows("quarantine")}
    assert reasons["k2"] == "sane: x: greater_than(0) fails for -3"
    assert "int64" in reasons["k1"]
    assert made.failures == {}


def test_a_strict_schema_is_of_the_columns_that_items_return(tmp_path: Path) -> None:
    """Keys are no columns of its rows, but where it names them."""
    strict = pandera.DataFrameSchema({"x": pandera.Column(int)}, strict=True, ordered=True, name="strict")
    first = pandera.DataFrameSchema({"item_key": pandera.Column(str, pandera.Check.ne("k1"))}, name="first")
    made = Made(tmp_path, [{"x": 1}, {"x": 2}, {"x": 3, "y": 4}], [strict, first])
    assert made.quarantined == [("k1", "first", {"x": 2, "y": None}), ("k2", "strict", {"x": 3, "y": 4})]


def test_columns_of_other_rows_fail_no_row_of_pandera(tmp_path: Path) -> None:
    """A column that a row need not have is none of it where it is null: alone and beside others a row passes or not."""
    optional = pandera.DataFrameSchema({"x": pandera.Column(int, pandera.Check.gt(0), required=False)}, name="optional")
    several = pandera.DataFrameSchema({"y.": pandera.Column(int, pandera.Check.gt(0), regex=True)}, name="several")
    rows = [{"y1": 1}, {"x": 1, "y1": 1}, {"x": -1, "y1": 1}, {"y2": 2}, {"y2": -2}, {"x": 1}]
    made = Made(tmp_path, rows, [optional, several])
    assert [(key, name) for key, name, _ in made.quarantined] == [("k2", "optional"), ("k4", "several"), ("k5", "several")]


def test_pandera_judges_where_it_is_switched_off_otherwise(tmp_path: Path) -> None:
    """As by a variable of a worker's environment."""
    schema = pandera.DataFrameSchema({"x": pandera.Column(int, pandera.Check.gt(0))})
    with config_context(validation_enabled=False, validation_depth="SCHEMA_ONLY"):
        made = Made(tmp_path, [{"x": 1}, {"x": -1}], schema)
    assert made.kept == [("k0", 1)]


def test_a_schema_wants_its_columns_of_rows_without_any(tmp_path: Path) -> None:
    """Each of them fails."""
    made = Made(tmp_path, [{}, {}], pandera.DataFrameSchema({"x": pandera.Column(int)}, name="sane"))
    assert [(key, name) for key, name, _ in made.quarantined] == [("k0", "sane"), ("k1", "sane")]


def test_times_keep_their_zone_where_pandera_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import has pyarrow ignore zones: neither rows nor filters do."""
    from dcompute.dataset.filters import Filter

    monkeypatch.setenv("PYARROW_IGNORE_TIMEZONE", "1")
    noon = datetime.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    made = Made(tmp_path, [{"x": 1, "t": noon, "all": [{"t": noon}]}], X > 0)
    (row,) = made.rows()
    assert (row["t"], row["all"][0]["t"]) == (noon, noon)
    where = Filter.of([("t", "in", [noon])], pa.schema([("t", pa.timestamp("us", "UTC"))]))
    assert where is not None
    assert "10:00:00" in str(where.expression)
    assert os.environ["PYARROW_IGNORE_TIMEZONE"] == "1"


def test_series_of_pandas_are_of_the_rows_that_their_index_names(tmp_path: Path) -> None:
    """In whatever order they stand; an index that says nothing of rows is a fault."""
    made = Made(tmp_path / "a", [{"x": 1}, {"x": -1}, {"x": 2}], lambda table: table.to_pandas().sort_values("x")["x"] > 0)
    assert made.kept == [("k0", 1), ("k2", 2)]
    made = Made(tmp_path / "b", [{"x": 1}, {"x": -1}], {"named": lambda table: table.to_pandas().set_index("x", drop=False)["x"] > 0})
    assert made.failures == dict.fromkeys(range(2), ("permanent", "dcompute.errors.CheckError"))
    assert "reset_index(drop=True)" in made.attempts[0]["message"]


def test_a_rule_of_pandera_that_raises_is_at_fault(tmp_path: Path) -> None:
    """Its items fail, and name it."""
    schema = pandera.DataFrameSchema({"x": pandera.Column(int, pandera.Check(lambda values: values.nothing))})
    made = Made(tmp_path, [{"x": 1}], {"broken": schema})
    assert made.failures == {0: ("permanent", "dcompute.errors.CheckError")}
    assert "'broken'" in made.attempts[0]["message"]


def test_columns_of_quarantined_rows_are_in_the_schema(tmp_path: Path) -> None:
    """Where all rows of a batch went the receipt has their columns, so that they can be released at any time."""
    made = Made(tmp_path, [{"x": -1, "z": "a"}], X > 0)
    assert from_text(made.receipt.schema or "").names == ["x", "z"]
    assert made.receipt.results == ()


def test_much_is_written_in_several_parts(tmp_path: Path) -> None:
    """Nothing is held beyond the size of a part, and each part has its own types."""
    results = [pa.table({"x": [-1] * 70_000}), pa.table({"x": [-1.5] * 70_000})]
    made = Made(tmp_path, results, X > 0, part_bytes=1000)
    assert [part.rows for part in made.receipt.quarantined] == [70_000, 70_000]
    assert len(made.rows("quarantine")) == 140_000


_VALUES = st.none() | st.integers(-5, 5) | st.floats(-2, 2)
_ROWS = st.lists(st.fixed_dictionaries({"x": _VALUES}, optional={"y": st.text(max_size=3)}), max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(results=st.lists(_ROWS, max_size=6), least=st.integers(-3, 3), refuses=st.booleans())
def test_rows_in_are_results_and_quarantine(tmp_path_factory: pytest.TempPathFactory, results: Any, least: int, refuses: bool) -> None:
    """No row is lost, doubled or in the wrong place; a refused item leaves its good rows out."""
    made = Made(
        tmp_path_factory.mktemp("made"),
        results,
        {"least": pc.greater_equal(X, least), "named": lambda table: [True] * len(table)},
        refuses=refuses,
    )
    good: Counter[Any] = Counter()
    bad: Counter[Any] = Counter()
    for index, rows in enumerate(results):
        passing = [row["x"] is not None and row["x"] >= least for row in rows]
        if not refuses or all(passing):
            good.update((f"k{index}", float(row["x"])) for row, passes in zip(rows, passing, strict=True) if passes)
        bad.update((f"k{index}", row["x"]) for row, passes in zip(rows, passing, strict=True) if not passes)
    assert Counter((key, float(x)) for key, x in made.kept) == good
    assert Counter((key, record["x"]) for key, _, record in made.quarantined) == bad
    assert sum(row["rows"] for row in made.attempts) == good.total()
