"""``isolation="thread"``: items execute in the worker's own thread, with nothing between them and the worker.

What it cannot do: an item that hangs, crashes or hoards memory is not stopped and takes its worker with it, so ``timeout`` and ``memory``
are refused; what is printed is not recorded; what an item changes in the process is not put back, as others are at work in it; memory is
that of the whole worker process (``memory_measured`` says ``process``); shipped ``modules=`` are refused, because an imported module stays
as it is. ``cpu_user`` holds all CPU time of the thread.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dcompute.records import RunSpec
from dcompute.worker import attempt, context, scratch, system
from dcompute.worker.attempt import call, call_group, encode_failure, one_of_group
from dcompute.worker.finish import Finisher, Surroundings
from dcompute.worker.journal import Figures, Journal, Measured, MemoryMeasured
from dcompute.worker.loop import open_checks, refusals
from dcompute.worker.meter import LONG, share
from dcompute.worker.produced import MOST_WAITING
from dcompute.worker.verdict import unnoted
from dcompute.worker.work import Execution, SetupFailure, Tick, Work, files_folder

# The workload that a thread has ready: one a slot, as with children.
_ready = threading.local()


def execute(work: Work, *, stopped: Callable[[], str | None], ticked: Callable[[Tick], None]) -> Execution:
    """Execute a batch in the calling thread; ``stopped`` is asked between two items.

    Parameters
    ----------
    work
        What to execute; its memory limit is not kept.
    stopped
        ``cancelled``, ``closing`` or None.
    ticked
        Told how far the batch is.
    """
    began = time.monotonic()
    failure = set_up(work.run)
    if failure is not None:
        return Execution(setup_error=failure, untouched=True)
    try:
        values = pickle.loads(work.batch.values)  # noqa: S301  Dask's own wire, from the driver of this run
    except BaseException as error:  # noqa: BLE001  whatever the values' classes raise
        return Execution(setup_error=_failure(error, "values"), untouched=True)
    setup_seconds = time.monotonic() - began
    try:
        return _execute(work, _Loop(work, values, stopped=stopped, ticked=ticked), began, setup_seconds)
    except OSError as error:
        if not scratch.is_full(error):
            raise
        return Execution(setup_error=scratch.full(work.scratch, error), folder=str(work.folder), cut_short="full")


def _execute(work: Work, loop: _Loop, began: float, setup_seconds: float) -> Execution:
    folder, failure = str(work.folder), None
    work.folder.mkdir(parents=True)
    journal = Journal(str(work.folder / "journal"), create=True)
    try:
        try:
            reason = loop.run(journal)
        except OSError as error:
            failure, reason = scratch.full(work.scratch, error), "full"
        times = {"slot_seconds": time.monotonic() - began, "setup_seconds": setup_seconds, "leftovers": 0}
        around = Surroundings(worker=work.worker, memory_limit=None, pid=os.getpid())
        made = Finisher(folder, work.run, work.batch, around).finish(journal, work.execution, times)
    finally:
        journal.close()
    if made is None:
        return Execution(folder=folder, cut_short=reason, setup_error=failure, untouched=failure is None)
    receipt, files = made
    return Execution(receipt=receipt, files=files, folder=folder, cut_short=reason, setup_error=failure)


def set_up(run: RunSpec) -> SetupFailure | None:
    """Make the workload ready in this thread, unless it is; what went wrong, or None."""
    if run.timeout or run.modules:
        refusal = 'isolation="thread" has neither timeout= nor modules=: leave them out, or use isolation="process"'
        return SetupFailure(text=refusal, stage="code")
    identity = (run.run, run.code_digest, run.params_digest)
    if getattr(_ready, "identity", None) == identity:
        return None
    stage, _ready.identity = "code", None
    try:
        from dcompute.code import load

        loaded = load(run.code)
        open_checks(run)
        stage = "setup"
        _ready.function, _ready.params = loaded.start(), loaded.params
    except BaseException as error:  # noqa: BLE001  SystemExit in user code too
        return _failure(error, stage)
    _ready.identity = identity
    return None


def _failure(error: BaseException, stage: str) -> SetupFailure:
    told = attempt.describe(error)
    return SetupFailure(text=f"{told['error']}: {told['message']}", traceback=told["traceback"], stage=stage)


class _Loop:
    """One batch, item after item."""

    def __init__(
        self,
        work: Work,
        values: list[Any],
        *,
        stopped: Callable[[], str | None],
        ticked: Callable[[Tick], None],
    ) -> None:
        self._work = work
        self._run: RunSpec = work.run
        self._function: Callable[[Any], Any] = _ready.function
        self._single = one_of_group(self._function) if work.run.group else self._function
        self._params: dict[str, Any] = _ready.params
        self._values = values
        self._stopped = stopped
        self._ticked = ticked
        self._room = context.Room(
            str(Path(work.scratch) / "items"), str(files_folder(work.folder)), work.run.group is not None, os.getpid()
        )

    def run(self, journal: Journal) -> str | None:
        """Execute all; why it ended early, or None."""
        self._journal = journal
        self._waiting = 0  # bytes of files that items produced
        excluded = set(self._work.batch.exclude)
        pending = [index for index in range(len(self._work.batch)) if index not in excluded]
        failures = refusals(self._run, self._work.batch, self._values, pending) if self._run.checks else {}
        for index, payload in failures.items():
            journal.convict(index, time.time(), Figures(measured=Measured.NOTHING), payload)
        pending = [index for index in pending if index not in failures]
        for indexes in _chunks(pending, self._run.group or 1):
            reason = self._stopped()
            if reason is not None or self._waiting >= MOST_WAITING:
                return reason
            self._ticked(Tick(indexes[0], self._journal.done, None, ""))
            if not self._run.group or not self._group(indexes):
                for index in indexes:
                    self._one(index)
        return None

    def _one(self, index: int) -> None:
        item, started, before = self._begin(index)
        succeeded, payload = call(self._single, self._values[index])
        figures = _figures(before)
        if succeeded and item.outputs:
            payload = item.noted(self._work.batch.keys[index], payload)
            self._waiting += item.noted_bytes
        try:
            self._journal.write(index, succeeded, started, figures, _encoded(item), payload)
        except OSError:
            if not self._run.idempotent:  # it has an outcome all the same: it must not be executed again
                self._journal.convict(index, started, figures, encode_failure(unnoted()))
            context.end()
            raise
        self._end()

    def _group(self, indexes: list[int]) -> bool:
        item, started, before = self._begin(indexes[0])
        item.join((self._work.batch.keys[index], self._work.batch.attempts[index]) for index in indexes[1:])
        results = call_group(self._function, [self._values[index] for index in indexes])
        each = share(_figures(before), len(indexes))
        for index, result in zip(indexes, results or (), strict=False):
            payload = item.noted(self._work.batch.keys[index], result) if item.outputs else result
            self._journal.write(index, True, started, each, b"" if index != indexes[0] else _encoded(item), payload)
        self._waiting += item.noted_bytes
        self._end()
        return results is not None

    def _begin(self, index: int) -> tuple[context.Context, float, tuple[float, float]]:
        batch, run = self._work.batch, self._run

        def report(fraction: float, text: str) -> None:
            self._ticked(Tick(index, self._journal.done, fraction, text))

        item = context.begin(
            batch.keys[index], batch.attempts[index], run.run, params=self._params, seed=run.seed, room=self._room,
            report=report, own_thread=True,
        )  # fmt: skip
        return item, time.time(), (time.perf_counter(), time.thread_time())

    def _end(self) -> None:
        self._journal.end()
        context.end()


def _figures(before: tuple[float, float]) -> Figures:
    duration, cpu = time.perf_counter() - before[0], time.thread_time() - before[1]
    memory = system.memory([os.getpid()]) if duration >= LONG else None
    how = MemoryMeasured.PROCESS if memory else MemoryMeasured.UNKNOWN
    return Figures(duration, cpu, 0.0, Measured.ITEM, peak_memory=memory, memory_measured=how)


def _encoded(item: context.Context) -> bytes:
    return json.dumps(item.metrics).encode() if item.metrics else b""


def _chunks(indexes: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indexes), size):
        yield indexes[start : start + size]
