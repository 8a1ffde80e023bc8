"""The window: events in, instructions out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set

from dcompute.records import Receipt, Request
from dcompute.retry import Retry
from dcompute.window.core import Core
from dcompute.window.events import (
    Allowance,
    CancelAll,
    Capacity,
    Ended,
    Event,
    Lost,
    MarkFound,
    Misfit,
    NoMark,
    Offered,
    Reprioritized,
    SetupFailed,
    Started,
    Tick,
)
from dcompute.window.explaining import Explainer
from dcompute.window.instructions import Drop, End, Instruction
from dcompute.window.order import Order
from dcompute.window.sending import Sender
from dcompute.window.settings import Counts, WindowConfig
from dcompute.window.settling import Settler
from dcompute.window.taking import Taker
from dcompute.window.twins import Twins
from dcompute.window.waiting import Waiting


class Window:
    """What is in flight, how large the next batch is, who is tried again and when, who runs alone.

    Parameters
    ----------
    config
        Limits and sizes.
    retry
        The policy for failures of the items themselves; None: the table.
    rng
        Source of the jitter; the same events with the same seed give the same instructions.
    """

    def __init__(self, config: WindowConfig, *, retry: Retry | None = None, rng: random.Random | None = None) -> None:
        self._core = Core(config, retry or Retry(), rng or random.Random(0))  # noqa: S311  jitter is no secret
        self._core.queues.of(config.request)
        self._settler = Settler(self._core)
        self._taker = Taker(self._core)
        self._order = Order(self._core)
        self._sender = Sender(self._core, self._taker, self._order)
        self._explainer = Explainer(self._core, self._taker)
        self._twins = Twins(self._core, self._order)
        self._over = False

    @property
    def classes(self) -> tuple[Request, ...]:
        """The classes that a ``Capacity`` has to tell of."""
        return tuple(self._core.queues.classes)

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._over

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in an event; what is to be done now, in this order.

        Parameters
        ----------
        event
            What happened.
        now
            When, in seconds on a clock that never goes back.
        """
        core = self._core
        if self._over:
            return self._amend(event)
        core.now = max(core.now, now)
        self._take_in(event)
        core.overdue()
        self._taker.take()
        self._sender.fill()
        self._taker.take()
        self._twins.send()
        self._finish()
        return core.answer()

    def wake_at(self) -> float | None:
        """When a ``Tick`` is due if nothing else comes; None: only an event can change anything."""
        core = self._core
        if self._over:
            return None
        if core.end is not None:
            return core.deadline if core.unstarted is None else core.unstarted
        times = [core.queues.later.next_due(), core.pause.due if core.pause.probe is None else None, self._twins.due]
        times += [*self._taker.waits(), self._sender.due]
        return min((time for time in times if time is not None and time > core.now), default=None)

    def counts(self) -> Counts:
        """Where the items are."""
        return self._core.counts()

    def demand(self) -> Mapping[Request, int]:
        """Batches that each class could have in flight now, wherever there was room for them; those in flight are among them."""
        return self._explainer.demand()

    def needed(self) -> Mapping[Request, int]:
        """As :meth:`demand`, if there was enough of all named limits."""
        return self._explainer.needed()

    def in_use(self) -> Mapping[str, float]:
        """How much of each named limit that is a number at once is in use; what was dropped a moment ago is."""
        return self._explainer.in_use()

    def reasons(self) -> Sequence[Waiting]:
        """For each class of which something waits: how many items, and why."""
        return self._explainer.reasons()

    def allot(self) -> int:
        """A batch number for what the driver writes of itself (a part that is rewritten)."""
        return self._core.allot()

    def _take_in(self, event: Event) -> None:
        match event:
            case Ended(number, receipt):
                self._ended(number, receipt)
            case Offered():
                self._offered(event)
            case Started():
                self._started(event)
            case Capacity():
                self._capacity(event)
            case Misfit():
                self._settler.misfit(event)
            case Allowance(limits):
                self._core.quotas.allow(limits)
            case Reprioritized(priority):
                self._core.raised = priority - self._core.config.request.priority
            case CancelAll(reason):
                self._core.stop(End("cancelled", reason))
            case Tick():
                pass
            case _:
                self._trouble(event)

    def _trouble(self, event: Lost | SetupFailed | MarkFound | NoMark) -> None:
        batch = self._core.batches.get(event.batch)
        if batch is None:
            return
        if batch.where == "out" and isinstance(event, Lost | SetupFailed) and self._twins.survives(batch, event):
            return
        match event:
            case Lost() if batch.where == "out":
                self._settler.lose(batch, event)
            case SetupFailed(text=text, is_scratch=is_scratch) if batch.where == "out":
                self._settler.setup_failed(batch, text, is_scratch=is_scratch)
            case MarkFound(_, receipt) if batch.where == "looking":
                self._settler.settle(batch, receipt)
            case NoMark(_, begun) if batch.where == "looking":
                self._settler.no_mark(batch, begun)
            case _:
                pass

    def _ended(self, number: int, receipt: Receipt) -> None:
        batch = self._core.batches.get(number)
        if batch is not None:
            self._settler.settle(batch, receipt)

    def _offered(self, event: Offered) -> None:
        core = self._core
        core.asked_at = None
        core.offered += len(event.items)
        core.exhausted = core.exhausted or event.exhausted
        core.remaining = 0 if core.exhausted else event.remaining
        if core.end is None:
            core.queues.of(event.request or core.config.request).offer(event.items)

    def _started(self, event: Started) -> None:
        batch = self._core.out.get(event.batch)
        task = batch.task(event.again) if batch is not None else None
        if batch is None or task is None:
            return
        self._core.slots.started(task, event.worker)
        if not batch.allowed and batch.worker is not None:
            self._core.place(batch, batch.worker)
        task.since = self._core.now
        if batch.alone and batch.alone_on is None and batch.worker is not None:
            # It went out where there was no slot at all; now that there is one, nothing joins it.
            batch.alone_on = batch.worker
            self._core.slots.kept[batch.worker] = None

    def _capacity(self, event: Capacity) -> None:
        core = self._core
        core.largest_memory, core.share, core.counted = event.largest_memory, event.share, event.counted
        core.outsiders, core.slots.most = event.outsiders, event.most
        present = {worker for there in event.slots.values() for worker, count in there.items() if count > 0}
        self._twins.moved(present)
        self._give_up_pinned(present)
        self._take_back_loose(event)
        core.slots.update(event.slots or {request: {} for request in self.classes}, event.target, core.placed)
        if core.config.request.affinity:
            self._serve_lines(event, present)

    def _give_up_pinned(self, present: Set[str]) -> None:
        """Batches whose tasks may run nowhere but on workers that are gone would wait for ever."""
        core = self._core
        for batch in [batch for batch in core.out.values() if batch.allowed and present.isdisjoint(batch.allowed)]:
            core.say(Drop(batch.number))
            if batch.started or not core.config.idempotent:
                self._settler.lose(batch, Lost(batch.number, batch.worker))
            else:
                core.wait(batch)

    def _take_back_loose(self, event: Capacity) -> None:
        """Where there are slots now, batches that went out without could not be kept alone, or from where they must not go."""
        core = self._core
        hard = core.places.hard
        for batch in [batch for batch in core.out.values() if (batch.alone or hard) and not batch.allowed and not batch.started]:
            if any(event.slots.get(batch.request, {}).values()):
                core.say(Drop(batch.number))
                core.wait(batch)

    def _serve_lines(self, event: Capacity, present: Set[str]) -> None:
        core = self._core
        core.places.update(event.hosts, event.labels, present)
        for found in core.queues.classes.values():
            if found.lines is not None:
                found.lines.serve({core.places.host(worker) for worker in core.slots.serving(found.request)})

    def _amend(self, event: Event) -> list[Instruction]:
        """After the end: failures that come to light may make another end of one that was good."""
        core, end = self._core, self._core.end
        if not isinstance(event, Misfit):
            return []
        if end is not None and end.code == "done":
            core.end = None
        self._settler.misfit(event)
        if core.end is None:
            core.end = end
        elif core.end is not end:
            core.say(core.end)
        return core.answer()

    def _finish(self) -> None:
        core = self._core
        if core.out or core.looking:
            return
        if core.end is None:
            if not core.exhausted or not core.queues.empty:
                return
            core.end = End("done")
        self._over = True
        core.say(core.end)
