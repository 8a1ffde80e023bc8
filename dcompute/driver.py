"""The driver: a plain thread that carries out what the window decides.

It composes every stage and decides nothing itself. Events come through one queue (tasks that ended, workers' events, inputs, requests),
the window turns them into instructions, and each instruction has one method here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from dcompute import ending
from dcompute import window as w
from dcompute.assignment import Assignment
from dcompute.commons import Commons
from dcompute.config import settings
from dcompute.dataset.compaction import compact_after_run
from dcompute.dataset.explaining import Explanation, explanation
from dcompute.dataset.patience import Patience
from dcompute.dataset.requests import RequestWatch
from dcompute.dataset.writer import Writer
from dcompute.errors import DcomputeError, InputError, InternalError, RunCancelled, StoreError
from dcompute.flights import Flights
from dcompute.gaps import Gaps
from dcompute.intake import Intake
from dcompute.ledger import Ledger
from dcompute.placing import Placing
from dcompute.progress import Snapshot
from dcompute.records import Outcome
from dcompute.rewrites import Rewrites
from dcompute.standing import Standing, error_of, outcome_of
from dcompute.summary import Summary

log = logging.getLogger("dcompute.driver")

#: Seconds that workers have, once their scheduler is gone, to write what is finished before the driver looks for their marks.
FLUSH_SECONDS = 2.0
#: Seconds between two looks at what the cluster offers.
LOOK_SECONDS = 1.0
#: Seconds after a stop in which batches that do not join the schema may still be rewritten.
REWRITE_SECONDS = 10.0
#: Messages taken from the queue before time-driven work gets its turn.
MESSAGES = 1000


class Driver(threading.Thread):
    """One run, from the right to write to the last commit. What others call is thread-safe; all else happens on the driver's thread."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(name=f"dcompute-{assignment.spec.run}", daemon=False)
        self.assignment = assignment
        self.run_id = assignment.spec.run
        self.ended = threading.Event()
        self.error: DcomputeError | None = None
        self.cancelled_here = False
        self._messages: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._standing = Standing(assignment)
        self._cancel_reason: str | None = None
        self._starting: Intake | None = None  # while its first item is awaited
        self._over: w.End | None = None
        self._input_error: InputError | None = None
        self._patience = Patience(self._on_store)
        self._salvaging = False
        self._clean = False  # nothing is in flight that could still be written
        self._over_at: float | None = None

    @classmethod
    def started(cls, assignment: Assignment) -> Driver:
        """A driver under way. The interpreter waits for it at its exit, as it does for executors."""
        driver = cls(assignment)
        driver.start()
        ending.await_at_exit(driver)
        return driver

    # -- what others call --------------------

    def cancel(self, reason: str) -> None:
        """End the run; returns at once."""
        self.cancelled_here = True
        self._ask_to_end(reason)

    def _ask_to_end(self, reason: str) -> None:
        self._cancel_reason = reason
        starting = self._starting
        if starting is not None:
            starting.stop()
        self._post(self._on_cancel, reason)

    def reprioritize(self, priority: int) -> None:
        """Let the run have another priority; returns at once."""
        self._post(self._on_priority, priority)

    def raise_error(self) -> None:
        """Raise what ended the run before its work was done, if anything did."""
        if self.error is not None:
            ending.told(self.run_id)
            raise self.error

    def snapshot(self) -> Snapshot:
        """Where the run stands."""
        return self._standing.snapshot()

    def summary(self) -> Summary:
        """What the run did so far."""
        return self._standing.summary()

    def explained(self) -> Explanation:
        """What it waits for, as it said last."""
        return explanation(self.assignment.store.url, self.run_id, self._standing.state, self._standing.explained)

    def outcomes(self) -> Iterator[Outcome]:
        """Outcomes in the order of their commits, until the run has ended; read by the caller's thread."""
        place = 0
        while True:
            over = self.ended.wait(0.0 if self._standing.has_committed(place) else 0.2)
            ledger = self._standing.ledger
            if ledger is not None:
                found, place = ledger.outcomes(place)
                yield from found
            if over:
                return

    # -- the life of a run --------------------

    def run(self) -> None:
        """Drive the run to its end; what goes wrong is in :attr:`error`."""
        try:
            every = settings().driver.requests
            with RequestWatch(self.assignment.store, self.run_id, self._ask_to_end, every=every, priority=self.reprioritize):
                self._execute()
            self._standing.state = "finished"
        except RunCancelled as error:
            self.error, self._standing.state = error, "cancelled"
        except DcomputeError as error:
            self.error, self._standing.state = error, "failed"
        except Exception as error:
            log.exception("the driver failed", extra={"action": "driver_failed"})
            self.error, self._standing.state = InternalError(f"the driver failed with {type(error).__name__}: {error}"), "failed"
            self.error.__cause__ = error
        finally:
            self._standing.stop()
            if self.error is not None and not self.cancelled_here:
                ending.failed(self.run_id, str(self.error))
            self.ended.set()

    def _execute(self) -> None:
        assignment = self.assignment
        self._writer = Writer.acquire(
            assignment.store,
            workload=assignment.spec.workload,
            run=self.run_id,
            takeover=assignment.options.takeover,
            waiting=self._on_waiting,
        )
        self._writer.keep_alive()
        try:
            work = assignment.workload
            self._ledger = self._standing.ledger = Ledger.opened(
                self._writer, assignment.spec, work.retry_policy(), self._patience, renames=work.renames
            )
            self._work()
        except BaseException as error:
            self._close(outcome_of(error))
            raise
        self._close("")

    def _work(self) -> None:
        """Do what is left to do."""
        self._intake = Intake(
            self.assignment,
            self._writer,
            offered=lambda offered: self._post(self._feed, offered),
            failed=lambda error: self._post(self._on_intake_failed, error),
        )
        self._clean = True
        try:
            first = self._first()
            self._standing.plan = self._intake.plan
            if not first.exhausted or first.items:
                with self.assignment.connect() as connection:
                    told = functools.partial(self._post, self._mind_others)
                    with Commons(connection, self.assignment, told=told) as self._commons:
                        self._drive(connection, first)
            self._drop_gone()
        finally:
            self._intake.stop()

    def _drop_gone(self) -> None:
        """The work is done: hide what is no input any more, where that was asked for; what a kill leaves of it the next run does."""
        if self.assignment.options.on_gone == "drop" and self._intake.is_read:
            for keys in self._intake.gone():
                if self._cancel_reason is not None:
                    return
                self._ledger.drop(keys)

    def _first(self) -> w.Offered:
        """The first item there is to do; a cancel ends the wait for inputs that are slow to come."""
        self._starting = self._intake
        try:
            self._refuse_cancelled()
            first = self._intake.first()
            self._refuse_cancelled()
        finally:
            self._starting = None
        return first

    def _refuse_cancelled(self) -> None:
        if self._cancel_reason is not None:
            raise RunCancelled(f"the run was cancelled before its first batch ({self._cancel_reason}). To go on, {self.assignment.again}")

    def _drive(self, connection: Any, first: w.Offered) -> None:
        self._prepare(connection)
        self._clean = False
        try:
            self._feed(self._commons.first)
            self._feed(self._placing.capacity(self._window.classes))
            self._feed(first)
            while self._over is None or (self._rewrites and not self._gave_up()):
                self._receive()
                self._keep_time()
        except Exception:
            self._salvage()
            raise
        finally:
            self._placing.forget()
        while self._ledger.is_pending:
            pause = self._commit()
            if self._ledger.is_pending:  # the storage fails, and may come back
                time.sleep(pause)
        self._clean = not self._flights.at_work and not self._rewrites
        error = error_of(self._over, again=self.assignment.again) or self._input_error
        if error is not None:
            raise error

    def _gave_up(self) -> bool:
        """After a stop a rewrite is not waited for longer than this: the next driver does it."""
        if self._over is None or self._over.code == "done":
            return False
        self._over_at = self._over_at or time.monotonic()
        return time.monotonic() - self._over_at > REWRITE_SECONDS

    def _prepare(self, connection: Any) -> None:
        assignment = self.assignment
        self._connection = connection
        self._placing = Placing(connection, assignment)
        self._placing.refresh()
        self._placing.await_worker(assignment.request, assignment.patience, said=self._on_gap)
        self._commons.join(self._placing)
        self._standing.note("checking workers")
        connection.listen(f"dcompute-{self.run_id}", self._on_event)
        look_soon = functools.partial(self._post, self._look_soon)
        self._placing.probe(self._writer.store, cancelled=lambda: self._cancel_reason, told=look_soon)
        self._standing.note(self._placing.aside(assignment.request))
        self._flights = Flights(
            connection,
            assignment.spec,
            assignment.packed,
            epoch=self._writer.epoch,
            once=not assignment.workload.idempotent,
            landed=self._on_landed,
            dataset=self._writer.dataset,
            admitted=self._writer.state.admitted,
            weight=assignment.options.weight,
        )
        self._commons.watch(self._flights)
        self._rewrites = Rewrites(self._flights, self._ledger, self._placing, again=assignment.again)
        self._window = w.Window(assignment.window_config(), retry=assignment.workload.retry_policy(), rng=random.Random(self.run_id))  # noqa: S311
        self._standing.watch(self._window, self._flights)
        self._gaps = Gaps(assignment.patience, assignment.again)
        self._events: deque[w.Event] = deque()
        self._due = dict.fromkeys((self._commit, self._beat, self._look_at_cluster), 0.0)
        self._standing.state = "running"
        self._refuse_cancelled()

    def _close(self, outcome: str) -> None:
        """Settle the epoch where nothing is in flight; else a successor looks for what is still written."""
        try:
            if self._clean:
                self._writer.close(outcome)
                compact_after_run(self.assignment.store, self._writer.state)
            else:
                self._writer.abandon(outcome)
        except StoreError as error:
            log.warning("the dataset could not be closed: %s", error, extra={"action": "close_failed"})

    # -- messages from other threads --------------------

    def _post(self, act: Callable[..., None], *args: Any) -> None:
        self._messages.put(lambda: act(*args))

    def _on_landed(self, number: int, again: int) -> None:
        self._post(self._on_task_end, number, again)

    def _on_task_end(self, number: int, again: int) -> None:
        if self._connection.lost:
            raise self._placing.lost()
        self._hear(self._flights.landed(number, again))

    def _on_event(self, message: dict[str, Any]) -> None:
        # the driver's thread waits for probes, and for nothing else, before the run begins
        if message.get("event") == "probe":
            self._placing.note_answer(message)
        else:
            self._post(self._on_told, message)

    def _on_told(self, message: dict[str, Any]) -> None:
        self._hear(self._flights.told(message))

    def _hear(self, event: w.Event | None) -> None:
        if self._placing.is_doubtful(event):
            self._look_at_cluster()  # so that the batch does not go there again
        self._feed(self._placing.heard(event, self._writer.store))

    def _on_intake_failed(self, error: DcomputeError) -> None:
        if not isinstance(error, InputError):
            raise error
        # what came before is still offered and done
        self._input_error = error
        self._standing.note(f"nothing comes after this: {error}")

    def _on_priority(self, priority: int) -> None:
        self._feed(self._commons.reprioritize(priority))
        self._mind_others()

    def _on_gap(self, text: str) -> None:
        self._standing.note(text)
        self._beat()
        self._refuse_cancelled()

    def _on_cancel(self, reason: str) -> None:
        self._standing.note(f"ending: {reason}")
        self._feed(w.CancelAll(reason))

    def _on_waiting(self, text: str, seconds_left: float) -> None:
        self._standing.note(f"{text} ({seconds_left:.0f} s)")
        if self._cancel_reason is not None:
            raise RunCancelled(
                f"the run was cancelled while it waited for the dataset ({self._cancel_reason}). To go on, {self.assignment.again}"
            )

    def _on_store(self, text: str) -> None:
        self._standing.note(text)
        if text:
            log.warning("%s", text, extra={"action": "store_retry"})
        if self._standing.state == "waiting":
            self._refuse_cancelled()

    # -- the loop --------------------

    def _receive(self) -> None:
        now = time.monotonic()
        wake = self._window.wake_at()
        due = min([*self._due.values(), *([wake] if wake is not None else [])])
        with contextlib.suppress(queue.Empty):
            self._messages.get(timeout=max(0.0, due - now))()
            for _ in range(MESSAGES):
                self._messages.get_nowait()()

    def _keep_time(self) -> None:
        now = time.monotonic()
        wake = self._window.wake_at()
        if wake is not None and now >= wake:
            self._feed(w.Tick())
        for act, due in self._due.items():
            if now >= due:
                self._due[act] = now + act()

    def _commit(self) -> float:
        try:
            self._ledger.commit()
        except StoreError as error:
            # what is pending stays pending, and counts once however often it is tried
            self._patience.bear(error)
        else:
            self._patience.answered()
        return settings().driver.commit_interval

    def _beat(self) -> float:
        self._writer.heartbeat(self._standing.beat(self._commons.beside))
        return settings().driver.heartbeat

    def _look_at_cluster(self) -> float:
        if self._connection.lost:
            raise self._placing.lost()
        if self._placing.refresh():
            self._feed(self._placing.capacity(self._window.classes))
            self._rewrites.look()
        for text in self._placing.news():
            self._carry_out(w.Notice("worker-refused", text))
        self._mind_others()
        self._standing.wait_for(self._gaps.note(self._window.demand(), self._placing.gap, time.monotonic()))
        return LOOK_SECONDS

    def _mind_others(self) -> None:
        for event in self._commons.look(self._window, self._placing, self._standing):
            self._feed(event)
        for text in self._commons.news():
            self._carry_out(w.Notice("limits", text))

    def _look_soon(self) -> None:
        self._due[self._look_at_cluster] = 0.0

    # -- instructions --------------------

    def _feed(self, event: w.Event | None) -> None:
        """Tell the window an event, and carry out what follows; answers of that are events again."""
        if isinstance(event, w.Ended | w.Lost) and event.batch in self._rewrites:
            self._rewritten(event)
            return
        if event is None:
            return
        self._events.append(event)
        while self._events:
            for instruction in self._window.handle(self._events.popleft(), time.monotonic()):
                self._carry_out(instruction)

    def _carry_out(self, instruction: w.Instruction) -> None:
        match instruction:
            case w.Send():
                self._send(instruction)
            case w.Settled():
                self._settle(instruction)
            case w.Take():
                self._intake.take(instruction.count)
            case w.Record():
                self._ledger.record(instruction)
            case w.LookForMark():
                self._events.append(self._look_for_mark(instruction.batch))
            case _:
                self._carry_out_rarer(instruction)

    def _look_for_mark(self, number: int) -> w.Event:
        # what can no longer begin cannot be written either: so this comes first
        begun = self.assignment.workload.idempotent or self._ledger.has_begun(number)
        receipt = self._ledger.find_mark(number)
        return w.NoMark(number, begun=begun) if receipt is None else w.MarkFound(number, receipt)

    def _carry_out_rarer(self, instruction: w.Instruction) -> None:
        match instruction:
            case w.Drop():
                self._flights.drop(instruction.batch, instruction.again)
            case w.Measure():
                self._events.append(self._placing.capacity(self._window.classes))
            case w.Notice():
                log.warning(instruction.text, extra={"action": instruction.code})
                self._standing.note(instruction.text)
            case w.End():
                self._over = instruction

    def _send(self, send: w.Send) -> None:
        if not self.assignment.workload.idempotent:
            self._ledger.note_sent(send)
        self._flights.send(send, self._placing.resources(send.request), self._ledger.schema, workers=self._placing.workers(send))

    def _settle(self, settled: w.Settled) -> None:
        self._commons.ended(settled.receipt)
        self._flights.forget(settled.batch)
        if self._ledger.fits(settled.receipt):
            self._ledger.settle(settled)
        elif not self._salvaging:  # else its mark stays, and the next driver rewrites it
            self._have_rewritten(settled)

    def _have_rewritten(self, settled: w.Settled) -> None:
        self._rewrites.begin(self._window.allot(), settled)

    def _rewritten(self, event: w.Ended | w.Lost) -> None:
        """The window has settled these items already: what is left to do is their commit, and to tell it of those that failed by it."""
        if isinstance(event, w.Lost):
            self._rewrites.lost(event.batch)
            return
        settled = self._rewrites.ended(event.batch)
        if self._ledger.fits(event.receipt):
            self._feed(w.Misfit(settled.tries, self._ledger.settle_rewritten(settled, event.batch, event.receipt)))
        elif not self._salvaging:
            self._have_rewritten(settled)

    # -- the end --------------------

    def _salvage(self) -> None:
        """After an error: what workers have written counts as far as this driver may still commit it."""
        self._salvaging = True
        # whatever fails here fails because of what failed first, and that is what is raised
        with contextlib.suppress(Exception):
            self._feed(w.CancelAll("the run failed"))
            if self._connection.lost:
                time.sleep(FLUSH_SECONDS)
            for number in self._flights.numbers:
                receipt = self._ledger.find_mark(number)
                if receipt is not None:
                    self._feed(w.Ended(number, receipt))
            self._ledger.commit()
