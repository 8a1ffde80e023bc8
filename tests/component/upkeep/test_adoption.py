"""Adoption: what was written for a driver that died counts once, in the order of the inputs it answers, and nothing counts twice."""

from __future__ import annotations

import itertools
import json
import uuid

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.dataset.entries import Add, AddBatch, Adopted, Hide, SetSchema
from dcompute.dataset.log import Log
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.errors import SchemaError
from dcompute.records import FAILED, SUCCEEDED, ItemKey, Kind, PartRef, Receipt, batch_id
from dcompute.testing import Fault, FaultStore, ManualClock

OK, FINAL, AGAIN = "ok", Kind.PERMANENT, Kind.TRANSIENT


class Killed(BaseException):
    """The driver is gone at once: nothing of it runs any more."""


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


def acquire(store, run):
    return Writer.acquire(store, workload="flux", run=run, takeover=True, clock=ManualClock())


def is_final(kind, attempt):
    return kind == FINAL


def key(text):
    return ItemKey(text, "str")


def name(epoch, number):
    return batch_id(f"r{epoch}", epoch, number)


def part(batch):
    return PartRef(name=f"results/{batch}-x-0.parquet", size=1, rows=1)


def write_mark(store, batch, outcomes, *, stands_for=None, schema=None):
    """A written batch: {"a": OK, "b": FINAL}; a list gives the outcomes of several attempts."""
    rows = [
        (text, n, outcome) for text, made in outcomes.items() for n, outcome in enumerate(made if isinstance(made, list) else [made], 1)
    ]
    receipt = Receipt(
        batch=batch,
        execution="x",
        holds=((0, len(outcomes)),),
        results=(part(batch),),
        stands_for=stands_for,
        schema=schema,
        rows=len(rows),
    )
    store.write(part(batch).name, b"rows")
    store.create(f"attempts/{batch}.parquet", json.dumps({"receipt": receipt.to_json(), "rows": rows}).encode())


def read_mark(store, file):
    data = json.loads(store.read(file))
    texts, attempts, outcomes = zip(*data["rows"], strict=True)
    table = {
        "item_key": texts,
        "key_kind": ["str"] * len(texts),
        "attempt": attempts,
        "outcome": [SUCCEEDED if outcome == OK else FAILED for outcome in outcomes],
        "kind": [None if outcome == OK else outcome for outcome in outcomes],
    }
    return Receipt.from_json(data["receipt"]), pa.table({column: list(values) for column, values in table.items()})


def add(writer, number, *, left_out=(), final=(), hide=()):
    """The driver commits a written batch."""
    batch = name(writer.epoch, number)
    added = AddBatch(id=batch, holds=((0, 1),), results=(part(batch),), left_out=tuple(map(key, left_out)), final=tuple(map(key, final)))
    writer.commit([*([Hide(keys=tuple(map(key, hide)))] if hide else []), Add(batches=(added,))])


def visible(store):
    """The result rows that count: {"a": [batch ids that succeeded with it]}."""
    _, state = open_dataset(store)
    seen = {}
    for counted in state.batches:
        _, table = read_mark(store, counted.mark)
        for row in table.to_pylist():
            this = key(row["item_key"])
            if row["outcome"] == SUCCEEDED and this not in counted.batch.left_out and state.hides.get(this, -1) < counted.position:
                seen.setdefault(this.text, []).append(counted.batch.id)
    return seen


def last_entry(store):
    return list(Log(store).read_all())[-1].actions


