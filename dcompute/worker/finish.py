"""From the journal to Parquet: rows of what succeeded, one attempt row for each outcome, and the receipt."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dcompute.keys import item_seed
from dcompute.records import FAILED, SUCCEEDED, BatchSpec, Failure, Receipt, RunSpec
from dcompute.worker import rows
from dcompute.worker.journal import Figures, Journal, Measured, MemoryMeasured, Record
from dcompute.worker.meter import bottleneck

_MEASURED: dict[int, str | None] = {Measured.ITEM: "item", Measured.BATCH: "batch", Measured.GROUP: "group", Measured.NOTHING: None}
_MEASURED_AS: dict[int, str | None] = {how: how.name.lower() for how in MemoryMeasured} | {MemoryMeasured.UNKNOWN: None}
# by their numbers: a look-up by enum calls its hash, which is Python
_MEASURED, _MEASURED_AS = ({int(number): name for number, name in names.items()} for names in (_MEASURED, _MEASURED_AS))
_ITEM, _BATCH, _NOTHING = int(Measured.ITEM), int(Measured.BATCH), int(Measured.NOTHING)
_TREE = int(MemoryMeasured.TREE)
# outcome, kind, error, message, traceback, exit code, signal
_SUCCESS = (SUCCEEDED, None, None, None, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rows of a batch say beside what the journal knows."""

    worker: str = ""
    memory_limit: int | None = None
    pid: int = 0
    host: str = field(default_factory=socket.gethostname)
    stdout: Mapping[int, str] = field(default_factory=dict)
    stderr: Mapping[int, str] = field(default_factory=dict)
    peaks: Mapping[int, int] = field(default_factory=dict)  #: bytes of the tree while an item was at work, as looked at
    shared: Figures = field(default_factory=Figures)  #: of the short items


class Finisher:
    """Makes the parts of one execution."""

    def __init__(self, folder: str, run: RunSpec, batch: BatchSpec, surroundings: Surroundings) -> None:
        self._folder = folder
        self._run = run
        self._batch = batch
        self._around = surroundings

    def finish(self, journal: Journal, execution: str, times: Mapping[str, Any]) -> tuple[Receipt, list[tuple[str, str]]] | None:
        """Write the parts.

        Parameters
        ----------
        journal
            Of this execution.
        execution
            Its random id.
        times
            ``slot_seconds``, ``setup_seconds`` and ``leftovers`` of the receipt.

        Returns
        -------
        tuple or None
            The receipt, and the files as local path and dataset name, results first; None where no item has an outcome.
        """
        # Arrow costs a fifth of a second, and a child that never finishes a batch does not pay it
        from dcompute.worker.tables import Parts, ranges

        parts = Parts(self._folder, self._run, self._batch, execution)
        found: dict[int, tuple[Any, ...]] = {}
        failures: list[Failure] = []
        with _no_collection():
            for record in journal.records():
                if record.item not in found:
                    found[record.item] = self._row(record, parts, failures)
            if not found:
                return None
            order = sorted(found)
            receipt = parts.finish([found[index] for index in order], failures=failures, holds=ranges(order), **times)
        return receipt, parts.files

    def _row(self, record: Record, parts: Any, failures: list[Failure]) -> tuple[Any, ...]:
        index, succeeded, started, figures, metrics, payload = record
        run, batch, around = self._run, self._batch, self._around
        if succeeded:
            number, outcome = parts.add(index, rows.decode(payload), len(payload)), _SUCCESS
        else:
            failure = _failure(index, json.loads(payload))
            failures.append(failure)
            number, outcome = 0, _columns(failure)
        key = batch.keys[index]
        duration, user, system, measured, peak, read, written, wait, leftovers, how = figures = self._figures(index, figures)
        cause = None if measured == _NOTHING else bottleneck(figures, around.memory_limit)
        # not a number: the process was killed, and nobody knows
        cpu = (None, None) if cause is None or user != user else (user, system)
        return (
            *key, batch.attempts[index], batch.fingerprints[index], run.params_digest, run.code_digest, run.version,
            *outcome, around.stdout.get(index), around.stderr.get(index),
            started, duration, *cpu, peak, read, written, wait,
            _MEASURED[measured], _MEASURED_AS[how], cause, metrics.decode() or None, leftovers, number,
            around.host, around.worker, around.pid, batch.id, run.run, run.workload, item_seed(run.seed, key),
        )  # fmt: skip

    def _figures(self, index: int, figures: Figures) -> Figures:
        shared = self._around.shared
        if figures[3] == _NOTHING:
            return figures
        if figures[3] == _BATCH:
            figures = Figures._make((*figures[:4], shared[4], shared[5], shared[6], shared[7], figures[8], shared[9]))
        tree = self._around.peaks.get(index)
        if tree is not None and tree > (figures.peak_memory or 0):
            return figures._replace(peak_memory=tree, memory_measured=_TREE)
        return figures


def _failure(index: int, failure: Mapping[str, Any]) -> Failure:
    return Failure(
        index=index,
        kind=failure["kind"],
        error=failure["error"],
        bases=tuple(failure["bases"]),
        message=failure["message"],
        exit_code=failure.get("exit_code"),
        signal=failure.get("signal"),
        traceback=failure["traceback"],
    )


def _columns(failure: Failure) -> tuple[Any, ...]:
    return (
        FAILED, failure.kind, failure.error, failure.message, failure.traceback or None, failure.exit_code, failure.signal,
    )  # fmt: skip


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Thousands of rows are made and none is garbage: looking for it would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
