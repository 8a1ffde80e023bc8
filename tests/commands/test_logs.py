"""What items print in real runs, from the program to the reader."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dask

import dcompute as dc
from dcompute.dataset.following import run_at_work
from tests.processes import until


def talks(number: int) -> None:
    """Prints many lines, and for 2 dies of it."""
    for line in range(number):
        print(f"line {line}")
    if number == 20_001:
        raise ValueError("enough")


def test_functions_and_programs_are_heard(tmp_path: Path) -> None:
    """Long output is kept whole whoever printed it, of failed items too; short output stays in the rows alone."""
    dc.map(talks, [3, 20_000, 20_001], tmp_path / "functions").wait(progress="quiet")
    texts = {one.item_key: one.text.splitlines() for one in dc.open(tmp_path / "functions").logs()}
    assert {key: (text[0], text[-1], len(text)) for key, text in texts.items()} == {
        key: ("line 0", f"line {int(key) - 1}", int(key)) for key in ("3", "20000", "20001")
    }
    seq = dc.command([sys.executable, "-c", "import sys; [print(n, file=sys.stderr) for n in range({input})]"])
    dc.map(seq, [3, 30_000], tmp_path / "programs").wait(progress="quiet")
    programs = dc.open(tmp_path / "programs")
    assert {one.item_key: len(one.text.splitlines()) for one in programs.logs()} == {"3": 3, "30000": 30_000}
    stderr = programs.attempts(["stderr"]).compute()["stderr"]
    assert stderr.str.len().max() < 17 << 10
    assert {one.stream for one in programs.logs()} == {"stderr"}


def test_nobody_s_flood_fills_the_disk(tmp_path: Path) -> None:
    """Of 50 MB both ends are kept, and how much there was is told."""
    with dask.config.set({"dcompute.logs.item": "64 KiB"}):
        dc.map(dc.command("sh -c 'head -c 50000000 /dev/zero | tr \"\\0\" x'"), [1], tmp_path / "out").wait(progress="quiet")
    (one,) = dc.open(tmp_path / "out").logs()
    assert one.bytes == 50_000_000
    assert len(one.text) < 66 << 10
    assert "bytes left out" in one.text
    assert sum(path.stat().st_size for path in (tmp_path / "out" / "logs").iterdir()) < 10_000


def test_what_is_short_makes_no_log_part(tmp_path: Path) -> None:
    """What is not used costs no file."""
    dc.map(talks, [1, 2], tmp_path / "out").wait(progress="quiet")
    assert not (tmp_path / "out" / "logs").exists()


def test_a_run_is_followed_from_elsewhere(tmp_path: Path, python: Any) -> None:
    """Another process, with nothing but the dataset, sees what items print while they are at work, and ends with the run."""
    words = ["sh", "-c", "for i in $(seq 60); do echo line $i of {key}; sleep 0.1; done; echo the end of {key}"]
    run = dc.map(dc.command(words), ["a", "b"], tmp_path / "out")
    until(lambda: (tmp_path / "out" / "log").exists() and run_at_work(dc.open(tmp_path / "out")), 30, "the run")
    done = python("-m", "dask", "dcompute", "logs", "out", "-f", "--item", "a")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "a: the end of a" in lines
    assert all(text.startswith("a: ") and text.endswith("of a") for text in lines)
    assert len(lines) > 5
    run.wait(progress="quiet")
