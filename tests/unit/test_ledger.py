"""The ledger: what a driver commits of its own, and what it makes of the batches of a driver that died."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest

from dcompute.dataset.entries import Hide, Sent
from dcompute.dataset.log import Log
from dcompute.dataset.names import started_name
from dcompute.dataset.parts import attempts_table, mark_name, read_attempts, write_attempts
from dcompute.dataset.patience import Patience
from dcompute.dataset.store import Store
from dcompute.dataset.writer import Writer
from dcompute.errors import StoreError
from dcompute.ledger import Ledger
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, Failure, Item, ItemKey, Kind, Receipt, Request, RunSpec, batch_id
from dcompute.retry import Retry
from dcompute.testing import Fault, FaultStore, ManualClock
from dcompute.window import Record, Send, Settled, Try

KEYS = tuple(ItemKey(text, "str") for text in "abcd")
BATCH = batch_id("r1", 1, 1)


@pytest.fixture
def store() -> FaultStore:
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


def acquire(store: Store, run: str) -> Writer:
    return Writer.acquire(store, workload="w", run=run, takeover=True, clock=ManualClock())


def ledger(writer: Writer, clock: ManualClock | None = None) -> Ledger:
    spec = RunSpec(run=writer.run, dataset=writer.store.url, workload="w", code=b"", code_digest="c", params_digest="p", idempotent=False)
    return Ledger.opened(writer, spec, Retry(), Patience(clock=clock or ManualClock()))


def sending(number: int, *keys: ItemKey) -> Send:
    return Send(number, Request(), tuple(Try(item=Item(key, None, "", 0, 0), attempt=1, request=Request()) for key in keys))


def record(number: int, *keys: ItemKey) -> Record:
    """Items that were lost, finally."""
    tries = tuple(Try(item=Item(key, None, "", 0, 0), attempt=1, request=Request()) for key in keys)
    failures = tuple(Failure(index=index, kind=Kind.INFRASTRUCTURE, error="Lost") for index in range(len(keys)))
    return Record(number, tries, failures, tuple(range(len(keys))))


def write_mark(store: Store, outcomes: Sequence[str]) -> None:
    """The mark of a batch of all keys that was cut short after so many outcomes."""
    rows = [
        {"item_key": key.text, "key_kind": key.kind, "attempt": 1, "outcome": outcome, "batch": BATCH}
        | ({} if outcome == SUCCEEDED else {"kind": Kind.INFRASTRUCTURE})
        for key, outcome in zip(KEYS, outcomes, strict=False)
    ]
    failures = tuple(
        Failure(index=index, kind=Kind.INFRASTRUCTURE, error="stopped") for index, outcome in enumerate(outcomes) if outcome == FAILED
    )
    receipt = Receipt(batch=BATCH, execution="x", holds=((0, len(outcomes)),), failures=failures)
    with store.fs.open(store.path(mark_name(BATCH)), "wb") as file:
        write_attempts(file, attempts_table([tuple(row.get(name) for name in ATTEMPT_COLUMNS) for row in rows]), receipt)


def outcomes(store: Store, writer: Writer) -> dict[str, str]:
    """Of all items that have one."""
    found: dict[str, str] = {}
    for counted in writer.state.batches:
        table = read_attempts(store, counted.mark, ("item_key", "outcome"))
        found.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return found


def test_of_a_batch_that_was_cut_short_only_what_it_began_is_lost(store: FaultStore) -> None:
    """The successor of a driver that died adopts what the batch's mark holds; the items that it does not hold go out again."""
    first = acquire(store, "r1")
    first.commit([Sent(batch=BATCH, keys=KEYS)])
    store.create(started_name(BATCH), b"x")
    write_mark(store, [SUCCEEDED, FAILED])
    second = acquire(store, "r2")
    ledger(second)
    assert outcomes(store, second) == {"a": SUCCEEDED, "b": FAILED}
    assert [second.state.is_final(key) for key in KEYS] == [False, True, False, False]
    assert not second.state.sent


def test_a_mark_that_a_worker_is_about_to_write_is_awaited(store: FaultStore) -> None:
    """A worker ends its batches when their driver dies, and that takes a moment."""
    acquire(store, "r1").commit([Sent(batch=BATCH, keys=KEYS)])
    store.create(started_name(BATCH), b"x")
    store.faults = [Fault("exists", mark_name(BATCH), how="slow", act=lambda: write_mark(store, [SUCCEEDED]))]
    second = acquire(store, "r2")
    ledger(second)
    assert outcomes(store, second) == {"a": SUCCEEDED}


