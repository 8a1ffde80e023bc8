"""The demo, killed at random points of its progress and run again: nothing is lost, done twice or seen twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dcompute as dc

ROOT = Path(__file__).resolve().parents[2]
#: Seconds by which each file is slowed: without it a quick machine is done before anything can be killed.
PAUSE = "0.03"


def start(home: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "demo" / "run.py"), "--home", str(home), "--only", "json", "email", "asyncio", "--pause", PAUSE]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def symbols(home: Path) -> pd.DataFrame:
    """All rows but for where the folder is, sorted."""
    frame = dc.open(home / "dataset").results().compute().drop(columns=["item_key"])
    return frame.sort_values(["file", "line", "qualified_name", "kind"]).reset_index(drop=True)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_the_demo_killed_at_random_points_ends_as_if_it_was_not(tmp_path: Path, rounds: Callable[[int, int], int]) -> None:
    """SIGKILL after SIGKILL, each followed by the same command; in the end the rows are those of an undisturbed demo."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CHAOS_SEED={seed}")
    moments = random.Random(seed)
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    for home in (quiet, killed):
        home.mkdir()
    for _ in range(rounds(1, 10)):
        process = start(killed)
        time.sleep(moments.uniform(1.0, 5.0))
        process.kill()
        process.wait()
    assert start(killed).wait(timeout=300) == 0
    assert start(quiet).wait(timeout=300) == 0
    pd.testing.assert_frame_equal(symbols(killed), symbols(quiet))
    attempts = dc.open(killed / "dataset").attempts().compute()
    committed = Counter(attempts[attempts["outcome"] == "succeeded"]["item_key"])
    assert set(committed.values()) == {1}
