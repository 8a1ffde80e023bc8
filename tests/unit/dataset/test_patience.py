"""Which errors of a storage are asked again, and when."""

from __future__ import annotations

import errno

import dask
import pytest

from dcompute.dataset.patience import STORE_SECONDS, Patience, insist, may_pass
from dcompute.errors import RunCancelled, StoreError
from dcompute.testing import ManualClock


class ClientError(Exception):
    """botocore's: the answer is a dictionary."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class HttpResponseError(Exception):
    """Azure's, with the status as ``status_code``; gcsfs has it as ``code``, sometimes as text."""

    def __init__(self, **status):
        super().__init__("failed")
        vars(self).update(status)


class EndpointConnectionError(type("ConnectionError", (Exception,), {})):
    """botocore's errors of connections are no ``OSError``."""


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (caused(OSError(errno.EBUSY, "Please reduce your request rate."), ClientError(503)), True),
        (caused(OSError(errno.EIO, "conflict"), ClientError(409)), True),
        (caused(OSError(errno.EINVAL, "precondition"), ClientError(412)), False),
        (caused(OSError(errno.EINVAL, "The provided token is malformed"), ClientError(400)), False),
        (HttpResponseError(status_code=500), True),
        (HttpResponseError(code="429"), True),
        (HttpResponseError(status_code=403), False),
        (EndpointConnectionError("no host"), True),
        (ConnectionResetError("reset"), True),
        (TimeoutError("slow"), True),
        (FileExistsError("there"), False),
        (caused(FileNotFoundError("not there"), ClientError(404)), False),
        (caused(PermissionError("no"), ClientError(403)), False),
        (ValueError("wrong option"), False),
    ],
)
def test_what_may_be_otherwise_in_a_moment(error, passes):
    """Throttling, overload and connections may pass; what is wrong with a request stays wrong."""
    assert may_pass(error) is passes


def test_pauses_grow_and_end():
    """A storage is asked as often as the settings say, with pauses that grow, and its last error is raised."""
    asked, slept = [], []

    def act():
        asked.append(1)
        raise ConnectionResetError

    with dask.config.set({"dcompute.store.retries": 5, "dcompute.store.delay": "1 s"}), pytest.raises(ConnectionResetError):
        insist(act, sleep=slept.append)
    assert len(asked) == 6
    assert len(slept) == 5
    assert all(0.5 * 2**number <= pause <= 1.5 * 2**number for number, pause in enumerate(slept))


def test_what_will_not_pass_is_asked_once():
    """Nobody waits for an error that stays."""
    slept = []

    def act():
        raise PermissionError

    with pytest.raises(PermissionError):
        insist(act, sleep=slept.append)
    assert slept == []


class Storage:
    """Fails so many times, then answers."""

    def __init__(self, failures):
        self.left = failures

    def ask(self):
        if self.left:
            self.left -= 1
            raise StoreError("down")
        return "answer"


def test_a_driver_bears_with_a_storage_that_fails_for_seconds():
    """It says so each time, and that it is over; the next failure counts from its own beginning."""
    told, clock = [], ManualClock()
    patience = Patience(told.append, clock=clock)
    assert patience.insist(Storage(50).ask) == "answer"
    assert patience.insist(Storage(50).ask) == "answer"
    assert len(clock.slept) == 100
    assert "down" in told[0]
    assert told[50] == ""


def test_a_storage_that_fails_for_too_long_ends_the_waiting():
    """After a minute of failures, whoever met them, its last error is raised, and from then on at once."""
    clock = ManualClock()
    patience = Patience(clock=clock)
    patience.bear(StoreError("first"))
    clock.advance(STORE_SECONDS - 10)
    with pytest.raises(StoreError, match="down"):
        patience.insist(Storage(1000).ask)
    assert 10 <= sum(clock.slept) <= 12
    asked = Storage(1000)
    with pytest.raises(StoreError, match="down"):
        patience.insist(asked.ask)
    assert asked.left == 999


def test_who_is_told_may_end_the_waiting():
    """A run that is cancelled meanwhile does not wait for its storage."""

    def told(text):
        raise RunCancelled(text)

    with pytest.raises(RunCancelled):
        Patience(told, clock=ManualClock()).insist(Storage(1).ask)
