"""Inputs that do not pass a check: whose item is refused, what its failure says, and what the quarantine gets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dcompute.checks.forms import checks_of
from dcompute.checks.travel import RunChecks, packed
from dcompute.graph import pack_values
from dcompute.records import BatchSpec, ItemKey, RunSpec
from dcompute.worker.admission import refused
from dcompute.worker.attempt import REFUSED
from dcompute.worker.context import current
from dcompute.worker.thread import execute
from dcompute.worker.work import Work
from tests.sane import pandera

VALUE = pc.field("value")


def told(checks: Any, values: list[Any], *, keywords: bool = False) -> dict[int, dict[str, Any]]:
    found = refused(checks_of(checks, "input_checks"), values, range(len(values)), keywords=keywords)
    return {index: json.loads(payload) for index, payload in sorted(found.items())}


def test_plain_values_are_the_column_value() -> None:
    """The failure is the item's own and permanent; the quarantine gets the names of all checks, the reasons and the value."""
    found = told({"small": VALUE < 5, "even": lambda value: value % 2 == 0}, [1, 4, 7])
    assert {index: failure[REFUSED]["check"] for index, failure in found.items()} == {0: "even", 2: "even; small"}
    assert found[2]["kind"] == "permanent"
    assert found[2]["error"] == "dcompute.errors.CheckFailed"
    assert found[2]["message"].startswith("its input does not pass: even: not true of 7; small:")
    assert "value = 7" in found[2][REFUSED]["reason"]
    assert json.loads(found[2][REFUSED]["record"]) == {"value": 7}


def test_columns_of_grids_and_tables_are_columns() -> None:
    """Expressions and pandera see them by name, functions get the mapping."""
    rows = [{"a": 1, "b": "x"}, {"a": -1, "b": "x"}, {"a": 2, "b": None}]
    checks = {
        "a": pc.field("a") > 0,
        "b": pandera.DataFrameSchema({"b": pandera.Column(str)}),
        "row": lambda row: row["a"] < 2,
    }
    found = told(checks, rows, keywords=True)
    assert {index: failure[REFUSED]["check"] for index, failure in found.items()} == {1: "a", 2: "row; b"}
    assert json.loads(found[1][REFUSED]["record"]) == {"a": -1, "b": "x"}


def test_functions_look_at_a_mapping_of_their_own() -> None:
    """What one does to it reaches neither the next check nor the item."""
    row = {"a": 1, "password": "hunter2"}
    found = told({"greedy": lambda each: each.pop("a") == 1, "next": lambda each: each["a"] == 2}, [row], keywords=True)
    assert row == {"a": 1, "password": "hunter2"}
    assert found[0]["message"] == "its input does not pass: next: not true of {'a': 1, 'password': '***'}"


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_nobody_knows_does_not_pass(value: Any) -> None:
    """Null, not a number, and a function that gives None."""
    assert list(told(VALUE > 0, [value, 1.0])) == [0]
    assert list(told(lambda found: None, [value])) == [0]


def test_a_check_that_raises_is_told_as_such_and_hurts_its_own_item_only() -> None:
    """Neither a function nor an expression that cannot be asked of one input refuses the others."""
    found = told({"short": lambda value: len(value) < 3}, ["a", 5, "long"])
    assert {index: (failure["error"].rpartition(".")[2], REFUSED in failure) for index, failure in found.items()} == {
        1: ("CheckError", False), 2: ("CheckFailed", True),
    }  # fmt: skip
    assert found[1]["message"] == "the check 'short' raised TypeError: object of type 'int' has no len()"
    found = told(VALUE > 0, [1, "text", -1])
    assert {index: failure["error"].rpartition(".")[2] for index, failure in found.items()} == {1: "CheckError", 2: "CheckFailed"}


def test_a_check_that_ends_its_process_fails_as_one_that_raises() -> None:
    """It is a script's way out, and no way out of a batch."""
    assert told({"leaving": lambda _: sys.exit(3)}, [1])[0]["message"] == "the check 'leaving' raised SystemExit: 3"


@pytest.mark.parametrize("answer", [1, "yes", np.array([True])])
def test_a_function_says_true_or_false(answer: Any) -> None:
    """What is neither is the check's fault."""
    assert told({"odd": lambda _: answer}, [1])[0]["message"].startswith("the check 'odd' gave a ")


def test_values_that_make_no_table_fail_by_themselves() -> None:
    """An object of a class of one's own has no column; its neighbours are judged."""
    found = told(VALUE > 0, [object(), -1, 1])
    assert {index: failure["error"].rpartition(".")[2] for index, failure in found.items()} == {0: "SchemaError", 1: "CheckFailed"}


class Opaque:
    """Of a class that only its own module can open."""

    size = 3


def test_functions_get_values_as_the_workload_does() -> None:
    """What travels sealed is opened for them."""
    import pickle

    values = pickle.loads(pack_values([Opaque()]))
    assert told(lambda value: value.size > 3, values)[0][REFUSED]["check"] == "<lambda>"


def _seen(value: int) -> dict[str, Any]:
    return {"value": value, "key": current().key}


@pytest.mark.parametrize("group", [None, 2])
def test_a_batch_executes_only_what_passes(tmp_path: Path, group: int | None) -> None:
    """The others have a failed attempt that says nothing of time spent, and a record; what was released is executed as it is."""
    from dcompute.code import pack
    from dcompute.workload import Workload

    function = _seen if group is None else lambda values: [{"value": value} for value in values]
    code, digest, params = pack(Workload(function).options(group=group), {})
    checks = packed(RunChecks(inputs=checks_of({"small": VALUE < 3})))
    run = RunSpec(run="r", dataset="", workload="w", code=code, code_digest=digest, params_digest=params, checks=checks, isolation="thread",
                  group=group)  # fmt: skip
    keys = tuple(ItemKey(str(number), "int") for number in range(5))
    batch = BatchSpec(
        id="r-000001-00000001", keys=keys, attempts=(1,) * 5, fingerprints=("f",) * 5, values=pack_values(range(5)), unchecked=(4,)
    )
    done = execute(Work(run=run, batch=batch, execution="e", scratch=str(tmp_path)), stopped=lambda: None, ticked=lambda _: None)
    assert done.receipt is not None
    tables = {name.partition("/")[0]: pq.read_table(path).to_pylist() for path, name in done.files}
    assert sorted(row["value"] for row in tables["results"]) == [0, 1, 2, 4]
    assert [(row["outcome"], row["quarantined"], row["cpu_user"] is None) for row in tables["attempts"]][2:4] == [
        ("succeeded", 0, False), ("failed", 1, True),
    ]  # fmt: skip
    (record,) = tables["quarantine"]
    assert (record["item_key"], record["source"], record["check"], record["fingerprint"]) == ("3", "input", "small", "f")
    assert [failure.index for failure in done.receipt.failures] == [3]
