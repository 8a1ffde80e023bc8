"""The built-in reports on real runs: totals agree with the dataset, several datasets are one, the command line tells the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import dcompute as dc
from dcompute.cli.main import dcompute as command
from dcompute.errors import UsageError
from dcompute.report.builtin import BUILTIN


def work(number: int) -> dict[str, int]:
    """Fails for some."""
    if number % 10 == 0:
        raise ValueError(f"{number} is round")
    return {"total": sum(range(number * 100))}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dc.Dataset:
    """Two runs: forty items, then twenty more."""
    url = tmp_path_factory.mktemp("reports") / "dataset"
    for count in (40, 60):
        dc.map(work, range(count), url).wait(progress="quiet")
    return dc.open(url)


def test_totals_are_those_of_the_dataset(dataset: dc.Dataset) -> None:
    """Each report counts every attempt once."""
    status = dataset.status()
    (summary,) = dataset.report("summary", run="all").to_dict("records")
    assert (summary["attempts"], summary["succeeded"], summary["failed"], summary["runs"]) == (60, status.succeeded, 6, 2)
    assert summary["kinds"] == "6 permanent"
    throughput = dataset.report("throughput")
    assert (throughput.ended.sum(), throughput.failed.sum(), throughput.rows.sum()) == (60, 6, status.stored_rows)
    assert throughput.run.nunique() == 2
    assert dataset.report("failures", by="kind").attempts.to_list() == [6]
    assert dataset.report("resources").attempts.to_list() == [60, 60]
    assert dataset.report("history").attempts.to_list() == [40, 20]
    assert dataset.report("scaling")["items"].sum() == pytest.approx(54, abs=0.01)
    busy = dataset.attempts(["duration"]).compute().duration.sum()
    assert (throughput.busy * throughput.seconds).sum() == pytest.approx(busy, abs=60e-6)


def test_a_run_can_be_chosen(dataset: dc.Dataset) -> None:
    """``last`` is the newest, and the summary's own choice; an unknown one is told with those there are."""
    first, last = dataset.report("history").run
    assert dataset.report("summary").attempts[0] == 20
    assert dataset.report("throughput", run="last").run.unique().tolist() == [last]
    assert dataset.report("resources", run=first).attempts[0] == 40
    with pytest.raises(UsageError, match=f"no attempt is of a run 'x': the newest are {first}, {last}"):
        dataset.report("cost", run="x", price=1)


def test_several_datasets_are_reported_as_one(dataset: dc.Dataset, tmp_path: Path) -> None:
    """What clients did that work apart adds up."""
    dc.map(work, range(100, 110), tmp_path / "other").wait(progress="quiet")
    both = dc.open([dataset.url, tmp_path / "other"])
    assert both.report("history").attempts.to_list() == [40, 20, 10]


@pytest.mark.parametrize("name", BUILTIN)
def test_the_command_line_tells_the_same(dataset: dc.Dataset, name: str) -> None:
    """Each report is a command, as a table and as JSON."""
    price = ["--price", "2"] if name == "cost" else []
    told = CliRunner().invoke(command, ["report", name, dataset.url, *price])
    assert told.exit_code == 0, told.output
    assert "permanent" in told.output or name != "failures"
    lines = CliRunner().invoke(command, ["report", name, dataset.url, "--json", *price]).output.splitlines()
    frame = dataset.report(name, **({"price": 2} if price else {}))
    assert len(lines) == len(frame)
    assert list(json.loads(lines[0])) == list(frame.columns)


def test_prices_by_host_are_read_from_the_command_line(dataset: dc.Dataset) -> None:
    """A price without a host is for all others, wherever it stands; what is no price is bad use."""
    told = [
        CliRunner().invoke(command, ["report", "cost", dataset.url, "--json", "--price", one, "--price", "*nowhere*=7"]) for one in "24"
    ]
    low, high = (json.loads(one.output.splitlines()[0])["cost"] for one in told)
    assert high == pytest.approx(2 * low)
    assert CliRunner().invoke(command, ["report", "cost", dataset.url, "--price", "cheap"]).exit_code == 2


def test_without_bokeh_the_page_says_what_to_install(dataset: dc.Dataset) -> None:
    """Where the extra is missing, the line that installs it is the error."""
    code = "import sys; sys.modules['bokeh'] = None; from dcompute.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "report", "html", dataset.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'pip install "dcompute[report]"' in done.stderr
