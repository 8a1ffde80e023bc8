"""What the items of a batch printed: short for their attempt rows, long for the log part, and the last of it for whoever follows."""

from __future__ import annotations

from typing import NamedTuple

from dcompute.config import settings
from dcompute.records import STREAMS
from dcompute.worker.output import Capture

#: Bytes of what came last that wait for whoever follows.
RECENT = 2 << 10


class Long(NamedTuple):
    """What an item printed, where that is more than its row has."""

    text: str
    size: int  #: bytes of all that it printed


class Printed:
    """The streams of one child after another, while a batch is executed."""

    def __init__(self) -> None:
        self.captures: list[Capture] = []
        self.texts: list[dict[int, str]] = [{}, {}]
        self.long: list[dict[int, Long]] = [{}, {}]
        self._left = settings().logs.batch

    def listen(self, token: bytes) -> None:
        """From now on a child with this token prints."""
        item = settings().logs.item
        self.captures = [Capture(token, long=item, recent=RECENT) for _ in STREAMS]

    def flush(self, index: int) -> None:
        """The streams broke off: what is nobody's was printed by this item."""
        for capture in self.captures:
            capture.flush(index)

    def keep(self) -> None:
        """Take what items printed."""
        for place, capture in enumerate(self.captures):
            for index, text in capture.take().items():
                self.texts[place][index] = self.texts[place].get(index, "") + text
            for index, (text, size) in capture.take_long().items():
                self._keep_long(place, index, text, size)

    def _keep_long(self, place: int, index: int, text: str, size: int) -> None:
        if len(text) > self._left:
            return  # its row has the beginning and the end
        self._left -= len(text)
        before = self.long[place].get(index, Long("", 0))
        self.long[place][index] = Long(before.text + text, before.size + size)

    def forget(self) -> None:
        """All of it: the items are executed again."""
        self.texts, self.long = [{}, {}], [{}, {}]

    def all(self) -> str:
        """What a set-up printed."""
        self.flush(0)
        return "\n".join(text for capture in self.captures for text in capture.take().values())

    def recent(self) -> dict[str, str]:
        """By stream, the last lines that were printed since this was asked before."""
        return self._recent(whole=False)

    def rest(self) -> dict[str, str]:
        """By stream, what nobody was told yet."""
        return self._recent(whole=True)

    def _recent(self, *, whole: bool) -> dict[str, str]:
        return {name: text for name, capture in zip(STREAMS, self.captures, strict=False) if (text := capture.take_recent(whole=whole))}
