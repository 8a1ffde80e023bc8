"""Results, attempts and failures of a dataset as Arrow tables and as lazy Dask dataframes, by what the log says.

Nothing is listed and nothing is guessed: the log names the parts, its schema gives the columns, and rows that do not count are left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.hiding import Hides, joined_keys, without
from dcompute.dataset.log import Log
from dcompute.dataset.outcomes import ROW_BITS, iter_outcomes, load, prefetched
from dcompute.dataset.parts import ATTEMPTS_SCHEMA, read_attempts, read_results
from dcompute.dataset.schema import RESERVED, cast, from_text
from dcompute.dataset.state import CountedBatch, State, fold
from dcompute.dataset.store import Store
from dcompute.errors import UsageError
from dcompute.records import FAILED, ItemKey

By = Literal["kind", "error", "host"]

#: One partition reads at most so many files, or so many bytes as they are stored (about a fourth of what they take in memory), or attempts.
PARTITION_FILES = 100
PARTITION_BYTES = 16 << 20
PARTITION_ATTEMPTS = 200_000

# as many hidden keys travel with each partition; of more the process that reads asks the log
_CARRIED_HIDES = 10_000


@dataclass(frozen=True, slots=True)
class File:
    """A part to read, and which of its rows."""

    name: str
    position: int  #: where in the log it was added
    left_out: tuple[ItemKey, ...] = ()
    rows: tuple[int, ...] | None = None  #: these only; None: all


@dataclass(frozen=True)
class Reader:
    """Reads the files of one partition; a callable that Dask sends to workers."""

    store: Store
    schema: pa.Schema  #: of what comes back
    hides: Hides | None  #: None: too many to carry
    number: int  #: of the last entry that counts
    attempts: bool  #: attempts parts, or results parts

    def __call__(self, files: Sequence[File], columns: Sequence[str] | None = None) -> Any:
        """A pandas dataframe with Arrow's types, so that integers with nulls stay integers."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        if schema.names:
            return to_pandas(self.table(files, schema))
        import pandas as pd

        return pd.DataFrame(index=pd.RangeIndex(self.table(files, pa.schema([("item_key", pa.string())])).num_rows))

    def table(self, files: Sequence[File], schema: pa.Schema) -> pa.Table:
        """The rows of some files that count, in the columns of ``schema``."""
        hides = self.hides if self.hides is not None else _hides_of_log(self.store, self.number, self.attempts)
        hidden = [bool(len(hides.after(file.position))) for file in files]
        wanted = schema
        if any(hidden) or any(file.left_out for file in files):
            wanted = pa.schema([*schema, *(pa.field(name, pa.string()) for name in RESERVED if name not in schema.names)])
        tables = list(prefetched(lambda file: self._file(file, wanted), files, self.store.is_local))
        table = pa.concat_tables(tables) if tables else wanted.empty_table()
        if any(hidden):
            positions = np.repeat([file.position for file in files], [part.num_rows for part in tables]).astype(np.int64)
            hit = hides.hit(table, positions)
            table = table.filter(pa.array(~hit)) if hit.any() else table
        return table.select(schema.names)

    def _file(self, file: File, wanted: pa.Schema) -> pa.Table:
        read = read_attempts if self.attempts else read_results
        table = read(self.store, file.name, wanted.names)
        if file.rows is not None:
            table = table.take(pa.array(file.rows, pa.int64()))
        return cast(without(table, file.left_out), wanted)


def results(store: Store, state: State, columns: Sequence[str] | None = None) -> Any:
    """The results that count as a Dask dataframe: ``item_key``, ``key_kind`` and the user's columns.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    columns
        These only, in this order.
    """
    reader, files = _results(store, state, columns)
    return _dataframe(reader, list(_by_size(files)), "results")


def results_arrow(store: Store, state: State, columns: Sequence[str] | None = None) -> pa.Table:
    """The results that count as one table in memory; see :func:`results`."""
    reader, files = _results(store, state, columns)
    return _table(reader, list(_by_size(files)))


def attempts(store: Store, state: State, columns: Sequence[str] | None = None) -> Any:
    """The attempts that count as a Dask dataframe, one row an attempt, history too; see :func:`results`."""
    reader, files = _attempts(store, state, columns)
    return _dataframe(reader, list(_by_count(files)), "attempts")


def attempts_arrow(store: Store, state: State, columns: Sequence[str] | None = None) -> pa.Table:
    """The attempts that count as one table in memory; see :func:`attempts`."""
    reader, files = _attempts(store, state, columns)
    return _table(reader, list(_by_count(files)))


def failures(store: Store, state: State, columns: Sequence[str] | None = None) -> Any:
    """What failed at last as a Dask dataframe: one row a failed item, its newest attempt; see :func:`results`."""
    reader, files = _failures(store, state, columns)
    return _dataframe(reader, list(_by_count(files)), "failures")


