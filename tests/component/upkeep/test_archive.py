"""A copy is the dataset as of one log position, or no dataset at all."""

from __future__ import annotations

import itertools
import uuid

import pytest

from dcompute.dataset.archive import copy
from dcompute.dataset.compaction import compact
from dcompute.dataset.deletion import delete
from dcompute.dataset.entries import Add, Hide, Sent
from dcompute.dataset.keeper import Keeper
from dcompute.dataset.names import DATASET, started_name
from dcompute.dataset.outcomes import iter_outcomes
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.dataset.vacuum import vacuum
from dcompute.dataset.writer import open_dataset
from dcompute.errors import DatasetCorruptError, DatasetError, StoreError, UsageError
from dcompute.testing import Fault, FaultStore
from tests.component.upkeep.driving import Driving, attempted, key, visible


class Killed(BaseException):
    """The process is gone at once."""


@pytest.fixture
def store():
    return a_store()


def a_store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def full(store):
    """A compacted and vacuumed run, a second with a hide, and a third that is open with a written batch."""
    driver = Driving(store)
    for number in range(6):
        driver.add({f"{number}": [{"n": number}]})
    driver.close()
    compact(store, all=True)
    vacuum(store, 0)
    second = Driving(store, "r2")
    second.add({"3": [{"n": -3}], "bad": None}, hide=["3"], final=(key("bad"),))
    second.close()
    third = Driving(store, "r3")
    third.add({"new": [{"n": 7}]})
    third.write({"newer": [{"n": 8}]})
    return store


def facts(store):
    """All that readers and drivers go by."""
    state = open_dataset(store)[1]
    outcomes = sorted(text for chunk in iter_outcomes(store, state) for text in chunk.table.column("item_key").to_pylist())
    return visible(store), attempted(store), outcomes, state.schema, state.workload, state.is_final(key("bad"))


def test_a_copy_is_the_dataset(full, store):
    """It reads as the dataset did, from files of its own, and has a name of its own."""
    target = a_store()
    done = copy(full, target)
    before = facts(full)
    for name in full.names("results"):
        full.remove([name])
    assert facts(target) == before
    assert open_dataset(target)[0] != open_dataset(full)[0]
    assert done.files == 1 + 2 + 6 + 2 + done.number
    assert f"as of entry {done.number}" in str(done)


def test_reports_that_stay_behind_are_named(full):
    """A copy has no reports: what it says of itself names those that were published, and of a dataset without any it says nothing."""
    assert (copy(full, a_store()).reports, "report" in str(copy(full, a_store()))) == ((), False)
    for name in ("daily", "clean"):
        full.write(f"reports/{name}/versions/00000000000000000001.json", b"{}")
    full.write("reports/never/status.json", b"{}")
    target = a_store()
    done = copy(full, target)
    assert done.reports == ("clean", "daily")
    assert "without its reports (clean, daily)" in str(done)
    assert target.names("reports/daily/versions") == []


def test_a_copy_can_be_gone_on_with(full):
    """Though a driver of the dataset is alive: the copy has none, and what was not committed is executed again."""
    target = a_store()
    copy(full, target)
    driver = Driving(target, "r4")
    assert driver.writer.adopt(None, None) == []
    driver.add({"newer": [{"n": 9}]})
    driver.close()
    assert (visible(target) - visible(full)).total() == 1
    assert len(visible(full)) == 7


def test_compaction_vacuum_and_deletion_of_a_copy(full):
    """A copy is looked after as any dataset is."""
    target = a_store()
    copy(full, target)
    delete(target, ["5"])
    compact(target, all=True)
    vacuum(target, 0)
    assert (visible(full) - visible(target)).total() == 1
    assert len(target.names("results")) == 1


def test_a_copy_as_of_an_earlier_entry(full):
    """Of a dataset that was opened as of an entry the copy has what counted then; not where vacuum took it."""
    number = open_dataset(full)[1].number - 1
    earlier, target = Dataset(full, number), a_store()
    copy(full, target, number)
    assert len(visible(target)) == 6
    assert earlier.copy(f"memory://{uuid.uuid4().hex}").number == number
    with pytest.raises(DatasetError, match="vacuum removed"):
        Dataset(full, 4).copy(f"memory://{uuid.uuid4().hex}")


