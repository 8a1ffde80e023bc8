"""Vacuum: what counts stays, what a driver may still add stays, what readers may need stays for its time, and all else goes."""

from __future__ import annotations

import datetime
import itertools
import math
import os
import time
import uuid

import pytest

from dcompute.dataset.compaction import compact
from dcompute.dataset.entries import Adopted, Vacuum
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.listing import changed_at
from dcompute.dataset.names import compacted_name, new_id, part_batch
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.parts import mark_name
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import TEMPORARY_SECONDS, seconds_of, vacuum
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetError, StoreError, UsageError
from dcompute.testing import Fault, FaultStore
from tests.component.upkeep.driving import Driving, attempted, on_storage, visible

DAY = 86_400.0


class Killed(BaseException):
    """The process is gone at once."""


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


def files(store):
    return {*store.names("results"), *store.names("attempts")}


def later(days):
    return lambda: time.time() + days * DAY


def compacted(store, count=12):
    """A closed run whose parts, twelve unless said otherwise, were compacted."""
    driver = Driving(store)
    for number in range(count):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    compact(store, all=True)
    return store


def test_replaced_parts_go_after_the_retention(store):
    """Parts that compaction replaced stay for readers that began before, and no longer."""
    compacted(store)
    before, old = visible(store), open_dataset(store)[1]
    assert vacuum(store, now=later(6.9)).removed == ()
    assert vacuum(store, now=later(6.9)).kept == 12
    done = vacuum(store, now=later(7.1))
    assert len(done.removed) == 12
    assert done.bytes > 12 * 100
    assert on_storage(store) == visible(store) == before
    assert old.number < open_dataset(store)[1].number
    assert vacuum(store, 0).removed == ()


def test_age_counts_from_the_replacement(store):
    """A part written long ago and replaced now is still being read: the age of its file says nothing."""
    driver = Driving(store)
    for number in range(12):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    for name in store.names("results"):
        store.fs.store[store.path(name)].created -= datetime.timedelta(days=30)
    compact(store)
    assert vacuum(store).removed == ()
    assert len(vacuum(store, now=later(8)).removed) == 12


def test_a_reader_that_opened_before_keeps_working(store):
    """Within the retention a state read before compaction and vacuum still finds its files; without one it is told what is gone."""
    from dcompute.dataset.reading import results_arrow

    driver = Driving(store)
    for number in range(12):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    state = open_dataset(store)[1]
    compact(store)
    vacuum(store)
    assert results_arrow(store, state).num_rows == 12
    vacuum(store, 0)
    with pytest.raises(DatasetError, match="is gone"):
        results_arrow(store, state)


def test_parts_of_epochs_that_are_not_settled_stay(store):
    """Whatever the retention: what a live or dead driver's workers wrote may still be added."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    driver.write({"b": [{"n": 2}]})
    driver.write({"c": [{"n": 3}]}, execution="twin")
    before = files(store)
    assert vacuum(store, 0).removed == ()
    assert files(store) == before
    driver.close()
    done = vacuum(store, 0)
    assert {part_batch(name) for name in done.removed if name.startswith("results")} == {("r1", 1, 2), ("r1", 1, 3)}
    assert len(done.removed) == 4
    assert sum(visible(store).values()) == 1
    assert attempted(store) == {"a": 1}


def test_what_another_run_left_under_the_number_of_an_epoch_goes(store):
    """A run whose dataset was here before may have written late: its epochs are other runs' now, so that none of it will ever count."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    driver.write({"b": [{"n": 1}]})
    strays = ("attempts/other-000001-00000001.parquet", "results/other-000001-00000001-e-0.parquet")
    for name in strays:
        store.create(name, b"")
    assert vacuum(store).removed == ()
    assert vacuum(store, now=later(8)).removed == strays
    assert sum(visible(store).values()) == 1


def test_parts_of_epochs_that_nobody_opened_stay(store):
    """Files of an epoch that this reader knows nothing of, and files that dcompute did not write, are not touched."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    driver.close()
    for name in ("results/r2-000002-00000001-e-0.parquet", "results/other-000003-00000001-e-0.parquet", "results/notes.parquet"):
        store.create(name, b"")
    done = vacuum(store, 0)
    assert done.removed == ()
    assert done.foreign == ("results/notes.parquet",)


def test_an_epoch_that_opens_meanwhile(store):
    """A driver that begins and writes while vacuum looks loses nothing."""
    compacted(store)
    drivers = []

    def begin():
        drivers.append(Driving(store.inner, "r2"))
        drivers[0].write({"new": [{"n": 1}]})

    store.faults.append(Fault("names", "results", how="slow", act=begin))
    assert len(vacuum(store, 0).removed) == 12
    assert len(store.names("results")) == 2
    drivers[0].close()


def test_losers_leave_results_without_a_mark(store):
    """Results of an execution that lost the race for its mark, or died before it, go; the winner's stay."""
    driver = Driving(store)
    batch = driver.add({"a": [{"n": 1}]})
    store.create(batch.results[0].name.replace("-e-", "-loser-"), b"rows")
    driver.close()
    assert vacuum(store, 0).removed == (f"results/{batch.id}-loser-0.parquet",)


def test_a_compacted_part_that_nobody_committed(store):
    """It goes after the retention, and the log says first that nobody may commit it any more."""
    compacted(store)
    vacuum(store, 0)
    name = compacted_name(new_id(), 0)
    store.create(name, b"rows")
    assert vacuum(store).removed == ()
    assert vacuum(store, now=later(8)).removed == (name,)
    actions = [action for entry in Keeper(store).log.read_all() for action in entry.actions if isinstance(action, Vacuum)]
    assert [action.dropped for action in actions] == [(), (name,)]