def failures_arrow(store: Store, state: State, columns: Sequence[str] | None = None) -> pa.Table:
    """What failed at last as one table in memory; see :func:`failures`."""
    reader, files = _failures(store, state, columns)
    return _table(reader, list(_by_count(files)))


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
    if by not in ("kind", "error", "host"):
        raise UsageError(f"failures(by={by!r}): failures are grouped by 'kind', 'error' or 'host'")
    example = [name for name in ("item_key", "key_kind", "error", "message") if name != by]
    table = failures_arrow(store, state, [by, *example])
    # "first" is only defined in one thread
    grouped = table.group_by(by, use_threads=False).aggregate([([], "count_all"), *((name, "first") for name in example)])
    columns = {by: grouped[by], "items": grouped["count_all"], **{name: grouped[f"{name}_first"] for name in example}}
    return to_pandas(pa.table(columns).sort_by([("items", "descending"), (by, "ascending")]))


def failed_rows(store: Store, state: State) -> dict[int, list[int]]:
    """Where the newest attempt of each failed item is: place of the batch in ``state.batches`` -> rows of its attempts part.

    Only batches with a failure, and those after the first of them, are read.
    """
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


def to_pandas(table: pa.Table) -> Any:
    """A pandas dataframe with Arrow's types."""
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)


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
    places: dict[int, list[int]] = {}
    for location in np.sort(locations[last[failed]]).tolist():
        places.setdefault(location >> ROW_BITS, []).append(location & ((1 << ROW_BITS) - 1))
    return places


def _results(store: Store, state: State, columns: Sequence[str] | None) -> tuple[Reader, list[tuple[File, int]]]:
    schema = _selected(results_schema(state), columns)
    files = [(File(part.name, part.position, part.left_out), part.size) for part in state.counted_parts() if part.rows]
    return Reader(store, schema, _carried(state.hides), state.number, attempts=False), files


def _attempts(store: Store, state: State, columns: Sequence[str] | None) -> tuple[Reader, list[tuple[File, int]]]:
    files = [(File(one.mark, one.position, one.batch.left_out), _count(one)) for one in state.batches]
    return Reader(store, _selected(ATTEMPTS_SCHEMA, columns), _carried(state.hides_all), state.number, attempts=True), files


def _failures(store: Store, state: State, columns: Sequence[str] | None) -> tuple[Reader, list[tuple[File, int]]]:
    files = [
        (File(state.batches[ordinal].mark, state.batches[ordinal].position, rows=tuple(rows)), len(rows))
        for ordinal, rows in failed_rows(store, state).items()
    ]
    return Reader(store, _selected(ATTEMPTS_SCHEMA, columns), Hides.of({}), state.number, attempts=True), files


def _count(counted: CountedBatch) -> int:
    return sum(stop - start for start, stop in counted.batch.holds)


def _carried(newest: dict[ItemKey, int]) -> Hides | None:
    return Hides.of(newest) if len(newest) <= _CARRIED_HIDES else None


def _hides_of_log(store: Store, number: int, attempts: bool) -> Hides:
    return _cached_hides(_Unhashed(store, store.url), number, attempts)


@dataclass(frozen=True)
class _Unhashed:
    """A store that compares by its URL, so that the cache below can hold it."""

    store: Store
    url: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashed) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)


@lru_cache(maxsize=2)
def _cached_hides(at: _Unhashed, number: int, attempts: bool) -> Hides:
    log = Log(at.store)
    entries = (entry for index in range(1, number + 1) if (entry := log.read(index)) is not None)
    state = fold(entries)
    return Hides.of(state.hides_all if attempts else state.hides)


def _selected(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    if columns is None:
        return schema
    for name in columns:
        if name not in schema.names:
            near = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(schema.names)}"
            raise UsageError(f"there is no column {name!r}: {hint}")
    return pa.schema([schema.field(name) for name in columns])


def _by_size(files: Iterable[tuple[File, int]]) -> Iterator[tuple[File, ...]]:
    return _grouped(files, PARTITION_BYTES)


def _by_count(files: Iterable[tuple[File, int]]) -> Iterator[tuple[File, ...]]:
    return _grouped(files, PARTITION_ATTEMPTS)


def _grouped(files: Iterable[tuple[File, int]], limit: int) -> Iterator[tuple[File, ...]]:
    group: list[File] = []
    total = 0
    for file, weight in files:
        if group and (len(group) == PARTITION_FILES or total + weight > limit):
            yield tuple(group)
            group, total = [], 0
        group.append(file)
        total += weight
    if group:
        yield tuple(group)


def _table(reader: Reader, partitions: Sequence[Sequence[File]]) -> pa.Table:
    tables = [reader.table(files, reader.schema) for files in partitions]
    return pa.concat_tables(tables) if tables else reader.schema.empty_table()


def _dataframe(reader: Reader, partitions: Sequence[Sequence[File]], label: str) -> Any:
    import dask
    import dask.dataframe as dd

    meta = to_pandas(reader.schema.empty_table())
    # a dataset without rows is one partition without files
    pieces = partitions or [()]
    # the types are Arrow's already; converted once more, strings would lose theirs
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(reader, pieces, meta=meta, label=f"dcompute-{label}")
