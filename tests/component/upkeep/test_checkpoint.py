"""Checkpoints: a state that goes on from one is the state of the whole log, and one that cannot be used costs nothing but time."""

from __future__ import annotations

import io
import json
import logging
import uuid

import dask
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcompute.dataset import checkpoint, checkpoint_file
from dcompute.dataset.checkpoint import Checkpoints, read_state, staying
from dcompute.dataset.checkpoint_file import from_bytes, to_bytes
from dcompute.dataset.entries import (
    Add,
    AddBatch,
    Adopted,
    Close,
    Drop,
    Entry,
    Hide,
    Open,
    Release,
    Rename,
    Replace,
    RunInfo,
    Sent,
    SetSchema,
    Vacuum,
)
from dcompute.dataset.log import Log
from dcompute.dataset.names import checkpoint_name, entry_name
from dcompute.dataset.state import State, fold
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.records import ItemKey, PartRef, batch_id
from dcompute.testing import Fault, FaultStore, ManualClock

KEYS = [ItemKey(text, kind) for text in ("a", "b", "é") for kind in ("str", "int")]


def opened(epoch):
    return Open(epoch=epoch, run=f"r{epoch}", workload="f", host="h", boot="b", pid=epoch, started=1.5, at=2.5)


some_keys = st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple)
names = st.integers(1, 4).map(lambda number: batch_id("r", 1, number))
parts = st.builds(
    PartRef, name=st.sampled_from([f"results/{text}.parquet" for text in "pqr"]), size=st.integers(0, 9), rows=st.integers(0, 9)
)
seconds = st.integers(0, 72).map(lambda eighths: eighths / 8)  # sums of which are exact, in any order
batches = st.builds(
    AddBatch,
    id=names,
    holds=st.lists(st.tuples(st.integers(0, 9), st.integers(10, 19)), max_size=2).map(tuple),
    left_out=some_keys,
    final=some_keys,
    results=st.lists(parts, max_size=2).map(tuple),
    succeeded=st.integers(0, 9),
    failed=st.lists(st.tuples(st.sampled_from(["crash", "timeout"]), st.integers(1, 9)), max_size=2).map(tuple),
    rows=st.integers(0, 99),
    seconds=seconds,
    slot_seconds=seconds,
    stands_for=st.none() | names,
    quarantined=st.lists(parts, max_size=2).map(tuple),
    again=some_keys,
)
left = st.lists(st.tuples(parts.map(lambda part: part.name), st.just(((0, 1), (2, 3))) | st.just(((1, 2),))), max_size=2).map(tuple)
actions = st.one_of(
    st.builds(Add, batches=st.lists(batches, max_size=3).map(tuple)),
    st.builds(Hide, keys=some_keys, scope=st.sampled_from(["results", "all"])),
    st.builds(
        Replace, parts=st.lists(parts.map(lambda part: part.name), max_size=2).map(tuple), by=st.tuples(parts), read_at=st.integers(0, 3)
    ),
    st.builds(
        Release,
        records=left,
        by=st.tuples(parts),
        read_at=st.integers(0, 3),
        admitted=some_keys.map(lambda keys: tuple((*key, "f") for key in keys)),
    ),
    st.builds(Drop, records=left),
    st.builds(SetSchema, schema=st.text(max_size=3)),
    st.builds(Rename, columns=st.lists(st.tuples(st.text(max_size=2), st.text(max_size=2)), max_size=2).map(tuple)),
    st.builds(Sent, batch=names, keys=some_keys),
    st.builds(RunInfo, run=st.just("r1"), version=st.none() | st.just("2"), seed=st.integers(0, 9)),
    st.builds(Adopted, epochs=st.lists(st.integers(1, 5), max_size=3).map(tuple)),
    st.builds(Close, epoch=st.integers(1, 5), outcome=st.sampled_from(["", "failed"])),
    st.builds(Vacuum, until=st.integers(0, 3)),
    st.just("open"),
)
logs = st.lists(st.lists(actions, max_size=4), max_size=6)


