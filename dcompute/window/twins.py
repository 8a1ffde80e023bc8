"""Twins: a second execution of a batch that takes far longer than its like, once slots stand idle at the end of a run.

One sick host must not hold the end of a run up. Whoever of the two creates the mark first wins, and the other is dropped. Where the item is
slow and not its worker, the twin has cost an idle slot and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from dcompute.window.core import Core
from dcompute.window.events import Lost, SetupFailed
from dcompute.window.instructions import Drop, Send
from dcompute.window.order import Order
from dcompute.window.settings import WindowConfig
from dcompute.window.sizing import Sizes
from dcompute.window.slots import Batch

#: Batches of a class that must have ended before another is called slow: fewer tell nothing of its items.
_EVIDENCE = 3
#: One slot in so many has a twin at most: where more batches are slow at once, the expectation is wrong and not a worker.
_SHARE = 4
#: Seconds between two looks at all that is in flight: at the end of a run on a large cluster receipts come by the hundred.
_EVERY = 0.25


def patience(config: WindowConfig, sizes: Sizes, count: int) -> float | None:
    """Seconds after which a batch of so many items is a straggler; None where too little is known of its class.

    The set-up of a child may come on top: what a batch is expected to take does not include it.
    """
    each = sizes.item_seconds
    if each is None or sizes.ended < _EVIDENCE:
        return None
    return max(config.twin_after, config.twin_factor * (count * each + sizes.overhead)) + sizes.setup_seconds


class Twins:
    """Who gets a twin, and what becomes of the two."""

    def __init__(self, core: Core, order: Order) -> None:
        self._core = core
        self._order = order
        self._looked = -math.inf
        self.due: float | None = None  #: when the next batch in flight is a straggler, or is looked for

    def send(self) -> None:
        """Send the twins of stragglers for which slots stand idle; those that are the longest overdue first."""
        self.due = None
        if not self._is_tail():
            return
        now = self._core.now
        if now < self._looked + _EVERY:
            self.due = self._looked + _EVERY
            return
        self._looked = now
        due = sorted(((at, batch) for batch in self._core.out.values() if (at := self._due(batch)) is not None), key=lambda pair: pair[0])
        for at, batch in due:
            if at > now:
                self.due = at
                return
            worker = self._idle(batch)
            # What was lost with a worker may be what ends workers: it gets one at a time.
            if worker is not None and not any(tried.losses for tried in batch.tries) and not self._limited(batch):
                self._send(batch, worker)

    def survives(self, batch: Batch, event: Lost | SetupFailed) -> bool:
        """One of its tasks came to nothing: whether another goes on."""
        task, twin = batch.task(event.again), batch.twin
        if task is None:  # it was dropped
            return True
        if twin is None:
            return False
        if isinstance(event, Lost):
            batch.deaths += max(event.times, 1)
        if task is twin:
            self._core.unpair(batch)
        else:
            self._take_over(batch, twin)
        return True

    def moved(self, present: Collection[str]) -> None:
        """Workers came and went: a task that named one which is gone would wait for ever."""
        for batch in list(self._core.out.values()):
            twin = batch.twin
            if twin is None:
                continue
            if twin.worker not in present:
                self._core.say(Drop(batch.number, twin.again))
                self._core.unpair(batch)
            elif batch.allowed and not set(batch.allowed).intersection(present):
                self._core.say(Drop(batch.number, batch.again))
                self._take_over(batch, twin)

    def _is_tail(self) -> bool:
        core = self._core
        if not (core.config.twins and core.config.idempotent and core.exhausted and core.out):
            return False
        if core.end is not None or core.pause.why is not None:
            return False
        return not any(found.ready or found.alone for found in core.queues.classes.values())

    def _due(self, batch: Batch) -> float | None:
        if batch.twinned or batch.alone:
            return None
        wait = patience(self._core.config, self._core.queues.classes[batch.request].sizes, len(batch.tries))
        return None if wait is None else batch.since + wait

    def _idle(self, batch: Batch) -> str | None:
        """Another worker with an idle slot, on another host where there is one."""
        core = self._core
        slots, request = core.slots, batch.request
        flying = sum(other.twin is not None for other in core.out.values() if other.request == request)
        if batch.worker is None or slots.full or slots.beyond(deep=True) or flying >= max(1, slots.served(request) // _SHARE):
            return None
        places, lines = core.places, core.queues.classes[request].lines
        others = [worker for worker in slots.idle(request) if worker != batch.worker]
        if lines is not None:
            groups = batch.tries[0].item.groups
            others = [there for there in others if lines.permitted(groups, host := places.host(there), places.busy(host))]
        here = places.host(batch.worker)
        return min(others, key=lambda worker: places.host(worker) == here, default=None)

    def _limited(self, batch: Batch) -> bool:
        core = self._core
        lack = core.quotas.lack(batch.request, self._new(batch), core.now) if batch.request.uses else None
        if lack is not None:
            self.due = lack.until
        return lack is not None

    def _new(self, batch: Batch) -> int:
        core = self._core
        return sum(not core.settled(tried) for tried in batch.tries)

    def _send(self, batch: Batch, worker: str) -> None:
        core = self._core
        twin = batch.twin = Batch(batch.number, batch.request, batch.tries)
        twin.where, twin.again, twin.since, twin.allowed = "out", batch.sends, core.now, (worker,)
        batch.sends += 1
        batch.twinned = True
        core.slots.put(twin, worker)
        core.quotas.take(batch.request, self._new(batch), core.now)
        exclude = tuple(index for index, tried in enumerate(batch.tries) if core.settled(tried)) if core.fates else ()
        priority = self._order.priority(core.queues.classes[batch.request])
        send = Send(batch.number, batch.request, batch.tries, again=twin.again, exclude=exclude, only_on=worker, twin=True)
        core.say(replace(send, priority=priority))

    def _take_over(self, batch: Batch, twin: Batch) -> None:
        """The twin's task is the only one left."""
        slots, worker, started = self._core.slots, twin.worker, twin.started
        self._core.unpair(batch)
        self._core.reopen(batch)
        slots.remove(batch)
        batch.again, batch.since, batch.allowed = twin.again, twin.since, twin.allowed
        slots.put(batch, worker)
        batch.started = started
