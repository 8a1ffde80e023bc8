"""What items at work print, for whoever follows a run with nothing but its dataset: the driver's process passes it on while somebody asks.

Workers tell the last of what is printed once a second, as events of a topic that all runs share. Nobody listens until a file beside the
heartbeat asks to; then the newest pieces lie in another one, replaced once a second. All of it is a hint: pieces may be lost.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from typing import Any, Protocol

from dcompute.config import settings
from dcompute.dataset.names import follow_name, tail_name
from dcompute.dataset.store import Store
from dcompute.errors import StoreError
from dcompute.worker.slot import PRINTED

#: Pieces that are passed on at a time, and seconds between two times.
MOST, EVERY = 100, 1.0


class Listening(Protocol):
    """What hands out events of a topic."""

    def listen(self, topic: str, handler: Any) -> None: ...  # noqa: D102


class Relay:
    """Passes on what items of a run print, where somebody asks; a context manager.

    Parameters
    ----------
    connection
        Hands out the workers' events.
    store, run
        Of the dataset, and the run.
    """

    def __init__(self, connection: Listening, store: Store, run: str) -> None:
        self._connection = connection
        self._store = store
        self._run = run
        self._pieces: deque[dict[str, Any]] = deque(maxlen=MOST)
        self._count = self._told = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="dcompute-relay", daemon=True)
        self._follows = False

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._follows:
            self._pass_on()

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event of a worker."""
        if event.get("run") != self._run:
            return
        with self._lock:
            self._count += 1
            self._pieces.append({"number": self._count, **{name: event.get(name) for name in ("key", "host", "stdout", "stderr")}})

    def _serve(self) -> None:
        near = self._store.is_local or self._store.is_memory
        every = EVERY if near else settings().driver.heartbeat
        while not self._over.wait(every):
            if self._is_asked():
                self._follows = True
                self._connection.listen(PRINTED, self.hear)
                break
        while not self._over.wait(EVERY):
            self._pass_on()

    def _is_asked(self) -> bool:
        with contextlib.suppress(StoreError):
            return self._store.read_or_none(follow_name(self._run)) is not None
        return False

    def _pass_on(self) -> None:
        with self._lock:
            if self._count == self._told:
                return
            self._told = self._count
            data = json.dumps(list(self._pieces)).encode("utf-8", "backslashreplace")
        with contextlib.suppress(StoreError):
            self._store.write(tail_name(self._run), data)
