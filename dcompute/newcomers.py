"""Workers that come while a run goes on: each is probed as the first ones were, by a thread of its own, and holds nothing up."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from dcompute.answer import Answers, answer_of, check_answer
from dcompute.errors import ClusterError, DcomputeError
from dcompute.graph import probe_task

if TYPE_CHECKING:
    from dcompute.assignment import Assignment
    from dcompute.connection import Connection
    from dcompute.dataset.store import Store

#: How often (seconds) the thread of a newcomer looks whether it is still waited for: Dask wakes it when there is an answer.
LOOK_SECONDS = 1.0


class Newcomers:
    """Probes of workers that came in mid-run; called on the driver's thread.

    Parameters
    ----------
    connection, assignment, store
        Of the run.
    answers
        What workers answered to probes.
    told
        Called on a thread of a newcomer, when there is a verdict.
    """

    def __init__(self, connection: Connection, assignment: Assignment, store: Store, *, answers: Answers, told: Callable[[], None]) -> None:
        self._answers = answers
        self._connection = connection
        self._assignment = assignment
        self._store = store
        self._told = told
        self._numbers = itertools.count()
        self._waiting: set[str] = set()
        self._verdicts: queue.SimpleQueue[tuple[str, DcomputeError | None]] = queue.SimpleQueue()

    @property
    def waiting(self) -> Collection[str]:
        """Who has not answered yet."""
        return self._waiting

    def ask(self, address: str) -> None:
        """Begin to probe a worker."""
        self._waiting.add(address)
        threading.Thread(target=self._ask, args=(address, next(self._numbers)), name=f"dcompute-probe-{address}", daemon=True).start()

    def forget(self, present: Collection[str] = ()) -> None:
        """Wait no longer for the answers of workers that are not among these."""
        self._waiting.intersection_update(present)

    def verdicts(self) -> dict[str, DcomputeError | None]:
        """Who has answered since the last time: why it cannot take part, or None where it can."""
        found: dict[str, DcomputeError | None] = {}
        while not self._verdicts.empty():
            address, refusal = self._verdicts.get()
            if address in self._waiting:
                self._waiting.remove(address)
                found[address] = refusal
        return found

    def _ask(self, address: str, number: int) -> None:
        try:
            if not self._answer(address, number):
                return
            refusal = None
        except DcomputeError as error:
            refusal = error
        except Exception as error:  # noqa: BLE001  such as a scheduler that is gone, of which the driver hears too
            refusal = ClusterError(f"worker {address} could not be checked ({type(error).__name__}: {error})")
        self._verdicts.put((address, refusal))
        self._told()

    def _answer(self, address: str, number: int) -> bool:
        """Whether a worker has answered, and well; False: it is not waited for any more."""
        token = self._assignment.spec.run
        future = self._connection.compute(probe_task(self._assignment.packed, token, worker=address, key=f"probe-{token}-late-{number}"))
        try:
            answer = self._awaited(address, future)
        finally:
            future.release()
        if answer is None:
            return False
        check_answer(address, answer, self._store)
        return True

    def _awaited(self, address: str, future: Any) -> dict[str, Any] | None:
        ended = threading.Event()
        future.add_done_callback(lambda _: ended.set())
        while not ended.wait(LOOK_SECONDS):
            if address not in self._waiting:
                return None
        return answer_of(future, self._answers)
