"""The files of a source, one by one: what lets a report compute again only what changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from dcompute.dataset.frames import Reading, Rows
from dcompute.dataset.hiding import are_keys
from dcompute.dataset.parts import ATTEMPTS_SCHEMA, read_attempts, read_results
from dcompute.dataset.pieces import File, by_rows, by_size
from dcompute.dataset.reading import PARTITION_ATTEMPTS, PARTITION_BYTES, PARTITION_FILES, reading_attempts, reading_results
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.state import POSITION_BITS, CountedPart, State
from dcompute.dataset.store import Store
from dcompute.dataset.widths import row_bytes
from dcompute.errors import DatasetError
from dcompute.records import ItemKey
from dcompute.report import rows as report_rows
from dcompute.report import versions


class Units(ABC):
    """The files of a source at one position. A file never changes; which rows of it count may."""

    @abstractmethod
    def names(self) -> list[str]:
        """Of all files that count."""

    @abstractmethod
    def known(self, name: str) -> bool:
        """Whether a file of an earlier version can still be read."""

    @abstractmethod
    def weight(self, name: str) -> float:
        """Its size, in partitions."""

    @abstractmethod
    def reading(self, names: Sequence[str]) -> Reading:
        """The rows of some files that count."""

    @abstractmethod
    def added(self, since: int, used: frozenset[str]) -> list[str] | None:
        """Files with the rows that came after a position; None where that cannot be told."""

    @abstractmethod
    def look(self, since: int, portions: Sequence[Sequence[str]]) -> list[Look]:
        """What says of each portion whether rows of it changed since a position; to be called, here or on a worker."""


@dataclass(frozen=True)
class Look:
    """Whether a row of some files has one of some keys; None where a file is gone. A callable that Dask sends to workers."""

    store: Store | None
    names: tuple[str, ...]
    keys: frozenset[ItemKey]
    attempts: bool = False
    answer: bool | None = None  #: known already

    def __call__(self) -> bool | None:
        """Look into the files."""
        if self.answer is not None or self.store is None:
            return self.answer
        read = read_attempts if self.attempts else read_results
        try:
            return any(are_keys(read(self.store, name, RESERVED), self.keys).any() for name in self.names)
        except DatasetError:
            return None


class ResultUnits(Units):
    """Results parts of a dataset."""

    def __init__(self, store: Store, state: State) -> None:
        self._store = store
        self._state = state

    def names(self) -> list[str]:
        """Of those that count."""
        return [part.name for part in self._state.counted_parts() if part.rows]

    def known(self, name: str) -> bool:
        """Whether the log, or the version, has it."""
        return name in self._parts

    def weight(self, name: str) -> float:
        """In partitions."""
        return 2 * self._parts[name].size / PARTITION_BYTES + 1 / PARTITION_FILES

    def reading(self, names: Sequence[str]) -> Reading:
        """With the hides of the log as it is."""
        whole = reading_results(self._store, self._state)
        parts = [self._parts[name] for name in names]
        files = [File(part.name, part.position, part.left_out, size=part.size, count=part.rows) for part in parts]
        width = row_bytes(self._store, files, whole.schema)
        pieces = by_size(files, most_files=PARTITION_FILES, most_bytes=PARTITION_BYTES, row_bytes=width)
        return Reading(whole.rows, pieces, whole.columns, whole.label)

    def added(self, since: int, used: frozenset[str]) -> list[str] | None:
        """Those that came later."""
        if self._state.released_at >> POSITION_BITS > since:
            # rows of older batches came, in files that no batch names
            return None
        found = [
            part.name
            for position, _, parts in self._state.batches.results()
            for part in parts
            if position >> POSITION_BITS > since and part.rows and part.name not in used
        ]
        # compaction may have put them together with older ones; the files themselves stay for the retention of vacuum
        if any(name in self._state.replaced and not self._store.exists(name) for name in found):
            return None
        return found

    def look(self, since: int, portions: Sequence[Sequence[str]]) -> list[Look]:
        """One for each portion."""
        keys = _hidden(self._state, self._state.hides, since)
        return [Look(self._store, tuple(names), keys, answer=None if keys else False) for names in portions]

    @cached_property
    def _parts(self) -> dict[str, CountedPart]:
        batches = self._state.batches.results()
        of_batches = (CountedPart(at, one.name, one.size, one.rows, left_out) for at, left_out, parts in batches for one in parts)
        return {part.name: part for part in (*of_batches, *self._state.compacted)}


class AttemptUnits(Units):
    """Attempts parts of a dataset."""

    def __init__(self, store: Store, state: State) -> None:
        self._store = store
        self._state = state

    def names(self) -> list[str]:
        """Of those that count."""
        return list(self._files)

    def known(self, name: str) -> bool:
        """Whether the log, or the version, has it."""
        return name in self._files

    def weight(self, name: str) -> float:
        """In partitions."""
        return self._files[name].count / PARTITION_ATTEMPTS + 1 / PARTITION_FILES

    def reading(self, names: Sequence[str]) -> Reading:
        """With the hides of the log as it is."""
        whole = reading_attempts(self._store, self._state)
        pieces = by_rows((self._files[name] for name in names), most_files=PARTITION_FILES, most_rows=PARTITION_ATTEMPTS)
        return Reading(whole.rows, pieces, ATTEMPTS_SCHEMA.names, whole.label)

    def added(self, since: int, used: frozenset[str]) -> list[str]:
        """Those that came later."""
        return [name for name, file in self._files.items() if file.position >> POSITION_BITS > since and name not in used]

    def look(self, since: int, portions: Sequence[Sequence[str]]) -> list[Look]:
        """One for each portion."""
        keys = _hidden(self._state, self._state.hides_all, since)
        return [Look(self._store, tuple(names), keys, attempts=True, answer=None if keys else False) for names in portions]

    @cached_property
    def _files(self) -> dict[str, File]:
        return {
            one.mark: File(one.mark, one.position, one.batch.left_out, count=sum(stop - start for start, stop in one.batch.holds))
            for one in self._state.batches
        }


class FileUnits(Units):
    """Files of a version of a report."""

    def __init__(self, rows: Rows, files: Sequence[versions.File]) -> None:
        self._rows = rows
        self._files = {file.name: file for file in files}

    def names(self) -> list[str]:
        """Of those that count."""
        return list(self._files)

    def known(self, name: str) -> bool:
        """Whether the log, or the version, has it."""
        return name in self._files

    def weight(self, name: str) -> float:
        """In partitions."""
        return self._files[name].rows / report_rows.PARTITION_ROWS + 1 / PARTITION_FILES

    def reading(self, names: Sequence[str]) -> Reading:
        """With the hides of the log as it is."""
        files = (File(name, 0, size=self._files[name].size, count=self._files[name].rows) for name in names)
        pieces = by_rows(files, most_files=report_rows.PARTITION_FILES, most_rows=report_rows.PARTITION_ROWS)
        return Reading(self._rows, pieces, self._rows.schema.names, "report")

    def added(self, since: int, used: frozenset[str]) -> list[str]:  # noqa: ARG002
        """Those that came later."""
        return [name for name in self._files if name not in used]

    def look(self, since: int, portions: Sequence[Sequence[str]]) -> list[Look]:  # noqa: ARG002
        """One for each portion."""
        return [Look(None, (), frozenset(), answer=any(name not in self._files for name in names)) for names in portions]


def rows_of(reading: Reading) -> list[Count]:
    """What counts the rows that are to be read, a piece each; to be called, here or on a worker."""
    return [Count(reading.rows, piece) for piece in reading.pieces]


@dataclass(frozen=True)
class Count:
    """Counts the rows of a piece: of files of which all rows count, none is read."""

    rows: Rows
    piece: object

    def __call__(self) -> int:
        """So many."""
        table: pa.Table = self.rows.table(self.piece, ())  # type: ignore[arg-type]
        return int(table.num_rows)


def _hidden(state: State, positions: dict[ItemKey, int], since: int) -> frozenset[ItemKey]:
    if state.hidden_at >> POSITION_BITS <= since:
        return frozenset()
    return frozenset(key for key, position in positions.items() if position >> POSITION_BITS > since)
