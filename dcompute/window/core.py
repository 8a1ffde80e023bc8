"""What all parts of the window share: its batches, what waits, where there is room, what ended, and the stop."""

from __future__ import annotations

import random
from collections.abc import Iterable

from dcompute.records import Failure, ItemKey, Request
from dcompute.retry import Retry
from dcompute.window.instructions import Drop, End, Instruction, LookForMark, Notice, Try
from dcompute.window.limits import Pause, too_many
from dcompute.window.places import Places
from dcompute.window.queues import Queues
from dcompute.window.quotas import Quotas
from dcompute.window.settings import Counts, WindowConfig
from dcompute.window.slots import Batch, Slots

#: Seconds after a stop by which the starts of batches have been heard of that began before their tasks were cancelled.
_HEARD_BY = 1.0


class Core:
    """The state of a window."""

    def __init__(self, config: WindowConfig, retry: Retry, rng: random.Random) -> None:
        self.config = config
        self.retry = retry
        self.rng = rng
        self.now = 0.0
        self.began: float | None = None  #: when the first batch went out
        self.slots = Slots()
        self.places = Places(config.request, self.slots)
        self.queues = Queues(config, self.places)
        self.quotas = Quotas(config.limits, self.slots.flying)
        self.pause = Pause(config)
        self.batches: dict[int, Batch] = {}  #: all that may still be heard of
        self.out: dict[int, Batch] = {}  #: those in flight
        self.looking = 0
        self.split = False  #: whether items went out under several batches
        self.fates: set[ItemKey] = set()  #: keys with a final outcome, of items that were sent under several batches
        self.largest_memory: int | None = None
        self.share: int | None = None
        self.counted: frozenset[Request] = frozenset()  #: classes whose slots nobody but this window holds
        self.outsiders = False  #: workers are there that must not get a batch
        self.raised = 0  #: by how much the priority of the run has been changed
        self.exhausted = False
        self.remaining: int | None = None
        self.asked_at: float | None = None
        self.setups_failed = 0
        self.end: End | None = None
        self.deadline: float | None = None
        self.unstarted: float | None = None  #: until then a batch of which no start was heard may still turn out to have started
        self.number = config.first_number
        self.offered = self.running = self.succeeded = self.retries = self.losses = self.rows = 0
        self.seconds = 0.0
        self.failed: dict[str, int] = {}
        self._said: list[Instruction] = []
        self._noticed: set[str] = set()

    # -- instructions ----------------------------------------------------------------------------------------------------------------

    def say(self, instruction: Instruction) -> None:
        """Add an instruction to the answer."""
        self._said.append(instruction)

    def notice(self, notice: tuple[str, str] | None, *, once: bool = False) -> None:
        """Add a notice, if there is one."""
        if notice is None or (once and notice[0] in self._noticed):
            return
        self._noticed.add(notice[0])
        self._said.append(Notice(*notice))

    def answer(self) -> list[Instruction]:
        """What was said since the last time."""
        said, self._said = self._said, []
        return said

    def allot(self) -> int:
        """The next batch number."""
        self.number += 1
        return self.number - 1

    # -- batches ---------------------------------------------------------------------------------------------------------------------

    def land(self, batch: Batch) -> None:
        """A batch is no longer in flight, or no longer looked for."""
        if batch.where == "out":
            del self.out[batch.number]
            if batch.twin is not None:
                self.quotas.linger(batch.request, self.now)
            self.unpair(batch)
            self.reopen(batch)
            self.slots.remove(batch)
            self.running -= len(batch.tries)
        elif batch.where == "looking":
            self.looking -= 1
        elif batch.where == "waiting":
            self.queues.withdraw(batch)
        batch.where = "landed"

    def place(self, batch: Batch, worker: str) -> None:
        """What belongs to the items of a batch follows them to a worker."""
        moved = self.places.put(batch, worker)
        if moved:
            for found in self.queues.classes.values():
                if found.lines is not None:
                    found.lines.moved(moved)

    def unpair(self, batch: Batch) -> None:
        """The twin of a batch, where it has one, is no longer in flight."""
        if batch.twin is not None:
            self.reopen(batch.twin)
            self.slots.remove(batch.twin)
            batch.twin = None

    def reopen(self, batch: Batch) -> None:
        """What keeps apart from a batch may go where it was."""
        if self.places.grouped and batch.worker is not None:
            for found in self.queues.classes.values():
                if found.lines is not None:
                    found.lines.closed.discard(self.places.host(batch.worker))

    @property
    def placed(self) -> list[Batch]:
        """What takes room: batches in flight, and their twins."""
        return [*self.out.values(), *(batch.twin for batch in self.out.values() if batch.twin is not None)]

    def look(self, batch: Batch) -> None:
        """Ask for the mark of a batch that is no longer in flight."""
        self.land(batch)
        batch.where = "looking"
        self.looking += 1
        self.say(LookForMark(batch.number))

    def wait(self, batch: Batch, delay: float = 0.0) -> None:
        """Send a batch again under its own id, after a while."""
        self.land(batch)
        batch.where = "waiting"
        if delay > 0:
            self.queues.later.add(self.now + delay, batch)
        else:
            self.queues.back(batch)

    def close(self, batch: Batch) -> None:
        """Nothing more is to be heard of a batch."""
        self.land(batch)
        self.batches.pop(batch.number, None)

    def settled(self, tried: Try) -> bool:
        """Whether an item that was sent under several batches has its final outcome."""
        return tried.shared and tried.item.key in self.fates

    # -- outcomes --------------------------------------------------------------------------------------------------------------------

    def succeed(self, count: int) -> None:
        """So many items succeeded."""
        self.succeeded += count

    def fail(self, tried: Try, failure: Failure) -> None:
        """An item failed finally."""
        self.failed[failure.kind] = self.failed.get(failure.kind, 0) + 1
        if tried.shared:
            self.fates.add(tried.item.key)
        if self.config.errors == "raise":
            text = (
                f"Item {tried.item.key.text!r} failed at attempt {tried.attempt} with {failure.error} ({failure.kind}): {failure.message}"
            )
            self.stop(End("item", text, tried, failure))

    def turn(self, tried: Try, failure: Failure) -> None:
        """An item that had succeeded failed finally after all."""
        self.succeeded -= 1
        self.fail(tried, failure)

    @property
    def failures(self) -> int:
        """Items that failed finally."""
        return sum(self.failed.values())

    def judge(self) -> None:
        """Stop if too many items failed."""
        why = too_many(self.config, self.failures, self.failures + self.succeeded)
        if why:
            self.stop(End("failures", why))

    # -- the stop --------------------------------------------------------------------------------------------------------------------

    def stop(self, end: End) -> None:
        """Send nothing more; keep what workers still write, then end."""
        if self.end is not None:
            return
        self.end = end
        self.deadline = self.now + self.config.grace
        waiting = [batch for batch in self.batches.values() if batch.where == "waiting"]
        flying = list(self.out.values())
        for batch in flying:
            self.say(Drop(batch.number))
        self.queues.clear()
        for batch in waiting:
            if batch.untouched:
                self.close(batch)
            else:
                self.look(batch)
        # A batch that no worker took up will write nothing: its mark, if there is one, is there now.
        if self.config.idempotent:
            self._look_at(batch for batch in flying if not batch.begun)
        else:
            # What began only now must not be taken for lost: it tells that it came to nothing.
            self.unstarted = self.now + _HEARD_BY

    def overdue(self) -> None:
        """Wait no longer for receipts after a stop, once its time is over."""
        if self.unstarted is not None and self.now >= self.unstarted:
            self.unstarted = None
            self._look_at(batch for batch in self.out.values() if not batch.started)
        if self.deadline is not None and self.now >= self.deadline:
            self.deadline = None
            self._look_at(self.out.values())

    def _look_at(self, batches: Iterable[Batch]) -> None:
        for batch in list(batches):
            self.look(batch)

    def counts(self) -> Counts:
        """Where the items are."""
        classes = list(self.queues.classes.values())
        over = self.end is not None and not self.out and not self.looking
        return Counts(
            offered=self.offered,
            ready=sum(found.count for found in classes),
            retrying=len(self.queues.later),
            running=self.running,
            batches=len(self.out),
            succeeded=self.succeeded,
            failed=self.failures,
            failed_by_kind=dict(self.failed),
            retries=self.retries,
            losses=self.losses,
            cancelled=self.offered - self.succeeded - self.failures if over else 0,
            rows=self.rows,
            seconds=self.seconds,
            remaining=self.remaining,
            exhausted=self.exhausted,
            paused=self.pause.why is not None,
            ending="" if self.end is None else self.end.code,
        )
