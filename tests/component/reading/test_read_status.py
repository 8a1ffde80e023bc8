"""The reading side that users hold."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from dcompute.dataset import Dataset
from dcompute.dataset import open as open_dataset
from dcompute.dataset.entries import Close
from dcompute.dataset.lease import Process
from dcompute.dataset.requests import RequestReader
from dcompute.errors import DatasetNotFoundError


def alive() -> dict[str, Any]:
    own = Process.own()
    return {"host": own.host, "boot": own.boot, "pid": own.pid, "started": own.started, "at": 5.0}


def test_a_place_without_a_dataset_is_an_error_at_once(tmp_path: Path) -> None:
    """Opening says that nothing is there, not the first read."""
    with pytest.raises(DatasetNotFoundError, match="no dataset"):
        open_dataset(tmp_path / "nothing")


def test_status_prints_as_lines_for_people(scene: Any, did: Any) -> None:
    """A name and its value a line, what says nothing left out; an opened dataset says whose it is."""
    scene.open().add(did("a", rows=[{"n": 1}]), did("c", failed="crash"))
    scene.commit(Close(epoch=1)).publish()
    opened = open_dataset(scene.store.url)
    lines = dict(re.split("  +", line, maxsplit=1) for line in str(opened.status()).splitlines())
    assert {"workload": "w", "state": "idle", "succeeded": "1", "stored rows": "1"}.items() <= lines.items()
    assert "failed by kind  1 crash" in str(opened.status())
    assert "driver" not in str(opened.status())
    assert repr(opened) == f"<Dataset {scene.store.url} of w>"


def test_status_tells_how_far_it_is(scene: Any, did: Any) -> None:
    """Items by their newest outcome, attempts with history, rows, and the workload."""
    scene.open().add(did("a", rows=[{"n": 1}, {"n": 2}]), did("b", failed="transient"), did("c", failed="crash")).add(
        did("b", 2, rows=[{"n": 3}])
    )
    scene.commit(Close(epoch=1)).publish()
    found = open_dataset(scene.store.url).status()
    assert (found.workload, found.state, found.driver_pid, found.runs) == ("w", "idle", None, 1)
    assert (found.succeeded, found.failed, dict(found.failed_by_kind)) == (2, 1, {"crash": 1})
    assert (found.attempts, found.stored_rows, found.last_commit) == (4, 3, 1004.0)
    assert found.bytes > 0


def test_status_calls_no_stored_row_one_that_counts(scene: Any, did: Any) -> None:
    """Rows of changed items stay in their files until compaction: how many rows count, only the results say."""
    scene.open().add(did("a", rows=[{"n": 1}, {"n": 2}])).hide("a").add(did("a", rows=[{"n": 3}])).publish()
    opened = open_dataset(scene.store.url)
    assert (opened.status().stored_rows, len(opened.results())) == (3, 1)
    assert "rows" not in opened.status().figures()


def test_a_changed_item_is_counted_once(scene: Any, did: Any) -> None:
    """What a hide ended is no outcome any more: an item that succeeded and then failed on its new input has failed."""
    scene.open().add(did("a"), did("b")).hide("a").add(did("a", failed="permanent")).publish()
    found = open_dataset(scene.store.url).status()
    assert (found.succeeded, found.failed) == (1, 1)


def test_a_live_driver_is_shown_and_a_dead_one_told_from_it(scene: Any) -> None:
    """An open epoch is running while its process lives, and interrupted after."""
    scene.open(**alive()).publish()
    found = open_dataset(scene.store.url).status()
    assert (found.state, found.driver_host, found.driver_pid, found.driver_since) == ("running", socket.gethostname(), os.getpid(), 5.0)
    scene.open(**{**alive(), "epoch": 2, "started": 1.0}).publish()
    assert open_dataset(scene.store.url).status().state == "interrupted"


def test_a_driver_elsewhere_is_judged_by_its_heartbeat(scene: Any) -> None:
    """Of another host only the heartbeat can be seen: a fresh one is a running driver."""
    scene.open(host="elsewhere", boot="b", at=time.time() - 1e6).publish()
    dataset = open_dataset(scene.store.url)
    assert dataset.status().state == "interrupted"
    scene.store.write("runs/run.json", b'{"time": %f}' % time.time())
    assert dataset.status().state == "running"


def test_a_run_that_ended_early_is_called_as_it_ended(scene: Any) -> None:
    """What its close says, or its last heartbeat where something is still in flight; the next driver makes a new start."""
    scene.open().commit(Close(epoch=1, outcome="cancelled")).publish()
    dataset = open_dataset(scene.store.url)
    assert (dataset.status().state, open_dataset(scene.store.url, at=2).status().state) == ("cancelled", "cancelled")
    scene.open(**{**alive(), "epoch": 2}).publish()
    assert dataset.status().state == "running"
    scene.store.write("runs/run.json", b'{"state": "ended", "outcome": "failed"}')
    assert dataset.status().state == "failed"
    scene.store.write("runs/run.json", b'{"state": "ended", "outcome": ["new"]}')
    assert dataset.status().state == "interrupted"
    scene.commit(Close(epoch=2)).publish()
    assert dataset.status().state == "idle"


def test_refresh_shows_what_was_committed_since(scene: Any, did: Any) -> None:
    """A dataset stays as it was when first used, until it is refreshed."""
    scene.open().add(did("a", rows=[{"n": 1}])).publish()
    dataset = Dataset(scene.store)
    assert len(dataset.results()) == 1
    scene.add(did("b", rows=[{"n": 2}])).publish()
    assert len(dataset.results()) == 1
    assert len(dataset.refresh().results()) == 2
    assert len(dataset.attempts()) == 2
    assert len(dataset.failures()) == 0


def test_cancel_asks_the_run_at_work_and_no_other(scene: Any) -> None:
    """A request goes to a driver that is at work; where there is none nothing is asked."""
    scene.open(**alive()).publish()
    assert Dataset(scene.store).cancel() == "run"
    request = RequestReader(scene.store, "run").next()
    assert request is not None
    assert request["do"] == "cancel"
    scene.commit(Close(epoch=1)).publish()
    assert Dataset(scene.store).cancel() is None


def test_a_notebook_shows_it_safely(scene: Any) -> None:
    """The HTML holds the figures, and no markup of the dataset's own."""
    scene.open(workload="<b>w</b>").publish()
    html = Dataset(scene.store)._repr_html_()
    assert "&lt;b&gt;w&lt;/b&gt;" in html
    assert repr(Dataset(scene.store)) == f"<Dataset {scene.store.url}>"
