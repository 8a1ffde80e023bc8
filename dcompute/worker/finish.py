"""From the journal to Parquet: rows of what succeeded, one attempt row for each outcome, and the receipt."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcompute.garbage import uncollected
from dcompute.records import BatchSpec, Receipt, RunSpec
from dcompute.worker.journal import Figures, Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rows of a batch say beside what the journal knows."""

    worker: str = ""
    memory_limit: int | None = None
    pid: int = 0
    host: str = field(default_factory=socket.gethostname)
    stdout: Mapping[int, str] = field(default_factory=dict)
    stderr: Mapping[int, str] = field(default_factory=dict)
    long: Sequence[Mapping[int, tuple[str, int]]] = ({}, {})  #: of stdout and stderr, texts that are too long for rows, and bytes printed
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
            The receipt, and the files as local path and dataset name, the attempts part last; None where no item has an outcome.
        """
        # Arrow costs a fifth of a second, and a child that never finishes a batch does not pay it
        from dcompute.worker.harvest import Harvest
        from dcompute.worker.tables import Parts, ranges

        parts = Parts(self._folder, self._run, self._batch, execution)
        with uncollected():
            found = Harvest(journal, self._batch, parts)
            if not found.items:
                return None
            attempts = found.attempts(self._run, self._around)
            if any(self._around.long):
                parts.add_logs(self._around.long, found.items)
            receipt = parts.finish(attempts, failures=found.failures.values(), holds=ranges(found.items), **times)
        return receipt, parts.files
