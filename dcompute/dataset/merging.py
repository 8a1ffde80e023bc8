"""Results parts made into large ones: the rows that count, in the log's schema, streamed so that memory does not grow with the parts."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dcompute.dataset.hiding import Hides, without
from dcompute.dataset.names import compacted_name, new_id
from dcompute.dataset.outcomes import prefetched
from dcompute.dataset.pace import UPKEEP
from dcompute.dataset.parts import explained, source_of
from dcompute.dataset.renames import Renames
from dcompute.dataset.schema import cast
from dcompute.dataset.state import CountedPart
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError
from dcompute.records import PartRef

#: A compacted part is about so many bytes as it is stored.
TARGET = 128 << 20

#: A row group has at most so many rows, or bytes in memory, about: statistics are by row group.
GROUP_ROWS = 1 << 18
GROUP_BYTES = 64 << 20
#: So many bytes in memory are sorted at once, and make one part: with the sorted copy twice as much is needed.
SORT_BYTES = 256 << 20

# rows of a part that are read at once, or those of its largest row group
_READ_ROWS = 1 << 16
# parts of less are read whole, and a few of them ahead
_TINY = 1 << 20
# of larger ones an object store is asked for so many bytes at once
_BLOCK = 16 << 20


@dataclass(frozen=True)
class Merge:
    """Some results parts to be made into large ones; a callable that Dask sends to workers."""

    store: Store
    parts: tuple[CountedPart, ...]
    schema: pa.Schema  #: of the log, with the key's columns
    hides: Hides  #: for results
    sort_by: str | None = None  #: a column; None: in the order of the parts
    target: int = TARGET
    renames: Renames = field(default_factory=Renames)  #: of columns, which parts have by the names of their time
    pace: float = UPKEEP  #: requests a second to an object store

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(part.size for part in self.parts)

    def __call__(self) -> tuple[PartRef, ...]:
        """Write them; none where no row counts."""
        hides = self.hides.after(min(part.position for part in self.parts))
        with self.store.paced(self.pace), tempfile.TemporaryDirectory(prefix="dcompute-") as folder:
            files = Files(self.store, self.schema, folder, self.sort_by, self.target)
            with contextlib.closing(self._tables()) as tables:
                for group in _grouped(tables, SORT_BYTES if self.sort_by else GROUP_BYTES, None if self.sort_by else GROUP_ROWS):
                    files.write(_counting(group, hides, self.schema))
            return files.finish()

    def _tables(self) -> Generator[tuple[int, pa.Table]]:
        """The rows of the parts without those left out, with their part's position."""
        for is_tiny, run in itertools.groupby(self.parts, key=lambda part: part.size < _TINY):
            parts = list(run)
            tables = prefetched(self._whole, parts, self.store.is_local) if is_tiny else map(self._pieces, parts)
            for part, pieces in zip(parts, tables, strict=True):
                for table in pieces:
                    yield part.position, without(table, part.left_out)

    def _whole(self, part: CountedPart) -> list[pa.Table]:
        return list(self._pieces(part))

    def _pieces(self, part: CountedPart) -> Iterator[pa.Table]:
        with opened(self.store, part.name, _BLOCK, part.size) as file:
            columns = file.schema_arrow.names
            now = {old: name for name, old in self.renames.stored(columns, part.position).items()}
            if unknown := {name for name in columns if now[name] not in self.schema.names}:
                raise DatasetCorruptError(
                    f"{part.name} has the column {min(unknown)!r}, of which the log's schema says nothing: it was changed from outside. "
                    "Restore the file from a copy"
                )
            for batch in file.iter_batches(_rows_at_once(file), columns=columns):
                yield cast(pa.Table.from_batches([batch]).rename_columns([now[name] for name in columns]), self.schema)


