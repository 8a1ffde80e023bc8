"""One call of user code, and what became of it: rows, or a failure as text.

Nothing of the user's classes leaves this module: not the exception, which may not be picklable, printable or honest about itself.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, cast

from dcompute.errors import ProgramError
from dcompute.packed import opened
from dcompute.records import OWN_KINDS, Kind
from dcompute.worker import rows
from dcompute.worker.values import SEQUENCES, is_named_tuple, module, type_name
from dcompute.worker.verdict import signal_name

#: Characters kept of a message and of a traceback.
LONGEST_MESSAGE, LONGEST_TRACEBACK = 4 << 10, 16 << 10
#: Of an input that does not pass: in the failure beside its fields, what the quarantine says of it.
REFUSED = "refused"
_MOST_BASES, _MOST_FRAMES = 32, 50

# as the interpreter sees them: what a metaclass says of its classes may be anything, an exception too
_MRO, _MODULE, _QUALNAME = (type.__dict__[name] for name in ("__mro__", "__module__", "__qualname__"))

_TRANSIENT_NUMBERS = frozenset(
    getattr(errno, name)
    for name in ("EAGAIN", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET",
                 "ENETUNREACH", "EPIPE", "ETIMEDOUT", "ESTALE", "EBUSY")
    if hasattr(errno, name)
) | {socket.EAI_AGAIN}  # fmt: skip
# these libraries do not derive them from ConnectionError or TimeoutError
_TRANSIENT_NAMES = frozenset(
    {
        "requests.exceptions.ConnectionError", "requests.exceptions.Timeout", "requests.exceptions.ChunkedEncodingError",
        "urllib3.exceptions.TimeoutError", "urllib3.exceptions.ProtocolError", "urllib3.exceptions.NewConnectionError",
        "httpx.TransportError", "httpcore.NetworkError", "httpcore.TimeoutException",
        "aiohttp.client_exceptions.ClientConnectionError", "aiohttp.client_exceptions.ClientPayloadError",
        "botocore.exceptions.ConnectionError", "botocore.exceptions.HTTPClientError", "http.client.RemoteDisconnected",
        "http.client.IncompleteRead",
    }
)  # fmt: skip
_THROTTLING = ("throttl", "slowdown", "toomanyrequests", "requestlimitexceeded", "requesttimeout", "provisionedthroughputexceeded")


class Outcome(NamedTuple):
    """What became of a call: the payload is encoded rows, or a failure as JSON."""

    succeeded: bool
    payload: bytes


def call(function: Callable[[Any], Any], value: Any) -> Outcome:
    """Call, consume what it returns and encode it; whatever is raised becomes a failure."""
    try:
        return Outcome(True, rows.encode(rows.to_rows(function(opened(value)))))
    except BaseException as error:  # noqa: BLE001  SystemExit and KeyboardInterrupt of user code are failures of the item
        return Outcome(False, encode_failure(describe(error)))


def call_group(function: Callable[[list[Any]], Any], values: list[Any]) -> list[bytes] | None:
    """Call with a list of values; None if that failed in any way, a wrong number of results included."""
    try:
        results = _results(function([opened(value) for value in values]))
        if len(results) != len(values):
            return None
        return [rows.encode(rows.to_rows(result)) for result in results]
    except BaseException:  # noqa: BLE001  no attempt of anybody: the items are executed again one by one
        return None


def one_of_group(function: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    """A function of a list as a function of one value."""

    def call_one(value: Any) -> Any:
        results = _results(function([value]))
        if len(results) != 1:
            raise ValueError(f"a list of 1 value came in, {len(results)} results came back: return one result for each value")
        return results[0]

    return call_one


def _results(returned: Any) -> list[Any]:
    """The results of a group; what only happens to be iterable, such as a mapping's keys or a dataframe's columns, are none."""
    if isinstance(returned, (*SEQUENCES, Iterator)) and not is_named_tuple(returned):
        return list(returned)
    if module(returned) == "numpy" and getattr(returned, "ndim", None) == 1:
        return list(returned)
    raise TypeError(
        f"a list of values came in, {type_name(returned)} came back: return a list with one result for each value, in their order"
    )


# ---------------------------------------------------------------------------------------------------------------- failures


def encode_failure(failure: Mapping[str, Any]) -> bytes:
    """A failure as the journal holds it."""
    return json.dumps(failure).encode()


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as fields of ``records.Failure``, whatever it does when it is looked at."""
    kind = type(error)
    return {
        "kind": classify(error).value,
        "error": qualified_name(kind),
        "bases": [qualified_name(base) for base in _bases(kind)[1:-1]][:_MOST_BASES],
        "message": bounded(_text(error), LONGEST_MESSAGE),
        "traceback": bounded(_traceback(error), LONGEST_TRACEBACK),
        **(_end_of_program(error) if type(error) is ProgramError else {}),
    }


def _end_of_program(error: ProgramError) -> dict[str, Any]:
    """How a program ended: by that it is told apart from others, and tried again."""
    told: dict[str, Any] = {"exit_code": error.exit_code, "signal": error.signal}
    told["bases"] = [qualified_name(base) for base in _bases(ProgramError)[:-1]]  # its own name too, should another stand in its place
    if error.signal is not None:
        told["error"] = signal_name(error.signal)
    elif error.exit_code:
        told["error"] = f"exit code {error.exit_code}"
    elif error.kind in (Kind.TIMEOUT, Kind.MEMORY):
        told["error"] = str(error.kind)
    if _own_frames_only(error.__traceback__):
        told["traceback"] = ""
    return told


def _own_frames_only(step: TracebackType | None) -> bool:
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_HERE):
        step = step.tb_next
    return step is None


def _bases(kind: type) -> tuple[type, ...]:
    return cast("tuple[type, ...]", _MRO.__get__(kind))


def qualified_name(kind: type) -> str:
    """``module.Name`` of a class, the bare name of a builtin."""
    # the class's own dict may lie, too
    module, name = _MODULE.__get__(kind), _QUALNAME.__get__(kind)
    name = str.__str__(name) if issubclass(type(name), str) else "?"
    module = str.__str__(module) if issubclass(type(module), str) else "builtins"
    return name if module == "builtins" else f"{module}.{name}"


def classify(error: BaseException) -> Kind:
    """The kind of a failure that an exception stands for; see the table of kinds in the documentation."""
    # of the type: isinstance() believes what an object says of its class
    kind = type(error)
    if kind is ProgramError:
        said = _attribute(error, "kind")
        return Kind(said) if said in OWN_KINDS else Kind.PERMANENT
    if issubclass(kind, MemoryError):
        return Kind.MEMORY
    if issubclass(kind, (ConnectionError, TimeoutError)) or _is_transient(error):
        return Kind.TRANSIENT
    if issubclass(kind, (FileNotFoundError, PermissionError)):
        return Kind.RECOVERABLE
    return Kind.PERMANENT


def _is_transient(error: BaseException) -> bool:
    kind = type(error)
    if not issubclass(kind, Exception):
        return False
    if any(qualified_name(base) in _TRANSIENT_NAMES for base in _bases(kind)):
        return True
    number = _attribute(error, "errno") if issubclass(kind, OSError) else None
    if type(number) is int and number in _TRANSIENT_NUMBERS:
        return True
    return _is_retryable_status(error) or _is_throttling(error)


def _is_retryable_status(error: BaseException) -> bool:
    response = _attribute(error, "response")
    found = [_attribute(error, name) for name in ("status", "status_code", "code", "http_status")]
    found += [_attribute(response, name) for name in ("status", "status_code")]
    return any(type(status) is int and (status == 429 or 500 <= status <= 599) for status in found)


def _is_throttling(error: BaseException) -> bool:
    response = _attribute(error, "response")
    if type(response) is not dict:
        return False
    details, metadata = response.get("Error"), response.get("ResponseMetadata")
    code = details.get("Code") if type(details) is dict else None
    status = metadata.get("HTTPStatusCode") if type(metadata) is dict else None
    if type(status) is int and (status == 429 or 500 <= status <= 599):
        return True
    return type(code) is str and any(word in code.lower().replace(".", "") for word in _THROTTLING)


def _attribute(holder: object, name: str) -> Any:
    if holder is None:
        return None
    try:
        return getattr(holder, name, None)
    except BaseException:  # noqa: BLE001  a property of user code
        return None


def bounded(text: str, limit: int) -> str:
    """A text, or its beginning and end with a line that says how much was left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as second:  # noqa: BLE001
        return f"<its __str__ raised {qualified_name(type(second))}>"
    return str.__str__(text)


def _traceback(error: BaseException) -> str:
    try:
        shown = traceback.TracebackException(type(error), error, _beyond_this_package(error.__traceback__), limit=-_MOST_FRAMES)
        return "".join(_bounded_lines(shown.format()))
    except BaseException:  # noqa: BLE001  an exception whose causes, notes or text cannot be looked at
        return _bare_traceback(error)


def _bare_traceback(error: BaseException) -> str:
    try:
        frames = traceback.format_tb(BaseException.__dict__["__traceback__"].__get__(error), limit=-_MOST_FRAMES)
    except BaseException:  # noqa: BLE001
        frames = []
    return "".join(["Traceback (most recent call last):\n", *frames, f"{qualified_name(type(error))}: {bounded(_text(error), 200)}\n"])


def _bounded_lines(lines: Iterator[str]) -> Iterator[str]:
    return (bounded(line, LONGEST_MESSAGE) for line in itertools.islice(lines, 2000))


_HERE = os.path.dirname(__file__) + os.sep  # noqa: PTH120  compared with the file names of code objects


def _beyond_this_package(step: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames that lead to user code; all of it where there is none."""
    first = step
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_HERE):
        step = step.tb_next
    return step or first
