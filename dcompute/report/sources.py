"""What a report is computed from: tables of datasets and other reports, as they are at one position."""

from __future__ import annotations

import glob
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from os import PathLike, fspath
from typing import Any

from dcompute.dataset.entries import Add, Entry, Hide, Release, SetSchema
from dcompute.dataset.frames import Reading
from dcompute.dataset.log import Log
from dcompute.dataset.many import Datasets
from dcompute.dataset.names import DATASET
from dcompute.dataset.opening import open
from dcompute.dataset.schema import from_text
from dcompute.dataset.status import Dataset
from dcompute.dataset.store import Store
from dcompute.dataset.writer import dataset_id
from dcompute.errors import DatasetNotFoundError, UsageError
from dcompute.report.publishing import Shelf
from dcompute.report.rows import reading
from dcompute.report.units import AttemptUnits, FileUnits, ResultUnits, Units
from dcompute.report.versions import Place, Version

#: What of a dataset a report can be computed from.
TABLES = ("results", "attempts", "failures")
#: Of more entries than these it is not asked what each of them did.
_MOST_ENTRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What a source has that a version does not."""

    commits: int = 0
    since: float | None = None  #: seconds since 1970: the first of them
    reason: str = ""  #: what else there is to say

    def __bool__(self) -> bool:
        return self.commits > 0 or bool(self.reason)


@dataclass(frozen=True, slots=True)
class Taken:
    """A source as it is at one position."""

    places: tuple[Place, ...]
    schema: str  #: a digest of its columns
    reading: Reading
    units: Units | None  #: None: it cannot be taken in portions


#: Datasets that were opened already: what several sources read is read at one position.
Opened = dict[str, Dataset | Datasets]


class Stage(ABC):
    """A report, as those see it that are computed from it."""

    name: str
    root: Store  #: the folder that it lies in
    shelf: Shelf

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it lies."""

    @abstractmethod
    def newest(self) -> Version | None:
        """The version that counts; None where none was published."""

    @abstractmethod
    def upstream(self) -> Sequence[Stage]:
        """The reports that it is computed from, and those that they are, each after its own sources."""


class Source(ABC):
    """Something that a report is computed from."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is called where it was given no name."""

    @abstractmethod
    def folder(self) -> Store | None:
        """Where reports lie whose first source it is; None where that must be said."""

    @abstractmethod
    def take(self, opened: Opened) -> Taken:
        """The source as it is now, or as it was opened already."""

    @abstractmethod
    def behind(self, places: Sequence[Place]) -> Behind:
        """What it has since these places."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What it is, as a text that is the same tomorrow."""

    def why_whole(self) -> str:
        """Why it cannot be taken in portions; "" where it can."""
        return ""


class Table(Source):
    """A table of one dataset, or of several that read as one."""

    def __init__(self, given: Any, table: str) -> None:
        self._given = given
        self.table = table

    @property
    def label(self) -> str:
        """What it is called where it was given no name."""
        return self._urls().rstrip("/").rpartition("/")[2] if not isinstance(self._given, Datasets | list) else "datasets"

    @property
    def identity(self) -> str:
        """The same tomorrow."""
        return f"{self.table} of {self._urls()}"

    def folder(self) -> Store | None:
        """Of the dataset; None where there may be several."""
        if isinstance(self._given, Dataset):
            return self._given._store
        if isinstance(self._given, Datasets) or _is_several(self._given):
            return None
        return Store.named(self._given)

    def why_whole(self) -> str:
        """Why it cannot be taken in portions; "" where it can."""
        if self.table == "failures":
            return "what failed at last cannot be told from some attempts alone"
        return "several datasets read as one leave out what an earlier one has" if self.folder() is None else ""

    def take(self, opened: Opened) -> Taken:
        """The table at the end of the log."""
        if self._urls() not in opened:
            opened[self._urls()] = self._opened()
        dataset = opened[self._urls()]
        each = [dataset] if isinstance(dataset, Dataset) else list(dataset)
        places = tuple(Place(url=one.url, id=dataset_id(one._store), number=one.state.number) for one in each)
        found: Reading = getattr(dataset, f"_{self.table}")(None, None, *((False,) if self.table == "results" else ()))
        units: Units | None = None
        if isinstance(dataset, Dataset) and self.table != "failures":
            units = (ResultUnits if self.table == "results" else AttemptUnits)(dataset._store, dataset.state)
        return Taken(places, digest_of(str(found.schema)), found, units)

    def behind(self, places: Sequence[Place]) -> Behind:
        """What changed since."""
        opened = self._opened(state=False)
        each = [opened] if isinstance(opened, Dataset) else list(opened)
        known = {place.url: place for place in places}
        if known.keys() != {one.url for one in each}:
            return Behind(reason=_elsewhere([one.url for one in each], list(known)))
        found = [behind(one, known[one.url]) for one in each]
        times = [one.since for one in found if one.since is not None]
        reasons = [one.reason for one in found if one.reason]
        return Behind(commits=sum(one.commits for one in found), since=min(times, default=None), reason="; ".join(reasons))

    def _urls(self) -> str:
        if isinstance(self._given, Dataset):
            return f"{self._given.url}{f' at {self._given.at}' if self._given.at is not None else ''}"
        if isinstance(self._given, Datasets):
            return ", ".join(self._given.urls)
        return ", ".join(map(fspath, self._given)) if isinstance(self._given, list) else Store.named(self._given).url

    def _opened(self, *, state: bool = True) -> Dataset | Datasets:
        # a dataset of the user's stays as they see it: this one is our own
        given = self._given
        if isinstance(given, Dataset):
            return Dataset(given._store, given.at)
        if isinstance(given, Datasets):
            again = Datasets([Dataset(one._store, one.at) for one in given])
            return again.labelled() if given._column else again
        return open(given) if state or _is_several(given) else Dataset(Store.named(given))


