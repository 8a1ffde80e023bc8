"""What one attempt took: duration, CPU, peak memory, bytes, I/O wait, and what held it up.

Duration and CPU are measured for every item (about a microsecond). Peak memory, bytes and I/O wait cost ten times that, so items of
20 ms and more have their own and shorter ones share those of the batch; the column ``measured`` says which.

==================  =======================================================================================================
figure              source on Linux
==================  =======================================================================================================
duration            ``time.perf_counter``
cpu user, system    ``getrusage`` of the process; of children that ended too, for calls of a millisecond and more
peak memory         largest resident size of the process (``ru_maxrss``), started anew by ``/proc/self/clear_refs``
bytes               ``rchar`` and ``wchar`` of ``/proc/self/io``: through system calls, from disk or page cache
I/O wait            ``delayacct_blkio_ticks``, where the kernel counts it (``sysctl kernel.task_delayacct=1``)
==================  =======================================================================================================
"""

from __future__ import annotations

import resource
import sys
from time import perf_counter
from typing import Any

from dcompute.worker.journal import Figures, Measured, MemoryMeasured
from dcompute.worker.system import OwnFigures

#: Seconds from which on an item has figures of its own.
LONG = 0.020
_CHILDREN_FROM = 0.001
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024

# The rule of :func:`bottleneck`.
CPU_SHARE, WAIT_SHARE, BYTES_A_SECOND, MEMORY_SHARE = 0.7, 0.3, 100e6, 0.8

_SELF, _CHILDREN = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
_getrusage = resource.getrusage


def bottleneck(figures: Figures, memory_limit: int | None = None) -> str:
    """What held an attempt up.

    ``cpu``: it computed for at least 70 % of its duration (one core). Else ``io``: it waited for block devices for at least 30 %, or
    moved 100 MB a second or more. Else ``memory``: its peak reached 80 % of its limit. Else ``mixed``: it waited for the network, a lock,
    a sleep, or nothing dominates.
    """
    if figures.duration <= 0:
        return "mixed"
    moved = (figures.bytes_read or 0) + (figures.bytes_written or 0)
    return _rule(
        figures.duration, figures.cpu_user + figures.cpu_system, figures.io_wait or 0.0, moved, figures.peak_memory or 0, memory_limit or 0
    )


def _rule(duration: float, cpu: float, wait: float, moved: int, peak: int, limit: int) -> str:
    if cpu >= CPU_SHARE * duration:
        return "cpu"
    if wait >= WAIT_SHARE * duration or moved >= BYTES_A_SECOND * duration:
        return "io"
    return "memory" if limit and peak >= MEMORY_SHARE * limit else "mixed"


def bottlenecks(durations: Any, cpu: Any, shared: Figures, memory_limit: int | None = None) -> Any:
    """:func:`bottleneck` of many attempts that share all other figures.

    Parameters
    ----------
    durations, cpu
        NumPy arrays: seconds, of which the latter are user and system together.
    shared
        Bytes, wait and peak memory of each.
    memory_limit
        Bytes.

    Returns
    -------
    pyarrow.Array
        Text.
    """
    import numpy as np
    import pyarrow as pa

    moved = (shared.bytes_read or 0) + (shared.bytes_written or 0)
    is_io = ((shared.io_wait or 0.0) >= WAIT_SHARE * durations) | (moved >= BYTES_A_SECOND * durations)
    is_memory = bool(memory_limit) and (shared.peak_memory or 0) >= MEMORY_SHARE * (memory_limit or 0)
    cause = np.where(cpu >= CPU_SHARE * durations, 0, np.where(is_io, 1, 2 if is_memory else 3))
    cause[durations <= 0] = 3
    return pa.DictionaryArray.from_arrays(pa.array(cause, pa.int8()), ["cpu", "io", "memory", "mixed"]).dictionary_decode()


