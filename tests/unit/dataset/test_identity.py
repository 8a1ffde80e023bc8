"""A dataset that is removed, renamed or begun anew while a driver writes to it: the driver ends, and writes nothing into another one."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from dcompute.dataset.entries import Hide
from dcompute.dataset.identity import Identity
from dcompute.dataset.names import DATASET, entry_name
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.errors import DatasetCorruptError, StoreError
from dcompute.records import ItemKey
from dcompute.testing import Fault, FaultStore, ManualClock

ACTIONS = [Hide(keys=(ItemKey("a", "str"),))]


class Far(FaultStore):
    """The memory of this process in the place of an object store."""

    is_memory = False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


@pytest.fixture
def far() -> Far:
    return Far(Store.at(f"memory://{uuid.uuid4().hex}"))


def acquire(store: Store, run: str, clock: ManualClock | None = None) -> Writer:
    return Writer.acquire(store, workload="w", run=run, clock=clock or ManualClock())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_driver_whose_dataset_is_gone_ends_and_makes_no_new_folder(folder: Path, how: str) -> None:
    """Neither the commit nor the driver's last heartbeat leaves a file there; what was committed is where the folder went."""
    writer = acquire(Store.at(folder), "r1")
    writer.commit(ACTIONS)
    before = files(folder)
    shutil.rmtree(folder) if how == "removed" else folder.rename(folder.with_name("old"))
    with pytest.raises(DatasetCorruptError, match="not there any more: somebody removed or renamed it"):
        writer.commit(ACTIONS)
    writer.abandon()
    assert not folder.exists()
    if how == "renamed":
        assert files(folder.with_name("old")) == before


def test_a_driver_whose_dataset_was_begun_anew_writes_nothing_into_the_new_one(folder: Path) -> None:
    """The new one has its own log from the first entry on; the old driver says that it is another one, and how it ends changes nothing."""
    first = acquire(Store.at(folder), "r1")
    shutil.rmtree(folder)
    second = acquire(Store.at(folder), "r2")
    before = files(folder)
    with pytest.raises(DatasetCorruptError, match="not the one that this run opened"):
        first.commit(ACTIONS)
    first.close()
    assert files(folder) == before
    assert second.commit(ACTIONS) == 2


def test_a_heartbeat_notices_it_where_nothing_is_committed(folder: Path) -> None:
    """A run of long items ends within seconds too, when its beat is due."""
    clock = ManualClock()
    writer = acquire(Store.at(folder), "r1", clock)
    shutil.rmtree(folder)
    clock.advance(5)
    with pytest.raises(DatasetCorruptError, match="not there any more"):
        writer.heartbeat({})
    assert not folder.exists()


def test_an_entry_that_met_another_dataset_is_taken_back(folder: Path) -> None:
    """The folder changes between the look and the write: the new dataset's log ends without the foreign entry."""
    store = FaultStore(Store.at(folder))
    first = acquire(store, "r1")
    first.commit(ACTIONS)

    def begin_anew() -> None:
        shutil.rmtree(folder)
        acquire(Store.at(folder), "r2")

    store.faults = [Fault("create", entry_name(3), how="slow", act=begin_anew)]
    with pytest.raises(DatasetCorruptError, match="not the one that this run opened"):
        first.commit(ACTIONS)
    assert sorted(name for name in files(folder) if name.startswith("log/")) == [entry_name(1)]


def test_an_object_store_is_asked_at_heartbeats_only(far: Far) -> None:
    """A commit costs no request more; what a heartbeat found holds for the commits after it."""
    clock = ManualClock()
    writer = acquire(far, "r1", clock)
    far.calls.clear()
    writer.commit(ACTIONS)
    assert ("read", DATASET) not in far.calls
    clock.advance(5)
    writer.heartbeat({})
    assert far.calls.count(("read", DATASET)) == 1
    far.inner.fs.rm(far.inner.root, recursive=True)
    clock.advance(5)
    with pytest.raises(DatasetCorruptError, match="not there any more"):
        writer.heartbeat({})
    far.calls.clear()
    with pytest.raises(DatasetCorruptError, match="not there any more"):
        writer.commit(ACTIONS)
    assert all(name == DATASET for _, name in far.calls)


@pytest.mark.parametrize("entries", [2, 3])
def test_a_commit_that_meets_another_dataset_in_an_object_store_says_so(far: Far, entries: int) -> None:
    """Between two heartbeats the log itself shows it, where an entry is missing or a foreign one in the way: no storage is blamed."""
    first = acquire(far, "r1")
    first.commit(ACTIONS)
    far.inner.fs.rm(far.inner.root, recursive=True)
    second = acquire(far, "r2")
    for _ in range(entries - 1):
        second.commit(ACTIONS)
    far.calls.clear()
    with pytest.raises(DatasetCorruptError, match="not the one that this run opened"):
        first.commit(ACTIONS)
    assert open_dataset(far)[1].number == entries
    assert ("create", entry_name(4)) not in far.calls


def test_a_storage_that_fails_says_nothing_of_the_dataset(far: Far) -> None:
    """It may answer again: only an answer convicts."""
    identity = Identity(far, open_dataset(far, create=True)[0])
    far.faults = [Fault("read", DATASET)]
    with pytest.raises(StoreError):
        identity.confirm()
    identity.confirm()


@pytest.mark.parametrize("create", [True, False])
def test_a_log_without_its_dataset_file_is_a_damaged_dataset(folder: Path, create: bool) -> None:
    """Nothing is begun over what may be somebody's work, and nothing is written."""
    acquire(Store.at(folder), "r1").close()
    (folder / DATASET).unlink()
    before = files(folder)
    with pytest.raises(DatasetCorruptError, match=rf"no {DATASET}.*restore"):
        open_dataset(Store.at(folder), create=create)
    assert files(folder) == before


def test_a_log_without_its_dataset_file_in_an_object_store_is_told_by_its_first_entry(far: Far) -> None:
    """There are no folders, and a listing may be long."""
    acquire(far, "r1")
    far.inner.remove([DATASET])
    far.calls.clear()
    with pytest.raises(DatasetCorruptError, match=rf"no {DATASET}"):
        open_dataset(far, create=True)
    assert not [name for operation, name in far.calls if operation == "names"]


def test_an_empty_log_folder_is_no_dataset(folder: Path) -> None:
    """What is left of a dataset that was removed while a worker wrote is no reason to refuse."""
    (folder / "log").mkdir(parents=True)
    (folder / "attempts").mkdir()
    open_dataset(Store.at(folder), create=True)
    assert (folder / DATASET).exists()


def test_who_creates_the_dataset_at_the_same_moment_has_damaged_nothing(folder: Path) -> None:
    """One finds no dataset, then the other's log: it looks again before it speaks of damage."""
    store = FaultStore(Store.at(folder))
    store.faults = [Fault("names", "log", how="slow", act=lambda: acquire(Store.at(folder), "r1").abandon())]
    _, state = open_dataset(store, create=True)
    assert state.number == 1