class Published(Source):
    """The result of another report."""

    def __init__(self, report: Stage) -> None:
        self.report = report

    @property
    def label(self) -> str:
        """What it is called where it was given no name."""
        return self.report.name

    @property
    def identity(self) -> str:
        """The same tomorrow."""
        return f"report {self.report.url}"

    def folder(self) -> Store | None:
        """Of the dataset; None where there may be several."""
        return None

    def take(self, opened: Opened) -> Taken:  # noqa: ARG002
        """The version that counts."""
        version = self.report.newest()
        if version is None:
            raise DatasetNotFoundError(
                f"the report {self.report.name!r} has published nothing yet: run it first, or run this one with upstream=True"
            )
        rows = reading(self.report.shelf.store, from_text(version.schema), version.files, self.report.name, number=version.number)
        place = Place(url=self.report.url, id=version.id, number=version.number)
        return Taken((place,), digest_of(str(rows.schema)), rows, FileUnits(rows.rows, version.files))

    def behind(self, places: Sequence[Place]) -> Behind:
        """What changed since."""
        number, id_ = (places[0].number, places[0].id) if places and places[0].url == self.report.url else (0, "")
        later = list(self.report.shelf.since(number))
        found = self.report.shelf.read(number) if number else None
        reason = ""
        if found is None and (number or not later):
            reason = f"version {number} of report {self.report.name!r} is gone"
        elif found is not None and id_ and found.id != id_:
            reason = f"report {self.report.name!r} was made anew: its version {number} is not the one that was read"
        return Behind(commits=len(later), since=later[0].published if later else None, reason=reason)


def sources_of(given: Any) -> tuple[dict[str, Source], bool]:
    """The sources that a user declares, by name; and whether they named them.

    Raises
    ------
    UsageError
        One is nothing that a report can be computed from.
    """
    if isinstance(given, Mapping):
        if not given:
            raise UsageError("sources={} names nothing to compute a report from: give a dataset, a report, or several by name")
        for name in given:
            if not isinstance(name, str) or not name.isidentifier():
                raise UsageError(f"sources= has the name {name!r}: the function gets each source as a keyword argument of that name")
        return {name: source_of(one) for name, one in given.items()}, True
    source = source_of(given)
    return {source.label: source}, False


def source_of(given: Any) -> Source:
    """One source: a dataset or its URL, with ``"attempts"`` or ``"failures"`` in a pair with it, or another report."""
    if isinstance(given, Stage):
        return Published(given)
    table = "results"
    if isinstance(given, tuple) and len(given) == 2 and given[1] in TABLES:
        given, table = given
    if isinstance(given, Dataset | Datasets | str | PathLike | list):
        return Table(given, table)
    raise UsageError(f"sources= has {given!r}: give a dataset or its URL, a Report, or a pair such as (dataset, 'attempts')")


def digest_of(text: str) -> str:
    """32 hex digits that stand for a text."""
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def _is_several(given: Any) -> bool:
    # a folder may be called so
    return isinstance(given, list) or (glob.has_magic(fspath(given)) and not Store.named(given).exists(DATASET))


def _elsewhere(now: Sequence[str], before: Sequence[str]) -> str:
    if len(now) != len(before):
        return f"there are {len(now):,} datasets now, not {len(before):,}"
    came, gone = [url for url in now if url not in before], [url for url in before if url not in now]
    return f"it was computed from {gone[0]}, not from {came[0]}"


def behind(dataset: Dataset, place: Place) -> Behind:
    """What a dataset has since a place."""
    if dataset_id(dataset._store) != place.id:
        return Behind(reason=f"the dataset at {place.url} is another one than it was")
    log = Log(dataset._store)
    end = dataset.at if dataset.at is not None else log.end()
    if end < place.number:
        return Behind(reason=f"the dataset at {place.url} is read as of an earlier time than it was")
    entries = list(log.read_all(place.number + 1, min(end, place.number + _MOST_ENTRIES)))
    changes = [entry for entry in entries if _changes_rows(entry)]
    more = end - place.number - len(entries)
    return Behind(commits=len(changes) + more, since=changes[0].at if changes else None)


def _changes_rows(entry: Entry) -> bool:
    return any((isinstance(action, Add) and action.batches) or isinstance(action, Hide | Release | SetSchema) for action in entry.actions)