def test_a_dataset_that_is_there_is_not_overwritten(full):
    """Copying over a dataset, or to its own place, is refused."""
    target = a_store()
    copy(full, target)
    for place in (target, full):
        with pytest.raises(UsageError, match="already"):
            copy(full, place)


def test_a_place_within_the_dataset_is_refused(full):
    """Nothing of a copy lies among the files of what it is a copy of."""
    with pytest.raises(UsageError, match="within the dataset itself"):
        copy(full, Store.at(f"{full.url}/results/copy"))


def test_a_copy_killed_at_every_step(full):
    """A copy is no dataset until it is complete, and the same call goes on with it."""
    expected = facts(full)
    for step in itertools.count():
        target = a_store()
        target.faults.append(Fault("*", skip=step, error=Killed()))
        try:
            copy(full, target)
        except Killed:
            pass
        else:
            break
        target.faults.clear()
        if not target.exists(DATASET):
            with pytest.raises(DatasetError):
                open_dataset(target)
            copy(full, target)
        assert facts(target) == expected
    assert step > 30


def test_a_log_that_was_copied_in_part(full):
    """It is no log yet: whoever made a dataset in that place would find an empty one, and not a torn one."""
    target = a_store()
    target.faults.append(Fault("create", "log/*", skip=5, error=Killed()))
    with pytest.raises(Killed):
        copy(full, target)
    target.faults.clear()
    assert len(target.names("log")) == 5
    assert open_dataset(target, create=True)[1].number == 0


def test_what_is_left_of_another_copy(full):
    """A copy of a dataset that went on since is not mixed with what was left."""
    target = a_store()
    target.faults.append(Fault("create", DATASET, times=9))
    with pytest.raises(StoreError):
        copy(full, target)
    target.faults.clear()
    compact(full, all=True)
    with pytest.raises(UsageError, match="left of another copy"):
        copy(full, target)


def test_what_is_committed_meanwhile(full):
    """It is not in the copy, whatever part of it is being copied."""
    target = a_store()
    expected = facts(full)

    def hide():
        Keeper(full.inner).commit(lambda: [Hide(keys=(key("5"),), scope="all")])

    target.faults.append(Fault("upload", "*", how="slow", act=hide))
    copy(full, target)
    assert facts(target) == expected != facts(full)


def test_parts_that_are_gone_or_changed(full):
    """A part that counts and is not as the log says stops the copy."""
    (name,) = [name for name in full.names("results") if "compact-" in name]
    data = full.read(name)
    full.inner.write(name, data + b"more")
    with pytest.raises(DatasetCorruptError, match=r"bytes, and the log says"):
        copy(full, a_store())
    full.remove([name])
    with pytest.raises(DatasetError, match=f"{name} is gone"):
        copy(full, a_store())


def test_items_that_may_be_executed_once_only(store):
    """A run on the copy knows that they were begun."""
    driver = Driving(store)
    driver.writer.commit([Sent(batch="r1-000001-00000001", keys=(key("a"),)), Add(batches=())])
    store.create(started_name("r1-000001-00000001"), b"e")
    driver.writer.abandon()
    target = a_store()
    copy(store, target)
    state = open_dataset(target)[1]
    assert state.sent == {key("a"): "r1-000001-00000001"}
    assert target.read(started_name("r1-000001-00000001")) == b"e"


def test_between_disks(tmp_path):
    """From one folder to another and back."""
    store = Store.at(tmp_path / "dataset")
    driver = Driving(store)
    driver.add({"a": [{"n": 1}]})
    driver.close()
    Dataset(store).copy(tmp_path / "archive")
    done = Dataset(Store.at(tmp_path / "archive")).copy(tmp_path / "back")
    assert visible(Store.at(done.to)) == visible(store)
    assert not list(tmp_path.rglob(".tmp-*"))
