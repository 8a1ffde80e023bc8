"""Deletion: an item that was deleted was never executed, whatever was written and not committed, and whoever dies meanwhile."""

from __future__ import annotations

import itertools
import uuid

import pytest

from dcompute.dataset import outcomes as outcomes_module
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.entries import Hide, Sent
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.names import started_name
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.status import status_of
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import Writer, open_dataset
from dcompute.errors import DatasetBusy, DatasetError, UsageError
from dcompute.records import ItemKey
from dcompute.testing import Fault, FaultStore, ManualClock
from tests.component.upkeep.driving import Driving, attempted, key, on_storage, visible


class Killed(BaseException):
    """The process is gone at once."""


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def full(store):
    """Two closed runs: a, b, c in the first, c again and d in the second; e failed."""
    first = Driving(store)
    first.add({"a": [{"n": 1}], "b": [{"n": 2}, {"n": 3}]})
    first.add({"c": [{"n": 4}], "e": None}, final=(key("e"),))
    first.close()
    second = Driving(store, "r2")
    second.add({"c": [{"n": 5}], "d": [{"n": 6}]}, hide=["c"])
    second.close()
    return store


def keys_of(rows):
    return sorted(eval(row)["item_key"] for row in rows.elements())


def outcomes(store):
    """The keys that count as executed."""
    chunks = iter_outcomes(store, open_dataset(store)[1])
    return sorted({text for chunk in chunks for text in chunk.table.column("item_key").to_pylist()})


def test_deleted_items_are_nowhere(full):
    """Their rows end in results, attempts and outcomes; all others stay."""
    done = delete(full, ["b", "e"])
    assert done.items == 2
    assert keys_of(visible(full)) == ["a", "c", "d"]
    assert attempted(full) == {"a": 1, "c": 2, "d": 1}
    assert outcomes(full) == ["a", "c", "d"]
    assert not open_dataset(full)[1].is_final(key("e"))


def test_the_status_counts_them_no_more(full):
    """Neither as succeeded, nor as failed, nor as attempts."""
    before = status_of(full, open_dataset(full)[1])
    assert (before.succeeded, before.failed, before.attempts) == (4, 1, 6)
    delete(full, ["c", "e"])
    after = status_of(full, open_dataset(full)[1])
    assert (after.succeeded, after.failed, after.attempts) == (3, 0, 3)


def test_one_entry_and_no_epoch(full):
    """After a clean end a deletion is one entry: it counts whole or not at all, and no run is seen that was none."""
    before = open_dataset(full)[1]
    delete(full, ["a", "b"])
    after = open_dataset(full)[1]
    assert (after.number, after.epoch) == (before.number + 1, before.epoch)


def test_a_deleted_item_is_done_again(full):
    """What a later run adds of it counts, once."""
    delete(full, ["b"])
    again = Driving(full, "r3")
    again.add({"b": [{"n": 7}]})
    again.close()
    assert keys_of(visible(full)) == ["a", "b", "c", "d"]
    assert attempted(full)["b"] == 1


@pytest.mark.parametrize("rows", [1, 1000])
def test_deletion_of_a_run(full, monkeypatch, rows):
    """The items whose outcome is the run's go, failures too; one that a later run did again stays, however much is read at once."""
    monkeypatch.setattr(outcomes_module, "CHUNK_ROWS", rows)
    done = delete(full, run="r1")
    assert (done.items, done.kept) == (3, 1)
    assert "3 items deleted; 1 that a later run did again" in str(done)
    assert outcomes(full) == ["c", "d"]
    assert keys_of(visible(full)) == ["c", "d"]
    assert delete(full, run="r1").items == 0


@pytest.mark.parametrize("rows", [1, 1000])
def test_an_item_that_failed_in_one_run_and_succeeded_in_the_next(store, monkeypatch, rows):
    """It is the later run's, though nothing of the first one was hidden."""
    monkeypatch.setattr(outcomes_module, "CHUNK_ROWS", rows)
    for run, did in (("r1", {"a": None, "b": [{"n": 1}]}), ("r2", {"a": [{"n": 2}]})):
        driver = Driving(store, run)
        driver.add(did)
        driver.close()
    done = delete(store, run="r1")
    assert (done.items, done.kept) == (1, 1)
    assert outcomes(store) == ["a"]


