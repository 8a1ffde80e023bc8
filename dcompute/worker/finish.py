"""From the journal to Parquet: rows of what succeeded, one attempt row for each outcome, and the receipt."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
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
_NO_FAILURE: dict[str, Any] = {}


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
    shared: Figures = Figures()  #: of the short items


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
        for record in journal.records():
            if record.index in found:
                continue
            found[record.index] = self._row(record, parts, failures)
        if not found:
            return None
        order = sorted(found)
        receipt = parts.finish([found[index] for index in order], failures=failures, holds=ranges(order), **times)
        return receipt, parts.files

    def _row(self, record: Record, parts: Any, failures: list[Failure]) -> tuple[Any, ...]:
        index, succeeded = record.index, record.succeeded
        if succeeded:
            number = parts.add(index, rows.decode(record.payload), len(record.payload))
            failure = _NO_FAILURE
        else:
            number, failure = 0, json.loads(record.payload)
            failures.append(_failure(index, failure))
        run, batch, around = self._run, self._batch, self._around
        key, figures = batch.keys[index], self._figures(record)
        duration, user, system, measured, peak, read, written, wait, leftovers, how = figures
        nothing = measured == _NOTHING
        return (
            key.text, key.kind, batch.attempts[index], batch.fingerprints[index], run.params_digest, run.code_digest, run.version,
            SUCCEEDED if succeeded else FAILED, failure.get("kind"), failure.get("error"), failure.get("message"),
            failure.get("traceback") or None, failure.get("exit_code"), failure.get("signal"),
            around.stdout.get(index), around.stderr.get(index),
            record.started, duration, None if nothing or user != user else user, None if nothing or system != system else system,  # noqa: PLR0124  not a number: not known
            peak, read, written, wait,
            _MEASURED[measured], _MEASURED_AS[how], None if nothing else bottleneck(figures, around.memory_limit),
            record.metrics.decode() or None, leftovers, number, around.host, around.worker, around.pid,
            batch.id, run.run, run.workload, item_seed(run.seed, key),
        )  # fmt: skip

    def _figures(self, record: Record) -> Figures:
        figures, shared = record.figures, self._around.shared
        if figures[3] == _NOTHING:
            return figures
        if figures[3] == _BATCH:
            figures = Figures._make((*figures[:4], shared[4], shared[5], shared[6], shared[7], figures[8], shared[9]))
        tree = self._around.peaks.get(record[0])
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

