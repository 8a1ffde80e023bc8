"""Processes that items leave behind below this one."""

from __future__ import annotations

import contextlib
import os

from dcompute.worker import system


class Leftovers:
    """Counts and kills what items started and did not end; what set-up started stays."""

    def __init__(self) -> None:
        self._spared: set[int] = set()
        self._counted: set[int] = set()

    def spare_all(self) -> None:
        """What is there now belongs to the set-up."""
        self._spared = set(system.descendants(os.getpid())) if _has_children() else set()

    def count(self) -> int:
        """How many are alive now that were not counted before."""
        if not _has_children():
            return 0
        found = [pid for pid in system.descendants(os.getpid()) if pid not in self._spared and pid not in self._counted]
        alive = [pid for pid in found if system.is_alive(pid)]
        self._counted.update(alive)
        return len(alive)

    def kill(self) -> None:
        """End all of them, at the end of a batch."""
        self._counted.clear()
        if not _has_children():
            return
        before = set(system.descendants(os.getpid())) - self._spared
        if not before:
            return
        system.kill_below(os.getpid(), spare=self._spared)
        for pid in before:
            # those that were adopted have nobody else who waits for them
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _has_children() -> bool:
    """Whether there is any child, dead or alive; a microsecond."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except AttributeError:
        return True
    return True
