"""Aspects of a process that one call may change and the next one meets: how each is read, and how it is put back.

These take a system call or more each; what is cheaper to look at is in ``caretaker``.
"""

from __future__ import annotations

import contextlib
import fcntl
import locale
import os
import resource
import signal
import socket
from _signal import getsignal  # type: ignore[import-not-found]  # that of ``signal`` makes an enum of each answer: fifty times as dear
from collections.abc import Callable
from typing import Any

from dcompute.worker import conditions
from dcompute.worker.streams import Streams
from dcompute.worker.system import OUT_OF_REACH

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
# those above have a handler where somebody sends them only
_SIGNALS = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP) and number in signal.valid_signals())
# how large a core file may be is left out: it hurts nobody
_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CPU", "RLIMIT_NPROC")
    if hasattr(resource, name)
)
_CHILD, _ALARM, _INTERRUPT, _TERMINATE = map(int, (signal.SIGCHLD, signal.SIGALRM, signal.SIGINT, signal.SIGTERM))
_STANDARD = (0, 1, 2)


class Aspect:
    """Something that has a value.

    Parameters
    ----------
    name
        As it is told.
    read
        Gives its value.
    write
        Gives it a value; what it raises says that this cannot be.
    """

    def __init__(self, name: str, read: Callable[[], Any], write: Callable[[Any], object]) -> None:
        self.name = name
        self._read, self._write = read, write
        self._was = read()

    def is_changed(self) -> bool:
        """Whether it is not as it was when this object was made."""
        return bool(self._read() != self._was)

    def put_back(self) -> bool:
        """Give it its value back; False where that cannot be."""
        with contextlib.suppress(Exception):
            self._write(self._was)
            return not self.is_changed()
        return False


class _Limits(Aspect):
    """What a process may use; limits that were raised stay."""

    def __init__(self) -> None:
        super().__init__("limits", lambda: tuple(map(resource.getrlimit, _LIMITS)), self._write_all)

    def is_changed(self) -> bool:
        return any(map(conditions.limit, self._was, self._read()))

    def _write_all(self, _was: object) -> None:
        for number, was, now in zip(_LIMITS, self._was, self._read(), strict=True):
            if (wanted := conditions.limit(was, now)) is None:
                continue
            try:
                resource.setrlimit(number, wanted)
            except (ValueError, OSError):  # only root raises a hard limit
                resource.setrlimit(number, conditions.within(was, now))


class _Descriptors(Aspect):
    """Where files 0, 1 and 2 lead."""

    def __init__(self) -> None:
        self._kept = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, OUT_OF_REACH) for number in _STANDARD]
        super().__init__("files 0, 1 and 2", lambda: tuple(map(_file, _STANDARD)), self._point)

    def _point(self, was: tuple[object, ...]) -> None:
        for number, kept, file in zip(_STANDARD, self._kept, was, strict=True):
            if file == _file(kept) != _file(number):
                os.dup2(kept, number)


def all_of(streams: Streams) -> list[Aspect]:
    """All of this process, in the order in which they are put back."""
    found = [_timer(which) for which in _TIMERS if not any(signal.getitimer(which))]
    found += [
        Aspect("signal mask", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), _unblock),
        Aspect("signal handlers", lambda: tuple(map(getsignal, _SIGNALS)), _handle),
        _Limits(),
        Aspect("locale", lambda: locale.setlocale(locale.LC_ALL), lambda was: locale.setlocale(locale.LC_ALL, was)),
        Aspect("default socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
        Aspect("standard streams", streams.are_sound, lambda _: streams.renew()),
    ]
    with contextlib.suppress(OSError):  # this process may open only a few files
        found.append(_Descriptors())
    return found


def unnoticed() -> tuple[Any, ...]:
    """Handlers that nobody would miss at once: where SIGCHLD is ignored, programs that failed seem to have succeeded."""
    return getsignal(_CHILD), getsignal(_ALARM), getsignal(_INTERRUPT), getsignal(_TERMINATE)


def can_open_files() -> bool:
    """Whether there is a file number left."""
    try:
        os.close(os.open(os.sep, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _timer(which: int) -> Aspect:
    return Aspect("timers", lambda: any(signal.getitimer(which)), lambda _: signal.setitimer(which, 0))


def _unblock(was: set[int]) -> None:
    for number in signal.sigpending() - was:
        # what came meanwhile was for another item: it is dropped, and must not be handled now
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, was)


def _handle(was: tuple[Any, ...]) -> None:
    for number, handler in zip(_SIGNALS, was, strict=True):
        if handler is not None and getsignal(number) != handler:
            signal.signal(number, handler)


def _file(number: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino
