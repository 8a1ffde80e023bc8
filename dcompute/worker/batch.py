"""A Dask task: one batch, from its description to its mark.

A batch whose mark is there is not executed. Results parts and files of items have names that no other execution has; the attempts part is
created exclusively and is the mark: of two executions at once one wins, and the other takes its own results parts and files away.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from dcompute.config import settings
from dcompute.dataset.identity import id_in
from dcompute.dataset.names import DATASET, new_id, produced_batch, started_name
from dcompute.dataset.parts import mark_name, read_receipt
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError
from dcompute.records import BatchSpec, Receipt, RunSpec
from dcompute.worker import code_cache
from dcompute.worker.asking import ask
from dcompute.worker.slot import Slot
from dcompute.worker.supervisor import supervisor
from dcompute.worker.work import Execution, Tick, Work

T = TypeVar("T")

logger = logging.getLogger("dcompute.worker")

#: Seconds between two events that say how far a batch is.
TELL_EVERY = 1.0
#: Seconds for which the mark of an execution that began before is waited for, and between two looks for it.
MARK_SECONDS, LOOK_EVERY = 3.0, 0.2

_GONE = "the dataset was removed, or another one is in its place: nothing is written there"


def run_batch(run: bytes | str, batch: bytes) -> dict[str, Any]:
    """Execute a batch and write its parts, unless that was done before; the function of the Dask task.

    Parameters
    ----------
    run
        The pickled ``RunSpec``, or the digest under which the scheduler keeps it.
    batch
        The pickled ``BatchSpec``.

    Returns
    -------
    dict
        ``receipt`` of the mark (this execution's, or that of the one that was first), ``setup_error`` (``text``, ``traceback``, ``log`` and
        ``stage``) where the workload could not be made ready, or ``nothing`` with the reason why no item was finished.

    Raises
    ------
    StoreError
        The storage failed again and again.
    """
    slot = Slot.here()
    return BatchTask(slot, code_cache.run_spec(run, slot.worker), pickle.loads(batch)).execute()  # noqa: S301  Dask's own wire


class BatchTask:
    """One execution of a batch.

    Parameters
    ----------
    slot
        Where it executes.
    run, batch
        What is executed.
    sleep
        How it waits before it asks a failing storage again.
    """

    def __init__(self, slot: Slot, run: RunSpec, batch: BatchSpec, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._slot = slot
        self._run = run
        self._batch = batch
        self._sleep = sleep
        self._execution = new_id()
        self._store = Store.at(run.dataset, dict(run.storage_options))
        self._mark = mark_name(batch.id)
        self._told = 0.0

    def execute(self) -> dict[str, Any]:
        """What :func:`run_batch` returns."""
        if self._is_gone():
            return self._nothing(_GONE)
        if self._ask(lambda: self._store.exists(self._mark)):
            return self._answer(self._winner())
        if self._batch.once and not self._claimed():
            if self._is_written_soon():
                return self._answer(self._winner())
            return self._nothing("its items may be executed once only, and an execution of it began before")
        self._tell("started", execution=self._execution, worker=self._slot.address, host=self._slot.host)
        done = self._executed()
        if self._batch.once and done.untouched:
            self._ask(self._withdraw)
        try:
            return self._outcome(done)
        finally:
            done.discard()

    def _executed(self) -> Execution:
        slot = self._slot
        work = Work(
            run=self._run,
            batch=self._batch,
            execution=self._execution,
            scratch=slot.scratch,
            memory_limit=slot.memory_limit(self._batch),
            worker=slot.address,
        )
        if self._run.isolation == "thread":
            from dcompute.worker.thread import execute

            return execute(work, stopped=slot.stopped, ticked=self._ticked)
        keeper = supervisor()
        keeper.idle = settings().worker.idle
        return keeper.execute(work, stopped=slot.stopped, ticked=self._ticked)

    def _outcome(self, done: Execution) -> dict[str, Any]:
        failure = done.setup_error
        problem = {} if failure is None else {name: getattr(failure, name) for name in ("text", "traceback", "log", "stage")}
        if done.receipt is not None:
            if self._is_gone():
                return self._nothing(_GONE)
            return self._answer(self._publish(done.receipt, done.files), setup_error=problem)
        if problem:
            self._tell("setup", execution=self._execution, setup_error=problem)
            return {"setup_error": problem}
        return self._nothing(f"no item was finished: {done.cut_short or 'there was none'}")

    def _is_gone(self) -> bool:
        """Whether the dataset was removed, or another one is in its place, as far as that can be seen for microseconds.

        On an object store a request a batch would tell; there what is written in vain is left to vacuum.
        """
        store, dataset = self._store, self._batch.dataset
        if not dataset or not (store.is_local or store.is_memory):
            return False
        data = self._ask(lambda: store.read_or_none(DATASET))
        try:
            return data is None or id_in(store, data) != dataset
        except DatasetCorruptError:
            return True

    def _nothing(self, reason: str) -> dict[str, Any]:
        # a driver that cancelled the task hears of it no other way, and need not wait for parts
        self._tell("nothing", execution=self._execution, nothing=reason)
        return {"nothing": reason}

    def _claimed(self) -> bool:
        """Whether this is the first execution: Dask repeats a task whose worker was lost, and never asks."""
        try:
            self._ask(lambda: self._store.create(started_name(self._batch.id), self._execution.encode()))
        except FileExistsError:
            return self._store.read_or_none(started_name(self._batch.id)) == self._execution.encode()
        return True

    def _is_written_soon(self) -> bool:
        """Whether the execution that began it writes its mark: one whose worker closes does, when its task is here already."""
        for _ in range(round(MARK_SECONDS / LOOK_EVERY)):
            if self._ask(lambda: self._store.exists(self._mark)):
                return True
            if self._slot.stopped():
                return False
            self._sleep(LOOK_EVERY)
        return False

    def _withdraw(self) -> None:
        # asked again after an answer was lost, somebody else's claim may stand there
        name = started_name(self._batch.id)
        if self._store.read_or_none(name) == self._execution.encode():
            self._store.remove([name])

    def _publish(self, receipt: Receipt, files: list[tuple[str, str]]) -> Receipt:
        """Write files of items, then the parts, the mark last; the receipt of the mark that is there then."""
        *others, (attempts, mark) = files
        failures = self._store.failures
        produced = [file for file in others if produced_batch(file[1]) is not None]
        self._ask(lambda: self._store.take_all(produced))
        self._ask(lambda: self._store.upload_all(others[len(produced) :]))
        try:
            self._ask(lambda: self._store.create_from(attempts, mark))
        except FileExistsError:
            winner = self._winner()
            if winner.execution != receipt.execution:
                logger.info("batch %s was written by another execution", self._batch.id, extra={"action": "batch_lost_race"})
                self._ask(lambda: self._store.remove([name for _, name in others]))
                return winner
            receipt = winner  # it was written, and only the answer was lost
        if self._store.failures > failures:
            # a server that was killed meanwhile may have forgotten what it had acknowledged before the mark
            self._ask(lambda: self._store.upload_all([file for file in others if not self._store.exists(file[1])]))
        return receipt

    def _winner(self) -> Receipt:
        return self._ask(lambda: read_receipt(self._store, self._mark))

    def _answer(self, receipt: Receipt, *, setup_error: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = {"receipt": replace(receipt, requests=self._store.requests).to_json()}
        if setup_error:  # what cut it short
            answer["setup_error"] = setup_error
        self._tell("receipt", **answer)
        return answer

    def _ticked(self, tick: Tick) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_EVERY or tick.is_last:
            self._show(tick)
        if now - self._told >= TELL_EVERY and not tick.is_last:
            self._told = now
            self._tell("tick", index=tick.index, done=tick.done, progress=tick.fraction, text=tick.text)

    def _show(self, tick: Tick) -> None:
        """Tell whoever follows what was printed; whose it was is as sure as the moment of the look."""
        printed = tick.printed() if settings().logs.live else {}
        if printed and tick.index is not None:
            key = self._batch.keys[tick.index].text
            self._slot.show({"run": self._run.run, "key": key, "host": self._slot.host, **printed})

    def _ask(self, act: Callable[[], T]) -> T:
        return ask(act, self._sleep)

    def _tell(self, event: str, **more: Any) -> None:
        self._slot.tell(self._run.run, {"event": event, "batch": self._batch.id, **more})
