"""Runs at one scheduler know of each other: each says once a second where it stands, and reads what the others say.

It goes through the scheduler's metadata, so that a scheduler without dcompute does. The annotation ``dcompute`` on a run's tasks names the
run, its weight and its priority to whoever reads the scheduler's tasks; drivers do not, since that takes code on the scheduler, and since a
run that waits for its first slot has no task.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dcompute.demand import RUNS

if TYPE_CHECKING:
    from dcompute.connection import Connection

log = logging.getLogger("dcompute.driver")

#: Seconds between two exchanges.
EVERY_SECONDS = 1.0
#: A run whose counter stands still for so long (seconds, on the clock of who watches it) is gone.
GONE_SECONDS = 5.0
#: Names of runs that are over are taken away when there are more than this.
MOST_NAMES = 100

Words = Mapping[str, Any]


class Sightings:
    """Who else is there: runs whose counter moves. No two clocks are compared."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, float]] = {}

    def look(self, table: Mapping[str, Any], now: float) -> dict[str, Words]:
        """The runs of a table that are there; one that is seen for the first time is.

        Parameters
        ----------
        table
            What each run says, with its ``number``.
        now
            Seconds on a clock that never goes back.
        """
        said = {str(run): words for run, words in table.items() if isinstance(words, Mapping) and "number" in words}
        for run, words in said.items():
            number, _ = self._seen.get(run, (None, now))
            if words["number"] != number:
                self._seen[run] = (words["number"], now)
        self._seen = {run: seen for run, seen in self._seen.items() if run in said}
        return {run: words for run, words in said.items() if now - self._seen[run][1] < GONE_SECONDS}


class Presence:
    """One run among those at its scheduler; a thread makes the exchange.

    Parameters
    ----------
    connection
        To the scheduler.
    run
        Its id.
    told
        Called on the thread after each exchange by which others are there, or were until then.
    also
        Called on the thread after each exchange, with what the others say.
    """

    def __init__(
        self, connection: Connection, run: str, *, told: Callable[[], None], also: Callable[[Mapping[str, Words]], None] | None = None
    ) -> None:
        self._connection = connection
        self._run = run
        self._told = told
        self._also = also
        self._words: Words = {}
        self._number = 0
        self._sightings = Sightings()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=f"dcompute-presence-{run}", daemon=True)
        self.others: Mapping[str, Words] = {}  #: what they said last; replaced whole

    def say(self, words: Words) -> None:
        """What the others read from the next exchange on."""
        self._words = words

    def meet(self) -> None:
        """Show this run and see the others once."""
        self._exchange()

    def start(self) -> None:
        """Do so once a second from now on."""
        self._thread.start()

    def leave(self) -> None:
        """Say that this run is over."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(2 * EVERY_SECONDS)
        with contextlib.suppress(Exception):  # a scheduler that is gone knows of nobody
            self._connection.note([RUNS, self._run], None)
            table = dict(self._connection.noted(RUNS) or {})
            if sum(words is None for words in table.values()) > MOST_NAMES:
                # whoever says something at this moment says it again in a second
                self._connection.note([RUNS], {run: words for run, words in table.items() if words is not None})

    def _go_on(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            before = self.others
            try:
                self._exchange()
            except Exception as error:  # noqa: BLE001  the driver hears itself that its scheduler is gone
                log.debug("no exchange with other runs: %s", error)
                continue
            if before or self.others:
                self._told()

    def _exchange(self) -> None:
        self._number += 1
        self._connection.note([RUNS, self._run], {**self._words, "run": self._run, "number": self._number})
        # of an in-process scheduler this is the table itself, in which others write meanwhile
        table = dict(self._connection.noted(RUNS) or {})
        table.pop(self._run, None)
        self.others = self._sightings.look(table, time.monotonic())
        if self._also is not None:
            self._also(self.others)
