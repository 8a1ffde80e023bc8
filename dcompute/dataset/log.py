"""The log: numbered entries, each created exclusively, never changed, never removed, never listed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

from dcompute.dataset.entries import Action, Entry
from dcompute.dataset.names import LAST, entry_name, new_id
from dcompute.dataset.store import Store
from dcompute.errors import StoreError

#: Seconds between the tries of an append whose outcome is not known; a local disk says at once what it means.
_LOCAL_WAITS = (0.05, 0.2)
_REMOTE_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


class LostRace(Exception):  # noqa: N818  it is no error: the caller reads on
    """Somebody else's entry has the number."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(f"entry {entry.number} is somebody else's")
        self.entry = entry


class Log:
    """The log of one dataset.

    Parameters
    ----------
    store
        Where the dataset is.
    now
        Seconds since 1970, written into entries for people.
    sleep
        Waits between the tries of an append.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self.store = store
        self._now = now
        self._sleep = sleep
        self._waits = _LOCAL_WAITS if store.is_local or store.is_memory else _REMOTE_WAITS

    def read(self, number: int) -> Entry | None:
        """The entry with this number, or None where there is none yet."""
        data = self.store.read_or_none(entry_name(number))
        return None if data is None else Entry.from_bytes(number, data)

    def read_all(self, start: int = 1) -> Iterator[Entry]:
        """The entries from a number on, to the first number that is missing."""
        number = start
        while (entry := self.read(number)) is not None:
            yield entry
            number += 1

    def append(self, number: int, actions: Sequence[Action], entry_id: str | None = None) -> Entry:
        """Commit actions under a number; the caller has read the entry before it.

        Returns
        -------
        Entry
            Which counts, whatever the storage answered: it was read back where the answer was lost.

        Raises
        ------
        LostRace
            Somebody else's entry has the number: read on, and append under a later one.
        StoreError
            Whether the entry counts is not known: write no other one before its number was read.
        """
        entry = Entry(number, entry_id or new_id(), self._now(), tuple(actions))
        data = entry.to_bytes()
        for wait in self._waits:
            try:
                return self._create(entry, data)
            except StoreError:
                self._sleep(wait)
        return self._create(entry, data)

    def end(self) -> int:
        """The number of the last entry, 0 in an empty log; found from the hint on."""
        number = self._hint()
        if number and not self.store.exists(entry_name(number)):
            number = 0
        while self.store.exists(entry_name(number + 1)):
            number += 1
        return number

    def note_end(self, number: int) -> None:
        """Leave a hint where the log ends; nothing depends on it."""
        self.store.write(LAST, json.dumps({"number": number}).encode())

    def _create(self, entry: Entry, data: bytes) -> Entry:
        try:
            self.store.create(entry_name(entry.number), data)
        except FileExistsError:
            return self._own_or_lost(entry)
        except StoreError:
            # the answer was lost, or the write: an entry that is there says which
            if self.store.exists(entry_name(entry.number)):
                return self._own_or_lost(entry)
            raise
        return entry

    def _own_or_lost(self, entry: Entry) -> Entry:
        there = self.read(entry.number)
        if there is None:
            raise StoreError(f"{self.store.url}: entry {entry.number} exists and cannot be read")
        if there.id != entry.id:
            raise LostRace(there)
        # a crash between the link and the folder's sync must not take back what the caller now relies on
        self.store.sync("log")
        return there

    def _hint(self) -> int:
        try:
            number = json.loads(self.store.read(LAST))["number"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return 0
        return number if isinstance(number, int) and number > 0 else 0
