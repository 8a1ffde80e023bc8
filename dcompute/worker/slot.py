"""The slot in which a task executes: what its Dask worker knows and is told."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dcompute.config import settings
from dcompute.records import BatchSpec, is_whole
from dcompute.worker.limits import slot_limit

#: States of a Dask worker that is about to be gone, and of a task that nobody wants any more.
_ENDING = frozenset({"closing", "closing_gracefully", "closed", "failed", "stopping", "stopped"})
_UNWANTED = frozenset({"cancelled", "released", "forgotten"})


#: The topic of what items print: one for all runs, as a scheduler keeps the last thousand events of each topic.
PRINTED = "dcompute-printed"


class Slot:
    """The worker and the task of this thread; outside a task a slot without a worker, which is never stopped and tells nobody.

    Parameters
    ----------
    worker
        The Dask worker, or None.
    key
        Of the task, or None.
    """

    def __init__(self, worker: Any = None, key: Any = None) -> None:
        self.worker = worker
        self._key = key

    @classmethod
    def here(cls) -> Slot:
        """That of this thread."""
        from distributed import get_worker

        try:
            worker = get_worker()
            return cls(worker, worker.get_current_task())
        except (ValueError, KeyError):
            return cls()

    @property
    def address(self) -> str:
        """The address of the worker, "" outside a task."""
        return str(self.worker.address) if self.worker is not None else ""

    @property
    def host(self) -> str:
        """The name of this machine."""
        return socket.gethostname()

    @property
    def scratch(self) -> str:
        """The folder of this worker process, made where it is not there."""
        base = settings().worker.scratch or (self.worker.local_directory if self.worker is not None else tempfile.gettempdir())
        folder = Path(base) / f"dcompute-{os.getpid()}"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def memory_limit(self, batch: BatchSpec) -> int:
        """Bytes that a child may take for a batch: what it asks for, else the slot's share of its worker's."""
        if self.worker is None:
            return slot_limit(batch.memory, None, 1.0)
        share = max(1.0, batch.cpus) / max(1, self.worker.state.nthreads)
        declared = int(self.worker.state.total_resources.get("MEMORY", 0))
        return slot_limit(batch.memory, declared or self.worker.memory_manager.memory_limit, share)

    def may_have(self, gpus: float) -> bool:
        """Whether the worker declares so many devices."""
        return self.worker is None or float(self.worker.state.total_resources.get("GPU", 0)) >= gpus

    def stopped(self) -> str | None:
        """``closing`` where the worker is about to be gone, ``cancelled`` where nobody wants the task any more, else None."""
        if self.worker is None:
            return None
        if self.worker.status.value in _ENDING:
            return "closing"
        task = self.worker.state.tasks.get(self._key)
        return "cancelled" if task is None or task.state in _UNWANTED else None

    def show(self, message: dict[str, Any]) -> None:
        """Send what an item printed to whoever listens."""
        if self.worker is not None:
            with contextlib.suppress(Exception):
                self.worker.log_event(PRINTED, sendable(message))

    def tell(self, run: str, message: dict[str, Any]) -> None:
        """Send an event to whoever follows a run; one that cannot be sent is lost, as storage holds the truth."""
        if self.worker is not None:
            with contextlib.suppress(Exception):
                self.worker.log_event(f"dcompute-{run}", sendable({**message, "task": self._key}))


def sendable(value: Any) -> Any:
    """A message with its texts as they can be sent: half characters are escaped.

    Dask makes bytes of an event only when it sends it, and a worker whose message cannot be made bytes of ends.
    """
    if isinstance(value, str):
        return value if is_whole(value) else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {sendable(name): sendable(one) for name, one in value.items()}
    return [sendable(one) for one in value] if isinstance(value, list | tuple) else value
