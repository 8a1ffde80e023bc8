"""Results, attempts and failures of a dataset as Arrow tables and as lazy Dask dataframes, by what the log says.

Nothing is listed and nothing is guessed: the log names the parts, its schema gives the columns, and rows that do not count are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.checkpoint import read_state
from dcompute.dataset.fetching import fetch
from dcompute.dataset.filters import Filter, check_columns
from dcompute.dataset.frames import Reading, bare, to_pandas
from dcompute.dataset.hiding import Hides, joined_keys, without
from dcompute.dataset.outcomes import ROW_BITS, iter_outcomes, load, prefetched
from dcompute.dataset.parts import ATTEMPTS_SCHEMA, read_attempts
from dcompute.dataset.pieces import File, Piece, by_rows, by_size
from dcompute.dataset.produced import absolute, url_columns, without_marks
from dcompute.dataset.renames import Renames
from dcompute.dataset.schema import RESERVED, cast, from_text
from dcompute.dataset.state import CountedBatch, State
from dcompute.dataset.store import Store
from dcompute.dataset.tallying import tallied
from dcompute.dataset.widths import row_bytes
from dcompute.errors import DatasetError, UsageError
from dcompute.records import FAILED, ItemKey

By = Literal["kind", "error", "host"]

#: One partition reads at most so many files (500 small ones take a core a tenth of a second), bytes in memory as far as rows, types and
#: stored bytes tell, or attempts.
PARTITION_FILES = 500
PARTITION_BYTES = 64 << 20
PARTITION_ATTEMPTS = 200_000

# as many hidden keys travel with each partition; of more the process that reads asks the log
_CARRIED_HIDES = 10_000


@dataclass(frozen=True)
class Reader:
    """Reads the files of one partition."""

    store: Store
    schema: pa.Schema  #: all columns there are
    hides: Hides | None  #: None: too many to carry
    number: int  #: of the last entry that counts
    entry: str  #: its id: at the same URL and number another dataset has another one
    attempts: bool  #: attempts parts, or results parts
    where: Filter | None = None  #: which rows are wanted
    doubles: Callable[[], Hides] | None = None  #: keys that count elsewhere, as hides of all their rows here
    renames: Renames = field(default_factory=Renames)  #: of columns, which files have by the names of their time
    urls: tuple[str, ...] = ()  #: columns that name files from the dataset on

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        where = None if self.where is None else str(self.where.expression)
        return (type(self).__qualname__, self.store.url, str(self.schema), self.number, self.entry, self.attempts, where, self.doubles)

    def table(self, piece: Piece, names: Sequence[str]) -> pa.Table:
        """The rows of some files that count, in some columns."""
        hides = self._hides()
        latest = int(hides.positions.max()) if len(hides) else -1
        is_hit = any(file.position < latest for file in piece.files)
        needs_keys = is_hit or any(file.left_out for file in piece.files)
        if not names and self.where is None and not needs_keys and all(file.count for file in piece.files):
            return bare(sum(file.count for file in piece.files))
        asked = self.where.names if self.where else ()
        wanted = self._schema([*names, *asked, *(RESERVED if needs_keys or not names else ())])
        table = self._counting(piece, wanted, hides if is_hit else None)
        if self.where is not None:
            table = self.where.apply(table)
        return table.select(list(names)) if names else bare(table.num_rows)

    def _counting(self, piece: Piece, wanted: pa.Schema, hides: Hides | None) -> pa.Table:
        tables = self._tables(piece, wanted)
        if not tables:
            return wanted.empty_table()
        if hides is None:
            return pa.concat_tables(tables).combine_chunks()
        return hides.without_hit(tables, [file.position for file in piece.files]).combine_chunks()

    def _hides(self) -> Hides:
        hides = self.hides
        if hides is None:
            hides = _cached_hides(LogAt(self.store, self.store.url, self.number, self.entry), self.attempts)
        return hides if self.doubles is None else hides.joined(self.doubles())

    def _schema(self, names: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(name) for name in dict.fromkeys(names)])

    def _tables(self, piece: Piece, wanted: pa.Schema) -> list[pa.Table]:
        # small files of a local disk are read no quicker by several threads: they would wait for each other's turn in the interpreter
        if self.store.is_local:
            return [self._file(file, wanted) for file in piece.files]
        return list(prefetched(lambda file: self._file(file, wanted), piece.files, False))

    def _file(self, file: File, wanted: pa.Schema) -> pa.Table:
        if self.attempts:
            table = read_attempts(self.store, file.name, wanted.names)
        else:
            # rows that are named by their places must all be read
            where = None if file.rows is not None else self._pushed()
            table = fetch(self.store, file, wanted, where=where, renames=self.renames)
        if file.rows is not None:
            table = table.take(pa.array(file.rows, pa.int64()))
        found = cast(without(table, file.left_out), wanted)
        return absolute(found, self.urls, self.store.url) if self.urls else found

    def _pushed(self) -> Filter | None:
        # what the files know of their own names is of other ones
        is_elsewhere = self.where is not None and not set(self.urls).isdisjoint(self.where.names)
        return None if is_elsewhere else self.where


def results(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
    """The results that count as a Dask dataframe: ``item_key``, ``key_kind`` and the user's columns.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    columns
        These only, in this order.
    filters
        Which rows: see :meth:`~dcompute.dataset.filters.Filter.of`.
    """
    return reading_results(store, state, columns, filters).to_dask()


def results_arrow(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """The results that count as one table in memory; see :func:`results`."""
    return reading_results(store, state, columns, filters).to_arrow()


def attempts(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
    """The attempts that count as a Dask dataframe, one row an attempt, history too; see :func:`results`."""
    return reading_attempts(store, state, columns, filters).to_dask()


def attempts_arrow(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """The attempts that count as one table in memory; see :func:`attempts`."""
    return reading_attempts(store, state, columns, filters).to_arrow()


def failures(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
    """What failed at last as a Dask dataframe: one row a failed item, its newest attempt; see :func:`results`."""
    return reading_failures(store, state, columns, filters).to_dask()


def failures_arrow(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """What failed at last as one table in memory; see :func:`failures`."""
    return reading_failures(store, state, columns, filters).to_arrow()


def reading_results(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Reading:
    """The results, before they are read; see :func:`results`."""
    marked = results_schema(state)
    schema, urls = without_marks(marked), url_columns(marked)
    where = Filter.of(filters, schema)
    reader = Reader(
        store,
        schema,
        carried_hides(state.hides),
        state.number,
        state.entry_id,
        attempts=False,
        where=where,
        renames=state.renames,
        urls=urls,
    )
    files = [File(part.name, part.position, part.left_out, size=part.size, count=part.rows) for part in state.counted_parts() if part.rows]
    width = row_bytes(store, files, schema)
    pieces = by_size(files, most_files=PARTITION_FILES, most_bytes=PARTITION_BYTES, row_bytes=width)
    return Reading(reader, pieces, check_columns(columns, schema), "results")


def reading_attempts(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Reading:
    """The attempts, before they are read; see :func:`attempts`."""
    where = Filter.of(filters, ATTEMPTS_SCHEMA)
    reader = Reader(store, ATTEMPTS_SCHEMA, carried_hides(state.hides_all), state.number, state.entry_id, attempts=True, where=where)
    files = (File(one.mark, one.position, one.batch.left_out, count=_count(one)) for one in state.batches)
    return _of_attempts(reader, files, columns, "attempts")


def reading_failures(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Reading:
    """What failed at last, before it is read; see :func:`failures`."""
    where = Filter.of(filters, ATTEMPTS_SCHEMA)
    reader = Reader(store, ATTEMPTS_SCHEMA, Hides.of({}), state.number, state.entry_id, attempts=True, where=where)
    files = (
        File(state.batches[ordinal].mark, state.batches[ordinal].position, rows=tuple(rows), count=len(rows))
        for ordinal, rows in failed_rows(store, state).items()
    )
    return _of_attempts(reader, files, columns, "failures")


def _of_attempts(reader: Reader, files: Iterable[File], columns: Sequence[str] | None, label: str) -> Reading:
    pieces = by_rows(files, most_files=PARTITION_FILES, most_rows=PARTITION_ATTEMPTS)
    return Reading(reader, pieces, check_columns(columns, ATTEMPTS_SCHEMA), label)


def failures_by(store: Store, state: State, by: By) -> Any:
    """What failed at last, grouped, as a pandas dataframe: the group, ``items``, and an example; most items first.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    by
        ``"kind"``, ``"error"`` or ``"host"``.
    """
    return grouped(reading_failures(store, state, columns_of(by)).to_arrow(), by)


def columns_of(by: By) -> list[str]:
    """What :func:`grouped` needs."""
    if by not in ("kind", "error", "host"):
        raise UsageError(f"failures(by={by!r}): failures are grouped by 'kind', 'error' or 'host'")
    return [by, *(name for name in ("item_key", "key_kind", "error", "message") if name != by)]


def grouped(failed: pa.Table, by: By) -> Any:
    """Failures in the columns of :func:`columns_of`, as :func:`failures_by` gives them."""
    example = failed.column_names[1:]
    # "first" is only defined in one thread
    found = failed.group_by(by, use_threads=False).aggregate([([], "count_all"), *((name, "first") for name in example)])
    columns = {by: found[by], "items": found["count_all"], **{name: found[f"{name}_first"] for name in example}}
    return to_pandas(pa.table(columns).sort_by([("items", "descending"), (by, "ascending")]))


def failed_rows(store: Store, state: State) -> dict[int, list[int]]:
    """Where the newest attempt of each failed item is: place of the batch in ``state.batches`` -> rows of its attempts part.

    Only batches with a failure, and those after the first of them, are read; where the tally is kept, those after it.
    """
    if (tally := tallied(store, state)) is not None:
        return _places(sorted(failure.location for failure in tally.failed.values()))
    candidates = [ordinal for ordinal, counted in enumerate(state.batches) if counted.batch.failed]
    if not candidates:
        return {}
    ever = _ever_failed(store, [state.batches[ordinal] for ordinal in candidates])
    found, located = [], []
    for chunk in iter_outcomes(store, state, since=candidates[0], columns=()):
        keys = joined_keys(chunk.table)
        of_interest = pc.is_in(keys, value_set=ever).to_numpy(zero_copy_only=False)
        if of_interest.any():
            mask = pa.array(of_interest)
            failed = pc.equal(chunk.table.column("outcome").combine_chunks(), FAILED)
            found.append(pa.table({"key": keys.filter(mask), "failed": failed.filter(mask)}))
            located.append(chunk.locations[of_interest])
    return _last_failed(found, located)


def results_schema(state: State) -> pa.Schema:
    """The columns of the results: the key's, then the user's."""
    known = from_text(state.schema) if state.schema is not None else pa.schema([])
    user = [field for field in known if field.name not in RESERVED]
    return pa.schema([*(pa.field(name, pa.string()) for name in RESERVED), *user])


def _ever_failed(store: Store, batches: Sequence[CountedBatch]) -> pa.Array:
    tables = prefetched(lambda one: load(store, one, ("item_key", "key_kind", "outcome")), batches, store.is_local)
    found = [joined_keys(table.filter(pc.equal(table.column("outcome"), FAILED))) for table in tables]
    return pa.chunked_array(found, pa.string()).unique()


def _last_failed(found: Sequence[pa.Table], located: Sequence[npt.NDArray[np.uint64]]) -> dict[int, list[int]]:
    if not found:
        return {}
    table, locations = pa.concat_tables(found), np.concatenate(located)
    codes = table.column("key").combine_chunks().dictionary_encode().indices.to_numpy()
    last = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    last[codes] = np.arange(len(codes))  # a later chunk's assignment stays: it is the newer one
    failed = table.column("failed").to_numpy()[last]
    return _places(np.sort(locations[last[failed]]).tolist())


def _places(locations: Iterable[int]) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for location in locations:
        places.setdefault(location >> ROW_BITS, []).append(location & ((1 << ROW_BITS) - 1))
    return places


def _count(counted: CountedBatch) -> int:
    return sum(stop - start for start, stop in counted.batch.holds)


def carried_hides(newest: dict[ItemKey, int]) -> Hides | None:
    """The hides that travel with each partition; None: they are too many."""
    return Hides.of(newest) if len(newest) <= _CARRIED_HIDES else None


@dataclass(frozen=True)
class ByUrl:
    """A store that compares by its URL, so that a cache can hold what was read of files whose names nobody else has."""

    store: Store
    url: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByUrl) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)


@dataclass(frozen=True)
class LogAt:
    """The log of one dataset up to an entry; compares by URL and that entry, so that a cache can hold what was read."""

    store: Store = field(compare=False)
    url: str
    number: int  #: of the entry
    entry: str  #: its id

    def state(self) -> State:
        """What the log says up to there.

        Raises
        ------
        DatasetError
            Another dataset is in the place of this one.
        """
        state = read_state(self.store, self.number)
        if state.entry_id != self.entry:
            raise DatasetError(
                f"the dataset at {self.url} is not the one that is read here: somebody removed or renamed that one since, and another one "
                "is in its place. Open it again"
            )
        return state


@lru_cache(maxsize=8)
def _cached_hides(log: LogAt, attempts: bool) -> Hides:
    state = log.state()
    return Hides.of(state.hides_all if attempts else state.hides)