def test_written_batches_are_adopted_in_order(store):
    """By number, and a key that an earlier batch finished is left out of the later one."""
    acquire(store, "r1")
    write_mark(store, name(1, 10), {"a": OK, "c": OK})
    write_mark(store, name(1, 9), {"a": OK, "b": FINAL, "d": AGAIN})
    writer = acquire(store, "r2")
    assert writer.adopt(read_mark, is_final) == [name(1, 9), name(1, 10)]
    (added, adopted) = last_entry(store)
    first, second = added.batches
    assert (first.left_out, first.final, first.succeeded, first.failed) == ((), (key("b"),), 1, (("permanent", 1), ("transient", 1)))
    assert (second.left_out, second.succeeded) == ((key("a"),), 1)
    assert adopted == Adopted(epochs=(1,))
    assert visible(store) == {"a": [name(1, 9)], "c": [name(1, 10)]}
    assert writer.state.unsettled == (2,)


def test_what_was_committed_stays(store):
    """A copy of what the log has, a key that is final in the same epoch, and marks of nobody's count not."""
    first = acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK, "b": FINAL, "c": AGAIN})
    add(first, 1, final=["b"])
    write_mark(store, name(1, 2), {"a": OK, "b": OK, "c": OK})
    write_mark(store, batch_id("other", 1, 3), {"z": OK})
    store.create("attempts/notes.txt", b"?")
    assert acquire(store, "r2").adopt(read_mark, is_final) == [name(1, 2)]
    assert visible(store) == {"a": [name(1, 1)], "c": [name(1, 2)]}


def test_batch_of_nothing_new_is_not_added(store):
    """A written batch of which every key is final already leaves no trace in the log."""
    first = acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK})
    add(first, 1)
    write_mark(store, name(1, 2), {"a": OK})
    assert acquire(store, "r2").adopt(read_mark, is_final) == []
    assert last_entry(store) == (Adopted(epochs=(1,)),)


def test_outcome_of_an_earlier_epoch_is_hidden_in_the_same_entry(store):
    """The new answer to a changed input takes the old one's place at one moment; others stay."""
    first = acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK, "b": OK})
    add(first, 1)
    first.close()
    acquire(store, "r2").adopt(read_mark, is_final)
    write_mark(store, name(2, 1), {"a": OK, "c": OK})
    acquire(store, "r3").adopt(read_mark, is_final)
    assert [type(action) for action in last_entry(store)] == [Hide, Add, Adopted]
    assert last_entry(store)[0].keys == (key("a"),)
    assert visible(store) == {"a": [name(2, 1)], "b": [name(1, 1)], "c": [name(2, 1)]}


def test_failed_answer_to_a_changed_input_hides_the_old_one(store):
    """Never an answer to an older input: a failure hides it too."""
    first = acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK})
    add(first, 1)
    first.close()
    acquire(store, "r2")
    write_mark(store, name(2, 1), {"a": AGAIN})
    acquire(store, "r3").adopt(read_mark, is_final)
    assert visible(store) == {}


def test_marks_that_come_after_adoption_never_count(store):
    """A worker that outlived its driver and writes late writes for nothing."""
    acquire(store, "r1").abandon()
    second = acquire(store, "r2")
    second.adopt(read_mark, is_final)
    write_mark(store, name(1, 1), {"a": OK})
    second.abandon()
    assert acquire(store, "r3").adopt(read_mark, is_final) == []
    assert visible(store) == {}


def test_close_leaves_nothing_to_list(store):
    """After a clean close marks are never listed."""
    acquire(store, "r1").close()
    store.calls.clear()
    assert acquire(store, "r2").adopt(read_mark, is_final) == []
    assert [name for op, name in store.calls if op == "names"] == []


def test_newest_attempt_of_a_mark_counts(store):
    """Where a batch tried an item twice, its last attempt is the outcome."""
    acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": [AGAIN, OK], "b": [AGAIN, FINAL]})
    acquire(store, "r2").adopt(read_mark, is_final)
    (added, _) = last_entry(store)
    assert (added.batches[0].succeeded, added.batches[0].final) == (1, (key("b"),))


