"""Scripts that end early or do not wait: Ctrl-C commits what is done, and the interpreter waits for a run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import dcompute as dc
from dcompute.dataset.store import Store
from dcompute.dataset.writer import open_dataset
from tests.processes import below, until

SCRIPT = """\
import os, sys, time
import dcompute as dc

def work(x):
    with open(r"{trace}", "a") as file:
        file.write(f"{{x}}\\n")
    while x % 4 == 3 and not os.path.exists(r"{go}"):
        time.sleep(0.01)
    return x

run = dc.map(work, range({items}), r"{dataset}", batch_size=4)
{then}
"""
WAITS = 'run.wait(progress="quiet")'
ITEMS = 8


class Script:
    """A script on the disk, started as a user would."""

    def __init__(self, folder: Path, then: str) -> None:
        self.dataset, self.trace, self.go = folder / "d", folder / "trace", folder / "go"
        self.path = folder / "index.py"
        self.path.write_text(SCRIPT.format(trace=self.trace, go=self.go, items=ITEMS, dataset=self.dataset, then=then))

    def start(self) -> subprocess.Popen[str]:
        words = [sys.executable, self.path.name, "--fast"]
        return subprocess.Popen(words, cwd=self.path.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def hangs(self) -> None:
        """Wait until an item hangs."""
        until(lambda: self.trace.exists() and any(int(x) % 4 == 3 for x in self.trace.read_text().split()), 60, "an item that hangs")

    def values(self) -> list[int]:
        return sorted(dc.open(self.dataset).results().compute()["value"])


def test_ctrl_c_in_wait_commits_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    """The script ends as interrupted ones do, children and all; the same line then does the rest."""
    script = Script(tmp_path, WAITS)
    process = script.start()
    script.hangs()
    ours = below(process.pid, "dcompute.worker")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "run the same line again: python index.py --fast" in err
    assert "KeyboardInterrupt" in err
    done = script.values()
    assert set(done) == {int(x) for x in script.trace.read_text().split() if int(x) % 4 != 3}
    assert f"{len(done)} succeeded" in err
    until(lambda: not any(psutil.pid_exists(pid) for pid in ours), 5, "the end of the children")
    script.go.touch()
    again = script.start()
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert script.values() == list(range(ITEMS))


def test_a_script_that_ends_without_wait_waits_for_its_run(tmp_path: Path) -> None:
    """As executors do: all is done and closed when the process is gone."""
    script = Script(tmp_path, 'print("the last line", flush=True)')
    process = script.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "the last line\n"
    script.hangs()
    assert process.poll() is None
    script.go.touch()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert script.values() == list(range(ITEMS))
    _, state = open_dataset(Store.at(script.dataset))
    assert not state.is_open


def test_ctrl_c_while_the_interpreter_waits_commits_what_is_done(tmp_path: Path) -> None:
    """Also after the script's last line a person learns how to go on, and a shell that it was interrupted; other work at exit is done."""
    script = Script(tmp_path, 'import atexit; atexit.register(print, "at exit")')
    process = script.start()
    script.hangs()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert out == "at exit\n"
    assert "run the same line again: python index.py --fast" in err
    assert "Traceback" not in err
    done = script.values()
    assert set(done) == {int(x) for x in script.trace.read_text().split() if int(x) % 4 != 3}
    assert not open_dataset(Store.at(script.dataset))[1].is_open


@pytest.mark.parametrize(("then", "last"), [("for _ in run.as_completed(): pass", "KeyboardInterrupt"), ("time.sleep(60)", "To go on")])
def test_ctrl_c_elsewhere_in_a_script_ends_its_run_too(tmp_path: Path, then: str, last: str) -> None:
    """Where outcomes are awaited as in wait(), before the traceback; anywhere else when the interpreter ends, which waits for no item."""
    script = Script(tmp_path, then)
    process = script.start()
    script.hangs()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "run the same line again: python index.py --fast" in err
    assert last in err.splitlines()[-1]
    assert set(script.values()) == {int(x) for x in script.trace.read_text().split() if int(x) % 4 != 3}
    assert dc.open(script.dataset).status().state == "cancelled"


def test_an_error_that_nobody_waited_for_is_told(tmp_path: Path) -> None:
    """A run that failed does not end in silence because its script did not wait."""
    script = Script(tmp_path, "")
    text = script.path.read_text().replace("range(8)", "iter([1, object()])")
    script.path.write_text(text)
    process = script.start()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nobody waited for" in err
    assert "key=" in err


def test_errors_raise_without_wait_ends_the_script_with_its_error_and_all_else_done(tmp_path: Path) -> None:
    """The exit code says that it failed; functions registered for exit are called, and what a file holds back is written."""
    kept = tmp_path / "kept"
    script = Script(tmp_path, f'import atexit; atexit.register(print, "at exit"); kept = open({str(kept)!r}, "w"); kept.write("held back")')
    text = script.path.read_text().replace("batch_size=4", 'errors="raise"')
    script.path.write_text(text.replace("    return x", '    raise ValueError("no such thing")'))
    script.go.touch()
    process = script.start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no such thing" in err
    assert out == "at exit\n"
    assert kept.read_text() == "held back"


@pytest.mark.parametrize("then", [WAITS, ""], ids=["in wait", "at exit"])
def test_a_second_ctrl_c_leaves_a_commit_that_takes_long(tmp_path: Path, then: str) -> None:
    """A storage that fails would be waited for; the process ends at once, says what stays, and the same line goes on with it."""
    script = Script(tmp_path, then)
    process = script.start()
    script.hangs()
    log = script.dataset / "log"
    log.rename(log.with_name("away"))
    log.touch()  # every commit fails now
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    first = process.stderr.readline()
    while "Ctrl-C again leaves" not in first:
        first = process.stderr.readline()
    until(lambda: "trying again" in process.stderr.readline(), 20, "a commit that failed")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "What was committed stays" in err
    assert "run the same line again: python index.py --fast" in err
    log.unlink()
    log.with_name("away").rename(log)
    script.go.touch()
    again = script.start()
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert script.values() == list(range(ITEMS))
