"""Questions to workers: tasks of built-in types, whose answers come as events. A worker may lack dcompute, or stand behind a firewall."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask

from dcompute.dataset.names import new_id
from dcompute.graph import Placement, annotated

if TYPE_CHECKING:
    from distributed import Client

#: Opens the text of ``facts.py`` and has it answer; the names are bound as defaults, since a lambda in ``eval`` sees no locals.
_FACTS = "(lambda space, code=code, topic=topic, what=what: (exec(code, space), space['answer'](topic, what))[1])({})"
_CALLED = "__import__('pkgutil').resolve_name(function)(*values)"


class Questions:
    """Asks workers, and waits for all of them at once.

    Parameters
    ----------
    client
        Connected.
    """

    def __init__(self, client: Client) -> None:
        self.token = new_id()
        self._client = client
        self._numbers = iter(range(1 << 30))
        self._code = Path(__file__).with_name("facts.py").read_text(encoding="utf-8")
        self._topic = f"dcompute-{self.token}"
        self._heard = threading.Condition()
        self._answers: dict[str, tuple[float, dict[str, Any]]] = {}  # by task: when it came, and what it says
        client.subscribe_topic(self._topic, lambda event: self._hear(event[1]))

    def ask(self, addresses: Iterable[str], what: str, *, until: float) -> dict[str, tuple[float, float, dict[str, Any]]]:
        """What workers say of themselves: when they were asked, when they answered (seconds since the epoch), and the answer."""
        values = {"code": self._code, "topic": self._topic, "what": what}
        return self._asked(addresses, _FACTS, values, until)

    def call(self, addresses: Iterable[str], function: str, values: tuple[Any, ...], *, until: float) -> dict[str, dict[str, Any]]:
        """What a function of dcompute says there, which tells it by :meth:`Slot.tell`."""
        found = self._asked(addresses, _CALLED, {"function": function, "values": values}, until)
        return {address: answer for address, (_, _, answer) in found.items()}

    def close(self) -> None:
        """Hear no more."""
        with contextlib.suppress(Exception):
            self._client.unsubscribe_topic(self._topic)

    def _asked(
        self, addresses: Iterable[str], source: str, values: Mapping[str, Any], until: float
    ) -> dict[str, tuple[float, float, dict[str, Any]]]:
        asked: dict[str, tuple[float, Any]] = {}
        for address in addresses:
            with annotated(Placement(resources={}, priority=1_000_000, workers=(address,)), {"doctor": self.token}):
                one = dask.delayed(eval, pure=False, traverse=False)(source, None, dict(values), dask_key_name=self._key())
            asked[address] = (time.time(), self._client.compute(one, optimize_graph=False))
        try:
            return self._collected(asked, until)
        finally:
            with contextlib.suppress(Exception):  # a scheduler that is gone keeps nothing
                self._client.cancel([future for _, future in asked.values()], force=True)

    def _collected(self, asked: Mapping[str, tuple[float, Any]], until: float) -> dict[str, tuple[float, float, dict[str, Any]]]:
        waiting = dict(asked)
        found: dict[str, tuple[float, float, dict[str, Any]]] = {}
        with self._heard:
            while waiting and (left := until - time.monotonic()) > 0:
                self._heard.wait(min(left, 0.2))
                for address, (began, future) in list(waiting.items()):
                    answer = self._answers.pop(future.key, None) or _erred(future)
                    if answer is not None:
                        del waiting[address]
                        found[address] = (began, *answer)
        return found

    def _key(self) -> str:
        return f"doctor-{self.token}-{next(self._numbers)}"

    def _hear(self, message: dict[str, Any]) -> None:
        came = time.time()
        with self._heard:
            self._answers[str(message.get("task"))] = (came, message)
            self._heard.notify_all()


def _erred(future: Any) -> tuple[float, dict[str, Any]] | None:
    if future.status != "error":
        return None
    error = future.exception(timeout=5)
    return time.time(), {"problem": f"{type(error).__name__}: {error}"}
