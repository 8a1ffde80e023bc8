"""The outcomes that count, as going on needs them: a stream of all, and a look-up of some.

An item's outcome is its newest counted attempt: by log position, then by attempt number. Attempts that a hide ended are no outcomes any
more (they stay as history), since the entry with the hide holds the first new attempt.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dcompute.dataset.ahead import prefetched as prefetched
from dcompute.dataset.hiding import Hides, are_keys, joined_keys
from dcompute.dataset.parts import read_attempts
from dcompute.dataset.state import POSITION_BITS, CountedBatch, State
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError
from dcompute.records import FAILED, ItemKey

#: Columns of a chunk, and then ``final``: whether the log calls this failure final.
OUTCOME_COLUMNS = (
    "item_key", "key_kind", "attempt", "outcome", "kind", "fingerprint", "params_digest", "version", "code_digest", "seed",
)  # fmt: skip

_NEEDED = ("item_key", "key_kind", "attempt", "outcome")

#: A location is ``place of the batch in the log's order << ROW_BITS | row in its attempts part``.
ROW_BITS = 32

#: Rows of one chunk, about: enough that the work on it is not the work of starting it.
CHUNK_ROWS = 1 << 16
_CACHE_BYTES = 96 << 20
# columns with few different values in a part: kept as dictionaries a part of a million rows takes 100 MB in place of 180
_ALIKE = ("key_kind", "outcome", "kind", "params_digest", "version", "code_digest")


@dataclass(frozen=True, slots=True)
class OutcomeChunk:
    """Some outcomes, each key once; where a later chunk has a key again, that one counts."""

    table: pa.Table  #: :data:`OUTCOME_COLUMNS` and ``final``
    locations: npt.NDArray[np.uint64]  #: for :meth:`OutcomeReader.rows`; in a later chunk always higher


class Stored(NamedTuple):
    """One outcome as it lies in the dataset."""

    key: ItemKey
    attempt: int
    outcome: str
    kind: str | None
    fingerprint: str
    params_digest: str
    version: str | None
    code_digest: str
    seed: int | None
    final: bool  #: whether the log calls this failure final


def iter_outcomes(store: Store, state: State, *, since: int = 0, columns: Sequence[str] = OUTCOME_COLUMNS) -> Iterator[OutcomeChunk]:
    """The outcomes that count, in the order of the log; about a million a second from local disk.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    since
        Leaves out so many batches at the beginning of the log, and what stands in one entry with the last of them not.
    columns
        Those of :data:`OUTCOME_COLUMNS` that are needed; key, attempt and outcome always come.
    """
    hides = Hides.of(state.hides)
    batches = list(enumerate(state.batches))[_entry_start(state.batches, since) :]
    wanted = [name for name in OUTCOME_COLUMNS if name in _NEEDED or name in columns]
    held: list[tuple[int, CountedBatch, pa.Table]] = []
    rows = 0
    for (ordinal, counted), table in zip(
        batches, prefetched(lambda pair: load(store, pair[1], wanted), batches, store.is_local), strict=True
    ):
        # an entry is never cut: which of two attempts in it is the newer one cannot be told by location
        if rows >= CHUNK_ROWS and _entry(held[-1][1]) != _entry(counted):
            yield _chunk(held, hides)
            held, rows = [], 0
        held.append((ordinal, counted, table))
        rows += table.num_rows
    if held:
        yield _chunk(held, hides)


def load(store: Store, counted: CountedBatch, columns: Sequence[str] = OUTCOME_COLUMNS) -> pa.Table:
    """All rows of a batch's attempts part: some of :data:`OUTCOME_COLUMNS`, and ``final``."""
    table = read_attempts(store, counted.mark, columns)
    final = are_keys(table, counted.batch.final)
    if counted.batch.final:
        final &= np.asarray(table.column("outcome").to_numpy() == FAILED)
    return table.append_column("final", pa.array(final, pa.bool_()))


