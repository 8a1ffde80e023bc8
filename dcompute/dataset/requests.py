"""Requests to the driver of a run: numbered files, each created exclusively; the driver's watch asks for the next one."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

from dcompute.dataset.names import new_id, request_name
from dcompute.dataset.store import Store
from dcompute.errors import StoreError


def post_request(store: Store, run: str, request: dict[str, Any]) -> int:
    """Leave a request (``{"do": "cancel"}``) for the driver of a run.

    Returns
    -------
    int
        Its number, from 1.

    Raises
    ------
    StoreError
        The storage failed; the request may be there.
    """
    number = 1
    data = json.dumps({**request, "id": new_id()}).encode()
    while True:
        try:
            store.create(request_name(run, number), data)
        except FileExistsError:
            # a client repeats a write whose answer was lost, and is told of its own file
            if store.read_or_none(request_name(run, number)) == data:
                return number
            number += 1
        else:
            return number


class RequestReader:
    """Reads the requests to one run, each once."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._number = 1

    def next(self) -> dict[str, Any] | None:
        """The next request, or None where none can be read yet. One that is no JSON object comes as ``{}``."""
        data = None
        with contextlib.suppress(StoreError):
            # who asks once a second asks again
            data = self._store.read_or_none(request_name(self._run, self._number))
        if data is None:
            return None
        self._number += 1
        try:
            request = json.loads(data)
        except ValueError:
            return {}
        return request if isinstance(request, dict) else {}

    def skip(self) -> None:
        """Pass over what is there by now."""
        while self.next() is not None:
            pass

    def cancel_reason(self) -> str | None:
        """Why the run is asked to end, by one of the next requests; None where it is not."""
        while (request := self.next()) is not None:
            if (reason := _cancel_reason(request)) is not None:
                return reason
        return None


def _cancel_reason(request: dict[str, Any]) -> str | None:
    return str(request.get("reason") or "cancelled by request") if request.get("do") == "cancel" else None


class RequestWatch:
    """Looks for requests to a run on a thread of its own, so that they are seen whatever the driver waits for; a context manager.

    Parameters
    ----------
    store, run
        Whose requests.
    asked
        Called once, from the thread, with the reason for which the run is to end.
    every
        Seconds between two looks.
    priority
        Called, from the thread, with each priority that the run is asked to have.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        asked: Callable[[str], None],
        *,
        every: float,
        priority: Callable[[int], None] | None = None,
    ) -> None:
        self._reader = RequestReader(store, run)
        self._asked = asked
        self._priority = priority
        self._every = every
        self._over = threading.Event()

    def __enter__(self) -> RequestWatch:
        threading.Thread(target=self._look, name="dcompute-requests", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # a look that is under way is not waited for
        self._over.set()

    def _look(self) -> None:
        while True:
            while (request := self._reader.next()) is not None:
                if (reason := _cancel_reason(request)) is not None:
                    self._asked(reason)
                    return
                number = request.get("priority")
                if request.get("do") == "priority" and isinstance(number, int) and self._priority is not None:
                    self._priority(number)
            if self._over.wait(self._every):
                return
