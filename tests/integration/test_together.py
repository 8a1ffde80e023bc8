"""Several runs of one process that name no client: one local cluster, whose slots they share."""

from __future__ import annotations

from pathlib import Path

import pytest

import dcompute as dc
from dcompute.connection import _locals, connect
from tests.processes import until

SLOTS = 2


@pytest.fixture(autouse=True)
def _two_slots():
    import dask

    with dask.config.set({"dcompute.local.workers": 1, "dcompute.local.threads": SLOTS}):
        yield


def work(x: int, trace: str, name: str) -> int:
    import os
    import time

    noted = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(noted, f"+ {name}\n".encode())
    time.sleep(0.2)
    os.write(noted, f"- {name}\n".encode())
    return x


def most_at_once(trace: Path) -> int:
    running = most = 0
    for line in trace.read_text().splitlines():
        running += 1 if line.startswith("+") else -1
        most = max(most, running)
    return most


def test_runs_that_overlap_use_the_machine_once(tmp_path: Path) -> None:
    """Two runs at once have no more items at work than one of them alone would; the cluster ends with the last of them."""
    trace = tmp_path / "trace"
    runs = [dc.map(work, range(12), tmp_path / name, params={"trace": str(trace), "name": name}, batch_size=1) for name in ("one", "other")]
    assert all(run.wait(60, progress="quiet") for run in runs)
    assert [len(run.results().compute()) for run in runs] == [12, 12]
    assert most_at_once(trace) <= SLOTS
    names = [line.split()[1] for line in trace.read_text().splitlines() if line.startswith("+")]
    assert len(set(names[:16])) == 2  # none had to wait for the end of the other
    until(lambda: not _locals._there, 10, "the end of the cluster")


def test_clusters_of_other_sizes_are_others() -> None:
    """Who asks for other threads gets a cluster of his own; who asks for the same, the same one, until both are done with it."""
    one, same, other = connect(None, workers=1), connect(None, workers=1), connect(None, workers=2)
    try:
        assert one.address == same.address != other.address
        one.close()
        assert [offer.nthreads for offer in same.offers().values()] == [1]
        assert not same.lost
    finally:
        same.close()
        other.close()
