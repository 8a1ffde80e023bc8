"""One driver at a time, fenced by epochs; what it commits counts once."""

from __future__ import annotations

import dataclasses
import threading
import uuid

import pytest

from dcompute.dataset.entries import Add, AddBatch, Close, Hide, Open, Replace, SetSchema
from dcompute.dataset.lease import Heartbeat, Process, read_heartbeat
from dcompute.dataset.log import Log
from dcompute.dataset.names import DATASET, entry_name
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer, open_dataset, without
from dcompute.errors import (
    DatasetBusy,
    DatasetCorruptError,
    DatasetMismatchError,
    DatasetNotFoundError,
    DatasetTakenOver,
    InternalError,
    StoreError,
    UsageError,
)
from dcompute.records import ItemKey, batch_id
from dcompute.testing import Fault, FaultStore, ManualClock


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


@pytest.fixture
def clock():
    return ManualClock()


def acquire(store, run="r1", **options):
    return Writer.acquire(store, workload=options.pop("workload", "flux"), run=run, **{"clock": ManualClock(), **options})


def open_elsewhere(store, run="r0", beat=True, **changed):
    """A driver of another host opened an epoch."""
    _, state = open_dataset(store, create=True)
    own = dataclasses.replace(Process.own(), host="elsewhere", boot="other")
    driver = Open(epoch=state.epoch + 1, run=run, workload="flux", at=1e9, **{**dataclasses.asdict(own), **changed})
    Log(store).append(state.number + 1, [driver])
    if beat:
        Heartbeat(store, run, ManualClock()).beat("running", {})
    return driver


def batch(writer, number=1):
    return AddBatch(id=batch_id(writer.run, writer.epoch, number), holds=((0, 1),))


def unclear(landed):
    """Every answer of the log is lost."""
    how = "after" if landed else "before"
    return [Fault("create", "log/*", how=how, times=9), Fault("exists", "log/*", times=9), Fault("read", "log/*", times=9)]


def test_no_dataset(store):
    """Where there is none, reading says so, and creating makes one that keeps its id."""
    with pytest.raises(DatasetNotFoundError, match="no dataset at"):
        open_dataset(store)
    first, state = open_dataset(store, create=True)
    assert (open_dataset(store, create=True)[0], state.number) == (first, 0)


def test_creators_at_one_moment_agree(store):
    """Of two that create a dataset the later one takes the earlier one's id."""
    ids = []
    store.faults = [Fault("create", DATASET, how="slow", act=lambda: ids.append(open_dataset(store.inner, create=True)[0]))]
    assert open_dataset(store, create=True)[0] == ids[0]


@pytest.mark.parametrize("how", ["before", "after"])
def test_lost_answer_while_creating(store, how):
    """A creation whose answer was lost counts; one that failed is an error and leaves no dataset."""
    store.faults = [Fault("create", DATASET, how=how)]
    if how == "after":
        assert open_dataset(store, create=True)[0]
        return
    with pytest.raises(StoreError):
        open_dataset(store, create=True)
    with pytest.raises(DatasetNotFoundError):
        open_dataset(store)


def test_first_write_proves_the_storage(store):
    """A storage that ignores exclusive creation is refused before there is a dataset."""

    class Careless(FaultStore):
        def create(self, name, data):
            self.inner.write(name, data)

    with pytest.raises(StoreError, match="ignores it"):
        acquire(Careless(store))
    assert store.names("") == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": 1, "id": "x"}'])
def test_damaged_dataset(store, data):
    """A damaged dataset.json is named."""
    store.create(DATASET, data)
    with pytest.raises(DatasetCorruptError, match=r"dataset\.json"):
        open_dataset(store)


def test_newer_format(store):
    """A dataset of another format is not touched."""
    store.create(DATASET, b'{"format": [2, 0], "id": "x"}')
    with pytest.raises(DatasetCorruptError, match="has format 2"):
        open_dataset(store, create=True)


def test_commit_and_go_on(store):
    """Epochs are numbered by the log, and a closed one leaves nothing to wait for or to adopt."""
    first = acquire(store)
    assert (first.epoch, first.commit([SetSchema(schema="x")])) == (1, 2)
    first.close()
    first.close()
    second = acquire(store, "r2")
    assert (second.epoch, second.dataset, second.state.schema) == (2, first.dataset, "x")
    assert second.adopt(None, None) == []
    assert second.state.number == 4


def test_other_workload_is_refused(store):
    """A dataset belongs to one workload by name; the error names both."""
    acquire(store).close()
    for refuse in (lambda: acquire(store, "r2", workload="sum"), lambda: Writer.check(store, "sum", takeover=True)):
        with pytest.raises(DatasetMismatchError, match=r"'flux'.*'sum'"):
            refuse()


