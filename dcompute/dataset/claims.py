"""Who began the batches that may be executed once only: one exclusively created file a batch, by its execution or in its stead."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dcompute.dataset.lease import Clock
from dcompute.dataset.names import NOBODY, started_name
from dcompute.dataset.parts import mark_name
from dcompute.dataset.store import Store

#: Seconds that executions whose driver died have to write what they finished: killing the item at work, Arrow, upload.
MARK_SECONDS = 5.0
_LOOK_EVERY = 0.1


class Claims:
    """The claims in one dataset, as a driver sees them.

    Parameters
    ----------
    store
        Where the dataset is.
    clock
        Tells the time and sleeps.
    """

    def __init__(self, store: Store, clock: Clock = time) -> None:
        self._store = store
        self._clock = clock

    def has_begun(self, batch: str) -> bool:
        """Whether an execution of this batch began; where none did, none will any more."""
        name = started_name(batch)
        try:
            self._store.create(name, NOBODY)
        except FileExistsError:
            return self._store.read_or_none(name) != NOBODY
        return False

    def await_marks(self, batches: Iterable[str]) -> None:
        """Return when each of these batches that was begun has its mark, or its execution has had the time to write one."""
        waiting = [batch for batch in batches if self.has_begun(batch)]
        until = self._clock.monotonic() + MARK_SECONDS
        while waiting := [batch for batch in waiting if self._is_unwritten(batch)]:
            if self._clock.monotonic() >= until:
                return
            self._clock.sleep(_LOOK_EVERY)

    def _is_unwritten(self, batch: str) -> bool:
        # a claim that was taken back: no item was begun
        return self._store.exists(started_name(batch)) and not self._store.exists(mark_name(batch))