@pytest.mark.parametrize("failures", [0, 5])
def test_of_a_batch_without_a_mark_all_is_lost(store: FaultStore, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """Nobody knows how far its worker came; where nobody began it, all of its items go out again. A storage that fails is waited for."""
    monkeypatch.setattr("dcompute.dataset.claims.MARK_SECONDS", 0.0)
    first = acquire(store, "r1")
    first.commit([Sent(batch=BATCH, keys=KEYS[:2]), Sent(batch=batch_id("r1", 1, 2), keys=KEYS[2:])])
    store.create(started_name(BATCH), b"x")
    second = acquire(store, "r2")
    store.faults = [Fault("create", "log/*", skip=2, times=failures)]
    ledger(second)
    assert outcomes(store, second) == {"a": FAILED, "b": FAILED}
    assert [second.state.is_final(key) for key in KEYS] == [True, True, False, False]


@pytest.mark.parametrize(("name", "how"), [("attempts/*", "before"), ("attempts/*", "after"), ("log/*", "before")])
def test_what_the_driver_writes_itself_waits_for_a_storage_that_fails(store: FaultStore, name: str, how: str) -> None:
    """All stays pending in its order, whether a failed write arrived or not, and counts once with the next try."""
    writer = acquire(store, "r1")
    mine = ledger(writer)
    mine.record(record(7, *KEYS[:2]))
    mine.record(record(8, KEYS[2]))
    store.faults = [Fault("create", name, how=how, skip=name == "attempts/*", times=50)]
    with pytest.raises(StoreError):
        mine.commit()
    assert mine.is_pending
    assert not writer.state.batches
    store.faults = []
    mine.record(record(9, KEYS[3]))
    mine.commit()
    assert not mine.is_pending
    assert [counted.batch.id for counted in writer.state.batches] == [batch_id("r1", 1, number) for number in (7, 8, 9)]
    assert outcomes(store, writer) == dict.fromkeys("abcd", FAILED)
    assert all(writer.state.is_final(key) for key in KEYS)


def test_keys_are_noted_as_sent_when_a_storage_that_failed_answers_again(store: FaultStore) -> None:
    """The batch waits, and so do those that were settled: they count once, in the same entry."""
    clock = ManualClock()
    writer = acquire(store, "r1")
    mine = ledger(writer, clock)
    number = writer.state.number
    mine.record(record(7, *KEYS[:2]))
    store.faults = [Fault("create", "log/*", times=20)]
    mine.note_sent(sending(8, *KEYS[2:]))
    assert 0 < len(clock.slept) < 20
    assert writer.state.number == number + 1
    assert not mine.is_pending
    assert set(writer.state.sent) == set(KEYS[2:])
    assert outcomes(store, writer) == {"a": FAILED, "b": FAILED}


@pytest.mark.parametrize("how", ["before", "after"])
def test_what_a_failed_commit_hides_is_hidden_once_when_keys_are_noted_next(store: FaultStore, how: str) -> None:
    """A changed item's new rows stay: a hide that came again after its add would end them."""
    writer = acquire(store, "r1")
    mine = ledger(writer)
    tried = Try(item=Item(KEYS[0], None, "", 0, 0, replaces=True), attempt=1, request=Request())
    mine.settle(Settled(7, Receipt(batch=batch_id("r1", 1, 7), execution="x", holds=((0, 1),)), (), (), (tried,)))
    store.faults = [Fault("create", "log/*", how=how, times=3), Fault("exists", "log/*", times=3)]
    with pytest.raises(StoreError):
        mine.commit()
    mine.note_sent(sending(8, *KEYS[1:]))
    mine.commit()
    actions = [action for entry in Log(store).read_all() for action in entry.actions]
    assert sum(isinstance(action, Hide) for action in actions) == 1


def test_a_mark_is_looked_for_until_the_storage_answers(store: FaultStore) -> None:
    """A storage that fails for seconds when a batch was lost does not end the run, and what is not there is not waited for."""
    clock = ManualClock()
    mine = ledger(acquire(store, "r1"), clock)
    write_mark(store, [SUCCEEDED])
    store.faults = [Fault("read", "attempts/*", times=30)]
    receipt = mine.find_mark(1)
    assert receipt is not None
    assert receipt.count == 1
    assert sum(clock.slept) == 30
    assert mine.find_mark(2) is None
    store.faults = [Fault("create", "runs/*", times=5)]
    assert not mine.has_begun(2)
    assert sum(clock.slept) == 35


@pytest.mark.parametrize(
    "fault",
    [
        Fault("create", "log/*", times=20),
        Fault("create", "log/*", skip=1, times=20),
        Fault("names", "attempts", times=5),
        Fault("create", "runs/*", times=5),
    ],
)
def test_a_run_begins_when_a_storage_that_failed_answers_again(store: FaultStore, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it adopts what an earlier driver left: that is all there, once."""
    monkeypatch.setattr("dcompute.dataset.claims.MARK_SECONDS", 0.0)
    first = acquire(store, "r1")
    first.commit([Sent(batch=BATCH, keys=KEYS[:2]), Sent(batch=batch_id("r1", 1, 2), keys=KEYS[2:])])
    store.create(started_name(BATCH), b"x")
    write_mark(store, [SUCCEEDED, SUCCEEDED])
    second = acquire(store, "r2")
    clock = ManualClock()
    store.faults = [fault]
    assert ledger(second, clock).adopted == 1
    assert clock.slept
    assert outcomes(store, second) == {"a": SUCCEEDED, "b": SUCCEEDED}
    assert len(second.state.batches) == 1
