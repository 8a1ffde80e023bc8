"""The commands that read, on several datasets at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dcompute.cli.main import dcompute
from dcompute.dataset.store import Store


@pytest.fixture
def lab(tmp_path: Path, new_scene: Any, did: Any) -> Path:
    """North has a and b, of which b failed; south has b and c."""
    about = {"run": "run", "duration": 1.0, "workload": "w", "host": "h"}
    north, south = new_scene(Store.at(tmp_path / "lab/north")).open(), new_scene(Store.at(tmp_path / "lab/south")).open()
    north.add(did("a", rows=[{"x": 1}], extra=about), did("b", failed="permanent", extra=about), final=["b"]).publish()
    south.add(did("b", rows=[{"x": 20}], extra=about), did("c", rows=[{"x": 3}], extra=about)).publish()
    return tmp_path / "lab"


def call(*words: Any, code: int = 0) -> str:
    done = CliRunner().invoke(dcompute, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("quoted", [True, False])
def test_a_pattern_and_what_a_shell_makes_of_it_read_as_one(lab: Path, quoted: bool) -> None:
    """Each dataset has its line, and all together one; what several have counts once."""
    named = [f"{lab}/*"] if quoted else [lab / "north", lab / "south"]
    lines = call("status", *named).splitlines()
    assert [line.split()[0] for line in lines] == [f"{lab}/north", f"{lab}/south", "together"]
    assert "2 succeeded, 1 failed (1 outcomes" in lines[-1]
    told = json.loads(call("status", *named, "--json"))
    assert (told["succeeded"], told["doubles"], told["stored_rows"], told["attempts"], len(told["each"])) == (2, 1, 3, 4, 2)
    rows = [json.loads(line) for line in call("results", *named, "--json").splitlines()]
    assert sorted((row["item_key"], row["x"]) for row in rows) == [("a", 1), ("c", 3)]
    assert [json.loads(line)["item_key"] for line in call("failures", *named, "--json").splitlines()] == ["b"]
    assert len(call("attempts", *named, "--json").splitlines()) == 3
    (summary,) = [json.loads(line) for line in call("report", "summary", *named, "--run", "all", "--json").splitlines()]
    assert summary["attempts"] == 3


def test_what_belongs_to_one_log_is_refused_for_several(lab: Path) -> None:
    """A number of an entry, a history, a cancel: bad use, and no bug."""
    assert "say a time" in call("status", f"{lab}/*", "--at", "2", code=2)
    for command in ("history", "cancel", "compact"):
        assert "no dataset at" in call(command, f"{lab}/*", code=2)
        assert "unexpected extra argument" in call(command, lab / "north", lab / "south", code=2)
