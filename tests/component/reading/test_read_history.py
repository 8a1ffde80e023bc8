"""What happened to a dataset, and the dataset as it was."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dcompute.cli.main import dcompute
from dcompute.dataset import open as open_dataset
from dcompute.dataset.entries import Add, Close, Replace, RunInfo, SetSchema, Vacuum
from dcompute.dataset.history import number_at
from dcompute.dataset.log import Log
from dcompute.errors import DatasetError, DatasetNotFoundError, UsageError


@pytest.fixture
def told(scene: Any, did: Any) -> Any:
    """A dataset with a bit of everything, one entry a second from 1001 on."""
    scene.open()
    scene.commit(RunInfo(run="run"))
    scene.add(did("a", rows=[{"n": 1}]), did("b", rows=[{"n": 2}, {"n": 3}]), did("c", failed="crash"), final=["c"])
    scene.hide("a")
    scene.add(did("a", failed="permanent"), did("d", rows=[{"n": 4}]))
    scene.commit(Close(epoch=1))
    return scene.publish()


def results(dataset: Any) -> list[tuple[str, int]]:
    """Key and value of each row."""
    frame = dataset.results().compute(scheduler="synchronous")
    return sorted(zip(frame["item_key"], frame["n"], strict=True))


def test_history_has_a_row_an_entry(told: Any) -> None:
    """Number, time, run, and what was opened, added, hidden and closed, with items and rows."""
    frame = open_dataset(told.store.url).history()
    assert list(frame["number"]) == [1, 2, 3, 4, 5, 6]
    assert list(frame["what"]) == ["opened", "began", "schema changed, added", "hidden", "added", "closed"]
    assert frame["run"].fillna("").tolist() == ["run", "run", "run", "", "run", "run"]
    assert frame["time"][0] == datetime.fromtimestamp(1001, UTC)
    sums = ["batches", "succeeded", "failed", "rows", "hidden"]
    assert frame[sums].to_numpy().tolist()[2:5] == [[1, 2, 1, 3, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 0]]


def test_history_counts_what_counts(told: Any) -> None:
    """A batch that is added twice, a schema that stays, and a compaction that came too late change nothing."""
    added = told.entries[2].actions[-1]
    name, late = added.batches[0].results[0].name, added.batches[0].results
    schema = next(action for action in told.entries[2].actions if isinstance(action, SetSchema))
    told.commit(schema, Add(batches=added.batches))
    told.commit(Replace(parts=(name,), by=late, read_at=6))
    told.commit(Replace(parts=(name,), by=late, read_at=6))
    frame = open_dataset(told.publish().store.url).history()
    assert frame[["batches", "rows", "replaced"]].to_numpy().tolist()[6:] == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert list(frame["what"])[6:] == ["added", "compacted", "compacted"]


def test_a_dataset_as_of_an_entry_is_what_it_was(told: Any) -> None:
    """Results, attempts, failures and status are those of the entry, whatever came later, and stay so."""
    then, now = open_dataset(told.store.url, at=3), open_dataset(told.store.url)
    assert results(then) == [("a", 1), ("b", 2), ("b", 3)]
    assert results(now) == [("b", 2), ("b", 3), ("d", 4)]
    assert (len(then.attempts()), len(now.attempts())) == (3, 5)
    assert then.failures().compute(scheduler="synchronous")["item_key"].tolist() == ["c"]
    status = then.refresh().status()
    assert (status.succeeded, status.failed, status.attempts, status.stored_rows, status.state) == (2, 1, 3, 3, "running")
    assert (now.status().succeeded, now.status().failed) == (2, 2)
    assert then.history()["number"].tolist() == [1, 2, 3]
    assert "as of entry 3" in repr(then)
    assert (then.at, now.at) == (3, None)


@pytest.mark.parametrize(
    ("at", "number"),
    [
        (4, 4),
        ("4", 4),
        (datetime.fromtimestamp(1003.5, UTC), 3),
        ("1970-01-01T00:16:43.5+00:00", 3),
        ("1970-01-01T00:16:43+00:00", 3),
        (datetime.fromtimestamp(1004.0), 4),
        ("2100-01-01", 6),
    ],
)
def test_a_time_means_the_last_entry_that_is_not_later(told: Any, at: Any, number: int) -> None:
    """A position or a time, as it is or as text; a time without a zone is local."""
    assert number_at(Log(told.store), at) == number


@pytest.mark.parametrize("at", [0, 7, -1, "7", True, "yesterday", 1.5, "1970-01-01T00:16:40+00:00"])
def test_a_time_that_is_none_is_refused(told: Any, at: Any) -> None:
    """No such entry, a time before the first one, and what is neither say so."""
    with pytest.raises(UsageError, match="at="):
        open_dataset(told.store.url, at=at)


def test_of_a_place_without_a_dataset_that_is_what_is_said(tmp_path: Path) -> None:
    """Whatever the time asked for."""
    with pytest.raises(DatasetNotFoundError):
        open_dataset(tmp_path / "nothing", at=1)


def test_few_entries_are_read_to_find_a_time(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is halved, not read through."""
    for _ in range(100):
        told.hide("z")
    log = Log(told.publish().store)
    read: list[int] = []
    real = Log.read
    monkeypatch.setattr(Log, "read", lambda self, number: (read.append(number), real(self, number))[1])
    assert number_at(log, datetime.fromtimestamp(1050.5, UTC)) == 50
    assert len(read) <= 8