def entries(commits):
    """Entries of commits; epochs are numbered as they open."""
    epoch, found = 0, []
    for number, commit in enumerate(commits, 1):
        done = []
        for action in commit:
            epoch += action == "open"
            done.append(opened(epoch) if action == "open" else action)
        found.append(Entry(number, f"id{number}", float(number), tuple(done)))
    return found


def held(state):
    """All that a state holds of its log, and not how it came by it."""
    return {name: value for name, value in vars(state).items() if name not in ("checkpoint", "tally", "later_hides")}


def answers(state):
    """What a state says when it is asked."""
    return {
        "parts": list(state.counted_parts()),
        "quarantine": list(state.quarantine_parts()),
        "batches": list(state.batches),
        "last": state.batches[-1:],
        "final": [state.is_final(key) for key in KEYS],
        "added": [state.was_added(batch_id("r", 1, number)) for number in range(6)],
        "totals": state.totals(),
        "size": state.counted_size(),
        "hides": (state.hides, state.hides_all, state.hidden_at),
        "driver": (state.driver, state.is_open, state.unsettled),
    }


@given(logs, st.integers(0, 6))
def test_going_on_from_a_checkpoint_is_the_fold_of_everything(commits, cut):
    """Whatever a log has, and wherever it is cut: all that a state holds, and all that it answers, is the same."""
    whole = entries(commits)
    resumed = fold(whole[cut:], from_bytes(to_bytes(fold(whole[:cut]))))
    expected = fold(whole)
    assert held(resumed) == held(expected)
    assert answers(resumed) == answers(expected)
    # asked before it goes on, it says no less after
    early = from_bytes(to_bytes(fold(whole[:cut])))
    answers(early)
    assert answers(fold(whole[cut:], early)) == answers(expected)


@given(logs)
def test_sums_are_those_of_the_batches(commits):
    """Totals and sizes from columns are those that counting batch by batch gives."""
    state = from_bytes(to_bytes(fold(entries(commits))))
    found = list(state.counted_parts())
    assert state.counted_size() == (sum(part.rows for part in found), sum(part.size for part in found))
    succeeded, failed, rows, seconds = state.totals()
    added = [counted.batch for counted in state.batches]
    assert (succeeded, rows) == (sum(batch.succeeded for batch in added), sum(batch.rows for batch in added))
    assert sum(failed.values()) == sum(count for batch in added for _, count in batch.failed)
    assert seconds == pytest.approx(sum(batch.seconds for batch in added))


@given(logs, st.integers(0, 6))
def test_a_copy_stays_as_it_is(commits, cut):
    """What is folded in after a copy was taken does not reach it, and the copy's columns become those of the first."""
    whole = entries(commits)
    state = fold(whole[:cut])
    kept = state.copy()
    fold(whole[cut:], state)
    assert held(kept) == held(fold(whole[:cut]))
    state.batches.seal(kept.batches.columns())
    assert held(state) == held(fold(whole))


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


def acquire(store, run="r1"):
    return Writer.acquire(store, workload="flux", run=run, clock=ManualClock())


def add(writer, count, start=1):
    """So many commits of a batch each."""
    for number in range(start, start + count):
        writer.commit([Add(batches=(AddBatch(id=batch_id(writer.run, writer.epoch, number), holds=((0, 1),), succeeded=1),))])


def written(store):
    return [int(name[4:24]) for name in store.inner.names("log") if name.endswith("checkpoint.parquet")]


def reads(store):
    """Numbers of the entries that opening reads."""
    store.calls.clear()
    state = open_dataset(store)[1]
    names = [name for op, name in store.calls if op == "read" and name.endswith(".json") and name[4:24].isdigit()]
    return state, [int(name[4:24]) for name in names]


def long_log(store, commits=20, every=10):
    """A log whose driver left a checkpoint every so many entries."""
    with dask.config.set({"dcompute.driver.checkpoint": every}):
        writer = acquire(store)
        for number in range(1, commits + 1):
            add(writer, 1, number)
            thread = writer._checkpoints._thread
            if thread is not None:
                thread.join()
    return writer


