"""So many requests a second and no more, for work that has many of them to make and no hurry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Requests a second that looking after a dataset on an object store makes.
UPKEEP = 45.0


class Pace:
    """Requests at even distances, whatever threads make them.

    Parameters
    ----------
    per_second
        So many.
    now
        Seconds on a clock that never goes back.
    """

    def __init__(self, per_second: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._distance = 1 / per_second
        self._now = now
        self._next = 0.0
        self._lock = threading.Lock()

    def pause(self, requests: int = 1) -> float:
        """Seconds to wait before some requests are made; that they will be is noted."""
        with self._lock:
            now = self._now()
            at = max(now, self._next)
            self._next = at + requests * self._distance
        return at - now
