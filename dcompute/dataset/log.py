"""The log: numbered entries, each created exclusively, never changed, never removed, never listed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dcompute.dataset.ahead import prefetched
from dcompute.dataset.entries import Action, Entry
from dcompute.dataset.names import LAST, entry_name, new_id
from dcompute.dataset.store import Store
from dcompute.dataset.witness import Witness
from dcompute.errors import DatasetCorruptError, StoreError

#: Seconds between the tries of an append whose outcome is not known; a local disk says at once what it means.
_LOCAL_WAITS = (0.05, 0.2)
_REMOTE_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


class LostRace(Exception):  # noqa: N818  it is no error: the caller reads on
    """Somebody else's entry has the number."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(f"entry {entry.number} is somebody else's")
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Hint:
    """What ``log/last.json`` says; nothing depends on it."""

    number: int = 0  #: the log has at least so many entries
    checkpoints: tuple[int, ...] = ()  #: numbers, ascending


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
        self._noting = threading.Lock()
        self._noted = Hint()
        self._witness = Witness(store)
        self._waits = _LOCAL_WAITS if store.is_local or store.is_memory else _REMOTE_WAITS

    def read(self, number: int) -> Entry | None:
        """The entry with this number, or None where there is none yet."""
        data = self.store.read_or_none(entry_name(number))
        return None if data is None else Entry.from_bytes(number, data)

    def read_all(self, start: int = 1, stop: int | None = None) -> Iterator[Entry]:
        """The entries from a number on, to the first number that is missing, or up to ``stop``.

        Raises
        ------
        DatasetCorruptError
            One is missing, and a later one, which the hint or ``stop`` names, is there.
        """
        number = start
        known = self.hint().number
        for entry in self._read_ahead(start, known if stop is None else min(known, stop)):
            yield entry
            number += 1
        while stop is None or number <= stop:
            found = self.read(number)
            if found is None:
                self._refuse_hole(number, known if stop is None else stop)
                return
            yield found
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
        DatasetCorruptError
            What was committed last, or what these actions name, is not there any more.
        """
        self._witness.confirm_named(actions)
        entry = self._append(Entry(number, entry_id or new_id(), self._now(), tuple(actions)))
        self._witness.committed(entry)
        return entry

    def _append(self, entry: Entry) -> Entry:
        data = entry.to_bytes()
        for wait in self._waits:
            try:
                return self._create(entry, data)
            except StoreError:
                self._sleep(wait)
        return self._create(entry, data)

    def withdraw(self, entry: Entry) -> None:
        """Remove an entry of ours that is in a log where it does not belong."""
        there = self.read(entry.number)
        if there is not None and there.id == entry.id:
            self.store.remove([entry_name(entry.number)])

    def end(self) -> int:
        """The number of the last entry, 0 in an empty log; found from the hint on."""
        number = self.hint().number
        if number and not self.store.exists(entry_name(number)):
            number = 0
        while self.store.exists(entry_name(number + 1)):
            number += 1
        return number

    def hint(self) -> Hint:
        """Where the log ends, about, and which checkpoints there are."""
        try:
            found = json.loads(self.store.read(LAST))
            return Hint(_number(found["number"]), tuple(sorted(map(_number, found.get("checkpoints", ())))))
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return Hint()

    def note_end(self, number: int, *, checkpoints: Iterable[int] = (), gone: Iterable[int] = ()) -> None:
        """Leave a hint where the log ends; nothing depends on it.

        Parameters
        ----------
        number
            Of an entry that is there.
        checkpoints
            Numbers of checkpoints that were written.
        gone
            Numbers of those that are there no more.
        """
        with self._noting:
            # others leave hints too: what they know of checkpoints stays
            there, own = self.hint(), self._noted
            known = {*there.checkpoints, *own.checkpoints, *checkpoints}.difference(gone)
            self._noted = Hint(max(number, own.number), tuple(sorted(known)))
            self.store.write(LAST, json.dumps({"number": self._noted.number, "checkpoints": self._noted.checkpoints}).encode())

    def _read_ahead(self, start: int, last: int) -> Iterator[Entry]:
        """Entries that the hint knows of; elsewhere than on a local disk it pays to ask for many at once."""
        if self.store.is_local or self.store.is_memory:
            return
        numbers = range(start, last + 1)
        found: Iterator[Entry | None] = prefetched(self.read, numbers, False) if len(numbers) > 1 else iter(())
        for entry in found:
            if entry is None:
                return
            yield entry

    def _refuse_hole(self, missing: int, later: int) -> None:
        if later > missing and self.store.exists(entry_name(later)):
            raise DatasetCorruptError(
                f"entry {missing} of the log of {self.store.url} is gone, and entry {later} is there: something other than dcompute "
                f"removed {entry_name(missing)}. Restore the file from a copy"
            )

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


def _number(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value
