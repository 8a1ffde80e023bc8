"""What to pass in place of inputs that mean nothing to another process."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import queue
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcompute.errors import InputError, KeyDerivationError
from dcompute.inputs import Inputs


@dataclasses.dataclass
class Session:
    """A plain record with the name of a connection."""

    name: str


#: What stands for something in this process only, and what to pass in its place.
STUCK: dict[str, tuple[Callable[[], Any], str]] = {
    "file": (lambda: Path(__file__).open("rb"), r"Pass its path, '.*test_instead\.py', and open it"),  # noqa: SIM115
    "lock": (threading.Lock, "Leave it out"),
    "queue": (queue.Queue, "Leave it out"),
    "generator": (lambda: (number for number in range(3)), r"Pass list\(\.\.\.\)"),
    "connection": (lambda: sqlite3.connect(":memory:"), "Pass what it is opened with"),
    "entry": (lambda: sorted(os.scandir(Path(__file__).parent), key=os.fspath)[0], r"Pass its \.path"),
    "another": (sys._getframe, "Pass the plain data"),
}


@pytest.mark.parametrize("key", [None, lambda value: "k"], ids=["no key", "key"])
@pytest.mark.parametrize("hold", [lambda value: value, lambda value: (1, {"a": value})], ids=["alone", "within"])
@pytest.mark.parametrize(("make", "told"), STUCK.values(), ids=list(STUCK))
def test_what_cannot_be_sent_is_refused(
    make: Callable[[], Any], told: str, hold: Callable[[Any], Any], key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With what to pass in its place, and not with advice that would not help: a key, or a version."""
    with contextlib.ExitStack() as stack:
        value = make()
        if hasattr(value, "close"):
            stack.callback(value.close)
        with pytest.raises(InputError, match=rf"input 0 .*cannot be sent.*{told}") as caught:
            list(Inputs.of([hold(value)], key))
    assert "key=" not in str(caught.value)
    assert not caplog.records


class OnDevice:
    """What a tensor of a package for devices looks like: with a shape, and from that package."""

    __module__ = "torch"
    shape = (2,)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (io.BytesIO(b"x"), "Pass its .getvalue()"),
        (map(str, [1]), "Pass list(...)"),
        (OnDevice(), "Pass a NumPy array"),
        (math, "Import it in the workload"),
        ([{"deep": map(str, [1])}], "Pass list(...)"),
    ],
)
def test_what_travels_and_is_no_input_is_told_apart(value: Any, told: str) -> None:
    """Something better than a key helps, and is said."""
    with pytest.raises(KeyDerivationError, match=re.escape(told)) as caught:
        list(Inputs.of([value]))
    assert "key=" not in str(caught.value)


def test_a_record_of_ones_own_needs_a_key_only() -> None:
    """Whatever its class is called, pickle takes it."""
    with pytest.raises(KeyDerivationError, match="pass key="):
        list(Inputs.of([Session("s")]))
    assert len(list(Inputs.of([Session("s"), lambda: 1], repr))) == 2
