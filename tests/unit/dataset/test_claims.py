"""Claims: who began a batch that may be executed once only, and how long its mark is waited for."""

from __future__ import annotations

import uuid

import pytest

from dcompute.dataset.claims import MARK_SECONDS, Claims
from dcompute.dataset.names import started_name
from dcompute.dataset.parts import mark_name
from dcompute.dataset.store import Store
from dcompute.records import batch_id
from dcompute.testing import ManualClock

ONE, TWO = batch_id("r1", 1, 1), batch_id("r1", 1, 2)


@pytest.fixture
def store():
    return Store.at(f"memory://{uuid.uuid4().hex}")


def test_what_nobody_began_can_never_begin(store):
    """An execution that comes later finds the place taken; one that came before keeps it."""
    store.create(started_name(ONE), b"an execution")
    claims = Claims(store)
    assert [claims.has_begun(batch) for batch in (ONE, TWO, TWO)] == [True, False, False]
    with pytest.raises(FileExistsError):
        store.create(started_name(TWO), b"an execution")


def test_marks_of_batches_that_were_begun_are_awaited(store):
    """No longer than they need: the worker of one is slow to write it, that of the other takes its claim back."""
    for batch in (ONE, TWO):
        store.create(started_name(batch), b"an execution")

    def meanwhile(_):
        if len(clock.slept) == 3:
            store.create(mark_name(ONE), b"")
        if len(clock.slept) == 5:
            store.remove([started_name(TWO)])

    clock = ManualClock(on_sleep=meanwhile)
    Claims(store, clock).await_marks([ONE, TWO])
    assert len(clock.slept) == 5


def test_a_mark_that_never_comes_is_not_awaited_for_ever(store):
    """Nor at all where nobody began."""
    clock = ManualClock()
    Claims(store, clock).await_marks([TWO])
    assert not clock.slept
    store.create(started_name(ONE), b"an execution")
    Claims(store, clock).await_marks([ONE])
    assert sum(clock.slept) == pytest.approx(MARK_SECONDS, abs=0.2)
