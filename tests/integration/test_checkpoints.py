"""Checkpoints of real runs, and of drivers that are killed while they write one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dask

import dcompute as dc
from dcompute.dataset.log import Log
from dcompute.dataset.state import fold
from dcompute.dataset.status import status_of
from dcompute.dataset.store import Store

HERE = Path(__file__).parent


def double(number: int) -> int:
    return 2 * number


def test_a_run_with_many_commits_leaves_a_checkpoint_and_goes_on_from_it(tmp_path: Path) -> None:
    """What is read by its checkpoint is what the log says, and the same line again goes on from it."""
    url = str(tmp_path / "dataset")
    with dask.config.set({"dcompute.driver.checkpoint": 3, "dcompute.driver.commit-interval": 0}):
        for count in (6, 12):
            run = dc.map(double, range(count), url, batch_size=1)
            run.wait(progress="quiet")
            assert run.summary().succeeded == 6
    opened = dc.open(url)
    assert opened.state.checkpoint > 3
    assert sorted(opened.results().compute(scheduler="synchronous")["value"]) == [2 * number for number in range(12)]
    assert opened.status().succeeded == 12
    whole = fold(Log(Store.at(url)).read_all())
    assert list(opened.state.batches) == list(whole.batches)
    assert status_of(opened._store, opened.state) == status_of(opened._store, whole)


def test_a_driver_killed_while_it_writes_a_checkpoint_harms_nothing(tmp_path: Path) -> None:
    """Before whichever system call of it: the log is whole, opening gives what the log says, and a successor goes on."""
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_checkpoint.py"), str(tmp_path)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) > 10
    for step in steps:
        assert step["same"], step
        assert step["entries"] >= 4, step
    # every stage was among the moments of its death: nothing of it there, the file there and no hint of it, both there
    assert {(step["files"], step["used"]) for step in steps} == {(0, 0), (1, 0), (1, 4)}
    assert steps[-1]["done"]
