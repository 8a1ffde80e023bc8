"""What goes out next, and how much is asked of the plan.

In flight is one batch a slot; a second only where batches are short and the worker serves one class. Where there is no slot at all, one
batch of each class goes out, so that a cluster that scales from zero starts.
"""

from __future__ import annotations

from collections.abc import Sequence

from dcompute.records import Request
from dcompute.window.core import Core
from dcompute.window.instructions import Send, Take, Try
from dcompute.window.queues import ItemClass
from dcompute.window.slots import Batch

#: Seconds for which a batch that is not full waits for items that were asked for.
_HOLD = 0.1
#: Items asked for while nothing is known of their cost.
_FIRST_TAKE = 64


class Sender:
    """Fills the slots of one window."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._vanished = False

    # -- intake ----------------------------------------------------------------------------------------------------------------------

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
        times = [] if core.asked_at is None else [core.asked_at + _HOLD]
        probing = [found.first_sent for found in core.queues.classes.values() if found.first_sent is not None and found.loose]
        return times + [first + core.config.probe_wait for first in probing]

    def _retries_full(self) -> bool:
        core = self._core
        retrying = len(core.queues.later) + sum(len(found.again) for found in core.queues.classes.values())
        if retrying < core.config.max_retrying:
            return False
        core.notice(("retries-full", f"{retrying:,} items wait for another attempt: no new inputs are read until fewer do."), once=True)
        return True

    def size(self, found: ItemClass) -> int:
        """Items of the next batch of a class."""
        core = self._core
        left: int | None = found.loose if core.exhausted else None
        if left is None and core.remaining is not None:
            left = found.loose + core.remaining
        elapsed = 0.0 if core.began is None else core.now - core.began
        return found.sizes.size(self._slots(found.request), elapsed, left)

    def _slots(self, request: Request) -> int:
        return max(self._core.slots.served(request), self._core.slots.target, 1)

    # -- sending ---------------------------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Send what there is room for."""
        core = self._core
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
        self._release(classes)
        if core.pause.why is not None:
            self._probe(classes)
            return
        for batch in list(core.slots.homeless):
            core.slots.house(batch, self._deep(core.queues.classes[batch.request]))
        for found in classes:
            while found.alone and self._send_alone(found):
                pass
        self._send_ready([found for found in classes if found.ready])

    def _due(self) -> None:
        core = self._core
        while (what := core.queues.later.pop_due(core.now)) is not None:
            if not isinstance(what, Batch) or what.where == "waiting":
                core.queues.back(what)

    def _release(self, classes: list[ItemClass]) -> None:
        """Keep no worker free for something that does not wait any more."""
        slots = self._core.slots
        ready = {found.request for found in classes if found.ready}
        alone = sum(len(found.alone) for found in classes)
        for worker, why in list(slots.kept.items()):
            if why is not None and why not in ready:
                del slots.kept[worker]
            elif why is None and not slots.runs_alone(worker):
                alone -= 1
                if alone < 0:
                    del slots.kept[worker]

    def _send_ready(self, ready: list[ItemClass]) -> None:
        while ready:
            found = min(ready, key=self._turn)
            if not self._send_one(found) or not found.ready:
                ready.remove(found)

    def _turn(self, found: ItemClass) -> tuple[int, float]:
        slots = self._core.slots
        return -found.request.priority, slots.flying.get(found.request, 0) / max(slots.served(found.request), 1)

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
        for found in sorted(classes, key=self._turn):
            if not (found.ready and self._send_one(found, single=True)) and found.alone:
                self._send_alone(found)
            if len(core.out) > before:
                pause.probe = next(reversed(core.out))
                return

    # -- a batch ---------------------------------------------------------------------------------------------------------------------

    def _send_one(self, found: ItemClass, single: bool = False) -> bool:
        core = self._core
        request, slots = found.request, core.slots
        size = 1 if single else self.size(found)
        lined_up = bool(found.waiting or found.pieces)
        if request not in slots.slots or (not lined_up and (self._held(found, size) or self._probing(found))):
            return False
        deep = self._deep(found)
        if slots.beyond(deep):
            return False
        shun = found.waiting[0].lost_on if found.waiting else None
        worker = slots.find(request, deep, shun) or slots.find(request, deep)
        if worker is None and not self._beside(request):
            return False
        batch = self._next(found, size)
        if batch is None:
            self._vanished = True
            return True
        slots.kept = {there: why for there, why in slots.kept.items() if why != request}
        self._send(batch, worker or (slots.least(request) if core.outsiders else None))
        return True

    def _next(self, found: ItemClass, size: int) -> Batch | None:
        """The next batch of a class; None where a late mark settled all of what was in line."""
        core = self._core
        if found.waiting:
            return self._worth(found.waiting.popleft())
        tries: Sequence[Try] = found.pieces.popleft() if found.pieces else found.pack(size, core.config.max_bytes)
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
        core.running += len(batch.tries)
        exclude = tuple(index for index, tried in enumerate(batch.tries) if core.settled(tried)) if core.fates else ()
        only_on = worker if alone_on is None and (core.outsiders or batch.request in core.counted) else None
        avoid = () if alone_on or only_on else self._avoid(batch)
        one = alone_on or only_on
        batch.allowed = (one,) if one else self._allowed(batch, avoid)
        core.say(Send(batch.number, batch.request, batch.tries, alone_on, batch.again, avoid, exclude, only_on))

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

    def _held(self, found: ItemClass, size: int) -> bool:
        """Whether a batch that is not full waits a moment for items that were asked for."""
        core = self._core
        return core.asked_at is not None and found.loose < size and core.now < core.asked_at + _HOLD

    def _probing(self, found: ItemClass) -> bool:
        """Whether nothing is measured and enough single items are on their way to be measured."""
        config = self._core.config
        if found.sizes.item_seconds is not None or config.batch_size is not None or found.first_sent is None:
            return False
        flying = self._core.slots.flying.get(found.request, 0)
        return flying >= config.probes and self._core.now < found.first_sent + config.probe_wait

    def _deep(self, found: ItemClass) -> bool:
        """Whether a slot gets a second batch, to hide the way there."""
        core = self._core
        if found.request in core.counted:
            return False  # it would be executed beside the first
        seconds = found.sizes.batch_seconds
        if seconds is None or seconds >= core.config.second_below or core.pause.why is not None:
            return False
        others = [other.request for other in core.queues.classes.values() if other.ready or core.slots.flying.get(other.request)]
        return not core.slots.shared(found.request, others)

    def _beside(self, request: Request) -> bool:
        """Whether a batch goes out although no slot has room for it."""
        slots = self._core.slots
        flying = slots.flying.get(request, 0)
        if not slots.served(request):
            if any(slots.total.values()):
                self._core.notice(("no-worker", f"No worker has room for {_words(request)}: such items wait until one does."), once=True)
            return flying < max(1, slots.target) and not self._core.outsiders
        if sum(slots.flying.values()) < slots.target and not slots.kept:
            return True
        # Others leave no room for a first batch: a worker is kept free until there is.
        if not flying and request not in slots.kept.values():
            slots.keep(request, alone=False)
        return False

    # -- items that run alone --------------------------------------------------------------------------------------------------------

    def _send_alone(self, found: ItemClass) -> bool:
        core = self._core
        slots, request = core.slots, found.request
        deep = any(self._deep(other) for other in core.queues.classes.values() if slots.flying.get(other.request))
        if request not in slots.slots or slots.beyond(deep):
            return False
        if not slots.served(request):
            if slots.flying.get(request, 0) or core.outsiders:
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
        worker = slots.empty(found.request)
        if worker is not None and (worker in kept or len(kept) < most):
            return worker
        if worker is None and len(kept) < most and all(slots.runs_alone(there) for there in kept):
            slots.keep(found.request, alone=True)
        return None


def _words(request: Request) -> str:
    parts = [f"{request.cpus:g} cpus"]
    if request.gpus:
        parts.append(f"{request.gpus:g} gpus")
    if request.memory is not None:
        parts.append(f"{request.memory / 2**30:.2f} GiB of memory")
    parts += [f"{name}={amount:g}" for name, amount in request.resources]
    return ", ".join(parts)
