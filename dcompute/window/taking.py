"""How much is asked of the plan, and how large the next batch of a class is."""

from __future__ import annotations

from dcompute.records import Request
from dcompute.window.core import Core
from dcompute.window.instructions import Take
from dcompute.window.queues import ItemClass

#: Seconds for which a batch that is not full waits for items that were asked for.
HOLD = 0.1
#: Items asked for while nothing is known of their cost.
_FIRST_TAKE = 64


class Taker:
    """The intake of one window."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def take(self) -> None:
        """Ask the plan for items when fewer are there than the slots can take at once."""
        core = self._core
        if core.exhausted or core.asked_at is not None or core.end is not None or not core.slots.slots:
            return
        fresh = core.queues.fresh
        if self._retries_full() or (core.pause.why is not None and fresh):
            return
        config = core.config
        base = core.queues.of(config.request)
        round_ = self._slots(base.request) * self.size(base)
        most = config.max_ready
        if fresh:
            most = min(most, config.max_ready_bytes * fresh // max(core.queues.fresh_bytes, 1))
        wanted = min(max(2 * round_, _FIRST_TAKE), most)
        if 2 * fresh < wanted:
            core.asked_at = core.now
            core.say(Take(max(1, wanted - fresh)))

    def waits(self) -> list[float]:
        """Times at which something that is held back may go out."""
        core = self._core
        times = [] if core.asked_at is None else [core.asked_at + HOLD]
        probing = [found.first_sent for found in core.queues.classes.values() if found.first_sent is not None and found.loose]
        return times + [first + core.config.probe_wait for first in probing]

    def size(self, found: ItemClass) -> int:
        """Items of the next batch of a class."""
        core = self._core
        elapsed = 0.0 if core.began is None else core.now - core.began
        return found.sizes.size(self._slots(found.request), elapsed, self.left(found))

    def left(self, found: ItemClass) -> int | None:
        """Items of a class still to be put together to batches; None where that is not known."""
        core = self._core
        if core.exhausted:
            return found.loose
        return None if core.remaining is None else found.loose + core.remaining

    def held(self, found: ItemClass, size: int) -> bool:
        """Whether a batch that is not full waits a moment for items that were asked for."""
        core = self._core
        return core.asked_at is not None and found.loose < size and core.now < core.asked_at + HOLD

    def probing(self, found: ItemClass) -> bool:
        """Whether nothing is measured and enough single items are on their way to be measured."""
        config = self._core.config
        if found.sizes.item_seconds is not None or config.batch_size is not None or found.first_sent is None:
            return False
        flying = self._core.slots.flying.get(found.request, 0)
        return flying >= config.probes and self._core.now < found.first_sent + config.probe_wait

    def _slots(self, request: Request) -> int:
        return max(self._core.slots.served(request), self._core.slots.target, 1)

    def _retries_full(self) -> bool:
        core = self._core
        retrying = len(core.queues.later) + sum(found.again for found in core.queues.classes.values())
        if retrying < core.config.max_retrying:
            return False
        core.notice(("retries-full", f"{retrying:,} items wait for another attempt: no new inputs are read until fewer do."), once=True)
        return True
