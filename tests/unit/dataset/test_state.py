"""The fold: what counts follows from the order of actions, and from nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcompute.dataset.entries import Add, AddBatch, Adopted, Close, Entry, Hide, Open, Replace, RunInfo, Sent, SetSchema
from dcompute.dataset.state import State, fold
from dcompute.errors import DatasetCorruptError
from dcompute.records import ItemKey, PartRef, batch_id

KEYS = [ItemKey(text, "str") for text in "abcde"]


def entries(*commits):
    return [Entry(number, f"id{number}", float(number), tuple(actions)) for number, actions in enumerate(commits, 1)]


def opened(epoch, run=None):
    return Open(epoch=epoch, run=run or f"r{epoch}", workload="f", host="h", boot="b", pid=1, started=1.0)


def batch(number, epoch=1, **fields):
    name = batch_id(f"r{epoch}", epoch, number)
    part = PartRef(name=f"results/{name}-x-0.parquet", size=10, rows=len(KEYS))
    return AddBatch(**{"id": name, "holds": ((0, len(KEYS)),), "results": (part,), **fields})


def rows(state):
    """The result rows that count, where every part has a row of every key: by the rule of the design, word for word."""
    return sorted(
        (key.text, part.name)
        for part in state.counted_parts()
        for key in KEYS
        if key not in part.left_out and state.hides.get(key, -1) < part.position
    )


class Model:
    """The same rule, row by row: actions add and remove single rows."""

    def __init__(self):
        self.rows = {}
        self.seen = set()

    def act(self, action):
        if isinstance(action, Hide):
            self.rows = {row: None for row in self.rows if row[0] not in {key.text for key in action.keys}}
        elif isinstance(action, Add):
            for added in action.batches:
                if added.id in self.seen or added.stands_for in self.seen:
                    continue
                self.seen |= {added.id, added.stands_for} - {None}
                out = {key.text for key in added.left_out}
                self.rows.update(dict.fromkeys((key.text, part.name) for part in added.results for key in KEYS if key.text not in out))


some_keys = st.lists(st.sampled_from(KEYS), max_size=3, unique=True).map(tuple)
adds = st.builds(
    lambda number, left_out, stands_for: Add(
        batches=(batch(number, left_out=left_out, stands_for=None if stands_for is None else batch_id("r1", 1, stands_for)),)
    ),
    st.integers(1, 9),
    some_keys,
    st.none() | st.integers(1, 9),
)
hides = st.builds(Hide, keys=some_keys, scope=st.sampled_from(["results", "all"]))
logs = st.lists(st.lists(adds | hides, max_size=4), max_size=6)


@given(logs)
def test_rows_count_as_if_added_and_removed_one_by_one(commits):
    """Positions and hides give the rows that a table changed row by row would have."""
    model = Model()
    for action in itertools.chain.from_iterable(commits):
        model.act(action)
    assert rows(fold(entries(*commits))) == sorted(model.rows)


@given(logs, st.integers(0, 6))
def test_fold_goes_on_from_anywhere(commits, cut):
    """A fold in two pieces is the fold of the whole."""
    whole = entries(*commits)
    resumed = fold(whole[cut:], fold(whole[:cut]))
    assert vars(resumed) == vars(fold(whole))


@given(logs, st.data())
def test_compaction_changes_no_row(commits, data):
    """A compacted part has the rows that counted when it was read; hides that came meanwhile, or come later, still hit them."""
    cut = data.draw(st.integers(0, len(commits)))
    before = fold(entries(*commits[:cut]))
    names = [part.name for part in before.counted_parts()]
    replaced = tuple(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else ()
    held = {key for key, name in rows(before) if name in replaced}
    replace = Replace(parts=replaced, by=(PartRef(name="results/compact.parquet", size=1, rows=1),), read_at=before.number)
    plain = fold(entries(*commits))
    compacted = fold([*entries(*commits, [replace])])
    expected = {key for key, name in rows(plain) if name in replaced}
    got = {key for key, name in rows(compacted) if name == "results/compact.parquet"} & held
    assert got == expected
    assert [row for row in rows(compacted) if row[1] != "results/compact.parquet"] == [row for row in rows(plain) if row[1] not in replaced]


def test_compaction_of_what_was_replaced_already_is_void():
    """Of two compactions of one part the first counts."""
    name = batch(1).results[0].name
    one, two = (PartRef(name=f"results/{text}.parquet", size=1, rows=1) for text in ("one", "two"))
    state = fold(
        entries([Add(batches=(batch(1),))], [Replace(parts=(name,), by=(one,), read_at=1)], [Replace(parts=(name,), by=(two,), read_at=1)])
    )
    assert [part.name for part in state.counted_parts()] == ["results/one.parquet"]


def test_hide_in_the_entry_of_the_add_spares_it():
    """A hide before an add in one entry ends what was there, not what is added."""
    key = KEYS[0]
    state = fold(entries([Add(batches=(batch(1),))], [Hide(keys=(key,)), Add(batches=(batch(2),))]))
    assert [name for text, name in rows(state) if text == "a"] == [batch(2).results[0].name]


def test_batch_that_stands_for_another_counts_alone():
    """A rewritten batch and the one it stands for never both count, whichever comes first."""
    original, rewritten = batch(1), batch(2, stands_for=batch(1).id)
    for order in ([original, rewritten], [rewritten, original]):
        state = fold(entries(*([Add(batches=(one,))] for one in order)))
        assert [counted.batch for counted in state.batches] == order[:1]
        assert state.was_added(original.id)


def test_final_failures():
    """A failure is final from the entry that says so until a hide of its key, and again when a later entry says so again."""
    key = KEYS[0]
    commits = [[Add(batches=(batch(1, final=(key,)),))], [Hide(keys=(key,))], [Add(batches=(batch(2, final=(key,)),))]]
    states = [fold(entries(*commits[:n])) for n in range(1, 4)]
    assert [state.is_final(key) for state in states] == [True, False, True]
    assert not states[2].is_final(KEYS[1])
    growing = State()
    assert [fold([entry], growing).is_final(key) for entry in entries(*commits)] == [True, False, True]


def test_scopes_of_hides():
    """A hide of results leaves attempts as history; one of all ends both."""
    state = fold(entries([Hide(keys=KEYS[:1])], [Hide(keys=KEYS[1:2], scope="all")]))
    assert set(state.hides) == set(KEYS[:2])
    assert set(state.hides_all) == set(KEYS[1:2])


def test_epochs():
    """An epoch is open until it is closed or a successor has adopted; the driver is the last one."""
    commits = [[opened(1)], [Close(epoch=1)], [opened(2)], [opened(3)], [Adopted(epochs=(2,))]]
    states = [fold(entries(*commits[:n])) for n in range(1, 6)]
    assert [state.is_open for state in states] == [True, False, True, True, True]
    assert [state.unsettled for state in states] == [(1,), (), (2,), (2, 3), (3,)]
    assert states[-1].driver.run == "r3"
    assert states[-1].closed == {1}


def test_entries_must_follow_each_other():
    """A gap in the log and an epoch that does not follow are damage, not state."""
    with pytest.raises(DatasetCorruptError, match="cannot follow"):
        State().apply(Entry(2, "x", 0.0, ()))
    with pytest.raises(DatasetCorruptError, match="epoch 3"):
        fold(entries([opened(1)], [opened(3)]))


def test_sent_items_wait_for_their_outcome():
    """Items sent at most once stay noted until the batch in which they went out last, or a final failure of theirs, is added."""
    one, two, three = (
        Sent(batch=batch(number).id, keys=keys) for number, keys in ((1, tuple(KEYS[:3])), (2, tuple(KEYS[3:])), (3, (KEYS[1],)))
    )
    verdict = batch(4, results=(), final=(KEYS[4],))
    state = fold(entries([one, two], [Add(batches=(verdict,))]))
    assert set(state.sent) == set(KEYS[:4])
    # cut short: what its mark does not hold was never begun, and one of that went out again before the mark was added
    state = fold(entries([one, two], [Add(batches=(verdict,))], [three], [Add(batches=(batch(1, holds=((0, 1),)),))]))
    assert state.sent == {KEYS[1]: three.batch, KEYS[3]: two.batch}


def test_what_the_last_run_was():
    """Schema, time and digests are those of the newest entry that gave them."""
    state = fold(entries([RunInfo(run="r1", version="1"), SetSchema(schema="a")], [RunInfo(run="r2", version="2")]))
    assert (state.run_info.version, state.schema, state.number, state.at) == ("2", "a", 2, 2.0)


def test_totals():
    """Sums go over all batches that were added, once each."""
    one = batch(1, succeeded=3, failed=(("timeout", 2),), rows=30, seconds=1.5)
    two = batch(2, succeeded=1, failed=(("timeout", 1), ("crash", 1)), rows=10, seconds=0.5)
    state = fold(entries([Add(batches=(one, two))], [Add(batches=(one,))]))
    assert state.totals() == (4, {"timeout": 3, "crash": 1}, 40, 2.0)