@contextlib.contextmanager
def opened(store: Store, name: str, block_size: int | None = None, size: int | None = None) -> Iterator[pq.ParquetFile]:
    """A results part that counts, to be read in pieces, from an object store so many bytes at a time.

    Raises
    ------
    DatasetCorruptError
        It is gone, or no Parquet file.
    """
    with explained(store, name), source_of(store, name, block_size, size) as source, pq.ParquetFile(source) as file:
        yield file


def _rows_at_once(file: pq.ParquetFile) -> int:
    # a row group is of so many bytes that memory can hold it, whoever wrote it: so many rows are
    groups = (int(file.metadata.row_group(group).num_rows) for group in range(file.metadata.num_row_groups))
    return max(1, min(_READ_ROWS, max(groups, default=1)))


def is_sorted(file: pq.ParquetFile, column: str) -> bool:
    """Whether a compaction sorted this part by a column that it has."""
    order = _order(file.schema_arrow, column)
    return all(file.metadata.row_group(index).sorting_columns == order for index in range(file.metadata.num_row_groups))


def can_sort(type_: pa.DataType) -> bool:
    """Whether values of a type have an order."""
    try:
        pc.sort_indices(pa.chunked_array([], type_))
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid):
        return False
    return True


def _order(schema: pa.Schema, column: str) -> tuple[Any, ...]:
    order: tuple[Any, ...] = pq.SortingColumn.from_ordering(schema, [(column, "ascending")])
    return order


def _grouped(tables: Iterator[tuple[int, pa.Table]], most_bytes: int, most_rows: int | None) -> Iterator[list[tuple[int, pa.Table]]]:
    """Neighbours together, as many as fit."""
    held: list[tuple[int, pa.Table]] = []
    size = rows = 0
    for position, table in tables:
        if held and (size + table.nbytes > most_bytes or (most_rows is not None and rows + table.num_rows > most_rows)):
            yield held
            held, size, rows = [], 0, 0
        held.append((position, table))
        size, rows = size + table.nbytes, rows + table.num_rows
    if held:
        yield held


def _counting(group: Sequence[tuple[int, pa.Table]], hides: Hides, schema: pa.Schema) -> pa.Table:
    positions, tables = zip(*group, strict=True)
    # the schema's own fields: a table that needed no cast may call the elements of its lists otherwise
    return pa.table(hides.without_hit(tables, positions).columns, schema=schema)


class Files:
    """Compacted parts, each uploaded when it is full."""

    def __init__(self, store: Store, schema: pa.Schema, folder: str, sort_by: str | None, target: int) -> None:
        self._store = store
        self._schema = schema
        self._path = Path(folder) / "part.parquet"
        self._sort_by = sort_by
        self._target = target
        self._execution = new_id()
        self._refs: list[PartRef] = []
        self._sink: Any = None
        self._writer: Any = None
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """Write some rows."""
        if not table.num_rows:
            return
        if self._sort_by is not None:
            table = table.sort_by([(self._sort_by, "ascending")])
        if self._writer is None:
            self._begin()
        self._writer.write_table(table, row_group_size=max(1, min(GROUP_ROWS, table.num_rows * GROUP_BYTES // max(1, table.nbytes))))
        self._rows += table.num_rows
        # what was sorted at once is one part: the next rows may belong before it
        if self._sort_by is not None or self._sink.tell() >= self._target:
            self._end()

    def finish(self) -> tuple[PartRef, ...]:
        """The parts written."""
        if self._writer is not None:
            self._end()
        return tuple(self._refs)

    def _begin(self) -> None:
        self._sink = pa.OSFile(str(self._path), "wb")
        sorting = None if self._sort_by is None else _order(self._schema, self._sort_by)
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, compression="zstd", write_statistics=True, write_page_index=True, sorting_columns=sorting
        )

    def _end(self) -> None:
        self._writer.close()
        self._sink.close()
        ref = PartRef(name=compacted_name(self._execution, len(self._refs)), size=self._path.stat().st_size, rows=self._rows)
        self._store.upload(self._path, ref.name)
        self._path.unlink()
        self._refs.append(ref)
        self._writer, self._rows = None, 0
