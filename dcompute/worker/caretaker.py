"""The caretaker of a child: puts its process back as set-up left it, so that no item meets what another one left.

What can be seen in a microsecond or two is looked at after every call (:meth:`Caretaker.tidy`). The rest takes fifteen, and is looked at
after a call that failed or took a millisecond, every 20 ms, and at both ends of a batch (:meth:`Caretaker.inspect`): what is left of it in
between makes a neighbour fail at worst, and then it is found.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import warnings
from typing import Any

from dcompute.worker import aspects, conditions
from dcompute.worker.conditions import Found, Next
from dcompute.worker.environment import Environment
from dcompute.worker.streams import Streams


class Caretaker:
    """Knows how the process was when this object was made, which is when its set-up is done.

    Parameters
    ----------
    streams
        Of this process.
    """

    def __init__(self, streams: Streams) -> None:
        streams.settle()
        self._streams = streams
        with contextlib.suppress(OSError):
            tempfile.gettempdir()  # else the first item that asks decides for all, in its own folder perhaps
        self._temporary = tempfile.tempdir
        self._home = _where()
        self._mask = os.umask(0o077)
        os.umask(self._mask)
        self._environment = Environment()
        self._path, self._finders, self._filters = list(sys.path), list(sys.meta_path), list(warnings.filters)
        self._recursion, self._collects = sys.getrecursionlimit(), gc.isenabled()
        self._trace, self._profile = sys.gettrace(), sys.getprofile()
        self._aspects = aspects.all_of(streams)
        self._alarm = any(signal.getitimer(signal.ITIMER_REAL))
        self._handlers = aspects.unnoticed()
        self._modules = len(sys.modules)
        self._calls = 0  # that had been made at the last inspection
        self._lost: tuple[str, ...] = ()  # that it found

    def tidy(self) -> bool:
        """Put back what is quick to see; True where a look at the rest is due."""
        os.umask(self._mask)
        if not self._alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if _where() != self._home and self._home is not None:
            with contextlib.suppress(OSError):  # it was removed
                os.chdir(self._home)
        if not self._is_tidy():
            self._tidy_interpreter()
        return aspects.unnoticed() != self._handlers

    def after_call(self, calls: int, *, succeeded: bool, idempotent: bool) -> Next:
        """Put back all that a call may have changed, and say what comes next; ``calls`` were made so far, this one included."""
        before, earlier = self._lost, calls - self._calls > 1
        found = self.inspect(calls)
        return conditions.after_call(
            succeeded=succeeded, idempotent=idempotent, found=found, earlier=earlier, spoilt=bool(before) and calls > 1
        )

    def inspect(self, calls: int) -> Found:
        """Put back all that is changed; ``calls`` were made so far."""
        self.tidy()
        changed = [aspect for aspect in self._aspects if aspect.is_changed()]
        lost = [aspect.name for aspect in changed if not aspect.put_back()]
        if _where() != self._home:
            lost.append("working directory")
        if not aspects.can_open_files():
            lost.append("file numbers")
        self._calls, self._lost = calls, tuple(lost)
        return Found(tuple(aspect.name for aspect in changed if aspect.name not in lost), self._lost)

    def _is_tidy(self) -> bool:
        return (
            len(sys.modules) == self._modules
            and not self._environment.is_changed()
            and self._streams.are_in_place()
            and sys.path == self._path
            and sys.meta_path == self._finders
            and warnings.filters == self._filters
            and sys.getrecursionlimit() >= self._recursion
            and gc.isenabled() is self._collects
            and sys.gettrace() is self._trace
            and sys.getprofile() is self._profile
            and tempfile.tempdir is self._temporary
        )

    def _tidy_interpreter(self) -> None:
        sys.settrace(self._trace)
        sys.setprofile(self._profile)
        sys.setrecursionlimit(max(self._recursion, sys.getrecursionlimit()))
        (gc.enable if self._collects else gc.disable)()
        tempfile.tempdir = self._temporary
        if not self._streams.are_in_place():
            self._streams.renew()
        imported, self._modules = len(sys.modules) > self._modules, len(sys.modules)
        self._environment.put_back(imported=imported)
        self._path = _restored(sys, "path", self._path, imported)
        self._finders = _restored(sys, "meta_path", self._finders, imported)
        if warnings.filters != self._filters:
            self._filters = _restored(warnings, "filters", self._filters, imported)
            with warnings.catch_warnings():
                pass  # its end makes Python look at the filters again


def _restored(module: Any, name: str, was: list[Any], imported: bool) -> list[Any]:
    """A list of a module as it shall be, put there."""
    now = getattr(module, name, None)
    wanted = conditions.entries(was, now, imported=imported)
    if not isinstance(now, list):
        setattr(module, name, list(wanted))
    elif now != wanted:
        now[:] = wanted
    return wanted


def _where() -> str | None:
    """The working directory; None where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109  compared after every call
    except OSError:
        return None
