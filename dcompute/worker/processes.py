"""One external program at work: started in a group of its own, watched, captured, ended with all that it started.

The guardian kills the whole tree when the worker or the child dies. Here is what happens while both live: the program is asked to end
(SIGTERM) when its time is over or its batch is stopped, killed after a grace, and nothing of its tree is left when this is over.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from dcompute.errors import ProgramError
from dcompute.records import Kind
from dcompute.worker import system
from dcompute.worker.advance import Advance, Reader
from dcompute.worker.output import Bounded
from dcompute.worker.verdict import signal_name

#: Seconds between two looks for a reason to end a program that prints nothing.
TICK = 0.05
#: Bytes of stdout that are kept for who reads them.
MOST_STDOUT = 64 << 20
#: Bytes of stderr that are kept for an error, and characters of it in the message.
_STDERR, _SHOWN = 4 << 10, 500
#: In the environment of the program and of all that it starts.
MARK = "DCOMPUTE_PROGRAM"
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What is started, and how it is watched."""

    words: Sequence[str]
    cwd: str | None = None
    env: Mapping[str, str] | None = None  #: beside what this process has
    target: str | None = None  #: file that gets its stdout
    keep: bool = False  #: whether its stdout is wanted back
    reader: Reader | None = None
    report: Callable[[float, str], None] | None = None
    deadline: float | None = None  #: ``time.monotonic()``
    grace: float = 5.0
    stopped: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended."""

    code: int | None  #: exit code
    signal: int | None  #: the signal that ended it
    stdout: bytes = b""
    stderr: str = ""  #: head and tail
    seconds: float = 0.0
    timed_out: bool = False
    stopped: bool = False
    oom_killed: bool = False  #: the kernel's counter rose meanwhile
    left: int = 0  #: processes that it left behind


def execute(started: Started) -> Ended:
    """Run a program to its end, whatever that is.

    Raises
    ------
    ProgramError
        It cannot be started, or prints more than is kept.
    """
    return _Running(started).watch()


class _Running:
    def __init__(self, started: Started) -> None:
        self._started = started
        self._mark = secrets.token_hex(12)
        self._began = time.monotonic()
        self._oom_kills = system.oom_kills()
        self._kept = bytearray()
        self._stderr = Bounded(_STDERR, _STDERR)
        self._target: IO[bytes] | None = None
        self._asked: float | None = None  # when it was asked to end
        self._left = 0
        self._is_killed = self._is_late = self._is_stopped = False
        with contextlib.ExitStack() as undo:
            if started.target is not None:
                self._target = undo.enter_context(open(started.target, "wb"))  # noqa: PTH123  closed at the end
            self._process = _popen(started, self._mark)
            undo.pop_all()

    def watch(self) -> Ended:
        """Wait for its end."""
        try:
            with selectors.DefaultSelector() as selector:
                for number, stream in ((1, self._process.stdout), (2, self._process.stderr)):
                    assert stream is not None
                    selector.register(stream, selectors.EVENT_READ, number)
                self._serve(selector)
        finally:
            self._leave()
        code = self._process.returncode
        return Ended(
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            stdout=bytes(self._kept),
            stderr=self._stderr.text(),
            seconds=time.monotonic() - self._began,
            timed_out=self._is_late,
            stopped=self._is_stopped,
            oom_killed=code == -signal.SIGKILL and system.oom_kills() > self._oom_kills,
            left=self._left,
        )

    def _serve(self, selector: selectors.BaseSelector) -> None:
        """Read until the program has ended and nobody writes any more."""
        ended_at: float | None = None
        while selector.get_map():
            for key, _ in selector.select(TICK):
                if not self._read(key.fileobj, key.data):
                    selector.unregister(key.fileobj)
            if self._process.poll() is None:
                self._end_in_time()
            elif ended_at is None:
                ended_at = time.monotonic()
                # what it left in the background may hold the pipes for ever
                _signal_group(self._process.pid, signal.SIGKILL)
                self._left += system.kill_marked_below(os.getpid(), f"{MARK}={self._mark}".encode())
            elif time.monotonic() - ended_at > self._started.grace:
                return
        # both streams closed, and it works on
        while self._process.poll() is None:
            self._end_in_time()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TICK)

    def _read(self, stream: Any, number: int) -> bool:
        data = os.read(stream.fileno(), _CHUNK)
        advance: Advance | None = None
        shown, reader = data, self._started.reader
        if reader is not None:
            shown, advance = reader.take(number, data)
        if number == 2:
            self._stderr.add(shown)
        elif self._target is not None:
            self._target.write(data)
            shown = b""
        elif self._started.keep:
            self._kept += shown
            if len(self._kept) > MOST_STDOUT:
                raise ProgramError(
                    f"it printed more than {MOST_STDOUT >> 20} MiB to stdout, which are kept for parse=: have it write a file, or name an "
                    "output that gets its stdout, as stdout="
                )
        if shown:
            tee(number, shown)
        if advance is not None and self._started.report is not None:
            self._started.report(advance.fraction, advance.text)
        return bool(data)

    def _end_in_time(self) -> None:
        now, started = time.monotonic(), self._started
        if self._asked is None:
            self._is_late = started.deadline is not None and now >= started.deadline
            self._is_stopped = started.stopped is not None and started.stopped()
            if self._is_late or self._is_stopped:
                self._asked = now
                _signal_group(self._process.pid, signal.SIGTERM)
        elif not self._is_killed and now - self._asked >= started.grace:
            self._is_killed = True
            _signal_group(self._process.pid, signal.SIGKILL)

    def _leave(self) -> None:
        """Nothing of its tree is left."""
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()  # before the others: who waits for all that was killed would take its exit code away
        self._left += system.kill_marked_below(os.getpid(), f"{MARK}={self._mark}".encode())
        for stream in (self._process.stdout, self._process.stderr, self._target):
            if stream is not None:
                stream.close()


def _popen(started: Started, mark: str) -> subprocess.Popen[bytes]:
    """Start it.

    Raises
    ------
    ProgramError
        There is no such program, it is none, or its arguments are impossible.
    """
    environment = {**os.environ, **(started.env or {}), MARK: mark}
    try:
        return subprocess.Popen(  # noqa: S603  what the user declared, with no shell in between
            list(started.words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, process_group=0,
            cwd=started.cwd, env=environment,
        )  # fmt: skip
    except FileNotFoundError as error:
        if started.cwd is not None and error.filename == started.cwd:
            raise ProgramError(f"its working directory {started.cwd!r} is not there on this worker") from error
        raise ProgramError(not_found(started.words[0], environment.get("PATH", os.defpath))) from error
    except PermissionError as error:
        raise ProgramError(f"the program {started.words[0]!r} may not be executed on this worker: {error.strerror}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _IMPOSSIBLE:
            raise
        raise ProgramError(f"{started.words[0]!r} cannot be started with these arguments: {error}") from error


# ENOEXEC: a text without "#!"; E2BIG: more arguments than the system takes
_IMPOSSIBLE = (7, 8, 20, 36)


def not_found(name: str, path: str) -> str:
    """What is said of a program that is not there."""
    where = f"in PATH ({path})" if os.sep not in name else "there"
    return f"the program {name!r} is not {where} on this worker: install it on every worker, or say its whole path"


def tee(number: int, data: bytes) -> None:
    """Print what a program printed, as this process itself would: so it is recorded, whosever it is."""
    stream: Any = sys.stdout if number == 1 else sys.stderr
    with contextlib.suppress(Exception):  # whatever user code put there
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(data.decode("utf-8", "replace"))
        else:
            stream.flush()
            buffer.write(data)
        stream.flush()


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


# ---------------------------------------------------------------------------------------------------------------- judgement


def judged(name: str, ended: Ended, *, ok_codes: frozenset[int], retry_codes: frozenset[int], timeout: float | None = None) -> None:
    """Raise what the end of a program means, where it means failure.

    Raises
    ------
    ProgramError
        Its kind says how often it is tried again: ``timeout``; ``memory`` where the kernel killed it; ``crash`` where another signal ended
        it; ``transient`` for codes that are to be retried, ``permanent`` for all others that are not ok.
    """
    said = _last_words(ended.stderr)
    if ended.timed_out:
        of = f": its timeout is {timeout:g} s" if timeout is not None else ""
        raise ProgramError(f"{name} was ended after {ended.seconds:.3g} s{of}{said}", kind=Kind.TIMEOUT, stderr=ended.stderr)
    if ended.signal is not None:
        kind = Kind.MEMORY if ended.oom_killed else Kind.CRASH
        what = "by the kernel, for want of memory" if ended.oom_killed else f"by signal {ended.signal} ({signal_name(ended.signal)})"
        raise ProgramError(f"{name} was ended {what}{said}", kind=kind, signal=ended.signal, stderr=ended.stderr)
    if ended.code not in ok_codes:
        kind = Kind.TRANSIENT if ended.code in retry_codes else Kind.PERMANENT
        raise ProgramError(f"{name} exited with code {ended.code}{said}", kind=kind, exit_code=ended.code, stderr=ended.stderr)


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    words = " | ".join(lines[-3:])
    return f": {words[-_SHOWN:]}" if words else ""
