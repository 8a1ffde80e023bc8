"""Reading the quarantine: the records that count, by what the log says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dcompute.dataset.counted import CountedPart
from dcompute.dataset.filters import Filter, check_columns
from dcompute.dataset.frames import Reading
from dcompute.dataset.pieces import File, by_rows
from dcompute.dataset.quarantined import QUARANTINE_SCHEMA
from dcompute.dataset.reading import PARTITION_FILES, Reader, carried_hides
from dcompute.dataset.state import State
from dcompute.dataset.store import Store

#: One partition reads at most so many records.
PARTITION_RECORDS = 100_000


def reading_quarantine(store: Store, state: State, columns: Sequence[str] | None = None, filters: Any = None) -> Reading:
    """The records that did not pass a check and were neither released nor dropped, before they are read.

    Parameters
    ----------
    store
        The dataset's.
    state
        What its log says.
    columns
        These only, in this order.
    filters
        Which records: see :meth:`~dcompute.dataset.filters.Filter.of`.
    """
    where = Filter.of(filters, QUARANTINE_SCHEMA)
    reader = Reader(store, QUARANTINE_SCHEMA, carried_hides(state.hides), state.number, state.entry_id, attempts=False, where=where)
    pieces = by_rows(quarantine_files(state), most_files=PARTITION_FILES, most_rows=PARTITION_RECORDS)
    return Reading(reader, pieces, check_columns(columns, QUARANTINE_SCHEMA), "quarantine")


def quarantine_files(state: State) -> Iterator[File]:
    """The parts with records that count as far as the log alone can tell, and the rows of these."""
    for part in state.quarantine_parts():
        rows = rows_left(part, state.ended.get(part.name, ()))
        yield File(part.name, part.position, part.left_out, rows=rows, size=part.size, count=part.rows if rows is None else len(rows))


def rows_left(part: CountedPart, ended: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    """The rows of a part without those in some half-open ranges; None: all."""
    if not ended:
        return None
    gone = {row for start, stop in ended for row in range(start, stop)}
    return tuple(row for row in range(part.rows) if row not in gone)
