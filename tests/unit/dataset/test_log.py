"""The log: one winner a number, and a writer knows its own entry whatever the storage answered."""

from __future__ import annotations

import uuid

import pytest

from dcompute.dataset.checkpoint import read_state
from dcompute.dataset.entries import SetSchema
from dcompute.dataset.log import Log, LostRace
from dcompute.dataset.names import LAST, entry_name
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, StoreError
from dcompute.testing import Fault, FaultStore, ManualClock


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def log(store, clock):
    return Log(store, now=clock.time, sleep=clock.sleep)


def said(text):
    return [SetSchema(schema=text)]


def test_appended_entries_are_read_in_order(log):
    """What was appended is read from any number on, to the first that is missing."""
    for number in (1, 2, 3):
        log.append(number, said(str(number)))
    assert [entry.actions[0].schema for entry in log.read_all()] == ["1", "2", "3"]
    assert [entry.number for entry in log.read_all(3)] == [3]
    assert log.read(4) is None


def test_second_writer_of_a_number_loses(log):
    """Who comes second is told whose entry stands there, and changes nothing."""
    log.append(1, said("first"))
    with pytest.raises(LostRace) as caught:
        log.append(1, said("second"))
    assert caught.value.entry.actions[0].schema == "first"
    assert log.read(1).actions[0].schema == "first"


@pytest.mark.parametrize(("how", "times"), [("before", 1), ("before", 2), ("after", 1), ("after", 99)])
def test_lost_answer_is_recognised_as_ones_own(store, log, how, times):
    """A write that failed, or whose answer was lost, ends as one entry of one's own, once."""
    store.faults = [Fault("create", "log/*", how=how, times=times)]
    entry = log.append(1, said("mine"), "my-id")
    assert (log.read(1), log.read(2)) == (entry, None)
    assert entry.id == "my-id"


def test_client_that_repeats_its_write_is_no_loser(store, log):
    """A client that sends again what had arrived, and hears "exists", has won."""
    inner = store.inner
    entry = log.append(1, said("mine"), "my-id")
    assert inner.exists(entry_name(1))
    assert log.append(1, said("mine"), "my-id") == entry


def test_race_lost_behind_an_unclear_error(store, log):
    """An error while somebody else took the number is a lost race, not an error."""

    def other():
        Log(store.inner).append(1, said("theirs"))

    store.faults = [Fault("create", "log/*", act=other)]
    with pytest.raises(LostRace) as caught:
        log.append(1, said("mine"))
    assert caught.value.entry.actions[0].schema == "theirs"


def test_read_back_that_fails_too_is_tried_again(store, log):
    """An answer lost twice, at the write and at the look that follows, still ends well."""
    store.faults = [Fault("create", "log/*", how="after"), Fault("exists", "log/*"), Fault("read", "log/*")]
    assert log.append(1, said("mine"), "my-id").id == "my-id"


def test_storage_that_stays_away_is_an_error_after_some_patience(store, log, clock):
    """Tries end after a bounded time, longer for storage behind a network."""
    store.faults = [Fault("create", times=99)]
    with pytest.raises(StoreError):
        log.append(1, said("x"))
    assert 0 < sum(clock.slept) < 1
    away = FaultStore(Store("s3://bucket/x", "s3", {}), [Fault("create", times=99), Fault("exists", times=99)])
    with pytest.raises(StoreError):
        Log(away, sleep=clock.sleep).append(1, said("x"))
    assert 30 < sum(clock.slept) < 60


@pytest.mark.parametrize("hint", [None, b"", b"{", b'{"number": "x"}', b'{"number": 2}', b'{"number": 3}', b'{"number": 900}', b"[]"])
def test_end_is_found_from_any_hint(store, log, hint):
    """A missing, damaged, old or wrong hint costs time and nothing else."""
    for number in (1, 2, 3):
        log.append(number, said("x"))
    if hint is not None:
        store.write(LAST, hint)
    assert log.end() == 3


def test_end_with_a_good_hint_asks_little(store, log):
    """With the hint the end is found by two questions, and never by listing."""
    for number in range(1, 20):
        log.append(number, said("x"))
    log.note_end(19)
    store.calls.clear()
    assert log.end() == 19
    assert [op for op, _ in store.calls] == ["read", "exists", "exists"]


@pytest.mark.parametrize(
    "read", [lambda log: list(log.read_all()), lambda log: list(log.read_all(2, 5)), lambda log: read_state(log.store)]
)
def test_an_entry_that_is_gone_is_no_end(store, log, read):
    """Where a later entry is there, the log is not what it was before the one that is missing: it is damaged."""
    for number in range(1, 7):
        log.append(number, said("x"))
    log.note_end(6)
    store.remove([entry_name(3)])
    with pytest.raises(DatasetCorruptError, match=r"entry 3 of the log of .* is gone, and entry . is there"):
        read(log)


def test_a_hint_at_an_entry_that_was_never_there_proves_no_hole(store, log):
    """What the hint says alone counts for nothing."""
    log.append(1, said("x"))
    store.write(LAST, b'{"number": 900}')
    assert [entry.number for entry in log.read_all()] == [1]
