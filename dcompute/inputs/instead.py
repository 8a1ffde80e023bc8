"""What to pass in place of a value that means nothing to another process: an open file, a lock, a connection, a generator."""

from __future__ import annotations

import io
import os
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from dcompute.inputs.lazy import DEEPEST

#: Types of these modules work between threads.
_THREADS = frozenset({"_thread", "threading", "queue", "_queue", "multiprocessing.synchronize", "multiprocessing.queues", "asyncio.locks"})
#: Names of types that hold a line to somewhere, if pickle refuses them.
_LINES = re.compile(r"connection|cursor|socket|session|channel|client$|engine$|pool$", re.IGNORECASE)
#: Packages whose arrays may lie on a device.
_DEVICES = frozenset({"torch", "cupy", "jax", "jaxlib", "tensorflow"})

_ONCE = "Pass list(...) of its values, which it gives only once, or make it in the workload"
_LOCK = (
    "Leave it out: it works between the threads of one process, and items have processes of their own. How many are at work at a time is "
    "limited by resources="
)
_LINE = "Pass what it is opened with, such as an address or a path, and open it once a process: in a class's __init__ or an initializer="
_DEVICE = "Pass a NumPy array (.cpu().numpy(), .get() or numpy.asarray) or a path, and move it to the device in the workload"
_OTHER = "Pass the plain data that it is made from, and make it in the workload, in a class's __init__ or in an initializer="


class Advice(NamedTuple):
    """What is in the way, and what to do."""

    kind: str  #: the type's name
    text: str  #: a sentence without its full stop


def instead(value: Any, *, is_refused: bool = False) -> Advice | None:
    """What to pass in place of a value, or of a part of it; None where it may be as good as any other.

    Parameters
    ----------
    value
        Lists, tuples and mappings are looked into.
    is_refused
        Pickle refused it: then names of types count, and there always is an answer.
    """
    found = _of(value, 0, is_refused)
    return found or (Advice(type(value).__qualname__, _OTHER) if is_refused else None)


def _of(value: Any, depth: int, is_refused: bool) -> Advice | None:
    if isinstance(value, (list, tuple, dict)):
        members = value.values() if isinstance(value, dict) else value
        parts = (_of(member, depth + 1, is_refused) for member in members) if depth < DEEPEST else ()
        return next((part for part in parts if part is not None), None)
    text = _by_nature(value) or (_by_name(value) if is_refused else "")
    return Advice(type(value).__qualname__, text) if text else None


def _by_nature(value: Any) -> str:
    if isinstance(value, (io.BytesIO, io.StringIO)):
        return "Pass its .getvalue()"
    if isinstance(value, io.IOBase) or type(value).__name__ == "_TemporaryFileWrapper":
        return _of_file(value)
    if isinstance(value, os.DirEntry):
        return "Pass its .path"
    if isinstance(value, types.ModuleType):
        return "Import it in the workload"
    if isinstance(value, (Iterator, types.CoroutineType, types.AsyncGeneratorType)) and not _LINES.search(type(value).__name__):
        return _ONCE
    return _DEVICE if hasattr(value, "shape") and type(value).__module__.partition(".")[0] in _DEVICES else ""


def _by_name(value: Any) -> str:
    for kind in type(value).__mro__[:-1]:
        if kind.__module__ in _THREADS:
            return _LOCK
        if _LINES.search(kind.__name__):
            return _LINE
    return ""


def _of_file(file: Any) -> str:
    name = getattr(file, "name", None) or getattr(file, "path", None)
    return f"Pass its path{f', {name!r},' if isinstance(name, str) else ''} and open it in the workload"
