"""A file of an object store, read in pieces that are not smaller than a block."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

#: Bytes that are asked for at once, where a reader wants fewer.
BLOCK = 4 << 20


class Blocks:
    """A file to be read in blocks; one of no more than a block is asked for once, and nobody has to say how large it is.

    Parameters
    ----------
    fetch
        The bytes from one place to before another, fewer where the file ends before.
    measure
        The size of the file; called where it is not known and no block shows it.
    size
        It, where it is known; 0: it is not.
    block
        Bytes that are asked for at once, at least.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], measure: Callable[[], int], size: int | None = None, block: int = BLOCK) -> None:
        self._fetch = fetch
        self._block = block
        self._at = 0
        self._kept: list[tuple[int, bytes]] = []  # (where it begins, bytes): that with the end, and the last
        self._size = size or 0
        if not size:
            found = self._keep(0, block)
            self._size = len(found) if len(found) < block else measure()

    def __enter__(self) -> Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and give it in bytes."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """The position in bytes."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """So many of the next bytes, or all that are left."""
        stop = self._size if size < 0 else min(self._at + size, self._size)
        pieces = []
        while self._at < stop and (piece := self._piece(stop)):
            pieces.append(piece)
            self._at += len(piece)
        return b"".join(pieces)

    def _piece(self, stop: int) -> bytes:
        """Some of the bytes up to there; none where the file turns out to end here."""
        for begin, data in reversed(self._kept):
            if begin <= self._at < begin + len(data):
                return data[self._at - begin : stop - begin]
        # a small file is read whole, wherever its reader begins: its footer comes first
        start = 0 if self._size <= self._block else self._at
        data = self._keep(start, min(self._size, max(stop, start + self._block)))
        return data[self._at - start : stop - start]

    def _keep(self, start: int, stop: int) -> bytes:
        data = self._fetch(start, stop)
        # the end stays at hand: there is the footer
        ends = [one for one in self._kept if one[0] + len(one[1]) == self._size]
        self._kept = [*ends[-1:], (start, data)]
        return data


class Reader(io.RawIOBase):
    """A binary file whose reads fail as the store says: decoders above it take whatever the storage raises for damage of the file.

    Parameters
    ----------
    file
        As its storage opens it; who opened it closes it.
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
