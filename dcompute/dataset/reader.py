"""A file of an object store, read in pieces."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


class Reader(io.RawIOBase):
    """A binary file whose reads fail as the store says: decoders above it take whatever the storage raises for damage of the file.

    Parameters
    ----------
    file
        As fsspec opens it; who opened it closes it.
    guard
        Calls what it is given and turns errors of the storage into those of the store.
    """

    def __init__(self, file: Any, guard: Callable[[Callable[[], bytes]], bytes]) -> None:
        super().__init__()
        self._file = file
        self._guard = guard

    def readable(self) -> bool:
        """Whether it can be read: True."""
        return True

    def seekable(self) -> bool:
        """Whether its position can be set: True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and give it in bytes."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """The position in bytes."""
        return int(self._file.tell())

    def read(self, size: int | None = -1) -> bytes:
        """So many of the next bytes, or all that are left."""
        return self._guard(lambda: self._file.read(-1 if size is None else size))

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes, and give how many there were."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
