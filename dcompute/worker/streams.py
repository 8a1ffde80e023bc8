"""A child's stdout and stderr: the marks that say who printed what."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys
from typing import Any

from dcompute.worker.output import END, mark


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
