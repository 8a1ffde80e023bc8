"""``dcompute report run``, ``status`` and ``show``: the reports of a user's file at the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dask
import distributed  # noqa: F401  its settings must be there before one of them is changed
import pytest
from click.testing import CliRunner, Result

import dcompute as dc
from dcompute.cli.main import dcompute
from dcompute.cli.stages import watched
from dcompute.dataset.store import Store
from dcompute.errors import ReportError
from tests.component.reading.conftest import Did, Scene

FILE = """
import dcompute as dc
import pyarrow.compute as pc

def clean(raw):
    return dc.drop(raw, raw.x < 0, "negative")[["item_key", "x"]]

CLEAN = dc.Report("clean", {url!r}, clean, mergeable="partition")
TOTAL = dc.Report("total", {{"clean": CLEAN}}, lambda clean: clean.assign(g=1).groupby("g").x.sum().reset_index())
BROKEN = dc.Report("broken", {url!r}, clean, checks={{"small": pc.field("x") < 0}})
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A dataset, and a file of reports in the working directory."""
    made = Scene(Store.at(tmp_path / "lab")).open()
    made.add(*[Did(f"k{x}", rows=[{"x": x}]) for x in range(-1, 4)]).publish()
    (tmp_path / "reports.py").write_text(FILE.format(url=made.store.url))
    monkeypatch.chdir(tmp_path)
    return made


def typed(*words: str) -> Result:
    return CliRunner().invoke(dcompute, ["report", *words])


def test_a_report_is_run_told_and_shown(scene: Scene) -> None:
    """Each stage says what came, went and was dropped; status and rows come as text and as JSON."""
    ran = typed("run", "reports.py:TOTAL", "--upstream")
    assert ran.exit_code == 0, ran.output
    assert "clean: version 1" in ran.output
    assert "1 rows dropped: negative" in ran.output
    assert "total: up to date" in typed("status", "reports.py:TOTAL").output
    assert typed("show", "reports.py:TOTAL", "--columns", "x").output.split() == ["x", "6"]
    assert json.loads(typed("show", "reports.py:TOTAL", "--json").output) == {"g": 1, "x": 6}
    scene.add(Did("n", rows=[{"x": 4}])).publish()
    status = json.loads(typed("status", "reports.py:TOTAL", "--json").output)
    assert (status["state"], status["commits"], status["upstream"][0]["state"]) == ("behind", 1, "behind")
    told = [json.loads(line) for line in typed("run", "reports.py:TOTAL", "--upstream", "--json").output.splitlines()]
    assert [(one["report"], one["rows"], one["is_new"]) for one in told] == [("clean", 5, True), ("total", 1, True)]
    assert "nothing was computed" in typed("run", "reports.py:TOTAL").output
    assert typed("show", "reports.py:CLEAN", "--version", "1", "--limit", "1").output.count("\n") == 3


def test_a_report_that_fails_ends_with_1(scene: Scene) -> None:
    """A broken promise is told with its check; what is no report is bad use."""
    failed = typed("run", "reports.py:BROKEN")
    assert failed.exit_code == 1
    assert "4 rows do not pass the check 'small'" in failed.output
    assert "broken: failed since" in typed("status", "reports.py:BROKEN").output
    wrong = typed("run", "reports.py:clean")
    assert (wrong.exit_code, "not a dc.Report" in wrong.output) == (2, True)


def test_watching_goes_on_after_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """What fails now may work the next time: it is told, and looked at again after the wait."""
    did: list[str] = []

    def once() -> None:
        did.append("run")
        if len(did) == 1:
            raise ReportError("not now")

    def wait() -> None:
        did.append("wait")
        if did.count("wait") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watched(once, wait)
    assert did == ["run", "wait", "run", "wait"]
    assert "Error: not now" in capsys.readouterr().err


def test_watching_waits_for_what_it_is_computed_from(scene: Scene) -> None:
    """A stage that has published nothing yet is bad use once, and may have the next time; said with the option."""
    once = typed("run", "reports.py:TOTAL")
    assert (once.exit_code, "run this one with --upstream" in once.output) == (2, True)
    line = [sys.executable, "-c", "from dcompute.cli.main import main; main()", "report", "run", "reports.py:TOTAL", "--watch", "0.1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr is not None
        assert watching.stdout is not None
        assert "has published nothing yet" in watching.stderr.readline()
        typed("run", "reports.py:CLEAN")
        assert "total: version 1" in watching.stdout.readline()
        watching.terminate()
        assert watching.wait(30) == 130


@pytest.mark.parametrize(
    "words",
    [
        ("report", "run", "reports.py:CLEAN"),
        ("report", "summary", "lab"),
        ("report", "html", "lab"),
        ("compact", "lab"),
    ],
)
def test_a_scheduler_that_does_not_answer_is_named(scene: Scene, words: tuple[str, ...]) -> None:
    """Whatever would have been done there; it is a broken cluster, and no failure of a report."""
    with dask.config.set({"distributed.comm.timeouts.connect": "0.2 s"}):
        done = CliRunner().invoke(dcompute, [*words, "--scheduler", "tcp://127.0.0.1:9"])
    assert "no scheduler answers at tcp://127.0.0.1:9" in done.output
    assert done.exit_code == 3
    assert "failed" not in typed("status", "reports.py:CLEAN").output


@pytest.mark.parametrize(("output", "why"), [("nowhere/x.html", "there is no folder nowhere"), (".", "that is a folder")])
def test_a_page_that_cannot_be_written_is_told_first(scene: Scene, output: str, why: str) -> None:
    """Before it is computed, and as bad use."""
    done = typed("html", "lab", "-o", output)
    assert (done.exit_code, why in done.output) == (2, True)


def test_a_name_that_is_none_is_answered_with_the_reports(scene: Scene) -> None:
    """What a file has besides reports is not proposed where a report was asked for."""
    assert "it has BROKEN, CLEAN, TOTAL" in typed("run", "reports.py:nope").output
    assert "is 'CLEAN' meant?" in typed("status", "reports.py:CLEEN").output
    assert "it has BROKEN, CLEAN, TOTAL" in typed("show", "reports.py:cleann").output


@pytest.mark.parametrize("words", [("--watch", "60"), ()])
def test_sigterm_ends_a_report_as_ctrl_c_does(scene: Scene, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The exit code is 130, watched or not, nothing is published, and the same line works afterwards."""
    stop = "import os, signal\ndef stop(raw):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return clean(raw)\n"
    place = tmp_path / "reports.py"
    place.write_text(f'{place.read_text()}\n{stop}STOP = dc.Report("stop", {scene.store.url!r}, stop)\n')
    line = [sys.executable, "-c", "from dcompute.cli.main import main; main()", "report", "run", "reports.py:STOP", *words]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert dc.Report("stop", scene.store.url, lambda raw: raw).newest() is None
