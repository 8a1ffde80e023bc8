"""What goes out next.

In flight is one batch a slot; a second only where batches are short and the worker serves one class. Where there is no slot at all, one
batch of each class goes out, so that a cluster that scales from zero starts.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dcompute.affinity import permits
from dcompute.records import Request
from dcompute.window.core import Core
from dcompute.window.instructions import Send, Try
from dcompute.window.order import Order
from dcompute.window.queues import ItemClass
from dcompute.window.slots import Batch
from dcompute.window.taking import Taker
from dcompute.window.waiting import Why, words

#: Lost batches and pieces that are looked at for one worker at most.
_LOOKED_AT = 32


class Sender:
    """Fills the slots of one window."""

    def __init__(self, core: Core, taker: Taker, order: Order) -> None:
        self._core = core
        self._taker = taker
        self._order = order
        self._vanished = False
        self._before: list[Request] = []  #: classes that go first and found no room
        self.due: float | None = None  #: when a named limit permits more

    # -- sending ---------------------------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Send what there is room for."""
        core = self._core
        self.due = None
        if core.end is not None:
            return
        self._due()
        if not core.slots.slots:
            return
        # What a late mark settled leaves the line without being sent, and with it goes what it kept from others.
        self._vanished = True
        while self._vanished:
            self._vanished = False
            self._fill(list(core.queues.classes.values()))

    def _fill(self, classes: list[ItemClass]) -> None:
        core = self._core
        self._order.note(classes)
        self._release(classes)
        if core.pause.why is not None:
            self._probe(classes)
            return
        for batch in list(core.slots.homeless):
            core.slots.house(batch, self._deep(core.queues.classes[batch.request]))
        self._before = []
        for level in self._order.levels(classes):
            for found in level:
                self._send_alone_all(found)
            self._send_ready([found for found in level if found.ready])
            self._before += [found.request for found in level if found.ready and found.why in (Why.BUSY, Why.KEPT)]

    def _due(self) -> None:
        core = self._core
        while (what := core.queues.later.pop_due(core.now)) is not None:
            if not isinstance(what, Batch) or what.where == "waiting":
                core.queues.back(what)

    def _release(self, classes: list[ItemClass]) -> None:
        """Keep no worker free for something that does not wait any more, or while something that goes first waits for it."""
        slots = self._core.slots
        ready = {found.request for found in classes if found.ready and found.why is not Why.LIMIT}
        alone = sum(len(found.alone) for found in classes if found.why_alone is not Why.LIMIT)
        for worker, why in list(slots.kept.items()):
            if why is not None and (why not in ready or self._outranked(worker, why, classes)):
                del slots.kept[worker]
            elif why is None and not slots.runs_alone(worker):
                alone -= 1
                if alone < 0 or not self._wanted_alone(worker, classes) or self._outranked(worker, None, classes):
                    del slots.kept[worker]

    def _outranked(self, worker: str, why: Request | None, classes: list[ItemClass]) -> bool:
        """Whether a class waits for a worker that goes before what the worker is kept for."""
        priority = self._order.priority
        mine = max((priority(found) for found in classes if (found.alone if why is None else found.request == why)), default=0)
        others = (found for found in classes if found.ready and found.why is not Why.LIMIT and priority(found) > mine)
        return any(self._core.slots.slots.get(found.request, {}).get(worker) for found in others)

    def _send_ready(self, ready: list[ItemClass]) -> None:
        while ready:
            found = min(ready, key=self._order.turn)
            if not self._send_one(found) or not found.ready:
                ready.remove(found)

    def _probe(self, classes: list[ItemClass]) -> None:
        """In a pause: one batch of one item, when it is time."""
        core = self._core
        pause = core.pause
        if pause.probe not in core.out:
            pause.probe = None
        if pause.probe is not None or (pause.due is not None and core.now < pause.due):
            return
        pause.due = None
        before = len(core.out)
        for found in sorted(classes, key=lambda found: (-self._order.priority(found), self._order.turn(found))):
            if not (found.ready and self._send_one(found, single=True)) and found.alone:
                self._send_alone(found)
            if len(core.out) > before:
                pause.probe = next(reversed(core.out))
                return

    # -- a batch ---------------------------------------------------------------------------------------------------------------------

    def _send_one(self, found: ItemClass, single: bool = False) -> bool:
        core = self._core
        request, slots = found.request, core.slots
        size = 1 if single else self._size(found)
        found.why = self._barred(found, size)
        if found.why is not None:
            return False
        if request.affinity:
            return self._send_placed(found, size)
        deep = self._deep(found)
        shun = found.waiting[0].lost_on if found.waiting else None
        worker = slots.find(request, deep, shun) or slots.find(request, deep)
        if worker is None and not self._beside(found):
            found.why = self._no_room(found)
            return False
        return self._go(found, self._next(found, size), worker or (slots.least(request) if core.outsiders else None))

    def _no_room(self, found: ItemClass) -> Why:
        slots = self._core.slots
        return Why.NO_WORKER if not slots.served(found.request) else Why.KEPT if slots.kept else Why.BUSY

    def _go(self, found: ItemClass, batch: Batch | None, worker: str | None) -> bool:
        slots, request = self._core.slots, found.request
        if batch is None:
            self._vanished = True
            return True
        slots.kept = {there: why for there, why in slots.kept.items() if why != request}
        self._send(batch, worker)
        return True

    # -- a batch that may not go anywhere --------------------------------------------------------------------------------------------

    def _send_placed(self, found: ItemClass, size: int) -> bool:
        """Send a batch to the first idle worker for which there is one by the rules of the class."""
        core = self._core
        slots, places, lines = core.slots, core.places, found.lines
        hosts: set[str] = set()
        workers = slots.idle(found.request, self._deep(found))
        for worker in self._preferred(found.request, workers):
            host = places.host(worker)
            if host in hosts:
                continue
            hosts.add(host)
            if lines is not None and host in lines.closed and not (found.waiting or found.pieces):
                continue
            found_one, batch = self._next_on(found, size, worker, host)
            if found_one:
                return self._go(found, batch, worker)
        if hosts:
            found.why = Why.AFFINITY
            slots.kept = {there: why for there, why in slots.kept.items() if why != found.request}
            return False
        if not self._beside(found):
            found.why = self._no_room(found)
            return False
        # No worker is there at all: which host it will have is told when it starts.
        found_one, batch = self._next_on(found, size, None, "")
        return self._go(found, batch, None)

    def _preferred(self, request: Request, workers: Iterable[str]) -> Iterable[str]:
        """Workers with the labels that soft rules want come first."""
        soft = [rule for rule in request.affinity if rule.labels and not rule.hard]
        if not soft:
            return workers
        places = self._core.places
        return sorted(workers, key=lambda worker: not permits(soft, places.host(worker), places.labels.get(worker, {}), hard=False))

    def _next_on(self, found: ItemClass, size: int, worker: str | None, host: str) -> tuple[bool, Batch | None]:
        """Whether something may go to a host, and the batch; None where a late mark settled all of it."""
        core = self._core
        lines = found.lines
        if lines is None:
            return True, self._next(found, size)
        busy = core.places.busy(host)
        lined_up: deque[Any] = found.waiting or found.pieces
        for index, what in enumerate(itertools.islice(lined_up, _LOOKED_AT)):
            its = what.tries if isinstance(what, Batch) else what
            fits = worker is None or lines.permitted(its[0].item.groups, host, busy)
            if fits and not (index and self._limited(found, self._new(its))):
                lined_up.rotate(-index)
                return True, self._next(found, size)
        tries = lines.pack(host, busy, size, core.config.max_bytes)
        return bool(tries), self._made(found, tries) if tries else None

    def _may_go(self, found: ItemClass, what: Batch | Try) -> Callable[[str], bool]:
        """Whether hard rules let something of a class go to a worker."""
        lines, places = found.lines, self._core.places
        if lines is None:
            return anywhere
        groups = (what.tries[0] if isinstance(what, Batch) else what).item.groups
        return lambda worker: lines.permitted(groups, places.host(worker), places.busy(places.host(worker)))

    # -- its content -----------------------------------------------------------------------------------------------------------------

    def _barred(self, found: ItemClass, size: int) -> Why | None:
        """Why nothing of a class may go out, wherever there is room; None where it may."""
        slots = self._core.slots
        if found.request not in slots.slots:
            return Why.UNMEASURED
        if slots.full:
            return Why.SHARE
        lined_up = found.waiting[0].tries if found.waiting else found.pieces[0] if found.pieces else ()
        if self._limited(found, self._new(lined_up) if lined_up else size or 1):
            return Why.LIMIT
        if not lined_up:
            if self._taker.held(found, size):
                return Why.FILLING
            if self._taker.probing(found):
                return Why.PROBING
        return Why.SHRUNK if slots.beyond(self._deep(found)) else None

    def _size(self, found: ItemClass) -> int:
        """Items of the next batch that is put together; 0: a named limit permits none."""
        size = self._taker.size(found)
        if not found.request.uses:
            return size
        permitted = self._core.quotas.permitted(found.request, size, self._core.now)
        step = self._core.config.group or 1
        return permitted // step * step or permitted

    def _limited(self, found: ItemClass, count: int) -> bool:
        """Whether a named limit permits no task with so many items now; then it says when it will, if it can."""
        core = self._core
        found.lack = core.quotas.lack(found.request, count, core.now) if found.request.uses else None
        if found.lack is None:
            return False
        if found.lack.until is not None:
            self.due = min(found.lack.until, self.due or found.lack.until)
        return True

    def _new(self, tries: Sequence[Try]) -> int:
        """Those that will be executed."""
        return sum(not self._core.settled(tried) for tried in tries) if self._core.fates else len(tries)

    def _next(self, found: ItemClass, size: int) -> Batch | None:
        """The next batch of a class; None where a late mark settled all of what was in line."""
        core = self._core
        if found.waiting:
            return self._worth(found.waiting.popleft())
        return self._made(found, found.pieces.popleft() if found.pieces else found.line.pack(size, core.config.max_bytes))

    def _made(self, found: ItemClass, tries: Sequence[Try]) -> Batch | None:
        core = self._core
        if core.fates:
            tries = [tried for tried in tries if not core.settled(tried)]
        return Batch(core.allot(), found.request, tuple(tries)) if tries else None

    def _worth(self, batch: Batch) -> Batch | None:
        if all(self._core.settled(tried) for tried in batch.tries):
            batch.where = "landed"
            self._core.close(batch)
            return None
        return batch

    def _send(self, batch: Batch, worker: str | None, alone_on: str | None = None) -> None:
        core = self._core
        if core.began is None:
            core.began = core.now
        found = core.queues.classes[batch.request]
        if found.first_sent is None:
            found.first_sent = core.now
        batch.again, batch.since = batch.sends, core.now
        batch.sends += 1
        batch.where, batch.untouched, batch.alone_on = "out", False, alone_on
        core.batches[batch.number] = core.out[batch.number] = batch
        core.slots.put(batch, worker)
        if worker is not None:
            core.place(batch, worker)
        if batch.request.uses:
            core.quotas.take(batch.request, self._new(batch.tries), core.now)
        priority, found.since = self._order.priority(found), core.now
        core.running += len(batch.tries)
        exclude = tuple(index for index, tried in enumerate(batch.tries) if core.settled(tried)) if core.fates else ()
        pinned = core.outsiders or batch.request in core.counted or bool(batch.request.affinity)
        only_on = worker if alone_on is None and pinned else None
        avoid = () if alone_on or only_on else self._avoid(batch)
        one = alone_on or only_on
        batch.allowed = (one,) if one else self._allowed(batch, avoid)
        core.say(Send(batch.number, batch.request, batch.tries, alone_on, batch.again, avoid, exclude, only_on, priority=priority))

    def _avoid(self, batch: Batch) -> tuple[str, ...]:
        """Workers kept free for others, and the one where it was lost, unless nothing else is left."""
        slots = self._core.slots
        avoid = [worker for worker, why in slots.kept.items() if why != batch.request]
        if not avoid and batch.lost_on is None:
            return ()
        free = [worker for worker in slots.serving(batch.request) if worker not in avoid]
        if batch.lost_on in free and len(free) > 1:
            avoid.append(batch.lost_on)
        return tuple(avoid) if free else ()

    def _allowed(self, batch: Batch, avoid: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(worker for worker in self._core.slots.serving(batch.request) if worker not in avoid) if avoid else ()

    # -- room ------------------------------------------------------------------------------------------------------------------------

    def _deep(self, found: ItemClass) -> bool:
        """Whether a slot gets a second batch, to hide the way there."""
        core = self._core
        if found.request in core.counted:
            return False  # it would be executed beside the first
        if found.request.gpus:
            return False  # while it waits for a device at its worker, what needs none waits behind it: Dask looks at the first one only
        seconds = found.sizes.batch_seconds
        if seconds is None or seconds >= core.config.second_below or core.pause.why is not None:
            return False
        others = [other.request for other in core.queues.classes.values() if other.ready or core.slots.flying.get(other.request)]
        return not core.slots.shared(found.request, others)

    def _beside(self, found: ItemClass) -> bool:
        """Whether a batch goes out although no slot has room for it."""
        request, slots = found.request, self._core.slots
        flying = slots.flying.get(request, 0)
        if not slots.served(request):
            if any(slots.total.values()):
                self._core.notice(("no-worker", f"No worker has room for {words(request)}: such items wait until one does."), once=True)
            most = 1 if self._core.places.hard else max(1, slots.target)
            return flying < most and not self._core.outsiders and not _wants_labels(request)
        if slots.count < slots.target and not slots.kept and not request.affinity:
            return True
        # Others leave no room for a first batch, or for one that goes before them: a worker is kept free until there is.
        if request not in slots.kept.values() and (not flying or self._order.lower(found)):
            slots.keep(request, alone=False, first=self._before, permitted=anywhere)
        return False

    # -- items that run alone --------------------------------------------------------------------------------------------------------

    def _send_alone_all(self, found: ItemClass) -> None:
        passed = 0
        while passed < min(len(found.alone), _LOOKED_AT):
            if self._send_alone(found):
                passed = 0
            elif found.lines is None:
                return
            else:  # the next in line may go where this one may not
                found.alone.rotate(-1)
                passed += 1

    def _wanted_alone(self, worker: str, classes: Iterable[ItemClass]) -> bool:
        """Whether an item that runs alone may go to a worker that is kept for one."""
        if not self._core.places.grouped:
            return True
        return any(self._may_go(found, what)(worker) for found in classes for what in itertools.islice(found.alone, _LOOKED_AT))

    def _send_alone(self, found: ItemClass) -> bool:
        core = self._core
        slots, request = core.slots, found.request
        deep = any(self._deep(other) for other in core.queues.classes.values() if slots.flying.get(other.request))
        found.why_alone = Why.ALONE
        if request not in slots.slots or slots.full or slots.beyond(deep):
            found.why_alone = Why.SHARE if slots.full else Why.ALONE
            return False
        if self._limited(found, 1):
            found.why_alone = Why.LIMIT
            return False
        if not slots.served(request):
            if slots.flying.get(request, 0) or core.outsiders or _wants_labels(request):
                return False
            worker = None
        else:
            worker = self._room_alone(found)
            if worker is None:
                return False
        what = found.alone.popleft()
        batch = self._worth(what) if isinstance(what, Batch) else self._single(what)
        if batch is None:
            self._vanished = True
            return True
        if worker is not None:
            slots.kept[worker] = None
        self._send(batch, worker, worker)
        return True

    def _single(self, tried: Try) -> Batch | None:
        core = self._core
        return None if core.settled(tried) else Batch(core.allot(), tried.request, (tried,))

    def _room_alone(self, found: ItemClass) -> str | None:
        """An empty worker; where there is none, one is kept free until it is. Half of the workers at most, while others wait for them."""
        core = self._core
        slots = core.slots
        serving = len(slots.serving(found.request))
        others = any(other.ready for other in core.queues.classes.values())
        most = max(1, serving // 2) if others else serving
        kept = [worker for worker, why in slots.kept.items() if why is None]
        permitted = self._may_go(found, found.alone[0])
        worker = slots.empty(found.request, permitted)
        if worker is not None and (worker in kept or len(kept) < most):
            return worker
        if worker is None and len(kept) < most and all(slots.runs_alone(there) for there in kept):
            slots.keep(found.request, alone=True, first=self._before, permitted=permitted)
        return None


def anywhere(worker: str) -> bool:  # noqa: ARG001
    """No rule keeps anything from a worker."""
    return True


def _wants_labels(request: Request) -> bool:
    """Whether a worker that nobody knows yet may be one where a class must not go."""
    return any(rule.labels and rule.hard for rule in request.affinity)
