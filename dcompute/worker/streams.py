"""A child's standard streams: the marks that say who printed what, and how they are put back."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys
from typing import Any

from dcompute.worker.output import END, mark

_NAMES = ("stdin", "stdout", "stderr")


def _form(stream: Any) -> dict[str, Any] | None:
    """How a stream encodes; None for one that is closed, detached or gone."""
    try:
        if stream.closed:
            return None
        return {name: getattr(stream, name) for name in ("encoding", "errors", "line_buffering", "write_through")}
    except Exception:  # noqa: BLE001  whatever user code put there
        return None


class _Raw(io.FileIO):
    def __init__(self, descriptor: int, owner: Streams) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._owner = owner

    def write(self, data: Any) -> int:
        self._owner.is_dirty = True
        return super().write(data)


class _Text(io.TextIOWrapper):
    """Text may wait in a buffer, and belongs to who wrote it all the same."""

    owner: Streams

    def write(self, text: str) -> int:
        self.owner.is_dirty = True
        return super().write(text)


class Streams:
    """Replaces ``sys.stdout`` and ``sys.stderr`` of this process by streams that notice when something is written."""

    def __init__(self) -> None:
        self.is_dirty = False
        self.token = b""
        # user code may point 1 and 2 elsewhere and forget it
        self._ends = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 5) for descriptor in (1, 2)]
        self._own = [self._wrap(descriptor) for descriptor in (1, 2)]
        sys.stdout, sys.stderr = self._own
        sys.__stdout__, sys.__stderr__ = self._own  # type: ignore[misc]
        self.settle()

    def settle(self) -> None:
        """What stands in ``sys`` now, set-up's own perhaps, is what items shall find there."""
        self._kept: list[Any] = [getattr(sys, name) for name in _NAMES]
        self._forms = [_form(stream) for stream in self._kept]

    def are_in_place(self) -> bool:
        """Whether ``sys.stdout`` and ``sys.stderr`` are those that were settled on."""
        return sys.stdout is self._kept[1] and sys.stderr is self._kept[2]

    def are_sound(self) -> bool:
        """Whether all are in place, open, and encode as they did."""
        return sys.stdin is self._kept[0] and self.are_in_place() and [_form(stream) for stream in self._kept] == self._forms

    def renew(self) -> None:
        """Put them back, with a new one for each that was closed."""
        for descriptor, (name, form) in enumerate(zip(_NAMES, self._forms, strict=True)):
            stream = self._kept[descriptor]
            now = _form(stream)
            if now is None and form is not None:
                stream = self._kept[descriptor] = self._reopened(descriptor)
                self._forms[descriptor] = _form(stream)
            elif form is not None and now != form:
                stream.reconfigure(**form)
            with contextlib.suppress(Exception):
                getattr(sys, name).flush()
            setattr(sys, name, stream)

    def _reopened(self, descriptor: int) -> Any:
        if descriptor == 0:
            return open(0, closefd=False)
        own = self._own[descriptor - 1]
        if _form(own) is None:
            own = self._own[descriptor - 1] = self._wrap(descriptor)
        return own

    def _wrap(self, descriptor: int) -> _Text:
        stream = _Text(io.BufferedWriter(_Raw(descriptor, self)), encoding="utf-8", errors="backslashreplace", line_buffering=True)
        stream.owner = self
        return stream

    def item_ended(self, index: int) -> None:
        """All that was printed since the last mark was printed by this item."""
        for stream in (*self._own, sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._mark(index)
        self.is_dirty = False

    def batch_ended(self) -> None:
        """What is printed from now on is nobody's."""
        self._mark(END)

    def _mark(self, index: int) -> None:
        data = mark(self.token, index)
        for descriptor in self._ends:
            with contextlib.suppress(OSError):
                os.write(descriptor, data)