def test_deletion_of_the_last_run(full):
    """An item that it had done again does not fall back to an answer to an older input."""
    assert delete(full, run="r2").items == 2
    assert keys_of(visible(full)) == ["a", "b", "b"]
    assert outcomes(full) == ["a", "b", "e"]


def test_compaction_and_vacuum_take_results_off_the_storage(full):
    """After them no file has a row of a deleted item."""
    delete(full, ["b"])
    compact(full, all=True)
    vacuum(full, 0)
    assert keys_of(on_storage(full)) == ["a", "c", "d"]


def test_a_compaction_that_read_before(full):
    """Rows that a compaction had read do not come back with it."""
    full.faults.append(Fault("upload", "results/compact-*", how="slow", act=lambda: delete(full.inner, ["b"])))
    compact(full, all=True)
    assert keys_of(visible(full)) == ["a", "c", "d"]


def test_unknown_keys(full):
    """A key that is not there, or not any more, or of another kind, stops the deletion before anything is deleted."""
    for keys, named in ((["a", "x", "y", "z", "w"], "'x', 'y', 'z' and 1 more"), ([("a", "int")], r"\('a', 'int'\)"), (["a", ""], "''")):
        with pytest.raises(UsageError, match=f"no item with the key {named}: deleted before, or mistyped. Nothing was deleted"):
            delete(full, keys)
    assert outcomes(full) == ["a", "b", "c", "d", "e"]
    delete(full, [("a", "str")])
    with pytest.raises(UsageError, match="'a'"):
        delete(full, ["a"])


def test_one_text_of_several_kinds(store):
    """A text that stands for two items is refused without its kind."""
    driver = Driving(store)
    driver.add({"1": [{"n": 1}]})
    batch = driver.write({"x": [{"n": 2}]})
    driver.writer.abandon()
    _as_integers(store, batch)
    assert delete(store, [("1", "int")]).items == 1
    assert outcomes(store) == ["1", "x"]


def _as_integers(store, batch):
    driver = Driving(store, "r2")
    rows = {"1": [{"n": 2}]}
    row = driver._row
    driver._row = lambda text, rows, batch: ("1", "int", *row(text, rows, batch)[2:])
    driver.writer.adopt(_read_mark, lambda kind, attempt: True)
    driver.add(rows)
    driver.close()
    with pytest.raises(UsageError, match=r"say which one, as \('1', 'int'\) or \('1', 'str'\)"):
        delete(store, ["1"])


def _read_mark(store, name):
    from dcompute.dataset.parts import read_mark

    return read_mark(store, name)


@pytest.mark.parametrize("wrong", [{}, {"keys": ["a"], "run": "r1"}])
def test_keys_or_a_run(full, wrong):
    """One of both says what is deleted."""
    with pytest.raises(UsageError, match="keys= or run="):
        delete(full, **wrong)


def test_what_is_no_key(full):
    """One text is no list of keys, and a number is no key as a dataset has them."""
    with pytest.raises(UsageError, match=r"keys=\['abc'\]"):
        delete(full, "abc")
    with pytest.raises(UsageError, match="3 is no key"):
        delete(full, [3])
    with pytest.raises(UsageError, match="no run 'r9'"):
        delete(full, run="r9")


def test_a_live_driver_is_respected(full):
    """Beside a run nothing is deleted: it has planned with what is there."""
    driver = Driving(full, "r3")
    with pytest.raises(DatasetBusy, match="r3"):
        delete(full, ["a"])
    driver.close()
    assert delete(full, ["a"]).items == 1


def test_a_driver_that_opens_first(full):
    """A run that begins while the keys are looked up wins."""
    drivers = []
    full.faults.append(Fault("create", "log/*", how="slow", act=lambda: drivers.append(Driving(full.inner, "r3"))))
    with pytest.raises(DatasetBusy, match="r3"):
        delete(full, ["a"])
    assert outcomes(full) == ["a", "b", "c", "d", "e"]
    drivers[0].close()


def test_a_driver_that_opens_second(full):
    """A run whose number a deletion takes reads it and begins: nobody is busy."""
    full.faults.append(Fault("create", "log/*", how="slow", act=lambda: delete(full.inner, ["a"])))
    driver = Driving(full, "r3")
    assert driver.writer.state.hides_all
    driver.close()
    assert outcomes(full) == ["b", "c", "d", "e"]


def interrupted(store, **fields):
    """A run that died: a, b committed; b again and c written and not committed."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}], "b": [{"n": 2}]})
    driver.write({"c": [{"n": 4}], "f": None}, **fields)
    driver.writer.abandon()
    return driver


def test_what_an_interrupted_run_wrote_does_not_come_back(store):
    """It is adopted first, then deleted: no successor adds it later."""
    interrupted(store)
    assert delete(store, ["c"]).items == 1
    assert keys_of(visible(store)) == ["a", "b"]
    successor = Driving(store, "r2")
    assert successor.writer.adopt(_read_mark, lambda kind, attempt: True) == []
    successor.close()
    assert keys_of(visible(store)) == ["a", "b"]
    # a failure that by its mark alone is not known to be final is tried again
    assert not open_dataset(store)[1].is_final(key("f"))


def test_an_unknown_key_after_an_interrupted_run(store):
    """What was written is adopted, the epoch is closed, and nothing is deleted."""
    interrupted(store)
    with pytest.raises(UsageError, match="Nothing was deleted"):
        delete(store, ["x"])
    assert keys_of(visible(store)) == ["a", "b", "c"]
    assert open_dataset(store)[1].unsettled == ()


def test_items_that_may_be_executed_once_only(store):
    """What a deletion adopts of them is final: no later run executes one again that nobody deleted."""
    driver = Driving(store)
    driver.writer.commit([Sent(batch="r1-000001-00000001", keys=(key("c"), key("f")))])
    batch = driver.write({"c": [{"n": 4}], "f": None})
    store.create(started_name(batch.id), b"e")
    driver.writer.abandon()
    delete(store, ["c"])
    state = open_dataset(store)[1]
    assert state.is_final(key("f"))
    assert not state.sent


def test_a_batch_that_must_be_rewritten(store):
    """Only a run can do that: the deletion says so, and settles nothing."""
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    driver.write({"b": [{"n": "text"}]})
    driver.writer.abandon()
    with pytest.raises(DatasetError, match="run the same line again"):
        delete(store, ["a"])
    state = open_dataset(store)[1]
    assert state.unsettled == (1, 2)
    assert outcomes(store) == ["a"]


def test_a_silent_driver_is_fenced_off(store):
    """A driver that was taken for dead and comes back cannot add what was deleted."""
    from dcompute.errors import DatasetTakenOver

    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    pending = driver.write({"b": [{"n": 2}]})
    Writer._live.pop("r1")  # as if its process were gone
    delete(store, ["a", "b"])
    from dcompute.dataset.entries import Add

    with pytest.raises(DatasetTakenOver):
        driver.writer.commit([Add(batches=(pending,))])
    assert outcomes(store) == []


@pytest.mark.parametrize("make", ["clean", "interrupted"])
def test_a_deletion_killed_at_every_step(make):
    """Wherever it dies all asked keys are deleted or none, the next one finishes, and no successor brings a row back."""
    seen = set()
    for step in itertools.count():
        store = FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))
        driver = interrupted(store)
        if make == "clean":
            successor = Driving(store, "r2")
            successor.writer.adopt(_read_mark, lambda kind, attempt: True)
            successor.close()
        store.faults.append(Fault("*", skip=step, error=Killed()))
        try:
            delete(store, ["a", "c"], clock=ManualClock())
        except Killed:
            pass
        else:
            break
        store.faults.clear()
        for run in list(Writer._live):
            Writer._live.pop(run)  # as if its process were gone
        later = Driving(store, f"later-{step}")
        later.writer.adopt(_read_mark, lambda kind, attempt: True)
        later.close()
        left = keys_of(visible(store))
        seen.add(tuple(left))
        assert left in (["a", "b", "c"], ["b"])
        if left != ["b"]:
            delete(store, ["a", "c"])
        assert keys_of(visible(store)) == outcomes(store)[:1] == ["b"]
    assert driver
    assert seen == {("a", "b", "c"), ("b",)} or make == "clean"


def test_a_lost_answer(full):
    """A deletion whose answer was lost counts once."""
    full.faults.append(Fault("create", "log/*", how="after"))
    delete(full, ["a"])
    hides = [
        action for entry in Keeper(full).log.read_all() for action in entry.actions if isinstance(action, Hide) and action.scope == "all"
    ]
    assert hides == [Hide(keys=(ItemKey("a", "str"),), scope="all")]
