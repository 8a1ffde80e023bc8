"""How many items the next batch of a class has, from what earlier ones cost."""

from __future__ import annotations

import math

from dcompute.records import Receipt
from dcompute.window.settings import WindowConfig

#: Weight that earlier batches keep when another one ends: the last four or so decide.
_MEMORY = 0.7
#: A batch should last at least so many times what a batch costs beside its items.
_OVERHEADS = 10.0
#: A batch lasts this part of what lies behind a run (or still before it): 5 s after 100 s.
_PART = 0.05
#: A run is long from here on (seconds): then a batch may last longer still.
_LONG = 300.0
#: At the tail a slot gets what is left in this many batches.
_TAIL = 2.0


class Sizes:
    """Measured cost of the items of one class.

    The cost of an item is what its batch took beyond what every batch costs, so that items which do nothing are not billed the fixed cost.
    """

    __slots__ = ("_config", "_evidence", "_items", "_seconds", "batch_seconds", "ended", "overhead", "setup_seconds")

    def __init__(self, config: WindowConfig, like: Sizes | None = None) -> None:
        self._config = config
        #: Seconds that its batches held their slot lately; None while nothing is measured.
        self.batch_seconds: float | None = like.batch_seconds if like else None
        self.overhead: float = like.overhead if like else math.inf  #: seconds that a batch takes beside its items
        self.setup_seconds: float = like.setup_seconds if like else 0.0  #: the longest set-up of a child
        self.ended = 0  #: batches of this very class that were measured
        self._items: float = like._items if like else 0.0
        self._seconds: float = like._seconds if like else 0.0
        self._evidence: int = like._evidence if like else 0

    @property
    def item_seconds(self) -> float | None:
        """Seconds that one item is expected to hold a slot; None while nothing is measured."""
        return self._seconds / self._items if self._items else None

    def measured(self, receipt: Receipt, sent: int) -> None:
        """Learn from a batch that was sent with so many items."""
        count = receipt.count
        if not count:
            return
        held = max(receipt.slot_seconds - receipt.setup_seconds, receipt.seconds, 0.0)
        self.ended += 1
        self.setup_seconds = max(self.setup_seconds, receipt.setup_seconds)
        self.overhead = min(self.overhead, held - receipt.seconds)
        self._seconds = _MEMORY * self._seconds + max(receipt.seconds, held - self.overhead, 1e-9)
        self._items = _MEMORY * self._items + count
        self._evidence = max(self._evidence, min(count, sent))
        self.batch_seconds = held if self.batch_seconds is None else _MEMORY * self.batch_seconds + (1 - _MEMORY) * held

    def size(self, slots: int, elapsed: float, left: int | None) -> int:
        """Items of the next batch.

        Parameters
        ----------
        slots
            Slots that serve the class.
        elapsed
            Seconds since the run's first batch.
        left
            Items of the class still to be sent; None where that is not known.
        """
        config, each = self._config, self.item_seconds
        step = config.group or 1
        if config.batch_size is not None:
            return config.batch_size
        if each is None:
            return step
        seconds = self._aim(max(slots, 1), elapsed, left, each)
        wanted = min(seconds / each, config.growth * self._evidence, config.max_items)
        if left is not None:
            tail = max(left / (_TAIL * max(slots, 1)), self._floor(max(slots, 1)) / each)
            wanted = min(wanted, tail)
        return max(step, int(wanted) // step * step)

    def _aim(self, slots: int, elapsed: float, left: int | None, each: float) -> float:
        config = self._config
        span = elapsed if left is None else max(elapsed, left * each / slots)
        longest = config.long_seconds if span >= _LONG else config.usual_seconds
        aim = min(max(_PART * span, config.short_seconds), longest)
        aim = max(aim, min(_OVERHEADS * self.overhead, config.long_seconds))
        return max(aim, self._floor(slots)) if config.batches_per_second else aim

    def _floor(self, slots: int) -> float:
        """Seconds that a batch lasts at least: at the tail too, where storage counts requests."""
        config = self._config
        return max(config.floor_seconds, slots / config.batches_per_second) if config.batches_per_second else config.floor_seconds
