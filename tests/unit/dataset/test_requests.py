"""Requests: each is left once and read once, in order."""

from __future__ import annotations

import queue
import threading
import uuid

import pytest

from dcompute.dataset.requests import RequestReader, RequestWatch, post_request
from dcompute.dataset.store import Store
from dcompute.testing import Fault, FaultStore
from tests.processes import until


@pytest.fixture
def store():
    return FaultStore(Store.at(f"memory://{uuid.uuid4().hex}"))


def test_requests_are_read_in_order(store):
    """Requests to a run come once each, in their order; another run's do not come."""
    reader = RequestReader(store, "r1")
    assert reader.next() is None
    assert [post_request(store, "r1", {"do": do}) for do in ("cancel", "priority")] == [1, 2]
    post_request(store, "r2", {"do": "other"})
    assert [reader.next()["do"] for _ in range(2)] == ["cancel", "priority"]
    assert reader.next() is None


def test_write_that_was_repeated_is_one_request(store):
    """A write that arrived, whose client heard "exists", is not posted twice."""

    class Repeating(FaultStore):
        def create(self, name, data):
            self.inner.create(name, data)
            raise FileExistsError(name)

    assert post_request(Repeating(store), "r1", {"do": "cancel"}) == 1
    assert store.names("requests/r1") == ["requests/r1/1.json"]


def test_garbage_is_passed_over(store):
    """A file that is no request is an empty one, and the next one is read."""
    store.create("requests/r1/1.json", b"{")
    post_request(store, "r1", {"do": "cancel"})
    reader = RequestReader(store, "r1")
    assert reader.next() == {}
    assert reader.next()["do"] == "cancel"


def test_storage_that_fails_ends_no_run(store):
    """A request that could not be read is read the next time."""
    post_request(store, "r1", {"do": "cancel"})
    store.faults = [Fault("read")]
    reader = RequestReader(store, "r1")
    assert reader.next() is None
    assert reader.next()["do"] == "cancel"


def test_what_was_passed_over_does_not_come(store):
    """Who waits for another driver obeys only what its run is asked from then on."""
    post_request(store, "r1", {"do": "cancel", "reason": "long ago"})
    reader = RequestReader(store, "r1")
    reader.skip()
    assert reader.cancel_reason() is None
    post_request(store, "r1", {"do": "priority"})
    post_request(store, "r1", {"do": "cancel", "reason": "now"})
    assert reader.cancel_reason() == "now"


def test_a_watch_tells_the_first_reason_once(store):
    """Also of a request that was there before it looked, after a storage that failed; no thread is left behind."""
    post_request(store, "r1", {"do": "other"})
    post_request(store, "r1", {"do": "cancel"})
    post_request(store, "r1", {"do": "cancel", "reason": "again"})
    store.faults = [Fault("read")]
    asked = queue.SimpleQueue()
    with RequestWatch(store, "r1", asked.put, every=0.01):
        assert asked.get(timeout=10) == "cancelled by request"
    assert asked.empty()
    with RequestWatch(store, "r2", asked.put, every=0.01):
        pass
    until(lambda: "dcompute-requests" not in {thread.name for thread in threading.enumerate()}, 10, "the end of the threads")