class OutcomeReader:
    """Looks outcomes up by location; keeps what it read, up to 96 MiB.

    Parts are read in blocks of neighbours in the log, since inputs that come again come mostly in their old order. Batches that the state
    gains later are found too.
    """

    def __init__(self, store: Store, state: State) -> None:
        self._store = store
        self._state = state
        self._blocks: list[range] = []  # of ordinals
        self._block_of = np.empty(0, dtype=np.int64)
        self._kept: dict[int, _Block] = {}
        self._bytes = 0
        self._random = random.Random(0)  # noqa: S311  chooses what to forget

    def rows(self, locations: Sequence[int] | npt.NDArray[np.uint64]) -> list[Stored]:
        """The outcomes at these locations, in their order."""
        places = np.asarray(locations, dtype=np.uint64)
        ordinals = (places >> np.uint64(ROW_BITS)).astype(np.int64)
        rows = (places & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)
        self._lay_out()
        blocks = self._block_of[ordinals]
        order = np.argsort(blocks, kind="stable")
        found: list[Any] = [None] * len(places)
        for group in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1) if len(order) else ():
            block = self._block(int(blocks[group[0]]))
            at = block.offsets[ordinals[group] - block.first] + rows[group]
            for index, stored in zip(group.tolist(), _stored(block.table.take(pa.array(at))), strict=True):
                found[index] = stored
        return found

    def _lay_out(self) -> None:
        start, stop = len(self._block_of), len(self._state.batches)
        if start == stop:
            return
        counts = np.array([_count(counted) for counted in self._state.batches[start:stop]], dtype=np.int64)
        number = (np.cumsum(counts) - counts) // CHUNK_ROWS
        number = np.cumsum(np.append(0, np.diff(number) > 0))  # a large part leaves numbers out
        self._block_of = np.append(self._block_of, number + len(self._blocks))
        ends = np.append(np.flatnonzero(np.diff(number)) + 1, stop - start) + start
        for end in ends.tolist():
            self._blocks.append(range(start, end))
            start = end

    def _block(self, number: int) -> _Block:
        block = self._kept.get(number)
        if block is None:
            block = self._kept[number] = self._read(self._blocks[number])
            self._bytes += block.table.nbytes
            # one by chance: inputs that go round and round would always miss what was used longest ago
            while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
                dropped = self._random.choice([other for other in self._kept if other != number])
                self._bytes -= self._kept.pop(dropped).table.nbytes
        return block

    def _read(self, ordinals: range) -> _Block:
        batches = self._state.batches[ordinals.start : ordinals.stop]
        tables = list(prefetched(lambda counted: load(self._store, counted), batches, self._store.is_local))
        offsets = np.cumsum([0, *(table.num_rows for table in tables)])
        return _Block(ordinals.start, offsets, _compact(pa.concat_tables(tables)))


@dataclass(frozen=True, slots=True)
class _Block:
    first: int  # ordinal
    offsets: npt.NDArray[np.int64]  # of each part in the table
    table: pa.Table


def _count(counted: CountedBatch) -> int:
    return sum(stop - start for start, stop in counted.batch.holds)


def newest(table: pa.Table, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indexes, ascending, of the newest attempt of each key.

    Parameters
    ----------
    table
        Has ``item_key``, ``key_kind`` and ``attempt``.
    entries
        Number of the entry that added each row.
    """
    codes = joined_keys(table).dictionary_encode()
    if len(codes.dictionary) == table.num_rows:
        return np.arange(table.num_rows, dtype=np.int64)
    code = codes.indices.to_numpy()
    order = np.lexsort((table.column("attempt").to_numpy(), entries, code))
    last = np.append(code[order][1:] != code[order][:-1], True)
    return np.sort(order[last]).astype(np.int64)


def _chunk(held: Sequence[tuple[int, CountedBatch, pa.Table]], hides: Hides) -> OutcomeChunk:
    tables, locations, positions = [], [], []
    for ordinal, counted, table in held:
        rows = np.arange(table.num_rows, dtype=np.uint64)
        part = table
        if counted.batch.left_out:
            keep = ~are_keys(table, counted.batch.left_out)
            part, rows = table.filter(pa.array(keep)), rows[keep]
        tables.append(part)
        locations.append(rows | np.uint64(ordinal << ROW_BITS))
        positions.append(np.full(len(rows), counted.position, dtype=np.int64))
    table, location, position = pa.concat_tables(tables), np.concatenate(locations), np.concatenate(positions)
    hit = hides.hit(table, position)
    if hit.any():
        table, location, position = table.filter(pa.array(~hit)), location[~hit], position[~hit]
    index = newest(table, position >> POSITION_BITS)
    if len(index) < table.num_rows:
        table, location = table.take(pa.array(index)), location[index]
    return OutcomeChunk(table.combine_chunks(), location)


def _entry(counted: CountedBatch) -> int:
    return counted.position >> POSITION_BITS


def _entry_start(batches: Sequence[CountedBatch], ordinal: int) -> int:
    while 0 < ordinal < len(batches) and _entry(batches[ordinal - 1]) == _entry(batches[ordinal]):
        ordinal -= 1
    return ordinal


def _stored(table: pa.Table) -> Iterator[Stored]:
    if table.column("item_key").null_count:
        raise DatasetCorruptError("an attempts part has a row without item_key: something other than dcompute wrote it")
    text, kind, *rest = (_values(table.column(name)) for name in (*OUTCOME_COLUMNS, "final"))
    return map(Stored, map(ItemKey, text, kind), *rest)


def _compact(table: pa.Table) -> pa.Table:
    for index, name in enumerate(table.column_names):
        if name in _ALIKE:
            table = table.set_column(index, name, table.column(name).combine_chunks().dictionary_encode())
    return table.combine_chunks()


def _values(column: pa.ChunkedArray) -> list[Any]:
    # to_pylist takes three times as long
    if not pa.types.is_dictionary(column.type):
        values: list[Any] = column.to_numpy().tolist() if not column.null_count else column.to_pylist()
        return values
    found: list[Any] = []
    for chunk in column.chunks:
        words = [*chunk.dictionary.to_pylist(), None]
        found.extend(words[index] for index in chunk.indices.fill_null(len(words) - 1).to_pylist())
    return found