def test_adoption_across_several_dead_drivers(store):
    """A successor that died before it adopted leaves two epochs; both are settled, the newer answer counts."""
    acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK, "b": OK})
    acquire(store, "r2")
    write_mark(store, name(2, 1), {"a": OK})
    writer = acquire(store, "r3")
    assert writer.adopt(read_mark, is_final) == [name(1, 1), name(2, 1)]
    assert visible(store) == {"a": [name(2, 1)], "b": [name(1, 1)]}
    assert writer.state.unsettled == (3,)


def join(old, new):
    if "bad" in (new or ""):
        raise SchemaError("cannot meet")
    return "+".join(sorted({*(old or "").split("+"), *(new or "").split("+")} - {""})) or None


def test_schema_grows_in_the_entry_that_needs_it(store):
    """Columns that only adopted batches have are in the log before their rows count."""
    first = acquire(store, "r1")
    first.commit([SetSchema(schema="x")])
    write_mark(store, name(1, 1), {"a": OK}, schema="x+y")
    write_mark(store, name(1, 2), {"b": OK}, schema="z")
    acquire(store, "r2").adopt(read_mark, is_final, join=join)
    assert last_entry(store)[0] == SetSchema(schema="x+y+z")


def test_misfit_is_left_behind_or_rewritten(store):
    """A batch that does not join counts as its rewrite, or not at all; never both."""
    acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK, "b": OK}, schema="bad")
    second = acquire(store, "r2")
    assert second.adopt(read_mark, is_final, join=join) == []
    assert second.misfits == (name(1, 1),)
    write_mark(store, name(2, 1), {"a": OK}, schema="bad")
    third = acquire(store, "r3")

    def rewrite(receipt):
        write_mark(store, name(3, 1), {"a": OK}, schema="y", stands_for=receipt.batch)
        return f"attempts/{name(3, 1)}.parquet"

    assert third.adopt(read_mark, is_final, join=join, rewrite=rewrite) == [name(3, 1)]
    assert third.misfits == ()
    assert visible(store) == {"a": [name(3, 1)]}


def test_batch_whose_part_is_gone_is_left_behind(store):
    """A server that was killed may have forgotten the part that a mark names: its items have no outcome then."""
    acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK})
    write_mark(store, name(1, 2), {"b": OK})
    store.remove([part(name(1, 1)).name])
    second = acquire(store, "r2")
    assert second.adopt(read_mark, is_final) == [name(1, 2)]
    assert second.misfits == (name(1, 1),)
    assert visible(store) == {"b": [name(1, 2)]}


def test_rewritten_batch_counts_alone(store):
    """Where a rewrite and its original lie there, the rewrite counts, with the rank of the original; one added already bars the other."""
    first = acquire(store, "r1")
    write_mark(store, name(1, 1), {"a": OK})
    write_mark(store, name(1, 5), {"a": FINAL}, stands_for=name(1, 1))
    write_mark(store, name(1, 3), {"a": OK, "b": OK})
    write_mark(store, name(1, 2), {"c": OK})
    add(first, 2)
    write_mark(store, name(1, 6), {"c": OK}, stands_for=name(1, 2))
    assert acquire(store, "r2").adopt(read_mark, is_final) == [name(1, 5), name(1, 3)]
    assert visible(store) == {"c": [name(1, 2)], "b": [name(1, 3)]}


outcomes = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([OK, FINAL, AGAIN]), min_size=1)
histories = st.lists(st.lists(st.tuples(outcomes, st.booleans()), max_size=4), min_size=1, max_size=3)


def play(store, history):
    """Drivers one after the other: each adopts, writes batches, commits some of them as a driver does, and dies."""
    known = {}
    for epoch, batches in enumerate(history, 1):
        writer = acquire(store, f"r{epoch}")
        writer.adopt(read_mark, is_final)
        final, hidden = set(), set()
        for number, (made, is_committed) in enumerate(batches, 1):
            write_mark(store, name(epoch, number), made)
            if not is_committed:
                continue
            left_out = sorted(final & set(made))
            counts = [text for text in made if text not in final]
            hide = [text for text in counts if known.get(text, epoch) < epoch and text not in hidden]
            if counts:
                add(writer, number, left_out=left_out, final=[t for t in counts if made[t] == FINAL], hide=hide)
            hidden |= set(counts)
            final |= {text for text in counts if made[text] != AGAIN}
        for text in itertools.chain.from_iterable(made for made, _ in batches):
            known[text] = epoch
        writer.abandon()


