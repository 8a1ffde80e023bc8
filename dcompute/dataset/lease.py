"""Who is alive: the process that opened an epoch, or its heartbeat where only that can be seen."""

from __future__ import annotations

import functools
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dcompute.dataset.entries import Open
from dcompute.dataset.names import heartbeat_name
from dcompute.dataset.store import Store
from dcompute.errors import StoreError

BEAT_EVERY = 5.0  #: seconds between two heartbeats
SLACK = 0.5  #: seconds by which one may come early: who calls every 5 s must not miss every second one
LEASE = 15.0  #: seconds of an unchanged heartbeat, on the clock of who watches it, until its driver may be succeeded


class Clock(Protocol):
    """What tells the time; the module ``time`` is one."""

    def time(self) -> float:
        """Seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def sleep(self, seconds: float, /) -> None:
        """Return that much later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of one boot of one host."""

    host: str
    boot: str  #: id of the boot and, where there are some, of the process namespace: within it process ids mean the same
    pid: int
    started: float  #: on the clock of its system, to tell a process id used again

    @classmethod
    def own(cls) -> Process:
        """This process."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), boot=_boot(), pid=pid, started=_started(pid) or 0.0)

    @classmethod
    def of(cls, driver: Open) -> Process:
        """The process of a driver."""
        return cls(host=driver.host, boot=driver.boot, pid=driver.pid, started=driver.started)

    def is_alive(self) -> bool | None:
        """Whether it lives; None where that cannot be told from here."""
        own = Process.own()
        if not self.boot or (self.host, self.boot) != (own.host, own.boot):
            return None
        started = _started(self.pid)
        if started is None:
            # another user's process may be there and not be shown
            return None if _has_pid(self.pid) else False
        return started == self.started


class Heartbeat:
    """The heartbeat of one run, as its driver writes it; from any thread.

    Parameters
    ----------
    store
        Where the dataset is.
    run
        Run id.
    clock
        Tells when the next beat is due.
    confirm
        Called before each beat: raises where this is not the driver's dataset any more, and nothing is written.
    """

    def __init__(self, store: Store, run: str, clock: Clock, *, confirm: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._name = heartbeat_name(run)
        self._clock = clock
        self._confirm = confirm
        self._process = Process.own()
        self._lock = threading.Lock()
        self._beats = 0
        self._due = float("-inf")

    def beat(self, state: str, counts: dict[str, Any], *, now: bool = False, outcome: str = "") -> bool:
        """Write the heartbeat where it is due; a storage that fails is no error here.

        Parameters
        ----------
        state
            What the driver does: ``running``, ``closed``, ...
        counts
            What it has done so far; JSON.
        now
            Whether due or not.
        outcome
            How the run ended before its work was done: ``cancelled`` or ``failed``.
        """
        with self._lock:
            if not now and self._clock.monotonic() < self._due:
                return False
            self._due = self._clock.monotonic() + BEAT_EVERY - SLACK
            self._beats += 1
            who = {"host": self._process.host, "pid": self._process.pid}
            what = {**who, "state": state, "outcome": outcome, "beat": self._beats, "time": self._clock.time(), "counts": counts}
            try:
                self._confirm()
                self._store.write(self._name, json.dumps(what).encode())
            except StoreError:
                # a hint: the log says who may write
                return False
            return True


class Pulse:
    """A thread that beats, so that a driver which reads a long log or waits for storage is not taken for dead.

    Parameters
    ----------
    beat
        Called every so often, from the thread, which ends when it says False.
    every
        Seconds.
    """

    def __init__(self, beat: Callable[[], bool], every: float = BEAT_EVERY) -> None:
        self._beat = beat
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dcompute-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more, from when this returns."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every) and self._beat():
            pass


def read_heartbeat(store: Store, run: str) -> dict[str, Any] | None:
    """The last heartbeat of a run (host, pid, state, outcome, beat, time, counts), or None where there is none that can be read."""
    data = store.read_or_none(heartbeat_name(run))
    try:
        heartbeat = json.loads(data or b"null")
    except ValueError:
        return None
    return heartbeat if isinstance(heartbeat, dict) else None


class Watch:
    """Watches a heartbeat on the clock of who watches: no two clocks are ever compared."""

    def __init__(self, store: Store, run: str, clock: Clock) -> None:
        self._store = store
        self._name = heartbeat_name(run)
        self._clock = clock
        self._seen = store.read_or_none(self._name)
        self._since = clock.monotonic()

    def has_changed(self) -> bool:
        """Whether the heartbeat is another than when the watch began: its driver lives."""
        return self._store.read_or_none(self._name) != self._seen

    def seconds_left(self) -> float:
        """How long it must stay unchanged until its driver may be succeeded."""
        return max(0.0, LEASE - (self._clock.monotonic() - self._since))


@functools.cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        import psutil

        return f"{psutil.boot_time():.0f}"


def _started(pid: int) -> float | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _started_elsewhere(pid)
    except OSError:
        return None
    # the name may hold anything, a closing bracket too
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else float(fields[19])


def _started_elsewhere(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def _has_pid(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # ours, and not shown as alive: it has ended and its parent has not asked yet
    return False
