"""The loop of a child: one call after another, each with its outcome in the journal before the next begins."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, perf_counter, time
from typing import Any

from dcompute.records import BatchSpec, RunSpec
from dcompute.worker import context
from dcompute.worker.attempt import call, call_group, encode_failure, one_of_group
from dcompute.worker.caretaker import Caretaker
from dcompute.worker.conditions import Next
from dcompute.worker.journal import Figures, Journal, Measured, State, read_index
from dcompute.worker.leftovers import Leftovers
from dcompute.worker.meter import LONG, Meter, share
from dcompute.worker.produced import MOST_WAITING
from dcompute.worker.streams import Streams

#: A call shorter than this (seconds) has hardly started another program: looking for one is left to a later item, as it is a system call.
FORKING = 0.0001
#: A call of so many seconds may take one more look at all that it may have changed, which costs a sixtieth of that.
INSPECTED = 0.001


class Process:
    """What a child keeps from batch to batch.

    Parameters
    ----------
    run
        The run it serves.
    function
        Called with one value, or with a list of them where the run says ``group``.
    params
        What ``current().params`` shows.
    scratch
        Folder in which items get theirs.
    caretaker
        That found the process as set-up left it.
    devices
        Ids of those that it sees.
    """

    def __init__(
        self,
        run: RunSpec,
        function: Callable[[Any], Any],
        params: Mapping[str, Any],
        scratch: str,
        caretaker: Caretaker,
        *,
        devices: tuple[str, ...] = (),
    ) -> None:
        self.run = run
        self.function = function
        self.params = params
        self.scratch = scratch
        self.caretaker = caretaker
        self.devices = devices
        self.meter = Meter(run.metrics)
        self.leftovers = Leftovers()
        self.leftovers.spare_all()
        self.calls = 0
        self.is_fork = False
        # user code that forks and comes back from it must not execute the batch a second time
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.is_fork = True


class Loop:
    """Executes one batch, or what a predecessor left of it.

    Parameters
    ----------
    process
        That executes it.
    batch
        What to execute.
    journal
        Where outcomes are noted.
    streams
        Of the process.
    folder
        For files that items produce.
    """

    def __init__(self, process: Process, batch: BatchSpec, journal: Journal, streams: Streams, folder: str | None = None) -> None:
        self._process = process
        self._batch = batch
        self._journal = journal
        self._streams = streams
        self._room = context.Room(
            process.scratch,
            folder,
            process.run.group is not None,
            os.getpid(),
            process.run.timeout,
            lambda: journal.is_stopped,
            process.devices,
        )
        self._values: list[Any] = []
        self._checked = self._inspected = 0.0
        self.is_watched = False  # no item begins before the worker saw that it does
        self.last = -1  # the item that was at work last
        self.is_spent = False  # another process shall go on
        self.is_again = False  # with that item
        self.leftovers = 0
        self._waiting = 0  # bytes of files that items produced

    def load(self) -> None:
        """Open the values; whatever their classes raise comes out here."""
        self._values = pickle.loads(self._batch.values)  # noqa: S301  Dask's own wire, from the driver of this run

    def execute(self, verdicts: Sequence[dict[str, Any]]) -> None:
        """Execute every item that has no outcome.

        Raises
        ------
        OSError
            The scratch folder is full.
        """
        process = self._process
        first, singles, pending = self._plan(verdicts)
        if process.run.checks:
            first, pending = self._admitted(first, pending)
        process.meter.reset()
        self._checked = perf_counter()
        self._journal.set_state(State.EXECUTING)
        state = State.FULL
        process.caretaker.inspect(process.calls)
        self._inspected = time()
        try:
            for index in self._calls(first, singles, pending):
                self.last = index
                if self.is_spent or self._journal.is_stopped or self._waiting >= MOST_WAITING:
                    break
            state = State.IDLE
        finally:
            self._journal.set_state(state)
            self._count_leftovers()
            process.leftovers.kill()
            process.caretaker.inspect(process.calls)
            if self.last >= 0:
                self._streams.item_ended(self.last)
            self._streams.batch_ended()

    def _plan(self, verdicts: Sequence[dict[str, Any]]) -> tuple[list[int], set[int], list[int]]:
        """Who is executed first, who alone, and who at all; convictions are written."""
        done = convict(self._journal, self._batch, verdicts)
        first: list[int] = []
        singles: set[int] = set()
        for verdict in verdicts:
            if verdict["failure"] is None:
                first = [index for index in range(verdict["index"], verdict["last"] + 1) if not done[index]]
                singles.update(first)
        waiting = set(first)
        return first, singles, [index for index in range(len(done)) if not done[index] and index not in waiting]

    def _admitted(self, first: list[int], pending: list[int]) -> tuple[list[int], list[int]]:
        """Those whose inputs pass; the others have their outcome then."""
        journal, calls = self._journal, self._process.calls
        # a function that hangs or ends the process is billed to the item that it was asked of
        begin = lambda index: journal.begin(index, index, calls, monotonic())  # noqa: E731
        failures = refusals(self._process.run, self._batch, self._values, [*first, *pending], begin=begin)
        journal.end()
        for index, payload in failures.items():
            journal.convict(index, time(), Figures(measured=Measured.NOTHING), payload)
        return [index for index in first if index not in failures], [index for index in pending if index not in failures]

    def _calls(self, first: list[int], singles: set[int], pending: list[int]) -> Iterator[int]:
        size = self._process.run.group
        single = one_of_group(self._process.function) if size else self._process.function
        yield from self._one_by_one(first, single)
        if not size:
            yield from self._one_by_one(pending, single)
            return
        together: list[int] = []
        for index in pending:
            if index in singles:
                yield from self._one_by_one([index], single)
                continue
            together.append(index)
            if len(together) == size:
                yield from self._group(together, single)
                together = []
        if together:
            yield from self._group(together, single)

    def _one_by_one(self, indexes: Sequence[int], function: Callable[[Any], Any]) -> Iterator[int]:
        process, batch, journal, streams = self._process, self._batch, self._journal, self._streams
        keys, attempts, values, run = batch.keys, batch.attempts, self._values, process.run.run
        params, seed, room, report = process.params, process.run.seed, self._room, self._report
        begin, end, tidy, always = process.meter.begin, process.meter.end, process.caretaker.tidy, not process.run.idempotent
        waiting, go_on, again, fresh = list(reversed(indexes)), Next.GO_ON, Next.AGAIN, Next.FRESH
        while waiting:
            index = waiting.pop()
            item = context.begin(keys[index], attempts[index], run, params=params, seed=seed, room=room, report=report)
            journal.begin(index, index, process.calls, monotonic())
            if self.is_watched:
                journal.await_seen(index)
            started = time()
            begin()
            succeeded, payload = call(function, values[index])
            figures = end()
            if process.is_fork:
                os._exit(0)
            process.calls += 1
            is_due = tidy() or always or not succeeded or figures.duration >= INSPECTED or started - self._inspected >= LONG
            following = self._inspect(started, succeeded) if is_due else go_on
            if figures.duration >= LONG or streams.is_dirty:
                streams.item_ended(index)
            if following is again:
                waiting.append(index)
            elif following is not fresh:
                self._note(index, succeeded, started, figures, item, payload)
            context.end()
            journal.end()
            yield index

    def _inspect(self, started: float, succeeded: bool) -> Next:
        """Look at all that calls may have changed, and decide what comes next."""
        process = self._process
        self._inspected = started
        following = process.caretaker.after_call(process.calls, succeeded=succeeded, idempotent=process.run.idempotent)
        self.is_spent, self.is_again = following in (Next.FRESH, Next.LEAVE), following is Next.FRESH
        return following

    def _note(self, index: int, succeeded: bool, started: float, figures: Figures, item: context.Context, payload: bytes) -> None:
        process = self._process
        metrics = _encode(item.metrics) if item.metrics else b""
        if item.outputs and succeeded:
            payload = item.noted(self._batch.keys[index], payload)
            self._waiting += item.noted_bytes
        if (figures.duration >= FORKING or process.meter.ended - self._checked >= LONG) and (left := self._count_leftovers() + item.left):
            figures = figures._replace(leftovers=left)
        try:
            self._journal.write(index, succeeded, started, figures, metrics, payload)
        except OSError:  # the disk is full, or an item limited the size of files
            if not process.caretaker.inspect(process.calls).changed:
                raise
            self._journal.write(index, succeeded, started, figures, metrics, payload)

    def _group(self, indexes: list[int], single: Callable[[Any], Any]) -> Iterator[int]:
        process, batch, journal = self._process, self._batch, self._journal
        first = indexes[0]
        item = context.begin(
            batch.keys[first], batch.attempts[first], process.run.run, params=process.params, seed=process.run.seed,
            room=self._room, report=self._report,
        )  # fmt: skip
        item.join((batch.keys[index], batch.attempts[index]) for index in indexes[1:])
        journal.begin(first, indexes[-1], process.calls, monotonic())
        started = time()
        process.meter.begin()
        results = call_group(process.function, [self._values[index] for index in indexes])
        figures = process.meter.end()
        if process.is_fork:
            os._exit(0)
        process.calls += 1
        if process.caretaker.tidy() or results is None or figures.duration >= INSPECTED or started - self._inspected >= LONG:
            self._inspect(started, True)  # what failed is no attempt yet
        if results is not None:
            self._note_group(indexes, started, figures, item, results)
        context.end()
        if figures.duration >= LONG or self._streams.is_dirty:
            self._streams.item_ended(first)
        journal.end()
        if results is None:
            yield from self._one_by_one(indexes, single)
        else:
            yield indexes[-1]

    def _note_group(self, indexes: list[int], started: float, figures: Figures, item: context.Context, results: list[bytes]) -> None:
        """A row each; what cannot be shared, metrics and leftovers, stands with the first."""
        left = self._count_leftovers()
        metrics = _encode(item.metrics) if item.metrics else b""
        each = share(figures, len(indexes))
        first = each._replace(leftovers=left) if left else each
        for place, (index, result) in enumerate(zip(indexes, results, strict=True)):
            payload = item.noted(self._batch.keys[index], result) if item.outputs else result
            self._journal.write(index, True, started, each if place else first, b"" if place else metrics, payload)
        self._waiting += item.noted_bytes

    def _report(self, fraction: float, text: str) -> None:
        if not self._process.is_fork:
            self._journal.report(fraction, text)

    def _count_leftovers(self) -> int:
        """Processes that came since the last look."""
        self._checked = perf_counter()
        left = self._process.leftovers.count()
        self.leftovers += left
        return left


def _encode(metrics: dict[str, Any]) -> bytes:
    return json.dumps(metrics, allow_nan=True).encode()


def open_checks(run: RunSpec) -> None:
    """Open a run's checks before its first item begins; what cannot be opened here is told as the workload is."""
    if run.checks:
        from dcompute.checks.travel import opened

        opened(run.checks)


