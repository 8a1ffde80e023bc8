"""Whether a storage still has what it acknowledged: some servers forget the last seconds when they are killed.

What such a server forgets is the newest. So it is enough to look, after each entry, for the one before it: whenever the server forgot that
one, it was before this look or before the next. Where that one may be there all the same, because it is old or because a request since
then had no answer, what the new entry names is looked for too: its batches' marks and parts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from dcompute.dataset.entries import Action, Add, Entry
from dcompute.dataset.names import entry_name
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, StoreError

#: What was acknowledged so long ago (seconds) may have outlived a server that forgot what came after it.
_SAFE = 4.0
_AGAIN = "Look after the storage, then run the same line again: it does again what is missing"


class Witness:
    """The last entry that this process committed.

    Parameters
    ----------
    store
        Where the dataset is. A local disk is not asked: what it has synced is there.
    clock
        Seconds since some moment.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._last: Entry | None = None
        self._at = 0.0
        self._failures = 0

    def confirm_named(self, actions: Sequence[Action]) -> None:
        """Before an entry: look whether the batches that it adds are still there, where that is in doubt.

        Raises
        ------
        DatasetCorruptError
            One is not; says which.
        """
        if self._last is not None and self._is_asked and self._clock() - self._at > _SAFE:
            self._look_for(actions)

    def committed(self, entry: Entry) -> None:
        """After an entry of ours: look whether the one before it is still there, and what this one names where that is in doubt.

        Raises
        ------
        DatasetCorruptError
            It is not. The new entry is removed: nobody reads on from one that is not there.
        """
        if self._is_asked:
            try:
                self._confirm(entry)
            except DatasetCorruptError:
                with contextlib.suppress(StoreError):
                    self._store.remove([entry_name(entry.number)])
                raise
        self._last, self._at, self._failures = entry, self._clock(), self._store.failures

    @property
    def _is_asked(self) -> bool:
        return not (self._store.is_local or self._store.is_memory)

    def _confirm(self, entry: Entry) -> None:
        if self._last is not None:
            self._confirm_last(self._last)
        if self._store.failures > self._failures:
            self._look_for(entry.actions)

    def _confirm_last(self, last: Entry) -> None:
        name = entry_name(last.number)
        data = self._store.read_or_none(name)
        if data is None:
            raise DatasetCorruptError(
                f"{name}, which this run wrote, is gone from {self._store.url}: the storage lost what it had acknowledged. Nothing more is "
                f"written, and what was committed there counts no more. {_AGAIN}"
            )
        if Entry.from_bytes(last.number, data).id != last.id:
            raise DatasetCorruptError(
                f"{name} was written twice: this run wrote it to {self._store.url}, and it is somebody else's now. The storage lost what "
                f"it had acknowledged. Nothing more is written, and what this run committed there counts no more. {_AGAIN}"
            )

    def _look_for(self, actions: Sequence[Action]) -> None:
        from dcompute.dataset.names import mark_name

        batches = [batch for action in actions if isinstance(action, Add) for batch in action.batches]
        parts = [part.name for batch in batches for part in (*batch.results, *batch.quarantined)]
        gone = [name for name in (*(mark_name(batch.id) for batch in batches), *parts) if not self._store.exists(name)]
        if gone:
            raise DatasetCorruptError(
                f"{', '.join(gone[:3])}{' and more' if len(gone) > 3 else ''}: written by this run, and gone from {self._store.url}. "
                f"The storage lost what it had acknowledged. {_AGAIN}"
            )