def test_the_log_says_what_is_gone(store):
    """until names the last entry whose replaced parts may be gone: reading as of an earlier one may not find them."""
    compacted(store)
    number = open_dataset(store)[1].number
    vacuum(store, 0)
    (action,) = Keeper(store).log.read(number + 1).actions
    assert action.until == number


def test_dry_run_changes_nothing(store):
    """It names what would go, commits nothing and removes nothing."""
    compacted(store)
    before, number = files(store), open_dataset(store)[1].number
    done = vacuum(store, 0, dry_run=True)
    assert (files(store), open_dataset(store)[1].number) == (before, number)
    assert "12 files" in str(done)
    assert "would be removed" in str(done)
    assert set(done.removed) == before - files_after(store)


def files_after(store):
    vacuum(store, 0)
    return files(store)


def test_marks_that_were_left_behind_go(store):
    """A mark that an adoption left out, as one that another stands for, goes; outcomes are what they were."""
    driver = Driving(store)
    one = driver.write({"a": [{"n": 1}]})
    driver.add({"a": [{"n": 1}]}, stands_for=one.id)
    driver.writer.abandon()
    second = Driving(store, "r2")
    second.writer.commit([Adopted(epochs=(1,))])
    second.close()
    assert set(vacuum(store, 0).removed) == {mark_name(one.id), one.results[0].name}
    assert sum(chunk.table.num_rows for chunk in iter_outcomes(store, open_dataset(store)[1])) == 1


def test_temporary_files_of_dead_writers(tmp_path):
    """On a disk what a killed writer left goes when it is old; what may be written just now stays, with no retention too."""
    store = Store.at(tmp_path / "dataset")
    compacted(store)
    paths = [store.path(name) for name in ("log/.tmp-1", "results/.tmp-2", ".tmp-3", "results/.tmp-4")]
    for path in paths:
        open(path, "wb").close()
    old = time.time() - TEMPORARY_SECONDS - 10
    for path in paths[:3]:
        os.utime(path, (old, old))
    vacuum(store)
    assert [os.path.exists(path) for path in paths] == [True] * 4
    done = vacuum(store, 0)
    assert {name for name in done.removed if ".tmp-" in name} == {"log/.tmp-1", "results/.tmp-2", ".tmp-3"}
    assert [os.path.exists(path) for path in paths] == [False] * 3 + [True]


@pytest.mark.parametrize("last", ["closed", "dead"])
def test_a_driver_may_take_over_while_vacuum_commits(store, last):
    """An entry of vacuum in a number that a driver wants to open its epoch under is no other driver, nor is the last one alive by it."""
    compacted(store)
    if last == "dead":
        Driving(store, "r1b").writer.abandon()
    store.faults.append(Fault("create", "log/*", how="slow", act=lambda: vacuum(store.inner, 0)))
    driver = Driving(store, "r2")
    driver.writer.adopt(None, None)
    driver.add({"new": [{"n": 1}]})
    driver.close()
    assert sum(visible(store).values()) == 13


def test_a_vacuum_killed_at_every_step():
    """Wherever it dies what counts is there, and the next one finishes."""
    for step in itertools.count():
        store = FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))
        compacted(store, 4)
        before = visible(store)
        store.faults.append(Fault("*", skip=step, error=Killed()))
        try:
            vacuum(store, 0)
        except Killed:
            pass
        else:
            break
        store.faults.clear()
        assert visible(store) == before
        vacuum(store, 0)
        assert on_storage(store) == before
    assert step > 10


def test_a_listing_that_lacks_files(store):
    """Of a listing that shows every second file nothing that counts is removed."""
    compacted(store)
    before = visible(store)
    store.faults.append(Fault("names", "*", how="torn", times=2))
    vacuum(store, 0)
    assert visible(store) == before


def test_a_storage_that_forgot_a_compacted_part(store):
    """While what replaced them is not there, the replaced parts stay: the rows can be had back."""
    compacted(store)
    (name,) = [name for name in store.names("results") if "compact-" in name]
    store.inner.remove([name])
    before = files(store)
    with pytest.raises(DatasetError, match=f"{name} is gone"):
        vacuum(store, 0)
    assert files(store) == before
    assert len(on_storage(store)) == 12


def test_a_storage_that_cannot_be_listed(store):
    """It is an error of the storage, and nothing is removed."""
    compacted(store)
    before = files(store)
    store.faults.append(Fault("names", "attempts"))
    with pytest.raises(StoreError):
        vacuum(store, 0)
    assert files(store) == before


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("7 days", 7 * DAY), ("7d", 7 * DAY), ("12 h", 43_200.0), ("0", 0.0), (0, 0.0), (1.5, 1.5), (datetime.timedelta(days=1), DAY)],
)
def test_retention(given, seconds):
    """A time with its unit, or seconds."""
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["soon", "", " ", "7", "0.5", "-1 s", -1, math.nan, math.inf, None, [7]])
def test_no_retention(given):
    """What is no time is refused with the words that are."""
    with pytest.raises(UsageError, match='"7 days"'):
        seconds_of(given)


def test_times_of_storages():
    """Each file system has its own name and form of the time of change."""
    moment = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)
    infos = ({"mtime": moment.timestamp()}, {"LastModified": moment}, {"last_modified": moment}, {"updated": "2024-01-02T00:00:00.000Z"})
    assert {changed_at(info) for info in infos} == {moment.timestamp()}
    assert changed_at({"name": "x"}) is None
