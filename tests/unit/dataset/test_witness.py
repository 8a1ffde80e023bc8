"""A storage that forgets what it acknowledged is found out before anything is built on what is gone."""

from __future__ import annotations

import uuid

import pytest

from dcompute.dataset.entries import Add, AddBatch, Entry
from dcompute.dataset.names import entry_name
from dcompute.dataset.parts import mark_name
from dcompute.dataset.store import Store
from dcompute.dataset.witness import Witness
from dcompute.errors import DatasetCorruptError, StoreError
from dcompute.records import PartRef
from dcompute.testing import Fault, FaultStore, ManualClock

BATCH = "run-000001-00000001"
PART = PartRef(name="results/run-000001-00000001-x-0.parquet", size=4, rows=1)


class Forgetful(FaultStore):
    """A storage in memory that is asked as one elsewhere is."""

    is_memory = False


@pytest.fixture
def store():
    return Forgetful(Store.at(f"memory://{uuid.uuid4().hex}/ds"))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def witness(store, clock):
    """Has seen the third entry committed."""
    witness = Witness(store, clock.monotonic)
    entry = Entry(3, "mine", 0.0, ())
    store.create(entry_name(3), entry.to_bytes())
    witness.committed(entry)
    return witness


def add():
    batch = AddBatch(
        id=BATCH, holds=((0, 1),), left_out=(), final=(), results=(PART,), succeeded=1, failed=(), rows=0, seconds=0, slot_seconds=0
    )
    return [Add(batches=(batch,))]


def following():
    return Entry(4, "mine too", 0.0, tuple(add()))


def test_what_is_there_is_confirmed_with_one_request(store, witness):
    """A commit that follows another soon costs one request more."""
    store.calls.clear()
    witness.confirm_named(add())
    witness.committed(following())
    assert len(store.calls) == 1


def test_entry_that_is_gone_is_named_and_nothing_stands_behind_it(store, witness):
    """Its number, the place, and what to do; the entry after it, which no reader comes to, is taken back."""
    store.remove([entry_name(3)])
    store.create(entry_name(4), following().to_bytes())
    with pytest.raises(
        DatasetCorruptError, match=rf"{entry_name(3)}, which this run wrote, is gone from memory://.*run the same line again"
    ):
        witness.committed(following())
    assert store.names("log") == []


def test_entry_that_somebody_else_wrote_again_is_named(store, witness):
    """A number that was forgotten and written by another driver is somebody else's."""
    store.remove([entry_name(3)])
    store.create(entry_name(3), Entry(3, "theirs", 0.0, ()).to_bytes())
    with pytest.raises(DatasetCorruptError, match=f"{entry_name(3)} was written twice"):
        witness.committed(following())


def test_what_came_long_after_the_last_entry_is_looked_for(store, witness, clock):
    """A mark or a part that was forgotten while the entry before it was old enough to stay is named, and one that is there is not."""
    clock.advance(10.0)
    store.create(mark_name(BATCH), b"mark")
    with pytest.raises(DatasetCorruptError, match=f"{PART.name}: written by this run, and gone"):
        witness.confirm_named(add())
    store.create(PART.name, b"part")
    witness.confirm_named(add())
    store.remove([mark_name(BATCH)])
    with pytest.raises(DatasetCorruptError, match=f"{mark_name(BATCH)}: written by this run, and gone"):
        witness.confirm_named(add())


def test_what_an_entry_names_is_looked_for_where_a_request_had_no_answer(store, witness):
    """A server that was killed since the last entry, which it still has, may have forgotten what came between; the new one goes."""
    store.faults.append(Fault("create", entry_name(4)))
    with pytest.raises(StoreError):
        store.create(entry_name(4), following().to_bytes())
    store.create(entry_name(4), following().to_bytes())
    store.create(mark_name(BATCH), b"mark")
    with pytest.raises(DatasetCorruptError, match=f"{PART.name}: written by this run, and gone"):
        witness.committed(following())
    assert store.names("log") == [entry_name(3)]
    store.create(PART.name, b"part")
    store.create(entry_name(4), following().to_bytes())
    witness.committed(following())
    store.calls.clear()
    witness.committed(following())
    assert store.calls == [("read", entry_name(4))]


def test_who_has_committed_nothing_asks_nothing(store):
    """The first entry builds on what others wrote, which was read."""
    witness = Witness(store)
    witness.confirm_named(add())
    witness.committed(following())
    assert store.calls == []
