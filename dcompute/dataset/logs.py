"""What items printed. Attempt rows have the beginning and the end of it; what is longer lies in a log part of the batch, named by its mark.

A log part counts as long as the mark of its batch does. Versions that know none read the rows as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset.frames import Reading
from dcompute.dataset.names import LOGS, logs_batch, mark_name
from dcompute.dataset.parts import explained, read_receipt, source_of
from dcompute.dataset.state import State
from dcompute.dataset.store import Store
from dcompute.records import STREAMS, batch_id

LOGS_SCHEMA = pa.schema(
    [
        ("item_key", pa.string()), ("key_kind", pa.string()), ("attempt", pa.int32()), ("stream", pa.string()), ("text", pa.large_string()),
        ("bytes", pa.int64()),
    ]
)  # fmt: skip
#: What an item printed longer than this, both ends of it, its row has no more.
SHORT = 8 << 10


class Printed(NamedTuple):
    """What one attempt printed to one stream."""

    item_key: str
    key_kind: str
    attempt: int
    stream: str
    text: str
    bytes: int | None  #: that it printed in all; None where its row has the whole


def write_logs(path: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write a log part of rows with the columns of :data:`LOGS_SCHEMA`, sorted by item, so that who reads one item reads little."""
    ordered = sorted(rows, key=lambda row: (row[0], row[1], row[2], row[3]))
    columns = [pa.array(column, field.type) for column, field in zip(zip(*ordered, strict=True), LOGS_SCHEMA, strict=True)]
    pq.write_table(pa.table(columns, schema=LOGS_SCHEMA), path, compression="zstd", row_group_size=64)


def kept(state: State, names: Collection[str]) -> set[str]:
    """Those of some files that are log parts of batches which count; nothing says here which execution of a batch its mark is of."""
    logs = {name: batch for name in names if (batch := logs_batch(name)) is not None}
    if not logs:
        return set()
    marks = {one.mark for one in state.batches}
    return {name for name, batch in logs.items() if mark_name(batch_id(*batch)) in marks}


class LogParts:
    """The log parts of a dataset, looked for when they are first asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[str, list[str]] | None = None  # by batch
        self._opened: tuple[str, dict[tuple[str, str, int, str], Printed]] | None = None

    def of(self, batch: str) -> Mapping[tuple[str, str, int, str], Printed]:
        """What the log part of a batch has, by key, its kind, attempt and stream.

        Raises
        ------
        DatasetCorruptError
            A part that the mark names is gone or damaged.
        """
        if self._names is None:
            self._names = {}
            for name in self._store.names(LOGS):
                if (found := logs_batch(name)) is not None:
                    self._names.setdefault(batch_id(*found), []).append(name)
        if batch not in self._names:
            return {}
        if self._opened is None or self._opened[0] != batch:
            self._opened = (batch, self._read(batch))
        return self._opened[1]

    def _read(self, batch: str) -> dict[tuple[str, str, int, str], Printed]:
        found = {}
        for part in read_receipt(self._store, mark_name(batch)).logs:
            with explained(self._store, part.name), source_of(self._store, part.name) as source:
                rows = pq.read_table(source, schema=None).to_pylist()
            for row in rows:
                found[row["item_key"], row["key_kind"], row["attempt"], row["stream"]] = Printed(**row)
        return found


def printed(reading: Reading, parts: LogParts, streams: Sequence[str] = STREAMS) -> Iterator[Printed]:
    """What attempts printed, in their order; those that printed nothing are passed over.

    Parameters
    ----------
    reading
        Of the attempts table, with the columns of :data:`NEEDED`.
    parts
        Of the same dataset.
    """
    for row in (row for piece in reading.pieces for row in reading.rows.table(piece, reading.columns).to_pylist()):
        for stream in streams:
            text = row[stream]
            if not text:
                continue
            key = (row["item_key"], row["key_kind"], row["attempt"], stream)
            long = parts.of(row["batch"]).get(key) if len(text) >= SHORT else None
            yield long or Printed(*key, text, None)


#: Columns of the attempts table that tell who printed what.
NEEDED = ("item_key", "key_kind", "attempt", *STREAMS, "batch")
