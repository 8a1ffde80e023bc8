"""The supervisor: one a worker process, called by all its threads. It executes batches in children and never decodes what they made."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import threading
from collections.abc import Callable

from dcompute.errors import ClusterError
from dcompute.worker import borrowing, scratch
from dcompute.worker.children import Child, GuardianHandle, Idle
from dcompute.worker.execution import Executor
from dcompute.worker.holdings import Loan
from dcompute.worker.limits import usable_memory
from dcompute.worker.work import Execution, SetupFailure, Tick, Work

__all__ = ["Execution", "SetupFailure", "Supervisor", "Tick", "Work", "release", "supervisor"]

#: Seconds that a child without work is kept, where nobody says otherwise.
IDLE = 60.0
#: A child that holds this share of what its set-up left of its limit is not used again; these bytes where it has no limit.
GROWTH_SHARE, GROWTH = 0.5, 1 << 30
#: Share of the memory of all slots that children without work may hold when a child of another run is needed.
IDLE_SHARE = 0.1


class Supervisor:
    """Executes batches in supervised children.

    Parameters
    ----------
    idle
        Seconds that a child without work is kept warm.
    """

    def __init__(self, idle: float = IDLE) -> None:
        self.idle = idle
        self._children = Idle(most_memory=int(IDLE_SHARE * usable_memory()))
        self._guardian: GuardianHandle | None = None
        self._lock = threading.Lock()
        self._folders: set[str] = set()
        self._closed = threading.Event()
        self._reaper: threading.Thread | None = None

    def execute(self, work: Work, *, stopped: Callable[[], str | None], ticked: Callable[[Tick], None]) -> Execution:
        """Execute a batch; blocks until it is done, stopped or cannot be started.

        Parameters
        ----------
        work
            What to execute.
        stopped
            Asked every 20 ms: ``cancelled`` and ``closing`` end the batch, with what is finished by then.
        ticked
            Told how far the batch is, four times a second at most.

        Raises
        ------
        ClusterError
            No process can be started.
        """
        self._keep(work.scratch)
        with contextlib.ExitStack() as guardians:
            try:
                executor = Executor(
                    work,
                    take=lambda fresh, apart, need: self._take(work, fresh, guardians if apart else None, stopped if need else None),
                    give=lambda child: self._give(child, work.memory_limit),
                    stopped=stopped,
                    ticked=ticked,
                )
            except OSError as error:
                return Execution(setup_error=scratch.full(work.scratch, error), folder=str(work.folder), cut_short="full", untouched=True)
            return executor.run()

    def release(self, run: str) -> None:
        """End the idle children of a run that has ended; returns at once."""
        self._children.end(run)

    def close(self) -> None:
        """End all children and the guardian; nothing is left."""
        self._closed.set()
        with self._lock:
            guardian, self._guardian = self._guardian, None
        self._children.retire()
        if guardian is not None:
            guardian.close()
        for folder in self._folders:  # of which one that had to be killed has left something
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def guardian_pid(self) -> int | None:
        """Process id of the guardian; None before the first batch."""
        return self._guardian.pid if self._guardian else None

    def _guard(self) -> GuardianHandle:
        """The guardian; a new one where there is none or it died."""
        with self._lock:
            if self._closed.is_set():
                raise ClusterError("this worker is closing: it starts no more processes")
            if self._guardian is None or not self._guardian.is_alive:
                self._guardian = GuardianHandle()
                for folder in self._folders:
                    self._guardian.keep(folder)
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="dcompute-idle", daemon=True)
                self._reaper.start()
            return self._guardian

    def _keep(self, folder: str) -> None:
        with self._lock:
            known = folder in self._folders
            self._folders.add(folder)
            if not known and self._guardian is not None:
                self._guardian.keep(folder)

    def _take(self, work: Work, fresh: bool, guardians: contextlib.ExitStack | None, stopped: Callable[[], str | None] | None) -> Child:
        """A child; where nobody would be told to stop waiting it is one that calls nothing, and needs no device."""
        child = None if fresh else self._children.take(work.identity)
        if fresh:
            # one slot, one child: an idle one of the same run would be one too many
            spare = self._children.take(work.identity)
            if spare is not None:
                spare.retire()
        if child is None:
            found = Loan() if stopped is None else borrowing.devices(work, self._children, stopped=stopped, fresh=fresh)
            child = found if isinstance(found, Child) else self._start(work, guardians, found)
        borrowing.bind(child, work)
        return child

    def _start(self, work: Work, guardians: contextlib.ExitStack | None, loan: Loan) -> Child:
        try:
            owner = self._guard() if guardians is None else self._guard_apart(guardians)
        except BaseException:
            loan.give_back()
            raise
        return Child(owner, work.identity, environment=borrowing.environment(work), loan=loan)

    def _guard_apart(self, guardians: contextlib.ExitStack) -> GuardianHandle:
        """A guardian for one child, which ends with the batch; folders are kept by that of all."""
        self._guard()
        guardian = GuardianHandle()
        guardians.callback(guardian.close)
        return guardian

    def _give(self, child: Child, limit: int | None) -> None:
        child.cores.give_back()
        held = child.memory()
        growth = held - child.setup_memory
        allowed = GROWTH_SHARE * (limit - child.setup_memory) if limit else GROWTH
        if not child.is_ready or growth > allowed or child.owner is not self._guardian or self._closed.is_set():
            child.retire()
        else:
            self._children.put(child, held)

    def _reap(self) -> None:
        while not self._closed.wait(min(1.0, max(0.05, self.idle / 4))):
            self._children.retire(older_than=self.idle)


_known: Supervisor | None = None
_known_pid = 0
_known_lock = threading.Lock()


def supervisor() -> Supervisor:
    """The supervisor of this process, made when it is first asked for."""
    global _known, _known_pid
    with _known_lock:
        if _known is None or _known_pid != os.getpid() or _known._closed.is_set():
            _known, _known_pid = Supervisor(), os.getpid()
            atexit.register(_known.close)
        return _known


def release(run: str) -> None:
    """End the idle children that this process has of a run that has ended."""
    with _known_lock:
        known = _known if _known_pid == os.getpid() else None
    if known is not None:
        known.release(run)