def test_live_driver_is_respected(store):
    """A driver of this process that lives is busy at once: who, where, since when."""
    clock = ManualClock(now=1e9)
    acquire(store, clock=clock)
    writer = acquire(store, "r1b", takeover=True, clock=clock)
    for refuse in (lambda: Writer.check(store, "flux"), lambda: acquire(store, "r2")):
        with pytest.raises(DatasetBusy, match="takeover=True") as caught:
            refuse()
        assert (caught.value.run, caught.value.since, caught.value.pid) == (writer.run, 1e9, Process.own().pid)
    Writer.check(store, "flux", takeover=True)
    assert clock.slept == []


def test_driver_that_ended_in_this_process_is_gone(store):
    """A notebook whose run died goes on at once: the process lives, its driver does not."""
    acquire(store).abandon()
    clock = ManualClock()
    assert acquire(store, "r2", clock=clock).epoch == 2
    writer = acquire(store, "r3", takeover=True)
    del writer
    assert acquire(store, "r4", clock=clock).epoch == 4
    assert clock.slept == []


def test_dead_process_of_this_host_is_succeeded_at_once(store, clock):
    """A driver whose process is gone from this host needs no waiting, whatever its heartbeat says."""
    open_elsewhere(store, **dataclasses.asdict(dataclasses.replace(Process.own(), started=1.0)))
    Writer.check(store, "flux")
    assert (acquire(store, clock=clock).epoch, clock.slept) == (2, [])


@pytest.mark.parametrize("beat", [True, False])
def test_silent_driver_elsewhere_is_succeeded_after_its_lease(store, clock, beat):
    """15 s of an unchanged or missing heartbeat, with a line of progress meanwhile."""
    open_elsewhere(store, beat=beat)
    Writer.check(store, "flux")
    told = []
    assert acquire(store, clock=clock, waiting=lambda text, left: told.append((text, left))).epoch == 2
    assert sum(clock.slept) == 15
    assert told[0] == (f"waiting for the driver on elsewhere (process {Process.own().pid}), which is silent", 15.0)
    assert [left for _, left in told] == [float(left) for left in range(15, 0, -1)]


def test_driver_elsewhere_that_beats_is_respected(store):
    """A heartbeat that changes while it is watched is a live driver."""
    open_elsewhere(store)
    clock = ManualClock()
    clock.on_sleep = lambda seconds: (
        Heartbeat(store, "r0", clock).beat("running", {"done": len(clock.slept)}) if len(clock.slept) == 9 else None
    )
    with pytest.raises(DatasetBusy, match="elsewhere"):
        acquire(store, clock=clock)
    assert sum(clock.slept) == 9


def test_driver_elsewhere_that_commits_is_respected(store):
    """A driver whose heartbeats fail and whose commits arrive is alive."""
    open_elsewhere(store)
    clock = ManualClock(on_sleep=lambda _: Log(store).append(2, [SetSchema(schema="x")]))
    with pytest.raises(DatasetBusy):
        acquire(store, clock=clock)


def test_driver_elsewhere_that_closes_is_succeeded(store):
    """A close while it is watched ends the waiting; compaction meanwhile does not."""
    open_elsewhere(store)
    commits = iter([[Replace(parts=(), by=(), read_at=1)], [Close(epoch=1)]])
    clock = ManualClock()
    clock.on_sleep = lambda _: Log(store).append(1 + len(clock.slept), next(commits))
    assert (acquire(store, clock=clock).epoch, sum(clock.slept)) == (2, 2)


def test_takeover_does_not_wait(store, clock):
    """takeover=True fences a driver off at once."""
    open_elsewhere(store)
    assert (acquire(store, takeover=True, clock=clock).epoch, clock.slept) == (2, [])


@pytest.mark.parametrize("takeover", [True, False])
def test_two_at_the_same_instant(store, takeover):
    """Of two that open an epoch at one moment one wins; the other is told who."""
    open_dataset(store, create=True)
    winners = []
    store.faults = [Fault("create", entry_name(1), how="slow", act=lambda: winners.append(acquire(store.inner, "winner")))]
    with pytest.raises(DatasetBusy) as caught:
        acquire(store, "loser", takeover=takeover)
    assert caught.value.run == "winner"
    assert [entry.actions[0].run for entry in Log(store).read_all()] == ["winner"]


def test_takeover_of_a_driver_that_commits_meanwhile(store):
    """A driver to be fenced off that commits at that very moment is fenced off behind its commit."""
    first = acquire(store)
    store.faults = [Fault("create", entry_name(2), how="slow", act=lambda: Log(store.inner).append(2, [SetSchema(schema="x")]))]
    second = acquire(store, "r2", takeover=True)
    assert (second.epoch, second.state.number, second.state.schema) == (2, 3, "x")
    with pytest.raises(DatasetTakenOver):
        first.commit([SetSchema(schema="y")])


def test_driver_that_was_taken_over_writes_no_more(store):
    """Who reads a higher epoch stops, names the other, and nothing of it is committed, then or later."""
    first = acquire(store)
    second = acquire(store, "r2", takeover=True)
    for act in (lambda: first.commit([SetSchema(schema="x")]), first.catch_up, lambda: first.commit([SetSchema(schema="y")])):
        with pytest.raises(DatasetTakenOver, match="by run r2 on"):
            act()
    first.close()
    first.abandon()
    assert [type(action) for entry in Log(store).read_all() for action in entry.actions] == [Open, Open]
    second.commit([SetSchema(schema="z")])


