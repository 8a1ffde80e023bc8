"""Which errors of a storage are asked again, and when."""

from __future__ import annotations

import errno

import dask
import pytest

from dcompute.dataset.patience import insist, may_pass


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
