"""Classes that wait for a worker which is not there: said while they wait, and for how long they may."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dcompute.errors import ResourceError
from dcompute.progress import duration
from dcompute.records import Request


class Gaps:
    """What no present worker can do, since when, and when that is an error.

    Parameters
    ----------
    patience
        Seconds for which a class waits for a worker; None: none at the start of a run, and without end once it is at work, since workers
        that left may come again.
    again
        How a person goes on.
    """

    def __init__(self, patience: float | None, again: str) -> None:
        self._patience = patience
        self._again = again
        self._since: dict[Request, float] = {}

    def note(self, demand: Mapping[Request, int], gap: Callable[[Request], str], now: float) -> str:
        """What is to be said of classes of which something waits; "" where workers for all of them are there.

        Parameters
        ----------
        demand
            Batches that each class could have in flight.
        gap
            Why no worker that is there can execute a class; "" where one can.
        now
            Seconds on a clock that never goes back.

        Raises
        ------
        ResourceError
            A class has waited for longer than it may.
        """
        gaps = {request: why for request, batches in demand.items() if batches and (why := gap(request))}
        self._since = {request: self._since.get(request, now) for request in gaps}
        for request, why in gaps.items():
            left = self._left(request, now)
            if left is not None and left <= 0:
                raise ResourceError(f"{why}. This run waited {duration(self._patience or 0)} for such a worker; {self._again}")
        return self._text(gaps, now)

    def must_wait(self, request: Request, why: str, now: float) -> str:
        """What is said at the start of a run, while it waits for a worker.

        Raises
        ------
        ResourceError
            It waits no longer, or not at all.
        """
        if not why:
            return ""
        if self._patience is None:
            raise ResourceError(why)
        return self.note({request: 1}, lambda _: why, now)

    def _left(self, request: Request, now: float) -> float | None:
        return None if self._patience is None else self._since[request] + self._patience - now

    def _text(self, gaps: Mapping[Request, str], now: float) -> str:
        return "; ".join(f"waiting for a worker: {why}{self._within(request, now)}" for request, why in gaps.items())

    def _within(self, request: Request, now: float) -> str:
        left = self._left(request, now)
        return "" if left is None else f" ({duration(left)} left)"
