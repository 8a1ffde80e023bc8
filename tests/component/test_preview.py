"""What a run would do and cost, from a dataset alone: no cluster is asked, and nothing is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner

import dcompute as dc
from dcompute.cli.main import dcompute
from dcompute.cli.run import run
from dcompute.dataset.store import Store
from tests.component.upkeep.driving import Driving


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A module with a workload in the working directory, and a dataset of it: a, b and c succeeded, d failed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    Path("previewed.py").write_text("def flux(line):\n    return 1\n")
    driver = Driving(Store.at(tmp_path / "out"))
    driver.add({"a": [{"x": 1}], "b": [{"x": 1}], "c": [{"x": 1}]}, seconds=6.0, slot_seconds=9.0)
    driver.add({"d": None}, seconds=2.0, slot_seconds=3.0, final=(("d", "str"),))
    driver.close()
    with dask.config.set({"dcompute.local.workers": None, "dcompute.local.threads": None}):  # the command sets them
        yield
    sys.modules.pop("previewed", None)


def files() -> list[str]:
    return sorted(map(str, Path("out").rglob("*")))


def flux(line: str) -> int:
    return 1


def call(*words: str, lines: str = "") -> str:
    done = CliRunner().invoke(dcompute, ["plan", "previewed.py:flux", "-", "out", *words], input=lines)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_preview_says_what_why_and_what_it_costs() -> None:
    """Figures and keys by reason, and the time that the last items took; slots are those of the cluster that would be started."""
    before = files()
    found = dc.preview(flux, ["a", "d", "e", "f"], "out", on_gone="drop", retry_failed=True)
    assert dict(found.reasons) == {"new": 2, "again, failed before (permanent)": 1, "done before": 1, "no longer an input, dropped": 2}
    assert found.keys["new"] == ("e", "f")
    assert found.keys["again, failed before (permanent)"] == ("d",)
    assert set(found.keys["no longer an input, dropped"]) == {"b", "c"}
    assert (found.examples, found.todo) == (("d", "e", "f"), 3)
    assert (found.cost.judged_by, found.cost.seconds, found.cost.slot_seconds) == (4, 6.0, 9.0)
    assert files() == before


def test_keys_are_told_of_what_stays_too() -> None:
    """What is done, what stays failed, and what is no input and kept."""
    found = dc.preview(flux, ["a", "d"], "out")
    assert {why: set(keys) for why, keys in found.keys.items()} == {
        "done before": {"a"},
        "failed before, stays (permanent)": {"d"},
        "no longer an input, kept": {"b", "c"},
    }
    assert "work" not in str(found)


def test_few_keys_are_shown_of_many() -> None:
    """Five of each reason, and that there are more; of a long one its end."""
    long = "/data" * 20 + "/end"
    text = str(dc.preview(flux, [long, *map(str, range(9))], "out"))
    assert "10  new: ..." in text
    assert "/end, 0, 1, 2, 3, ...\n" in text


def test_the_command_takes_the_arguments_of_a_run() -> None:
    """It says the same in words and in JSON, counts the slots that are asked for, and writes nothing."""
    before = files()
    text = call("--workers", "3", "--quiet", lines="a\ne\nf\ng\nh\n")
    assert "4 items would be executed" in text
    assert "4  new: e, f, g, h\n" in text
    assert "about 8 s of work, 4 s with 3 slots (by 4 items that ended last)" in text
    found = json.loads(call("--workers", "3", "--json", lines="a\ne\nf\ng\nh\n"))
    assert (found["todo"], found["cost"]["wall_seconds"], found["keys"]["new"]) == (4, 4.0, ["e", "f", "g", "h"])
    assert files() == before
    names = {parameter.name for parameter in run.params}
    assert {parameter.name for parameter in dcompute.commands["plan"].params} == names


def test_what_a_killed_run_may_have_written_is_told() -> None:
    """Of a run that did not end, what it wrote since its last commit counts as to do, and the preview says so, unless nothing is to do."""
    told = "a run before was interrupted, or is at work: what it wrote since its last commit counts as to do; a run adds it first"
    assert told not in str(dc.preview(flux, ["a", "new"], "out"))
    killed = Driving(Store.at("out"), "r2")
    killed.write({"new": [{"x": 1}]})
    killed.writer.abandon()
    before = files()
    found = dc.preview(flux, ["a", "new"], "out")
    assert (found.todo, found.interrupted) == (1, True)
    assert told in str(found)
    assert told not in str(dc.preview(flux, ["a"], "out"))
    assert json.loads(call("--json", lines="a\n"))["interrupted"]
    assert files() == before


def test_without_history_the_cost_is_not_known(tmp_path: Path) -> None:
    """A dataset that is not there yet tells no time, and is not made."""
    found = dc.preview(flux, ["a"], tmp_path / "none")
    assert "no history yet" in str(found)
    assert not (tmp_path / "none").exists()
