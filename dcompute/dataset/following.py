"""Following a run with nothing but its dataset: what its items print, as far as its driver passes it on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from dcompute.dataset.names import follow_name, tail_name
from dcompute.dataset.status import Dataset, driver_state
from dcompute.dataset.store import Store


def ask(store: Store, run: str) -> None:
    """Have the driver of a run pass on what is printed, until the run ends."""
    store.write(follow_name(run), b"follow")


class Tail:
    """The pieces that were passed on, each once."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._seen = 0
        self.lost = 0  #: pieces that came too quickly

    def new(self) -> Iterator[dict[str, Any]]:
        """Those that came since this was asked before."""
        data = self._store.read_or_none(tail_name(self._run))
        try:
            pieces = json.loads(data) if data else []
        except ValueError:  # it is replaced while it is read, on a storage that lets that be seen
            return
        for piece in pieces:
            if piece["number"] > self._seen:
                self.lost += piece["number"] - self._seen - 1 if self._seen else 0
                self._seen = piece["number"]
                yield piece


def follow(dataset: Dataset, *, wait: Callable[[], object]) -> Iterator[dict[str, Any]] | None:
    """What the items at work print from now on, until their run ends; None where no run is at work.

    Parameters
    ----------
    dataset
        Of the run.
    wait
        Called between two looks.
    """
    run = run_at_work(dataset)
    return None if run is None else _pieces(dataset, run, wait)


def run_at_work(dataset: Dataset) -> str | None:
    """The run that is at work on a dataset, as far as can be seen from here."""
    state = dataset.refresh().state
    is_running = state.driver is not None and driver_state(dataset._store, state) == "running"
    return state.driver.run if is_running and state.driver is not None else None


def _pieces(dataset: Dataset, run: str, wait: Callable[[], object]) -> Iterator[dict[str, Any]]:
    ask(dataset._store, run)
    tail = Tail(dataset._store, run)
    while True:
        is_over = run_at_work(dataset) != run  # before the last look
        yield from tail.new()
        if is_over:
            return
        wait()