def test_a_driver_leaves_checkpoints_and_opening_reads_few_entries(store):
    """Of a long log only the entries after the newest checkpoint are read, and the one it was made of."""
    long_log(store)
    assert written(store) == [10, 20]
    state, numbers = reads(store)
    assert numbers == [20, 21, 22]
    assert (state.number, state.checkpoint) == (21, 20)
    assert state.totals() == (20, {}, 0, 0.0)
    assert [counted.batch.id for counted in state.batches] == [batch_id("r1", 1, number) for number in range(1, 21)]


def test_short_runs_leave_none_and_long_ones_one_when_they_close(store):
    """A run that closes leaves a checkpoint where more than a hundred entries came since the last one."""
    first = acquire(store)
    add(first, checkpoint.AT_CLOSE - 2)
    first.close()
    assert written(store) == []
    second = acquire(store, "r2")
    second.close()
    assert written(store) == [checkpoint.AT_CLOSE + 2]
    third = acquire(store, "r3")
    add(third, 3)
    third.close()
    assert written(store) == [checkpoint.AT_CLOSE + 2]


def test_the_longer_a_log_the_rarer_its_checkpoints():
    """In a log of a million entries one comes every ten thousand, whatever the setting: all of them together stay small."""
    checkpoints = Checkpoints(Log(Store.at("memory://none")), 990_000)
    assert not checkpoints._is_due(999_000)
    assert checkpoints._is_due(1_000_001)


@pytest.mark.parametrize("damage", ["gone", "torn", "bit", "version", "other log"])
def test_a_checkpoint_that_cannot_be_used_is_passed_over(store, damage, caplog):
    """Missing, cut off, changed, of another version or log: an older one is used, or the whole log, and what is read is the same."""
    long_log(store)
    expected = fold(Log(store).read_all())
    for number, then in ((20, 10), (10, 0)):
        name = checkpoint_name(number)
        data = store.inner.read(name)
        spoil(store.inner, name, data, damage)
        with caplog.at_level(logging.WARNING, "dcompute.dataset"):
            state, numbers = reads(store)
        assert ("cannot be used" in caplog.text) == (damage != "gone")
        assert state.checkpoint == then
        assert then + 1 in numbers
        assert held(state) == held(expected)


