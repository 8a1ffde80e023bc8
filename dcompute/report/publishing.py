"""The folder of one report: its versions, each made to count by one file that is created exclusively, and its last failure.

::

    versions/<20 digits>.json   a version, whole or not there; numbers have no gaps
    versions/last.json          a hint where they end, and which were cleaned up
    <20 digits>/*               the files that were first published with this version; later ones may go on using them
    status.json                 what went wrong with the next one
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dcompute.dataset.store import Store
from dcompute.errors import ReportOvertaken, StoreError
from dcompute.report.versions import Version

_LAST = "versions/last.json"
_STATUS = "status.json"
#: Seconds between the tries of a publication whose outcome is not known.
_LOCAL_WAITS = (0.05, 0.2)
_REMOTE_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is wrong since the last version was published."""

    number: int  #: of the version that was not published
    since: float  #: seconds since 1970: the first time
    last: float  #: the last time
    times: int
    message: str


class Shelf:
    """The versions of one report on storage.

    Parameters
    ----------
    store
        The report's folder.
    now
        Seconds since 1970.
    sleep
        Waits between the tries of a publication.
    """

    def __init__(self, store: Store, now: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self.store = store
        self._now = now
        self._sleep = sleep

    def newest(self) -> Version | None:
        """The version that counts; None where none was published."""
        number, _ = self._hint()
        found = self.read(number) if number else None
        while (later := self.read(found.number + 1 if found is not None else 1)) is not None:
            found = later
        return found

    def read(self, number: int) -> Version | None:
        """The version of a number, or None where there is none."""
        name = version_name(number)
        data = self.store.read_or_none(name)
        return None if data is None else Version.from_bytes(f"{self.store.url}/{name}", data)

    def since(self, number: int) -> Iterator[Version]:
        """The versions after a number."""
        while (found := self.read(number + 1)) is not None:
            yield found
            number += 1

    def prove(self) -> None:
        """Refuse a storage on which two could publish the same version."""
        self.store.prove()

    def publish(self, version: Version) -> None:
        """Make a version count.

        Raises
        ------
        ReportOvertaken
            Somebody else's has the number.
        StoreError
            The storage failed; whether it counts is not known.
        """
        data = version.to_bytes()
        for wait in _LOCAL_WAITS if self.store.is_local or self.store.is_memory else _REMOTE_WAITS:
            try:
                self._create(version, data)
                break
            except StoreError:
                self._sleep(wait)
        else:
            self._create(version, data)
        # a hint and no more: a reader asks for the next number anyway
        with contextlib.suppress(StoreError):
            self._note(version.number, self._hint()[1])

    def clean(self, newest: Version, *, keep: int, retention: float) -> list[str]:
        """Remove the files of versions that are neither among the newest nor young; gives the names.

        Parameters
        ----------
        newest
            The version that counts.
        keep
            So many of the newest stay.
        retention
            So do those that a later one followed less than so many seconds ago: somebody may be reading them.
        """
        first = self._hint()[1] + 1
        kept = {newest.number: newest}
        last = first
        while last <= newest.number - keep and self._is_old(last, kept, retention):
            last += 1
        for number in range(last, newest.number):
            self._remember(number, kept)
        in_use = {name for number in range(last, newest.number + 1) if number in kept for name in names_in(kept[number])}
        gone: list[str] = []
        for number in range(first, last):
            self._remember(number, kept)
            of_it = set(names_in(kept[number])) if number in kept else set()
            gone += sorted(of_it.union(self.store.names(folder_of(number))) - in_use)
        self.store.remove(gone)
        if last > first:
            self._note(newest.number, last - 1)
        return gone

    def failure(self) -> Failure | None:
        """What was wrong last, whether a version was published since or not."""
        try:
            return Failure(**json.loads(self.store.read(_STATUS)))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def note_failure(self, number: int, message: str) -> None:
        """Leave word that a version could not be published."""
        known, now = self.failure(), self._now()
        again = known is not None and known.number == number
        since, times = (known.since, known.times + 1) if again and known is not None else (now, 1)
        failure = Failure(number=number, since=since, last=now, times=times, message=message)
        self.store.write(_STATUS, json.dumps(asdict(failure), ensure_ascii=False).encode())

    def _create(self, version: Version, data: bytes) -> None:
        name = version_name(version.number)
        try:
            self.store.create(name, data)
        except FileExistsError:
            self._own_or_lost(version)
        except StoreError:
            if not self.store.exists(name):
                raise
            self._own_or_lost(version)

    def _own_or_lost(self, version: Version) -> None:
        there = self.read(version.number)
        if there is None:
            raise StoreError(f"{self.store.url}/{version_name(version.number)} exists and cannot be read")
        if there.id != version.id:
            raise overtaken(there)
        self.store.sync("versions")

    def _is_old(self, number: int, kept: dict[int, Version], retention: float) -> bool:
        self._remember(number + 1, kept)
        return number + 1 in kept and kept[number + 1].published <= self._now() - retention

    def _remember(self, number: int, kept: dict[int, Version]) -> None:
        if number not in kept and (found := self.read(number)) is not None:
            kept[number] = found

    def _hint(self) -> tuple[int, int]:
        try:
            found = json.loads(self.store.read(_LAST))
            return int(found["number"]), int(found["cleaned"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return 0, 0

    def _note(self, number: int, cleaned: int) -> None:
        self.store.write(_LAST, json.dumps({"number": number, "cleaned": cleaned}).encode())


def version_name(number: int) -> str:
    """The file that makes a version count."""
    return f"versions/{number:020d}.json"


def folder_of(number: int) -> str:
    """Where the files lie that are first published with a version."""
    return f"{number:020d}"


def names_in(version: Version) -> Iterator[str]:
    """All files that a version uses."""
    yield from (file.name for file in version.files)
    for portion in version.portions:
        yield portion.units
        yield from (file.name for file in portion.files)


def overtaken(there: Version) -> ReportOvertaken:
    """The error of who came too late."""
    when: Any = time.strftime("%H:%M:%S", time.localtime(there.published))
    return ReportOvertaken(
        f"report {there.report!r}: version {there.number} was published at {when} by process {there.pid} on {there.host} while this run "
        "computed it too. That one counts, and nothing of this run does; run it again where the sources moved since"
    )
