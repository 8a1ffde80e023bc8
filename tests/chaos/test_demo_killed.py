"""The demo, killed at random points of its progress and run again: nothing is lost, done twice or seen twice."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dcompute as dc
from tests.processes import until

ROOT = Path(__file__).resolve().parents[2]
#: Seconds by which each file is slowed: without it a quick machine is done before anything can be killed.
PAUSE = 0.03
#: So many batches execute at once, of at most so many files, on any machine: what a kill may cost is known, and progress has small steps.
SLOTS, FILES = 2, 5
SETTINGS = {
    "DASK_DCOMPUTE__LOCAL__THREADS": str(SLOTS),
    "DASK_DCOMPUTE__BATCH__ITEMS": str(FILES),
    "DASK_DCOMPUTE__DRIVER__COMMIT_INTERVAL": "300 ms",
}
#: A kill comes up to so many begun files after the commit that it waits for: in the middle of batches, and between marks and their commit.
BEYOND = 12


class Demo:
    """The demo on a few packages of the standard library, in a folder of its own, with a trace of what it executes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.home.mkdir()
        self.trace = home / "trace"
        self.trace.touch()

    def start(self) -> subprocess.Popen[bytes]:
        """The same command each time."""
        words = ["--home", self.home, "--only", "json", "email", "asyncio", "encodings", "--pause", PAUSE, "--trace", self.trace]
        with (self.home / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "demo" / "run.py"), *map(str, words)],
                cwd=self.home,
                env=os.environ | SETTINGS,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @functools.cached_property
    def dataset(self) -> dc.Dataset:
        """Opened once: what was committed since is read by :meth:`committed`."""
        return dc.open(self.home / "dataset")

    def sources(self) -> list[str]:
        """The files to index, once they are there."""
        source = self.home / "source"
        until(source.exists, 60, "the sources")
        return sorted(map(str, source.rglob("*.py")))

    def committed(self) -> int:
        """Files with a committed outcome."""
        if not (self.home / "dataset" / "dataset.json").exists():
            return 0
        status = self.dataset.status()  # reads what is new in the log
        return status.succeeded + status.failed

    def begun(self) -> list[tuple[str, str]]:
        """Run and file of each execution, in the order of their beginnings."""
        return [(run, file) for run, _, file in (line.partition(" ") for line in self.trace.read_text().splitlines())]

    def marks(self) -> set[str]:
        """Ids of the batches that are written."""
        return {mark.stem for mark in (self.home / "dataset" / "attempts").glob("*.parquet")}

    def symbols(self) -> pd.DataFrame:
        """All rows but for where the folder is, sorted."""
        frame = self.dataset.results().compute().drop(columns=["item_key"])
        return frame.sort_values(["file", "line", "qualified_name", "kind"]).reset_index(drop=True)


def kill_at(demo: Demo, committed: int, beyond: int) -> int:
    """Start it and kill it when so many files are committed and so many more begun; how many are committed then."""
    process = demo.start()
    try:
        until(lambda: demo.committed() >= committed or process.poll() is not None, 60, f"{committed} committed files")
        begun = len(demo.begun()) + beyond
        until(lambda: len(demo.begun()) >= begun or process.poll() is not None, 60, f"{beyond} more begun files")
        assert process.poll() is None, (demo.home / "output").read_text()
    finally:
        process.kill()
        process.wait()
    return demo.committed()


@pytest.mark.timeout(900)
def test_the_demo_killed_at_random_points_ends_as_if_it_was_not(tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """SIGKILL after SIGKILL, each at a later point of its progress and followed by the same command.

    In the end the rows are those of an undisturbed demo, each file has one attempt, none was executed after its batch was written, and a
    kill cost no more executions than the batches at work had files.
    """
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CHAOS_SEED={seed}")
    chance = random.Random(seed)
    quiet, killed = Demo(tmp_path / "quiet"), Demo(tmp_path / "killed")
    undisturbed = quiet.start()
    files = len(quiet.sources())
    points = sorted(chance.sample(range(1, files * 4 // 5), rounds(10, 20)))
    done, written = [0], set[str]()
    for point in points:
        done.append(kill_at(killed, max(point, done[-1] + 1), chance.randrange(BEYOND)))
        written |= killed.marks()
    assert len(set(done)) == len(done), "a kill without progress before it"
    assert killed.start().wait(timeout=300) == 0
    assert undisturbed.wait(timeout=300) == 0

    print(f"committed at each kill: {done[1:]} of {files}, after the end: {killed.committed()}")
    pd.testing.assert_frame_equal(killed.symbols(), quiet.symbols())
    attempts = killed.dataset.attempts()[["item_key", "run", "batch"]].compute()
    assert Counter(attempts["item_key"]) == Counter(killed.sources())
    assert written <= set(attempts["batch"])
    check_executions(killed, dict(zip(attempts["item_key"], attempts["run"], strict=True)))


def check_executions(demo: Demo, wrote: dict[str, str]) -> None:
    """Nothing was executed again but what was in flight when a run was killed; ``wrote``: the run that wrote each file's attempt."""
    begun = demo.begun()
    last = {file: run for run, file in begun}
    assert last == wrote, "executed again after its batch was written"
    assert max(Counter(begun).values()) == 1, "executed twice by one run"
    again = Counter(run for run, file in begun if wrote[file] != run)
    print(f"executed again after each kill: {sorted(again.values())}")
    assert max(again.values(), default=0) <= SLOTS * FILES
