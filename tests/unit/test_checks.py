"""Checks as they are declared: what is one, what it is called, how it travels, and when other ones make other code."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import dcompute as dc
from dcompute import zones
from dcompute.checks.forms import checks_of
from dcompute.checks.travel import RunChecks, opened, packed
from dcompute.code import code_digest, pack
from dcompute.errors import WorkloadError
from tests.sane import pandera

X = pc.field("x")


def positive(table: pa.Table) -> Any:
    return pc.greater(table["x"], 0)


def work(value: int) -> dict[str, int]:
    return {"x": value}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, []),
        (X > 0, ["(x > 0)"]),
        (positive, ["positive"]),
        ([X > 0, positive], ["(x > 0)", "positive"]),
        ({"a": X > 0, "b": positive}, ["a", "b"]),
        (checks_of({"a": X > 0}), ["a"]),
    ],
)
def test_one_several_or_by_name(given: Any, names: list[str]) -> None:
    """Without a name of its own a check has that of its function, or its text."""
    assert [check.name for check in checks_of(given)] == names


class First(pandera.DataFrameModel):  # type: ignore[misc]
    """With a column that is called as the attribute of a schema."""

    name: str


class Second(pandera.DataFrameModel):  # type: ignore[misc]
    x: int

    class Config:
        name = "sane"


def test_models_of_pandera_have_the_names_of_their_classes() -> None:
    """Or that of their configuration; several stand in a list."""
    assert [check.name for check in checks_of([First, Second, pandera.DataFrameSchema(name="a"), pandera.DataFrameSchema()])] == [
        "First", "sane", "a", "DataFrameSchema",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "which is no check"),
        ("x > 0", "which is no check"),
        ([X > 0, 3], "which is no check"),
        ({"": X > 0}, "give it one without a semicolon"),
        ({"a;b": X > 0}, "give it one without a semicolon"),
        ([positive, positive], "two checks are called 'positive'"),
    ],
)
def test_what_is_no_check_is_refused_where_it_is_declared(given: Any, words: str) -> None:
    """At the decorator, with what it may be."""
    with pytest.raises(WorkloadError, match=words):
        dc.workload(checks=given)(work)


def test_what_on_invalid_may_be() -> None:
    """One of two words."""
    assert dc.workload(on_invalid="refuse")(work).requirements.on_invalid == "refuse"
    with pytest.raises(WorkloadError, match=r'"keep" .* or "refuse"'):
        dc.workload(on_invalid="drop")(work)


def test_a_check_of_columns_that_a_schema_has_not_is_refused() -> None:
    """A typing mistake is told before anything runs; keys may be asked for."""
    dc.workload(schema={"x": "int64"}, checks=(X > 0) & (pc.field("item_key") != ""))(work)
    with pytest.raises(WorkloadError, match=r"'\(y > 0\)'.*declares \(x\).*No match for FieldRef"):
        dc.workload(schema={"x": "int64"}, checks=pc.field("y") > 0)(work)


def test_columns_of_files_need_no_declaration() -> None:
    """An expression may ask for them beside a schema that has them not, as results have them all the same."""
    asked = (pc.field("map_size") > 0) & (pc.field("map_url") != "") & (pc.field("map_checksum") != "") & (X > 0)
    dc.workload(schema={"x": "int64"}, checks=asked)(work)
    with pytest.raises(WorkloadError, match="cannot be asked"):
        dc.workload(schema={"x": "int64"}, checks=pc.field("map_size") > "a")(work)


def test_a_workload_with_checks_can_be_shown_changed_and_pickled() -> None:
    """As every workload can."""
    checked = dc.workload(checks={"positive": X > 0})(work)
    assert repr(checked) == "<Workload work checks=(<Check positive>,)>"
    assert checked.options(cpus=2).checks == checked.checks
    assert [check.name for check in pickle.loads(pickle.dumps(checked.options(cpus=2))).checks] == ["positive"]


def test_they_travel_and_none_are_nothing() -> None:
    """What comes out says what went in; a run without checks carries no byte for them."""
    found = opened(packed(RunChecks(checks_of({"a": X > 0}), True, checks_of(lambda value: value > 1))))
    assert ([check.name for check in found.rows], found.refuses, found.inputs[0].given(2)) == (["a"], True, True)
    assert packed(RunChecks(refuses=True)) == b""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pandera.DataFrameSchema(drop_invalid_rows=True), "drop_invalid_rows"),
        (pandera.DataFrameSchema({"x": pandera.Column(int, drop_invalid_rows=True)}), "drop_invalid_rows of 'x'"),
        (pandera.DataFrameSchema(parsers=pandera.Parser(lambda frame: frame[frame.x > 0])), "parsers"),
        (pandera.DataFrameSchema({"x": pandera.Column(int, parsers=pandera.Parser(abs))}), "parsers of 'x'"),
        (pandera.DataFrameSchema({"x": pandera.Column(float, default=0.5)}), "default of 'x'"),
        (pandera.DataFrameSchema(add_missing_columns=True), "add_missing_columns"),
        (pandera.DataFrameSchema({"x": pandera.Column(int, pandera.Check.gt(0, n_failure_cases=1))}), "n_failure_cases of 'x'"),
        (pandera.DataFrameSchema(checks=pandera.Check(lambda frame: frame.x > 0, n_failure_cases=1)), "n_failure_cases"),
        (pandera.DataFrameSchema({"x": pandera.Column(int, unique=True)}), "unique of 'x'"),
        (pandera.DataFrameSchema({"x": pandera.Column(int)}, unique=["x"]), "unique"),
        (pandera.DataFrameSchema(checks=pandera.Check(len, groupby="y")), "groupby"),
        (pandera.DataFrameSchema(index=pandera.Index(int, pandera.Check.gt(3))), "index"),
    ],
)
def test_schemas_that_would_pass_rows_silently_are_refused(given: Any, words: str) -> None:
    """What drops, changes or hides rows, or depends on which of them stand together, is named, and is to be left out."""
    with pytest.raises(WorkloadError, match=rf"schema 'sane' with {words}[,:].* leave it out"):
        checks_of({"sane": given})


def test_what_cannot_be_opened_says_what_to_do() -> None:
    """As where a worker has no pandera."""
    with pytest.raises(WorkloadError, match=r'pip install "dcompute\[checks\]"'):
        opened(b"cnosuchmodule\nname\n.")


def test_other_checks_are_other_code() -> None:
    """Their text, their functions and what becomes of an item count; a workload without any has the digest it always had."""

    def digest(**options: Any) -> str:
        return pack(dc.Workload.of(work).options(**options), {}).code_digest

    plain = code_digest(work)
    assert digest() == digest(on_invalid="refuse") == plain
    others = [
        digest(checks=X > 0), digest(checks=X > 1), digest(checks={"a": X > 0}), digest(checks=X > 0, on_invalid="refuse"),
        digest(checks={"a": lambda table: table["x"]}), digest(checks={"a": lambda table: table["y"]}),
    ]  # fmt: skip
    assert len({plain, *others}) == 7
    assert digest(checks=X > 0) == others[0]


def test_a_variable_is_put_back_after_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within, pyarrow respects zones, whoever sets it; after, it is what it was."""
    monkeypatch.delenv(zones.IGNORING, raising=False)
    with zones.kept():
        os.environ[zones.IGNORING] = "1"
    assert zones.IGNORING not in os.environ
    monkeypatch.setenv(zones.IGNORING, "1")
    with zones.kept(), zones.kept():
        assert zones.IGNORING not in os.environ
    assert os.environ[zones.IGNORING] == "1"
