"""What is raised becomes a failure of the right kind, whatever the exception does."""

from __future__ import annotations

import collections
import errno
import json
import socket
import urllib.error
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from dcompute.errors import SchemaError
from dcompute.records import Kind
from dcompute.worker import attempt, rows


class Pair(NamedTuple):
    left: Any


class Response:
    def __init__(self, status):
        self.status_code = status


def with_attributes(**attributes):
    error = RuntimeError("from afar")
    vars(error).update(attributes)
    return error


def named(module, name):
    return type(name, (Exception,), {"__module__": module})()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), "transient"),
        (BrokenPipeError(), "transient"),
        (TimeoutError(), "transient"),
        (socket.gaierror(socket.EAI_AGAIN, "again"), "transient"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "permanent"),
        (OSError(errno.ENETUNREACH, "no way"), "transient"),
        (urllib.error.HTTPError("http://x", 503, "busy", {}, None), "transient"),
        (urllib.error.HTTPError("http://x", 404, "gone", {}, None), "permanent"),
        (with_attributes(status_code=429), "transient"),
        (with_attributes(status=502), "transient"),
        (with_attributes(status=True), "permanent"),
        (with_attributes(code="500"), "permanent"),
        (with_attributes(response=Response(500)), "transient"),
        (with_attributes(response=Response(400)), "permanent"),
        (with_attributes(response={"Error": {"Code": "ThrottlingException"}}), "transient"),
        (with_attributes(response={"Error": {"Code": "SlowDown"}}), "transient"),
        (with_attributes(response={"Error": {"Code": "NoSuchKey"}}), "permanent"),
        (with_attributes(response={"ResponseMetadata": {"HTTPStatusCode": 503}}), "transient"),
        (named("requests.exceptions", "ConnectionError"), "transient"),
        (FileNotFoundError(), "recoverable"),
        (PermissionError(), "recoverable"),
        (IsADirectoryError(), "permanent"),
        (OSError(errno.ENOSPC, "full"), "permanent"),
        (MemoryError(), "memory"),
        (RecursionError(), "permanent"),
        (ValueError(), "permanent"),
        (SystemExit(503), "permanent"),
        (KeyboardInterrupt(), "permanent"),
    ],
)
def test_kinds(error, kind):
    """Each exception has the kind that the table of kinds says."""
    assert attempt.classify(error) is Kind(kind)


def test_failure_names_type_bases_message_and_place():
    """A failure has what retry rules and people need, and no frame of dcompute in its traceback."""

    def broken(value):
        raise ConnectionRefusedError(f"nobody at {value}")

    succeeded, payload = attempt.call(broken, "here")
    failure = json.loads(payload)
    assert not succeeded
    assert failure["error"] == "ConnectionRefusedError"
    assert failure["bases"][:2] == ["ConnectionError", "OSError"]
    assert "object" not in failure["bases"]
    assert failure["message"] == "nobody at here"
    assert "in broken" in failure["traceback"]
    assert "attempt.py" not in failure["traceback"].replace("test_attempt.py", "")


def test_generator_is_consumed_in_the_attempt():
    """What a generator raises while it is consumed is the item's failure; what it yields are rows."""

    def half(value):
        yield {"a": value}
        raise ValueError("half way")

    def whole(value):
        yield {"a": value}

    assert json.loads(attempt.call(half, 1).payload)["message"] == "half way"
    assert rows.decode(attempt.call(whole, 1).payload) == [{"a": 1}]


def test_result_of_no_known_kind_is_permanent():
    """A result that can be no row is the item's failure."""
    failure = json.loads(attempt.call(lambda _: object(), 1).payload)
    assert failure["kind"] == "permanent"
    assert failure["error"].endswith(SchemaError.__name__)


class Hostile(Exception):
    def __str__(self):
        raise MemoryError

    @property
    def __notes__(self):
        raise RuntimeError

    @property
    def __context__(self):
        raise RuntimeError

    @property
    def __traceback__(self):
        raise RuntimeError

    @property
    def response(self):
        raise SystemExit


def test_hostile_exception_is_told():
    """An exception that raises wherever it is looked at is named all the same."""

    def broken(_):
        raise Hostile

    failure = json.loads(attempt.call(broken, 1).payload)
    assert failure["error"].endswith("Hostile")
    assert failure["kind"] == "permanent"
    assert "MemoryError" in failure["message"]
    assert "Hostile" in failure["traceback"]


class Secretive(type):
    """Of its classes nothing can be asked."""

    def __getattribute__(cls, name):
        raise RuntimeError(name)

    __module__ = property(lambda cls: 1 / 0)


@pytest.mark.parametrize("base", [ValueError, ConnectionResetError])
def test_an_exception_of_a_class_that_cannot_be_asked_is_told(base):
    """What its metaclass does to whoever looks harms nobody: it has its name, its kind and its bases."""
    kind = Secretive("Unknown", (base,), {})
    failure = attempt.describe(kind("all the same"))
    assert failure["error"].endswith("Unknown")
    assert failure["kind"] == ("permanent" if base is ValueError else "transient")
    assert base.__name__ in failure["bases"]
    assert failure["message"] == "all the same"


def test_long_texts_are_bounded():
    """Message and traceback have an upper size, with both ends kept."""
    failure = attempt.describe(ValueError("a" + "x" * 10_000_000 + "b"))
    assert len(failure["message"]) < attempt.LONGEST_MESSAGE + 100
    assert failure["message"].startswith("ax")
    assert failure["message"].endswith("xb")
    assert len(failure["traceback"]) < attempt.LONGEST_TRACEBACK + 100


def test_group_fails_as_one():
    """A wrong number of results, or any exception, is no result of anybody."""
    assert attempt.call_group(lambda values: values, [1, 2]) == [rows.encode(rows.to_rows(value)) for value in (1, 2)]
    assert attempt.call_group(lambda values: values[1:], [1, 2]) is None
    assert attempt.call_group(lambda values: 1 / 0, [1, 2]) is None


@pytest.mark.parametrize(
    "returned",
    [{"a": 1}, {1}, "x", b"x", None, 7, np.zeros((1, 2)), np.array(1), pd.DataFrame({"x": [1]}), pd.Series([1]), Pair(1)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_is_no_group_of_results(returned):
    """Keys, letters, column names and elements in any order are not taken for results; the failure says what to return."""
    assert attempt.call_group(lambda values: returned, [1]) is None
    with pytest.raises(TypeError, match="return a list with one result for each value"):
        attempt.one_of_group(lambda values: returned)(1)


@pytest.mark.parametrize("form", [list, tuple, iter, np.array, collections.deque], ids=lambda form: form.__name__)
def test_a_sequence_is_a_group_of_results(form):
    """One result for each value, in any ordered form."""
    assert attempt.call_group(form, [1, 2]) == [rows.encode(rows.to_rows(value)) for value in form([1, 2])]
    assert attempt.one_of_group(form)(1) == 1


def test_one_of_a_group_has_one_result():
    """Called with one value, a group's function must give one result."""
    single = attempt.one_of_group(lambda values: [value + 1 for value in values])
    assert single(1) == 2
    with pytest.raises(ValueError, match="0 results came back"):
        attempt.one_of_group(lambda values: [])(1)