def refusals(
    run: RunSpec, batch: BatchSpec, values: Sequence[Any], pending: Sequence[int], *, begin: Callable[[int], object] | None = None
) -> dict[int, bytes]:
    """By index, the failures of items whose inputs do not pass a check of the run, as a journal holds them; see ``admission.refused``."""
    from dcompute.checks.travel import opened

    checks = opened(run.checks).inputs
    if not checks:
        return {}
    from dcompute.worker.admission import refused

    released = set(batch.unchecked)
    return refused(checks, values, [index for index in pending if index not in released], keywords=run.keywords, begin=begin)


def convict(journal: Journal, batch: BatchSpec, verdicts: Sequence[dict[str, Any]]) -> bytearray:
    """Write the failures that verdicts name, where an item has no outcome.

    Returns
    -------
    bytearray
        A true byte for each item that need not be executed.
    """
    done = bytearray(len(batch))
    for index in batch.exclude:
        done[index] = 1
    if journal.done:
        for index in read_index(journal):
            done[index] = 1
    for verdict in verdicts:
        index = verdict["index"]
        if verdict["failure"] is not None and not done[index]:
            figures = Figures._make(math.nan if value is None and place < 3 else value for place, value in enumerate(verdict["figures"]))
            journal.convict(index, time() - figures.duration, figures, encode_failure(verdict["failure"]))
            done[index] = 1
    return done