class Meter:
    """Measures calls one after another in this process.

    Parameters
    ----------
    level
        ``full``, ``basic`` (duration and CPU) or ``off`` (duration, which the size of batches follows).
    """

    def __init__(self, level: str = "full") -> None:
        self._level = level
        self._own = OwnFigures() if level == "full" else None
        self._start = 0.0
        self._looked = 0.0  # when the dear counters were last read
        self._is_fresh = False
        self._io: tuple[int, int] | None = None
        self._wait: float | None = None
        self.reset()

    def reset(self) -> None:
        """A batch begins."""
        self.ended = perf_counter()
        self._before = _getrusage(_SELF)
        self._children = _getrusage(_CHILDREN)
        self._peak = 0
        self._short = 0
        self._shared = [0, 0, 0.0]
        self._look(self.ended)

    def begin(self) -> float:
        """A call begins.

        Returns
        -------
        float
            ``time.perf_counter()``.
        """
        now = perf_counter()
        self._is_fresh = False
        if self._own is not None and now - self._looked >= LONG:
            self._share()
            self._look(now)
            now = perf_counter()
        self._start = now
        return now

    def end(self, leftovers: int = 0) -> Figures:
        """The call that began last has ended."""
        now = perf_counter()
        duration = now - self._start
        if self._level == "off":
            return Figures(duration, 0.0, 0.0, Measured.NOTHING)
        usage = _getrusage(_SELF)
        before = self._before
        # between two calls this process computes and does not wait: what passed is CPU of ours, not the item's
        user = usage.ru_utime - before.ru_utime - (self._start - self.ended)
        system = usage.ru_stime - before.ru_stime
        raised = usage.ru_maxrss > before.ru_maxrss
        self._before, self.ended = usage, now
        if duration < _CHILDREN_FROM:
            self._short += 1
            return Figures(duration, user if user > 0.0 else 0.0, system)
        children = _getrusage(_CHILDREN)
        user += children.ru_utime - self._children.ru_utime
        system += children.ru_stime - self._children.ru_stime
        self._children = children
        user = max(0.0, user)
        if duration < LONG or self._own is None:
            self._short += 1
            return Figures(duration, user, system, leftovers=leftovers)
        return self._long(duration, user, system, usage.ru_maxrss, raised, leftovers)

    def _long(self, duration: float, user: float, system: float, peak: int, raised: bool, leftovers: int) -> Figures:
        own = raised or self._is_fresh
        read, written, wait = self._since_look()
        self._peak = max(self._peak, peak * _MAXRSS_UNIT)
        self._looked = 0.0
        return Figures(
            duration, user, system, Measured.ITEM, peak * _MAXRSS_UNIT, read, written, wait, leftovers,
            MemoryMeasured.RESIDENT if own else MemoryMeasured.BATCH,
        )  # fmt: skip

    def _look(self, now: float) -> None:
        self._looked, self._is_fresh = now, True
        if self._own is None:
            return
        self._peak = max(self._peak, self._before.ru_maxrss * _MAXRSS_UNIT)
        if self._own.reset_peak():
            self._before = _getrusage(_SELF)
            self.ended = perf_counter()
        self._io = self._own.io_bytes()
        self._wait = self._own.io_wait()

    def _since_look(self) -> tuple[int | None, int | None, float | None]:
        assert self._own is not None
        io, wait = self._own.io_bytes(), self._own.io_wait()
        before, waited = self._io, self._wait
        self._io, self._wait = io, wait
        known = io is not None and before is not None
        return (
            max(0, io[0] - before[0]) if known else None,  # type: ignore[index]
            max(0, io[1] - before[1]) if known else None,  # type: ignore[index]
            max(0.0, wait - waited) if wait is not None and waited is not None else None,
        )

    def _share(self) -> None:
        """What passed since the last look was done by short items."""
        for place, value in enumerate(self._since_look()):
            self._shared[place] += value or 0

    def batch(self) -> Figures:
        """The figures of the batch's short items: the peak is the batch's, bytes and I/O wait are shared evenly among them."""
        if self._own is None or not self._short:
            return Figures()
        self._share()
        peak = max(self._peak, _getrusage(_SELF).ru_maxrss * _MAXRSS_UNIT)
        known = self._io is not None
        return Figures(
            measured=Measured.BATCH,
            peak_memory=peak,
            bytes_read=int(self._shared[0] / self._short) if known else None,
            bytes_written=int(self._shared[1] / self._short) if known else None,
            io_wait=self._shared[2] / self._short if self._wait is not None else None,
            memory_measured=MemoryMeasured.BATCH,
        )


def share(figures: Figures, count: int) -> Figures:
    """The figures of one of the items that a call had together: an even share; the peak is that of all."""
    return figures._replace(
        duration=figures.duration / count,
        cpu_user=figures.cpu_user / count,
        cpu_system=figures.cpu_system / count,
        measured=Measured.NOTHING if figures.measured == Measured.NOTHING else Measured.GROUP,
        bytes_read=None if figures.bytes_read is None else figures.bytes_read // count,
        bytes_written=None if figures.bytes_written is None else figures.bytes_written // count,
        io_wait=None if figures.io_wait is None else figures.io_wait / count,
        leftovers=0,
    )