def expected(history):
    """What a user is to see: of the newest run that tried an item its final outcome, committed ones first; else nothing."""
    found = {}
    for text in "abcd":
        tried = [epoch for epoch, batches in enumerate(history, 1) if any(text in made for made, _ in batches)]
        if not tried:
            continue
        batches = [(not committed, n, made[text]) for n, (made, committed) in enumerate(history[tried[-1] - 1], 1) if text in made]
        finals = sorted(one for one in batches if one[2] != AGAIN)
        if finals and finals[0][2] == OK:
            found[text] = [name(tried[-1], finals[0][1])]
    return found


@given(histories)
def test_any_history_shows_each_item_once(history):
    """Whatever drivers committed and left behind, each item shows the one outcome it should."""
    store = Store.at(f"memory://{uuid.uuid4().hex}")
    play(store, history)
    acquire(store, "last").adopt(read_mark, is_final)
    assert visible(store) == expected(history)


HISTORY = [[({"a": OK, "b": OK}, True)], [({"a": OK, "c": OK}, True), ({"b": FINAL, "d": OK}, False), ({"c": OK, "e": OK}, False)]]


@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_every_step_of_taking_over(how):
    """A driver that dies before or after any operation on the storage leaves what its successor makes right."""
    for step in itertools.count():
        store = FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))
        play(store, HISTORY)
        store.faults = [Fault("*", how=how, skip=step, error=Killed())]
        try:
            killed = acquire(store, "r3")
            killed.adopt(read_mark, is_final)
            write_mark(store, name(3, 1), {"f": OK})
            add(killed, 1)
            write_mark(store, name(3, 2), {"g": OK})
            killed.close()
        except Killed:
            done = False
        else:
            done = True
        store.faults = []
        last = acquire(store, f"r{open_dataset(store)[1].epoch + 1}")
        last.adopt(read_mark, is_final)
        seen = visible(store)
        assert {text: seen.pop(text, None) for text in "abcde"} == {
            "a": [name(2, 1)],
            "b": None,
            "c": [name(2, 1)],
            "d": [name(2, 2)],
            "e": [name(2, 3)],
        }
        assert [item for item in seen.items() if item not in (("f", [name(3, 1)]), ("g", [name(3, 2)]))] == []
        assert last.state.unsettled == (last.epoch,)
        if done:
            break
    assert step > 20


def test_adoption_of_real_parts(tmp_path):
    """The marks that workers write are read by the functions that the driver passes."""
    from dcompute.dataset.parts import attempts_table, mark_name, read_mark, write_attempts
    from dcompute.records import ATTEMPT_COLUMNS

    store = Store.at(tmp_path / "ds")
    acquire(store, "r1").abandon()
    row = {"item_key": "a", "key_kind": "str", "attempt": 1, "outcome": SUCCEEDED}
    table = attempts_table([[row.get(column) for column in ATTEMPT_COLUMNS]])
    write_attempts(tmp_path / "mark", table, Receipt(batch=name(1, 1), execution="x", holds=((0, 1),), results=(part(name(1, 1)),)))
    store.create_from(tmp_path / "mark", mark_name(name(1, 1)))
    store.write(part(name(1, 1)).name, b"rows")
    writer = acquire(store, "r2")
    assert writer.adopt(read_mark, is_final) == [name(1, 1)]
    assert (writer.state.batches[0].batch.succeeded, [p.name for p in writer.state.counted_parts()]) == (1, [part(name(1, 1)).name])