@pytest.mark.parametrize("verb", ["cancel", "compact", "vacuum", "delete", "rename"])
def test_what_was_cannot_be_changed(told: Any, verb: str) -> None:
    """A dataset as of an earlier entry refuses whatever would act on the one of today."""
    with pytest.raises(UsageError, match=re.escape(f"{verb}()")):
        getattr(open_dataset(told.store.url, at=3), verb)(*[{"n": "m"}] * (verb == "rename"))


def test_parts_that_vacuum_removed_are_named(told: Any) -> None:
    """As of an entry whose parts are gone, the results say which part is missing, since when, and which entries can still be read."""
    batch = told.entries[2].actions[-1].batches[0]
    (part,) = batch.results
    told.store.write("results/compact-1.parquet", told.store.read(part.name))
    by = type(part)(name="results/compact-1.parquet", size=part.size, rows=part.rows)
    told.commit(Replace(parts=(part.name,), by=(by,), read_at=3)).commit(Vacuum(until=7)).publish()
    # a vacuum that left the part alone is no reason to refuse it
    assert results(open_dataset(told.store.url, at=3)) == [("a", 1), ("b", 2), ("b", 3)]
    begun = open_dataset(told.store.url, at=3).results()
    told.store.remove([part.name])
    old = open_dataset(told.store.url, at=6)
    with pytest.raises(DatasetError, match=rf"{part.name} is gone .* since 1970-.*vacuum removed it \(entry 8 .*entry 7.*at=7 or later"):
        old.results()
    with pytest.raises(DatasetError, match="vacuum removed it"):
        begun.compute(scheduler="synchronous")
    assert old.status().succeeded == 2
    assert results(open_dataset(told.store.url, at=7)) == [("b", 2), ("b", 3), ("d", 4)]
    assert results(open_dataset(told.store.url)) == [("b", 2), ("b", 3), ("d", 4)]


def test_the_command_line_tells_history_and_reads_as_of_then(told: Any) -> None:
    """`dcompute history` shows the newest entries, and `--at` takes what it shows."""

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(dcompute, [*arguments])
        assert done.exit_code == 0, done.output
        return done.output

    url = told.store.url
    lines = run("history", url, "--limit", "2").splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["number", "5", "6"]
    assert "last 2 of 6" in lines[3]
    assert len(run("history", url, "--json").splitlines()) == 6
    assert '"succeeded": 2' in run("status", url, "--at", "3", "--json")
    assert len(run("results", url, "--at", "1970-01-01T00:16:43+00:00", "--json").splitlines()) == 3
    assert len(run("attempts", url, "--at", "3", "--json").splitlines()) == 3
    assert len(run("failures", url, "--at", "5", "--json").splitlines()) == 2
    refused = CliRunner().invoke(dcompute, ["status", url, "--at", "9"])
    assert (refused.exit_code, "--at 9" in refused.output, "`dcompute history`" in refused.output) == (2, True, True)
