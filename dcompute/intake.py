"""The intake: pulls items from the inputs and through the plan, as many as the window asks for.

Two threads, so that inputs which are slow to come hold nothing up: one iterates the user's inputs, one sifts what has come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dcompute.affinity import grouped
from dcompute.errors import DcomputeError, InputError
from dcompute.outlook import end_plan, plan_of
from dcompute.records import Item, ItemKey
from dcompute.window import Offered

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.dataset.writer import Writer

log = logging.getLogger("dcompute.intake")

#: Items sifted at once: enough that looking hashes up is vectorised, few enough that the first ones go out soon.
CHUNK = 8192
#: Items iterated ahead of the plan: the next chunk comes while one is sifted.
AHEAD = 4 * CHUNK
#: Inputs that come slowly go out as they come: what is there after this time (seconds) is not kept waiting for more.
PATIENCE = 0.05


class Intake:
    """Items of one run, in their order.

    Parameters
    ----------
    assignment
        Inputs and options.
    writer
        Whose dataset says what is done.
    offered
        Called, on a thread of the intake, with the answer to each :meth:`take`.
    failed
        Called with what went wrong. After an :class:`~dcompute.errors.InputError` what came before it is still offered, and nothing
        else; after any other error nothing is.
    """

    def __init__(
        self, assignment: Assignment, writer: Writer, *, offered: Callable[[Offered], None], failed: Callable[[DcomputeError], None]
    ) -> None:
        self._source = assignment.source
        self._affinity = assignment.request.affinity
        self._offered = offered
        self._failed = failed
        self._buffer: deque[Item] = deque()
        self._todo: deque[Item] = deque()
        self._changed = threading.Condition()
        self._wanted = 0
        self._iterated = False
        self._is_whole = False  # all inputs came
        self._stopped = False
        self._came = 0
        self._problem: DcomputeError | None = None  #: what the inputs raised
        self._told: InputError | None = None  #: what ended the items early
        self.is_read = False  #: all inputs were read and sifted
        self.plan, self._reader = plan_of(assignment, writer.state)

    def first(self) -> Offered:
        """The first item there is to do, or that there is none; the threads start with it.

        Raises
        ------
        DcomputeError
            One key with two values in inputs that can be counted, or what the inputs raise before the first item.
        """
        self.plan.check_counted(self._source)
        threading.Thread(target=self._iterate, name="dcompute-inputs", daemon=True).start()
        found = self._gather(1)
        if self._told is not None and not found.items:
            raise self._told
        threading.Thread(target=self._serve, name="dcompute-intake", daemon=True).start()
        return found

    def take(self, count: int) -> None:
        """Ask for so many more items."""
        with self._changed:
            self._wanted = count
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def gone(self) -> Iterator[list[ItemKey]]:
        """Keys of items that are no input any more, some at a time; once all inputs were read."""
        return self.plan.gone(self._reader.rows)

    # -- the thread that sifts -------------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._stopped)
                count, self._wanted = self._wanted, 0
                if self._stopped:
                    return
            try:
                found = self._gather(count)
            except DcomputeError as error:
                self._failed(error)
                return
            self._offered(found)
            if found.exhausted:
                return

    def _gather(self, count: int) -> Offered:
        """Up to ``count`` items to do: at least one, or none where the inputs are exhausted."""
        since = time.monotonic()
        exhausted = False
        while len(self._todo) < count and not exhausted:
            exhausted = self._told is not None or self._extend()
            if self._todo and time.monotonic() - since > PATIENCE and not self._buffer:
                break
        items = [self._todo.popleft() for _ in range(min(count, len(self._todo)))]
        if self._source.prints is not None:
            items = self._source.prints.completed(items)
        return Offered(items, exhausted=exhausted and not self._todo, remaining=self._remaining())

    def _extend(self) -> bool:
        """Sift what has been iterated; whether nothing comes after it."""
        try:
            chunk, last = self._next_chunk()
            self._todo.extend(grouped(self._affinity, self.plan.sift(chunk, self._reader.rows)))
            if last and self._is_whole and not self.is_read:
                end_plan(self.plan, self._source, self._reader)
                self.is_read = True
        except InputError as error:
            self._told = error
            self._failed(error)
            return True
        return last

    def _next_chunk(self) -> tuple[list[Item], bool]:
        """What has been iterated, once there is some; and whether that was the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._iterated or self._stopped, PATIENCE if self._todo else None)
            iterated = self._iterated or self._stopped
        chunk = [self._buffer.popleft() for _ in range(min(CHUNK, len(self._buffer)))]
        with self._changed:
            self._changed.notify_all()
        if iterated and self._problem is not None and not chunk:
            raise self._problem
        return chunk, iterated and not self._buffer and self._problem is None

    def _remaining(self) -> int | None:
        """Items that may still come, where the inputs can be counted: those that will be skipped among them are not known yet."""
        total = self._source.count if self._told is None else self.plan.tally.met
        return None if total is None else max(0, total - self.plan.tally.met) + len(self._todo)

    # -- the thread that iterates ----------------------------------------------------------------------------------------------------

    def _iterate(self) -> None:
        try:
            self._fill(iter(self._source))
        except DcomputeError as error:
            self._problem = error
        except Exception as error:
            log.debug("the inputs failed", exc_info=True)
            self._problem = InputError(
                f"the inputs raised {type(error).__name__}: {error}, after {self._came:,} of them. "
                "What came before is executed and committed; mend the inputs and run the same line again"
            )
            self._problem.__cause__ = error
        with self._changed:
            self._iterated = True
            self._changed.notify_all()

    def _fill(self, items: Iterator[Item]) -> None:
        buffer = self._buffer
        for item in items:
            buffer.append(item)
            self._came += 1
            # a deque takes items without the lock; the lock is for waking who waits, and for waiting when far enough ahead
            if len(buffer) == 1 or len(buffer) >= AHEAD:
                with self._changed:
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(buffer) < AHEAD or self._stopped)
            if self._stopped:
                return
        self._is_whole = True
