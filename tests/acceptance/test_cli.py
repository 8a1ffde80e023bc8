"""The command line as people use it: real processes, real signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dcompute.cli.main import dcompute

#: What an installer writes for the entry point of ``pyproject.toml``.
SCRIPT = "from dcompute.cli.main import main\nmain()\n"

WORK = '''
"""A workload whose items do what their file says."""
import os, time
from pathlib import Path

def read(path, factor=1):
    text = Path(path).read_text().strip()
    if text == "fail":
        raise ValueError("told to fail")
    if text == "wait":
        while not Path(path).with_name("go").exists():
            time.sleep(0.02)
    return {"length": len(text) * factor, "name": Path(path).name}

def add(a, b, label="x"):
    return {"sum": a + b, "label": f"{label}:{type(label).__name__}"}

def upper(text):
    return text.upper()
'''

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory with a workload in it."""
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "in").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dcompute").write_text(SCRIPT)
    return tmp_path


def give(here: Path, **texts: str) -> None:
    """Write input files."""
    for name, text in texts.items():
        (here / "in" / f"{name}.txt").write_text(text)


def environment(**more: str) -> dict[str, str]:
    """The environment of a command; no settings of this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    return {**kept, "DASK_CONFIG": os.devnull, "PYTHONPATH": str(Path(__file__).parents[2]), **more}


def call(here: Path, *args: str, given: str | None = None, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and see that it has this exit code."""
    done = subprocess.run(
        [sys.executable, "bin/dcompute", *args],
        cwd=here,
        env=environment(**env),
        input=given,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(here: Path, *args: str) -> subprocess.Popen[str]:
    """Start a command and leave it at work."""
    command = [sys.executable, "bin/dcompute", *args]
    return subprocess.Popen(command, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(here: Path, command: str, dataset: str = "out", *args: str) -> list[dict]:
    """What a command says as JSON lines; in this process, which saves the time of its start."""
    done = CliRunner().invoke(dcompute, [command, str(here / dataset), "--json", *args])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def succeeded(here: Path) -> int:
    """How many items the dataset has, 0 while there is none."""
    return int(records(here, "status")[0]["succeeded"]) if (here / "out" / "log").exists() else 0


def until_succeeded(here: Path, count: int) -> None:
    """Wait until so many items are committed."""
    deadline = time.monotonic() + 40
    while succeeded(here) < count:
        assert time.monotonic() < deadline, "the run commits nothing"
        time.sleep(0.05)


@pytest.fixture
def under_way(here: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of which three items are committed and two wait."""
    give(here, a="1", b="22", c="333", w1="wait", w2="wait")
    process = start(here, "run", "work.py:read", "in/*.txt", "out", "--workers", "2", "--batch-size", "1")
    try:
        until_succeeded(here, 3)
        yield process
    finally:
        process.kill()
        process.communicate()


class TestRun:
    def test_runs_and_goes_on(self, here):
        """Files in, rows out; the same line again executes nothing, and one more file is one more item."""
        give(here, a="1", b="22")
        first = call(here, "run", "work.py:read", "in/*.txt", "out", "--set", "factor=10")
        assert "2 succeeded" in first.stdout
        assert {(row["name"], row["length"]) for row in records(here, "results")} == {("a.txt", 10), ("b.txt", 20)}
        assert "up to date" in call(here, "run", "work.py:read", "in/*.txt", "out", "--set", "factor=10").stdout
        give(here, c="333")
        third = call(here, "run", "work.py:read", "in/*.txt", "out", "--set", "factor=10", "--json")
        assert json.loads(third.stdout)["succeeded"] == 1
        assert json.loads(third.stdout)["skipped"] == 2

    def test_failed_items_are_exit_code_1(self, here):
        """One fails: 1, with --ignore-failures 0; it stays failed until it is retried."""
        give(here, good="1", bad="fail")
        line = ("run", "work.py:read", "in/*.txt", "out")
        assert "1 failed" in call(here, *line, code=1).stdout
        assert "1 failed before" in call(here, *line, "--ignore-failures", code=0).stdout
        (row,) = records(here, "failures")
        assert row["item_key"].endswith("bad.txt")
        assert (row["kind"], row["error"].rpartition(".")[2], row["message"]) == ("permanent", "ValueError", "told to fail")
        assert records(here, "failures", "out", "--by", "kind")[0]["items"] == 1
        assert 'raise ValueError("told to fail")' in call(here, "failures", "out", "--tracebacks").stdout
        give(here, bad="now it is good")
        assert "1 succeeded" in call(here, *line, "--retry-failed", code=0).stdout

    def test_stops_at_the_first_failure_when_told_to(self, here):
        """``--errors raise``: exit code 1, with the traceback of the item."""
        give(here, bad="fail")
        done = call(here, "run", "work.py:read", "in/*.txt", "out", "--errors", "raise", "-q", code=1)
        assert "told to fail" in done.stderr
        assert done.stderr.count("Traceback") == 1
        assert done.stdout == ""

    def test_lines_of_standard_input(self, here):
        """Each line is an item, without its end; empty lines are none."""
        call(here, "run", "work.py:upper", "-", "out", given="one\n\ntwo\n")
        assert {(row["item_key"], row["value"]) for row in records(here, "results")} == {("one", "ONE"), ("two", "TWO")}

    def test_rows_of_a_table(self, here):
        """A CSV file is an item a row, its columns are keyword arguments, --set adds more with their JSON types."""
        (here / "grid.csv").write_text("a,b\n1,2\n3,4\n")
        call(here, "run", "work.py:add", "grid.csv", "out", "--set", "label=7")
        assert {(row["sum"], row["label"]) for row in records(here, "results")} == {(3, "7:int"), (7, "7:int")}

    def test_a_table_as_a_file(self, here):
        """``--files``: the file itself is the item."""
        (here / "grid.csv").write_text("a,b\n")
        call(here, "run", "work.py:read", "grid.csv", "out", "--files")
        assert [row["name"] for row in records(here, "results")] == ["grid.csv"]

    def test_requirements_override_the_workload(self, here):
        """``--timeout`` kills what takes longer, and only that."""
        give(here, good="1", slow="wait")
        call(here, "run", "work.py:read", "in/*.txt", "out", "--timeout", "1s", code=1)
        assert [row["kind"] for row in records(here, "failures")] == ["timeout"]
        assert len(records(here, "results")) == 1

    def test_a_dry_run_writes_nothing(self, here):
        """It says what would be done and why; there is no dataset after it."""
        give(here, a="1", b="22")
        assert "2" in call(here, "run", "work.py:read", "in/*.txt", "out", "-n").stdout
        assert not (here / "out").exists()

    def test_a_module_of_the_working_directory(self, here):
        """``work:read`` finds ``work.py``, as ``python -m work`` does."""
        give(here, a="1")
        call(here, "run", "work:read", "in/*.txt", "out")
        assert len(records(here, "results")) == 1

    def test_a_log_gets_lines_and_stdout_only_the_summary(self, here):
        """Progress goes to stderr, so that stdout can be read by a program."""
        give(here, a="1")
        done = call(here, "run", "work.py:read", "in/*.txt", "out", "--json")
        json.loads(done.stdout)
        assert "1 of 1 done" in done.stderr


class TestBadUse:
    @pytest.mark.parametrize(
        ("args", "told"),
        [
            (["run", "work.py:red", "in/*.txt", "out"], "is 'read' meant?"),
            (["run", "nowhere.py:read", "in/*.txt", "out"], "no file nowhere.py"),
            (["run", "work.py:read", "in/nothing*.txt", "out"], "nothing*.txt"),
            (["run", "work.py:read", "out"], "Missing argument"),
            (["run", "work.py:read", "-", "in/*.txt", "out"], "cannot be mixed"),
            (["run", "work.py:read", "in/*.txt", "out", "--memory", "lots"], "lots"),
            (["run", "work.py:read", "in/*.txt", "out", "--max-failures", "1.5"], "--max-failures"),
            (["run", "work.py:read", "in/*.txt", "out", "--workers", "2", "--scheduler", "tcp://h:1"], "--workers"),
            (["run", "work.py:read", "in/*.txt", "out", "--set", "factor=1", "--set", "factor=2"], "twice"),
            (["status", "nothing"], "nothing"),
            (["cancel", "nothing"], "nothing"),
        ],
    )
    def test_is_exit_code_2_and_says_what_is_wrong(self, here, args, told):
        """Nothing is executed, and no traceback is shown."""
        give(here, a="1")
        done = call(here, *args, code=2)
        assert told in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_wrong_setting_is_exit_code_2(self, here):
        """The variable and the nearest right value are named."""
        give(here, a="1")
        done = call(here, "run", "work.py:read", "in/*.txt", "out", code=2, DASK_DCOMPUTE__METRICS="ful")
        assert "DASK_DCOMPUTE__METRICS" in done.stderr
        assert "'full'" in done.stderr

    def test_a_dataset_of_another_workload_is_exit_code_2(self, here):
        """Both names are told."""
        give(here, a="1")
        call(here, "run", "work.py:upper", "-", "out", given="x\n")
        done = call(here, "run", "work.py:read", "in/*.txt", "out", code=2)
        assert "upper" in done.stderr
        assert "read" in done.stderr


class TestBroken:
    def test_a_cluster_that_does_not_answer_is_exit_code_3(self, here):
        """With the address."""
        give(here, a="1")
        line = ("run", "work.py:read", "in/*.txt", "out", "--scheduler", "tcp://127.0.0.1:9")
        done = call(here, *line, code=3, DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s")
        assert "127.0.0.1:9" in done.stderr

    def test_storage_that_cannot_be_written_is_exit_code_3(self, here):
        """A dataset below a file, which is named."""
        give(here, a="1")
        assert "work.py is a file" in call(here, "run", "work.py:read", "in/*.txt", "work.py/out", code=3).stderr


class TestInterrupted:
    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_commits_what_is_done_and_the_same_line_goes_on(self, here, under_way, sent):
        """Exit code 130, the line that goes on, and that line does."""
        under_way.send_signal(sent)
        _, told = under_way.communicate(timeout=30)
        assert under_way.returncode == 130, told
        assert "dcompute run work.py:read 'in/*.txt' out --workers 2" in told
        assert "Traceback" not in told
        (here / "in" / "go").touch()
        again = call(here, "run", "work.py:read", "in/*.txt", "out", "--json")
        assert json.loads(again.stdout)["succeeded"] == 2
        assert sorted(row["name"] for row in records(here, "results")) == ["a.txt", "b.txt", "c.txt", "w1.txt", "w2.txt"]

    def test_cancel_ends_a_run_from_another_process(self, here, under_way):
        """Within seconds, with exit code 130; a second cancel finds nothing to do."""
        assert "asked to stop" in call(here, "cancel", "out").stdout
        _, told = under_way.communicate(timeout=30)
        assert under_way.returncode == 130, told
        assert succeeded(here) == 3
        assert "nothing to cancel" in call(here, "cancel", "out").stdout

    def test_a_second_run_is_refused_until_it_takes_over(self, here, under_way):
        """Busy is exit code 3 and names the process; --takeover fences the first run off, which ends with 3."""
        line = ("run", "work.py:read", "in/*.txt", "out", "--workers", "2")
        assert str(under_way.pid) in call(here, *line, code=3).stderr
        (here / "in" / "go").touch()
        # The first run may end well before it meets the new epoch.
        call(here, *line, "--takeover")
        under_way.communicate(timeout=30)
        assert under_way.returncode in (0, 3)
        assert len(records(here, "results")) == 5


class TestShow:
    def test_shows_a_dataset(self, here):
        """Status, results and attempts for people and for programs."""
        give(here, a="1", b="22", c="333")
        call(here, "run", "work.py:read", "in/*.txt", "out", "-q")
        assert "read" in call(here, "status", "out").stdout
        assert json.loads(call(here, "status", "out", "--json").stdout)["succeeded"] == 3
        table = call(here, "results", "out", "--columns", "name,length", "--limit", "2")
        assert table.stdout.splitlines()[0].split() == ["name", "length"]
        assert len(table.stdout.splitlines()) == 3
        assert "the first 2 rows" in table.stderr
        attempts = records(here, "attempts")
        assert {row["outcome"] for row in attempts} == {"succeeded"}
        assert "no rows" in call(here, "failures", "out").stderr
        assert "is 'length' meant?" in call(here, "results", "out", "--columns", "lenght", code=2).stderr

    def test_a_reader_that_has_enough_is_no_error(self, here):
        """``| head`` closes the pipe: no traceback."""
        call(here, "run", "work.py:upper", "-", "out", "-q", given="".join(f"line {n} {'x' * 50}\n" for n in range(2000)))
        process = start(here, "results", "out", "--json")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 0


class TestHelp:
    @pytest.mark.parametrize("command", ["run", "status", "failures", "results", "attempts", "cancel"])
    def test_every_command_has_examples_and_exit_codes(self, here, command):
        """The help is enough to begin with."""
        text = call(here, command, "--help").stdout
        assert f"dcompute {command}" in text
        assert "Exit codes:" in text

    def test_is_there_as_dask_dcompute(self, here):
        """Registered with Dask's command line, errors keep their exit codes."""
        code = (
            "import dask.cli; from importlib.metadata import EntryPoint;"
            "dask.cli._register_command_ep(dask.cli.cli, EntryPoint('dcompute', 'dcompute.cli.main:dcompute', 'dask_cli'));"
            "dask.cli.cli(prog_name='dask')"
        )
        done = [
            subprocess.run([sys.executable, "-c", code, *args], cwd=here, env=environment(), capture_output=True, text=True, check=False)
            for args in (["dcompute", "run", "--help"], ["dcompute", "status", "nothing"])
        ]
        assert [one.returncode for one in done] == [0, 2]
        assert "dask dcompute run" in done[0].stdout

    def test_loads_nothing_heavy(self, here):
        """Help and completion answer at once: Dask, pandas and Arrow are not loaded for them."""
        code = (
            "import sys; from dcompute.cli.main import dcompute; dcompute(['--help'], standalone_mode=False);"
            "print([name for name in ('dask', 'distributed', 'pandas', 'pyarrow', 'pydantic', 'rich') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment(), capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
