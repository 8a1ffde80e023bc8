"""Inputs that change, vanish and come back: what a run does of them, and what stays in its dataset."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

import dcompute as dc
from dcompute.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[Client]:
    """A cluster for all runs of this file."""
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster, Client(cluster) as found:
        yield found


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three files that nobody touched for an hour."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in "abc":
        write(folder / name, name)
    return folder


def write(path: Path, text: str, age: float = 3600) -> None:
    path.write_text(text)
    os.utime(path, (time.time() - age, time.time() - age))


@dc.workload(isolation="thread")  # starts no child
def content(path: str) -> str:
    return Path(path).read_text()


@dc.workload(isolation="thread")
def same(n: int) -> int:
    return n


def done(workload: Any, inputs: Any, url: Path, **options: Any) -> dc.Run:
    run = dc.map(workload, inputs, url, **options)
    assert run.wait(60, progress="quiet")
    return run


def values(url: Path) -> dict[str, Any]:
    frame = dc.open(url).to_pandas()
    return {os.path.basename(key): value for key, value in zip(frame["item_key"], frame["value"], strict=True)}


def test_contents_decide_and_young_files_wait(raw: Path, tmp_path: Path) -> None:
    """A touched file is not done again, a changed one is, and one that changed a moment ago is left with its old result."""
    url = tmp_path / "d"
    done(content, dc.files(raw / "*", fingerprint="content"), url)
    write(raw / "a", "a", age=1800)
    write(raw / "b", "B", age=1800)
    write(raw / "c", "C", age=0)
    write(raw / "d", "d", age=0)
    run = done(content, dc.files(raw / "*", fingerprint="content", settle="5 min"), url, on_gone="drop")
    summary = run.summary()
    assert (summary.executed, summary.skipped, summary.redone, summary.unsettled, summary.dropped) == (1, 1, 1, 2, 0)
    assert "2 inputs changed a moment ago and are left for the next run" in str(summary)
    assert values(url) == {"a": "a", "b": "B", "c": "c"}
    none = done(content, dc.files(raw / "d", settle="5 min"), tmp_path / "none").summary()
    assert "there were no inputs: 1 file changed less than settle=300 seconds ago" in str(none)
    for name in "cd":
        os.utime(raw / name, (time.time() - 1800,) * 2)
    assert done(content, dc.files(raw / "*", fingerprint="content", settle="5 min"), url).summary().executed == 2
    assert values(url) == {"a": "a", "b": "B", "c": "C", "d": "d"}


@dc.workload(isolation="thread")
def late(path: str) -> str:
    if Path(path).read_text() != "late":
        write(Path(path), "late", age=1800)
    return Path(path).read_text()


def test_a_file_that_changes_after_the_plan_is_done_again(raw: Path, tmp_path: Path) -> None:
    """It is executed as it is then, is not left, and the next run does it once more."""
    did = []
    for _ in range(3):
        summary = done(late, dc.files(raw / "*", settle="5 min"), tmp_path / "d").summary()
        did.append((summary.executed, summary.redone, summary.unsettled))
    assert did == [(3, 0, 0), (3, 3, 0), (0, 0, 0)]


def test_what_is_gone_is_dropped_and_runs_again_when_it_comes_back(raw: Path, tmp_path: Path) -> None:
    """Results of files that vanished stay until they are to be dropped; attempts stay as history; a file that comes back is done."""
    url = tmp_path / "d"
    done(content, dc.files(raw / "*"), url)
    (raw / "a").unlink()
    kept = done(content, dc.files(raw / "*"), url)
    assert (kept.summary().gone, kept.summary().dropped) == (1, 0)
    assert set(values(url)) == {"a", "b", "c"}
    dropped = done(content, dc.files(raw / "*"), url, on_gone="drop")
    assert "1 item is no input any more and was dropped" in str(dropped.summary())
    assert set(values(url)) == {"b", "c"}
    assert len(dropped.attempts()) == 3
    assert dc.open(url).status().succeeded == 2
    write(raw / "a", "a")
    assert done(content, dc.files(raw / "*"), url, on_gone="drop").summary().executed == 1
    assert set(values(url)) == {"a", "b", "c"}


def test_inputs_that_fail_or_are_none_drop_nothing(tmp_path: Path) -> None:
    """A stream that ends with an error, and inputs of which there are none, leave all results as they are and say so."""
    url = tmp_path / "d"
    done(same, [1, 2, 3], url)

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the listing broke")

    with pytest.raises(InputError, match="the listing broke"):
        done(same, broken(), url, on_gone="drop")
    with pytest.raises(InputError, match="would drop 3 items of the dataset, which is most likely a mistake"):
        done(same, [], url, on_gone="drop")
    with pytest.raises(InputError, match="most likely a mistake"):
        dc.preview(same, [], url, on_gone="drop")
    assert values(url) == {"1": 1, "2": 2, "3": 3}
    assert dc.preview(same, [1, 4], url).cost.slots == 2  # of the cluster that is there
    assert done(same, [], url).summary().gone == 3


# ------------------------------------------------------------------------------------------------------------- dataset to dataset


@dc.workload(isolation="thread")
def lines(path: str) -> list[dict[str, Any]]:
    return [{"text": text, "length": len(text)} for text in Path(path).read_text().split()]


@dc.workload(isolation="thread")
def shout(text: str, length: int) -> str:
    return text.upper() + "!" * length


@dc.workload(isolation="thread")
def total(table: Any) -> int:
    return int(table["length"].sum())


def test_what_changed_upstream_is_done_again_and_nothing_else(raw: Path, tmp_path: Path) -> None:
    """Of a file that changed only the rows that differ are done again, of one that vanished all go; by item only the changed one is."""
    first, by_row, by_key = tmp_path / "first", tmp_path / "rows", tmp_path / "keys"
    write(raw / "a", "to be or")
    write(raw / "b", "not to be")
    done(lines, dc.files(raw / "*"), first)
    assert done(shout, dc.open(first), by_row).summary().executed == 7
    assert done(total, dc.rows(first, by="key"), by_key).summary().executed == 3
    assert values(by_key) == {"a": 6, "b": 7, "c": 1}
    write(raw / "a", "to see or", age=1800)
    (raw / "c").unlink()
    done(lines, dc.files(raw / "*"), first, on_gone="drop")
    run = done(shout, dc.open(first), by_row, on_gone="drop")
    assert (run.summary().executed, run.summary().redone, run.summary().dropped) == (1, 1, 1)
    assert sorted(run.results()["value"].compute()) == ["BE!!", "NOT!!!", "OR!!", "SEE!!!", "TO!!", "TO!!"]
    run = done(total, dc.rows(first, by="key"), by_key, on_gone="drop")
    assert (run.summary().executed, run.summary().dropped) == (1, 1)
    assert values(by_key) == {"a": 7, "b": 7}
    assert dc.open(by_key).status().sources == {str(first): dc.open(first).state.number}