def spoil(inner, name, data, damage):
    if damage == "gone":
        inner.remove([name])
    elif damage == "torn":
        inner.write(name, data[: len(data) // 2])
    elif damage == "bit":
        # in the first page: its checksum tells
        inner.write(name, data[:40] + bytes([data[40] ^ 1]) + data[41:])
    elif damage == "version":
        inner.write(name, data.replace(b'{"checkpoint": 1,', b'{"checkpoint": 9,'))
    else:
        other = from_bytes(data)
        other.entry_id = "another"
        inner.write(name, to_bytes(other))


def test_a_checkpoint_says_whether_it_has_a_quarantine():
    """One without any is as older versions read and write it; one of an older version is passed over, as it may lack some."""
    empty = fold(entries([["open", Add(batches=(AddBatch(id="a", holds=()),))]]))
    quarantined = PartRef(name="quarantine/q.parquet", size=1, rows=1)
    full = fold(entries([["open", Add(batches=(AddBatch(id="a", holds=(), quarantined=(quarantined,)),))]]))
    numbers = {checkpoint_file.VERSION: to_bytes(empty), checkpoint_file.WITH_MORE: to_bytes(full)}
    for number, data in numbers.items():
        file = pq.ParquetFile(io.BytesIO(data))
        assert json.loads(file.metadata.metadata[b"dcompute"])["checkpoint"] == number
        older = io.BytesIO()
        pq.write_table(file.read().drop_columns(["batch.quarantined", "batch.again"]), older)
        assert from_bytes(data) is not None
        assert from_bytes(older.getvalue()) is None


def test_storage_that_fails_costs_the_checkpoint_and_not_the_run(store, caplog):
    """A checkpoint that cannot be written is a line in the program's log; the commits count."""
    store.faults = [Fault("create", "log/*.parquet", times=9)]
    with caplog.at_level(logging.WARNING, "dcompute.dataset"):
        long_log(store)
    assert written(store) == []
    assert "no checkpoint" in caplog.text
    assert open_dataset(store)[1].number == 21


def test_a_hint_of_others_keeps_the_checkpoints(store):
    """Whoever notes the end of the log keeps the checkpoints that others noted; a damaged hint costs time only."""
    long_log(store)
    Log(store).note_end(21)
    assert Log(store).hint().checkpoints == (10, 20)
    store.write("log/last.json", b'{"number": 21, "checkpoints": ["x"]}')
    assert read_state(store).checkpoint == 0
    Log(store).note_end(21)
    assert Log(store).hint().number == 21


def test_reading_as_of_an_entry_goes_on_from_the_checkpoint_before_it(store):
    """As of an entry, only what came up to it is folded, from the newest checkpoint that is not later."""
    long_log(store)
    whole = list(Log(store).read_all())
    for at, begin in ((21, 20), (20, 20), (19, 10), (10, 10), (9, 0), (1, 0)):
        state = read_state(store, at)
        assert state.checkpoint == begin
        assert held(state) == held(fold(whole[:at]))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_old_checkpoints_grow_rare_and_never_leave_a_large_gap(steps):
    """Few stay; for any number there is one below it that is hardly farther from it than it is from the newest."""
    known, newest, first = [], 0, steps[0]
    for step in steps:
        newest += step
        known = staying([*known, newest])
        assert known[-1] == newest
        assert len(known) <= 2 * newest.bit_length() + 2
    for number in range(first, newest):
        below = max((each for each in known if each <= number), default=0)
        assert number - below <= max(newest - number, max(steps))


def test_removed_checkpoints_are_out_of_the_hint_and_gone(store):
    """What does not stay is removed, the hint names what is there, and no entry is ever removed."""
    long_log(store, commits=200, every=5)
    expected = []
    for number in range(5, 201, 5):
        expected = staying([*expected, number])
    assert written(store) == list(Log(store).hint().checkpoints) == expected
    assert len(expected) < 12
    assert all(store.inner.exists(entry_name(number)) for number in range(1, 202))


def test_the_file_is_parquet_that_anything_reads(store):
    """A checkpoint has no pickles: its metadata is JSON, and its columns are those of the tables."""
    writer = long_log(store)
    file = pq.ParquetFile(io.BytesIO(store.inner.read(checkpoint_name(20))))
    about = json.loads(file.metadata.metadata[b"dcompute"])
    assert (about["checkpoint"], about["number"]) == (checkpoint_file.VERSION, 20)
    assert file.read(columns=["batch.id"]).column(0).drop_null().to_pylist() == [one.batch.id for one in writer.state.batches[:19]]


def test_what_was_compacted_stays_so():
    """A part that gave way counts no more after a checkpoint, the one in its place does, and a second compaction of it is void."""
    one, two, three = (PartRef(name=f"results/{text}.parquet", size=1, rows=1) for text in ("one", "two", "three"))
    added = AddBatch(id=batch_id("r", 1, 1), holds=((0, 1),), results=(one,))
    done = [[Add(batches=(added,))], [Replace(parts=(one.name,), by=(two,), read_at=1)]]
    state = from_bytes(to_bytes(fold(entries(done))))
    assert [part.name for part in state.counted_parts()] == [two.name]
    assert state.counted_size() == (1, 1)
    late = Replace(parts=(one.name,), by=(three,), read_at=1)
    state.apply(Entry(3, "x", 3.0, (late,)))
    assert [part.name for part in state.counted_parts()] == [two.name]


def test_an_empty_state_is_a_checkpoint_too():
    """Nothing is lost of a log with nothing in it."""
    assert held(from_bytes(to_bytes(State()))) == held(State())
