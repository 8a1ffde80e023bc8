"""Who is to blame when a child died: a pure function of what is known."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from typing import Any

from dcompute.records import Kind
from dcompute.worker.journal import Figures, Header, Measured, MemoryMeasured

#: A child killed by nobody we know at this share of its limit died of memory.
NEAR_LIMIT = 0.8
#: An item at work in so many deaths of guardians that had no other child is to blame for them.
MOST_DEATHS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """What is known of a child that died."""

    header: Header  #: of its journal, read after its death
    killed_for: str | None = None  #: ``timeout``, ``memory``, ``stop``, ``lost``, ``damage``, ``full``, ``forbidden``: the worker killed it
    exit_code: int | None = None
    signal: int | None = None
    guardian_died: bool = False
    guardian_deaths: int = 0  #: with the same item at work and nothing else below it, this one included
    oom_killed: bool = False  #: the kernel's counter rose meanwhile
    peak_memory: int = 0  #: bytes, of its tree, as looked at
    memory_limit: int | None = None
    timeout: float | None = None
    at: float = 0.0  #: ``time.monotonic()`` of its death
    idempotent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the successor is told. Nobody is convicted where there is no failure."""

    index: int  #: of the (first) item at work
    last: int  #: of the last one, in a group
    failure: dict[str, Any] | None = None
    figures: Figures | None = None

    def to_json(self) -> dict[str, Any]:
        """For the message to the successor; a number that is not known is None there."""
        figures = None if self.figures is None else [None if _is_nan(value) else value for value in self.figures]
        return {"index": self.index, "last": self.last, "failure": self.failure, "figures": figures}


def judge(death: Death) -> Verdict | None:
    """The verdict; None where no item was at work, or the item may be executed again and no child is to blame (stopped, a full disk).

    A group is never convicted, nor one item for the memory or the crash of a child that made other calls before, as what these left behind
    (memory, threads, timers) may be the cause: executed again, one by one.
    """
    header = death.header
    if not header.at_work or (death.killed_for in ("stop", "full") and death.idempotent):
        return None
    kind = _kind(death)
    # the journal is damaged by who is at work: while it is watched, each is seen at work before it begins
    by_another = header.calls > 0 and kind in (Kind.MEMORY, Kind.CRASH) and death.killed_for != "damage"
    innocent = kind is Kind.INFRASTRUCTURE or by_another
    if header.last > header.index or (innocent and death.idempotent):
        return Verdict(index=header.index, last=header.last)
    duration = max(0.0, death.at - header.started)
    figures = Figures(
        duration=duration,
        cpu_user=math.nan,
        cpu_system=math.nan,
        measured=Measured.ITEM,
        peak_memory=death.peak_memory or None,
        memory_measured=MemoryMeasured.TREE if death.peak_memory else MemoryMeasured.UNKNOWN,
    )
    return Verdict(index=header.index, last=header.last, failure=_failure(death, kind, duration), figures=figures)


def _kind(death: Death) -> Kind:
    if death.killed_for == "timeout":
        return Kind.TIMEOUT
    if death.killed_for == "memory":
        return Kind.MEMORY
    if death.killed_for in ("stop", "full"):
        return Kind.INFRASTRUCTURE
    if death.guardian_died:
        return Kind.CRASH if death.guardian_deaths >= MOST_DEATHS else Kind.INFRASTRUCTURE
    near = death.memory_limit is not None and death.peak_memory >= NEAR_LIMIT * death.memory_limit
    if death.signal == signal.SIGKILL and death.killed_for is None and (death.oom_killed or near):
        return Kind.MEMORY
    return Kind.CRASH


def unnoted() -> dict[str, Any]:
    """The failure of an item that may be executed once only, where its outcome finds no room."""
    return _fields(Kind.INFRASTRUCTURE, _KILLED["full"])


def _failure(death: Death, kind: Kind, duration: float) -> dict[str, Any]:
    own = kind is Kind.CRASH
    return _fields(kind, _words(death, kind, duration), death.exit_code if own else None, death.signal if own else None)


def _fields(kind: Kind, words: tuple[str, str], exit_code: int | None = None, number: int | None = None) -> dict[str, Any]:
    error, message = words
    return {
        "kind": kind.value,
        "error": error,
        "bases": [],
        "message": message,
        "exit_code": exit_code,
        "signal": number,
        "traceback": "",
    }


_KILLED = {
    "stop": ("stopped", "its process was ended because its run or its worker ended; it may be executed once only"),
    "full": ("scratch full", "its outcome could not be noted: its worker's scratch folder is full; it may be executed once only"),
    "forbidden": ("file limit", "its process may not write what its outcome takes, though the disk has room (RLIMIT_FSIZE)"),
    "lost": ("connection lost", "it closed the connection of its process to the worker, or wrote to it (by exec, by closing all files)"),
    "damage": ("journal damaged", "it truncated or wrote over the file in which its process notes the outcomes"),
}


def _words(death: Death, kind: Kind, duration: float) -> tuple[str, str]:
    if kind is Kind.TIMEOUT:
        return "timeout", f"killed after {duration:.3g} s: its timeout is {death.timeout:g} s"
    if kind is Kind.MEMORY:
        held = f"at {_mib(death.peak_memory)}" if death.peak_memory else "by the kernel"
        limit = f": its limit is {_mib(death.memory_limit)}, for its process and all below it" if death.memory_limit else ""
        return "memory", f"killed {held}{limit}"
    if death.killed_for in _KILLED:
        return _KILLED[death.killed_for]
    if kind is Kind.INFRASTRUCTURE:
        return "guardian died", "its process was killed because the process above it was"
    if death.guardian_died:
        return "guardian died", f"the process above its own was killed {death.guardian_deaths} times while nothing else was below that"
    if death.signal is not None:
        name = signal_name(death.signal)
        return name, f"its process was ended by signal {death.signal} ({name})"
    return f"exit code {death.exit_code}", f"its process exited with code {death.exit_code}"


def signal_name(number: int) -> str:
    """``SIGTERM`` of 15."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _mib(size: int | None) -> str:
    return f"{(size or 0) / (1 << 20):.0f} MiB"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