def test_heartbeat_finds_a_takeover(store):
    """A driver with nothing to commit learns of its successor at its next heartbeat."""
    clock = ManualClock()
    first = acquire(store, clock=clock)
    first.heartbeat({})
    acquire(store, "r2", takeover=True)
    first.heartbeat({})
    clock.advance(5)
    with pytest.raises(DatasetTakenOver):
        first.heartbeat({})


def test_heartbeat_outlives_a_storage_that_fails(store):
    """A driver that cannot look for its successor now goes on: its next commit will tell."""
    clock = ManualClock()
    writer = acquire(store, clock=clock)
    clock.advance(5)
    store.faults = [Fault("read", "log/*")]
    writer.heartbeat({})
    assert store.faults[0].times == 0


def test_kept_alive_writer_ends_its_thread(store):
    """The thread that beats ends with the writer, after the last word of the driver."""
    before = threading.active_count()
    writer = acquire(store)
    writer.keep_alive()
    writer.keep_alive()
    assert threading.active_count() == before + 1
    writer.heartbeat({"done": 3})
    writer.close()
    assert threading.active_count() == before
    heartbeat = read_heartbeat(store, "r1")
    assert (heartbeat["state"], heartbeat["counts"]) == ("closed", {"done": 3})


def test_number_lost_to_compaction(store):
    """A number lost to an entry that opens no epoch: the writer reads it and takes the next."""
    writer = acquire(store)
    Log(store).append(2, [Replace(parts=(), by=(), read_at=1)])
    assert writer.commit([SetSchema(schema="x")]) == 3
    assert writer.state.number == 3


@pytest.mark.parametrize("landed", [True, False])
def test_commit_that_ended_unclear_counts_once(store, landed):
    """After an error that left it open whether a commit counts, the same and more actions are committed once each."""
    writer = acquire(store)
    key = ItemKey("a", "str")
    actions = [Hide(keys=(key,)), Add(batches=(batch(writer, 1),))]
    store.faults = unclear(landed)
    with pytest.raises(StoreError):
        writer.commit(actions)
    store.faults = []
    if landed:
        writer.catch_up()
    more = [Hide(keys=(key, ItemKey("b", "str"))), Add(batches=(batch(writer, 1), batch(writer, 2)))]
    assert writer.commit(more) == 3
    state = open_dataset(store)[1]
    assert vars(state) == vars(writer.state)
    assert [(counted.batch.id, counted.position > state.hides[key]) for counted in state.batches] == [
        (batch(writer, 1).id, True),
        (batch(writer, 2).id, True),
    ]


@pytest.mark.parametrize("landed", [True, False])
def test_commit_that_ended_unclear_and_is_repeated_is_one_entry(store, landed):
    """The same actions again after an unclear error are the same entry."""
    writer = acquire(store)
    store.faults = unclear(landed)
    with pytest.raises(StoreError):
        writer.commit([SetSchema(schema="x")])
    store.faults = []
    assert writer.commit([SetSchema(schema="x")]) == 2
    assert Log(store).end() == 2


def test_without_leaves_what_is_new():
    """What is committed is taken out of actions, key by key and batch by batch."""
    a, b = ItemKey("a", "str"), ItemKey("b", "str")
    one, two = (AddBatch(id=f"r-1-{n}", holds=((0, 1),)) for n in (1, 2))
    done = [Hide(keys=(a,)), Add(batches=(one,)), SetSchema(schema="x")]
    assert without([Hide(keys=(a, b)), Add(batches=(one, two)), SetSchema(schema="y")], done) == (
        Hide(keys=(b,)),
        Add(batches=(two,)),
        SetSchema(schema="y"),
    )
    assert without(done, done) == ()
    assert without([Hide(keys=(a,), scope="all")], done) == (Hide(keys=(a,), scope="all"),)


def test_batches_wait_for_adoption(store):
    """Nothing of a new epoch is added while earlier ones are not settled, and nothing of another run ever."""
    acquire(store).abandon()
    writer = acquire(store, "r2")
    with pytest.raises(InternalError, match="adopted"):
        writer.commit([Add(batches=(batch(writer),))])
    assert writer.adopt(None, None) == []
    assert writer.commit([Add(batches=(batch(writer),))])
    with pytest.raises(InternalError, match="not of run r2"):
        writer.commit([Add(batches=(AddBatch(id=batch_id("r1", 1, 1), holds=((0, 1),)),))])


def test_closed_writer_writes_no_more(store):
    """After close a commit is a bug."""
    writer = acquire(store)
    writer.close()
    with pytest.raises(InternalError, match="closed"):
        writer.commit([SetSchema(schema="x")])


@pytest.mark.parametrize("run", ["", "a/b", "..", "x" * 200, "a b"])
def test_run_ids_are_file_names(store, run):
    """A run id that cannot stand in file names is refused before anything is written."""
    with pytest.raises(UsageError):
        acquire(store, run)
    assert store.names("") == []
