"""The journal outlives its writer, and what is half written does not count."""

from __future__ import annotations

import contextlib
import os
import resource

import pytest

from dcompute.errors import InternalError
from dcompute.worker.journal import HEADER, Figures, Journal, JournalView, Measured, MemoryMeasured, State, read_index

OWN = Figures(0.5, 0.25, 0.125, Measured.ITEM, 1 << 40, 7, None, 0.0, 2, MemoryMeasured.RESIDENT)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal")


@pytest.fixture
def journal(path):
    journal = Journal(path, create=True)
    yield journal
    journal.close()


def test_successor_reads_what_was_written(journal, path):
    """Every field of a record comes back, those that the system did not tell as None."""
    journal.write(3, True, 1.5, Figures(1e-6, 2e-6, 0.0), b"", b"rows")
    journal.write(1, False, 2.5, OWN, b'{"a": 1}', b"")
    journal.end()
    successor = Journal(path)
    first, second = successor.records()
    successor.close()
    assert first == (3, True, 1.5, Figures(1e-6, 2e-6, 0.0), b"", b"rows")
    assert second == (1, False, 2.5, OWN, b'{"a": 1}', b"")


def test_outcome_counts_from_the_end_of_its_item(journal, path):
    """A child that dies between the record and the end of its item left no outcome."""
    journal.write(0, True, 0.0, Figures(), b"", b"")
    journal.end()
    journal.begin(1, 1, 1, 10.0)
    journal.write(1, True, 0.0, Figures(), b"", b"")
    successor = Journal(path)
    assert read_index(successor) == [0]
    assert successor.done == 1
    successor.write(2, True, 0.0, Figures(), b"", b"")
    successor.end()
    assert read_index(successor) == [0, 2]
    successor.close()


def test_grows_over_many_and_large_records(journal):
    """Payloads larger than the file, and more records than fit it, come back."""
    sizes = [1, 1_000_000, 0, 3_000_000, *[100] * 5000]
    for index, size in enumerate(sizes):
        journal.write(index, True, 0.0, Figures(), b"", b"p" * size)
        journal.end()
    assert [len(record.payload) for record in journal.records()] == sizes


def test_damage_is_noticed(journal, path):
    """User code that wrote over the mapped memory is told from an outcome."""
    journal.write(0, True, 0.0, Figures(), b"", b"x" * 100)
    journal.end()
    with open(path, "r+b") as file:
        file.seek(HEADER + 90)
        file.write(b"!")
    with pytest.raises(InternalError, match="damaged"):
        list(journal.records())


def test_no_journal_is_refused(tmp_path):
    """A file that is something else is not taken for one."""
    path = tmp_path / "other"
    path.write_bytes(os.urandom(2 * HEADER))
    with pytest.raises(InternalError, match="no journal"):
        Journal(str(path))


def test_worker_sees_what_is_at_work(journal, path):
    """The header says which item is at work since when, and how far it is; afterwards that none is."""
    view = JournalView(path)
    assert not view.read().at_work
    journal.set_state(State.EXECUTING)
    journal.begin(4, 9, 17, 123.5)
    journal.report(0.25, "läuft")
    seen = view.read()
    assert (seen.at_work, seen.index, seen.last, seen.calls, seen.started, seen.state) == (True, 4, 9, 17, 123.5, State.EXECUTING)
    assert (seen.fraction, seen.text) == (0.25, "läuft")
    journal.end()
    assert not view.read().at_work
    journal.begin(5, 5, 18, 124.0)
    assert (view.read().fraction, view.read().text) == (None, ""), "progress is the item's own"
    view.close()


@pytest.fixture
def full_disk(path, journal):
    """No file of this process grows beyond what the journal has."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path).st_size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_full_disk_leaves_room_for_a_verdict(journal, path):
    """What cannot be written leaves what was written whole; a verdict finds room, and no outcome takes it."""
    with contextlib.suppress(OSError):
        while journal.done < 10_000:
            journal.write(journal.done, True, 0.0, Figures(), b"", b"p" * 100)
            journal.end()
    done = journal.done
    assert 0 < done < 10_000
    assert journal.wanted > os.stat(path).st_size
    journal.convict(done, 0.0, Figures(), b"f" * 2000)
    with pytest.raises(OSError, match="too large"):
        journal.write(done + 1, True, 0.0, Figures(), b"", b"p" * 100)
    assert read_index(journal) == [*range(done), done]


def test_worker_grows_a_journal_for_who_may_not(journal, path):
    """The worker's process tells whether the disk is full, or only the child may not write."""
    view, size = JournalView(path), os.stat(path).st_size
    assert view.grow(4 * size)
    assert os.stat(path).st_size == 4 * size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * size, before[1]))
    assert not view.grow(5 * size)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    view.close()


@pytest.mark.parametrize("size", [0, 50, HEADER])
def test_worker_sees_that_the_file_was_truncated(journal, path, size):
    """A truncated journal is an error of the reader, and no signal to its process."""
    journal.write(0, True, 1.0, Figures(), b"", b"x" * 100)
    journal.end()
    view = JournalView(path)
    assert view.read().done == 1
    os.truncate(path, size)
    with pytest.raises(InternalError, match="truncated"):
        view.read()
    view.close()


def test_settled_journal_has_no_item_at_work(journal, path):
    """After a death the worker takes back that an item is at work, and the successor goes on from there."""
    journal.begin(4, 4, 0, 1.0)
    view = JournalView(path)
    view.settle()
    assert not view.read().at_work
    successor = Journal(path)
    successor.begin(5, 5, 0, 2.0)
    assert view.read().at_work
    successor.close()
    view.close()


def test_worker_stops_the_child(journal, path):
    """The wish to begin no more items reaches the child without a message."""
    view = JournalView(path)
    assert not journal.is_stopped
    view.stop()
    assert journal.is_stopped
    view.close()
