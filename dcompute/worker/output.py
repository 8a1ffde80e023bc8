"""What a child prints, cut into what each item printed and bounded.

The child writes a mark into both of its streams at the end of an item that took long or printed something; the worker, which drains
the streams so that nobody ever blocks on them, cuts at the marks. All before a mark belongs to the item that the mark names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

#: Bytes kept of what one item prints to one stream, at its start and at its end.
HEAD, TAIL = 8 << 10, 8 << 10
#: Bytes kept of what all items of a batch print to one stream.
ALLOWANCE = 16 << 20
#: A mark's index at the end of a batch.
END = -1
_DIGITS = 12
#: Who looks on waits for the end of a line up to so many bytes.
_LONGEST_LINE = 1 << 10
_CHUNK = 1 << 18


def new_token() -> bytes:
    """The start of a mark; random, so that nothing printed is taken for one."""
    return b"\0dcompute:" + os.urandom(9).hex().encode() + b":"


def mark(token: bytes, index: int) -> bytes:
    """A mark: what stands before it in a stream was printed by that item. Short enough to be written in one piece."""
    return token + b"%+012d\0" % index


class Bounded:
    """The head and the tail of a stream of bytes, in bounded memory."""

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self._limits = head, tail
        self._head = bytearray()
        self._tail = bytearray()
        self.size = 0

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Append; what is neither head nor tail is forgotten."""
        self.size += len(data)
        room = self._limits[0] - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        tail = self._limits[1]
        if len(data) >= tail:
            self._tail[:] = data[len(data) - tail :]
        else:
            self._tail += data
            if len(self._tail) > 4 * tail:
                del self._tail[: len(self._tail) - tail]

    def tail(self) -> bytes:
        """The end alone."""
        return bytes(self._tail[max(0, len(self._tail) - self._limits[1]) :])

    def clear(self) -> None:
        """Begin anew."""
        self._head.clear()
        self._tail.clear()
        self.size = 0

    def text(self) -> str:
        """What was kept, with a line that says how much was left out."""
        tail = self._limits[1]
        kept = self._tail[max(0, len(self._tail) - tail) :]
        left_out = self.size - len(self._head) - len(kept)
        if left_out <= 0:
            return (self._head + kept).decode("utf-8", "backslashreplace")
        first, last = self._head.decode("utf-8", "backslashreplace"), kept.decode("utf-8", "backslashreplace")
        return f"{first}\n... {left_out} bytes left out ...\n{last}"


class Capture:
    """One stream of one child during one batch.

    Parameters
    ----------
    token
        Of the child's marks.
    head, tail, allowance
        Bytes kept of one item, and of all.
    long
        Bytes kept of an item that printed more than head and tail; 0: none.
    recent
        Bytes kept of what came last, for whoever looks on.
    """

    def __init__(
        self, token: bytes, *, head: int = HEAD, tail: int = TAIL, allowance: int = ALLOWANCE, long: int = 0, recent: int = 0
    ) -> None:
        self._token = token
        self._limits = head, tail
        self._long_limits = (long - long // 2, long // 2) if long > head + tail else None
        self._long_open = self._new_long()
        self._long: dict[int, tuple[str, int]] = {}
        self._recent = Bounded(0, recent) if recent else None
        self._allowance = allowance
        self._pending = bytearray()
        self._open = Bounded(head, tail)
        self._texts: dict[int, str] = {}
        self.ended = False

    def add(self, data: bytes) -> None:
        """Take what was read from the stream."""
        self._pending += data
        while (at := self._pending.find(self._token)) >= 0 and len(self._pending) >= at + len(self._token) + _DIGITS + 1:
            self._take_in(self._pending[:at])
            number = at + len(self._token)
            self.close(int(self._pending[number : number + _DIGITS]))
            del self._pending[: number + _DIGITS + 1]
        # the start of a mark may be what came last
        certain = at if at >= 0 else max(0, len(self._pending) - len(self._token))
        self._take_in(self._pending[:certain])
        del self._pending[:certain]

    def close(self, index: int) -> None:
        """All that is not any item's yet was printed by this one; :data:`END` drops it."""
        if index == END:
            self.ended = True
        elif self._open.size:
            self._keep(index, self._open.text(), self._open.size)
            if self._long_open is not None and self._open.size > sum(self._limits):
                self._long[index] = (self._long_open.text(), self._long_open.size)
        if self._open.size:
            self._open = Bounded(*self._limits)
            self._long_open = self._new_long()

    def flush(self, index: int) -> None:
        """As :meth:`close` when the stream broke off: what looked like the start of a mark is none."""
        self._take_in(self._pending)
        self._pending.clear()
        self.close(index)

    def take(self) -> dict[int, str]:
        """What each item printed, by its index."""
        texts, self._texts = self._texts, {}
        return texts

    def take_long(self) -> dict[int, tuple[str, int]]:
        """What items printed that printed much, by index, with the number of bytes."""
        texts, self._long = self._long, {}
        return texts

    def take_recent(self, *, whole: bool = False) -> str:
        """The last of what came since this was asked before, up to a line's end where not ``whole``."""
        if self._recent is None or not self._recent.size:
            return ""
        data = self._recent.tail()
        is_long = self._recent.size >= _LONGEST_LINE
        end = len(data) if whole else data.rfind(b"\n") + 1 or (len(data) if is_long else 0)
        if end:
            self._recent.clear()
            self._recent.add(data[end:])
        return data[:end].decode("utf-8", "backslashreplace")

    def _new_long(self) -> Bounded | None:
        return None if self._long_limits is None else Bounded(*self._long_limits)

    def _take_in(self, data: bytearray) -> None:
        self._open.add(data)
        if self._long_open is not None:
            self._long_open.add(data)
        if self._recent is not None:
            self._recent.add(data)

    def _keep(self, index: int, text: str, size: int) -> None:
        if len(text) > self._allowance:
            text = f"... {size} bytes left out: the batch printed more than is kept ..."
        else:
            self._allowance -= len(text)
        self._texts[index] = self._texts.get(index, "") + text


def drain(descriptor: int, capture: Capture | None, *, limit: int = 1 << 22) -> bool:
    """Read what is there, at most about ``limit`` bytes, from a descriptor that does not block.

    Returns
    -------
    bool
        False at the end of the stream.
    """
    taken = 0
    while taken < limit:
        try:
            data = os.read(descriptor, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not data:
            return False
        taken += len(data)
        if capture is not None:
            capture.add(data)
    return True


def log_lines(texts: Iterable[tuple[str, str]], *, limit: int = 16 << 10) -> str:
    """What items printed, for the worker's log: one block an item, bounded.

    Parameters
    ----------
    texts
        Pairs of an item's key and what it printed.
    """
    blocks: list[str] = []
    for key, text in texts:
        block = f"[{key}] {text.rstrip()}"
        if len(block) > limit:
            blocks.append(f"[{key}] {text[:limit]} ...")
            break
        limit -= len(block)
        blocks.append(block)
    return "\n".join(blocks)
