"""Parts: names, column types, and the receipt that a mark carries.

A batch's attempts part is its mark; the receipt lies in the key-value metadata of its Parquet footer, so that it is read without the rows.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dcompute.dataset.names import QUARANTINE
from dcompute.dataset.names import mark_name as mark_name
from dcompute.dataset.schema import cast
from dcompute.errors import DatasetCorruptError, DatasetError, StoreError
from dcompute.records import ATTEMPT_COLUMNS, Receipt

if TYPE_CHECKING:
    from dcompute.dataset.store import Store

RECEIPT = b"dcompute.receipt"

_TEXT, _COUNT, _SECONDS = pa.string(), pa.int64(), pa.float64()
_TYPES = {
    "attempt": pa.int32(),
    "exit_code": pa.int32(),
    "signal": pa.int32(),
    "started": pa.timestamp("us", tz="UTC"),
    "duration": _SECONDS,
    "cpu_user": _SECONDS,
    "cpu_system": _SECONDS,
    "peak_memory": _COUNT,
    "bytes_read": _COUNT,
    "bytes_written": _COUNT,
    "io_wait": _SECONDS,
    "leftovers": pa.int32(),
    "rows": _COUNT,
    "quarantined": _COUNT,
    "pid": pa.int32(),
    "seed": _COUNT,
}
#: Types of ``records.ATTEMPT_COLUMNS``: durations in seconds, memory in bytes, ``metrics`` JSON, all others text.
ATTEMPTS_SCHEMA = pa.schema([(name, _TYPES.get(name, _TEXT)) for name in ATTEMPT_COLUMNS])

#: Columns of :func:`read_mark`.
MARK_COLUMNS = ("item_key", "key_kind", "attempt", "outcome", "kind")

# unlike in nearly every row of a part: a dictionary of these costs time and saves nothing
_UNLIKE = frozenset({"item_key", "fingerprint", "started", "duration", "cpu_user", "cpu_system", "io_wait", "seed"})
_ALIKE = [name for name in ATTEMPT_COLUMNS if name not in _UNLIKE]
_COMPRESSION = "zstd"
# a part of 100 rows is read two to three times as quickly with snappy (0.21 against 0.60 ms on one core) and is hardly larger
_SMALL_ROWS, _SMALL_COMPRESSION = 1000, "snappy"
# of a larger part in memory readers take the row groups apart, as partitions of about so many bytes
_GROUP_BYTES = 64 << 20


def results_name(batch_id: str, execution: str, n: int) -> str:
    """The name of a results part that no other execution, of this batch or another, has."""
    return f"results/{batch_id}-{execution}-{n}.parquet"


def attempts_table(rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Attempt rows as a table.

    Parameters
    ----------
    rows
        Values in the order of ``records.ATTEMPT_COLUMNS``; ``started`` in seconds since 1970.
    """
    if not rows:
        return ATTEMPTS_SCHEMA.empty_table()
    return attempts_of(dict(zip(ATTEMPT_COLUMNS, zip(*rows, strict=True), strict=True)), len(rows))


class Mostly(NamedTuple):
    """A column that has one value in all rows but a few."""

    value: Any
    others: Mapping[int, Any]  #: by row

    def each(self, count: int) -> list[Any]:
        """The values of so many rows."""
        values = [self.value] * count
        for row, value in self.others.items():
            values[row] = value
        return values


def same(value: Any) -> Mostly:
    """A column that has one value in all rows."""
    return Mostly(value, {})


def attempts_of(columns: Mapping[str, Any], count: int) -> pa.Table:
    """Attempt rows as a table, from columns.

    Parameters
    ----------
    columns
        Each of ``records.ATTEMPT_COLUMNS``: :class:`Mostly`, or one value a row; ``started`` in seconds since 1970.
    count
        How many rows.
    """
    return pa.table([_column(columns[field.name], field, count) for field in ATTEMPTS_SCHEMA], schema=ATTEMPTS_SCHEMA)


def _column(values: Any, field: pa.Field, count: int) -> pa.Array:
    if not isinstance(values, Mostly):
        return values if isinstance(values, pa.Array) else _array(values, field)
    distinct = _array((values.value, *values.others.values()), field)
    if not values.others:
        return pa.repeat(distinct[0], count) if distinct.null_count == 0 else pa.nulls(count, field.type)
    which = np.zeros(count, np.int64)
    which[list(values.others)] = np.arange(1, len(distinct))
    return distinct.take(pa.array(which))


def write_attempts(target: Any, table: pa.Table, receipt: Receipt) -> None:
    """Write a mark.

    Parameters
    ----------
    target
        A path or a binary file object.
    table
        Of :data:`ATTEMPTS_SCHEMA`.
    receipt
        What the batch sends back.
    """
    compression = _COMPRESSION if table.num_rows >= _SMALL_ROWS else _SMALL_COMPRESSION
    with pq.ParquetWriter(target, ATTEMPTS_SCHEMA, compression=compression, use_dictionary=_ALIKE) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({RECEIPT.decode(): json.dumps(receipt.to_json(), separators=(",", ":"))})


def write_results(target: Any, table: pa.Table) -> None:
    """Write a results part to a path or a binary file object; its types must be those of ``schema.marked``."""
    compression = _COMPRESSION if table.num_rows >= _SMALL_ROWS else _SMALL_COMPRESSION
    rows = max(1, table.num_rows * _GROUP_BYTES // table.nbytes) if table.nbytes > _GROUP_BYTES else None
    pq.write_table(table, target, compression=compression, row_group_size=rows)


def read_receipt(store: Store, name: str) -> Receipt:
    """The receipt of a mark; of a local file only the footer is read.

    Raises
    ------
    FileNotFoundError
        There is no such mark.
    DatasetCorruptError
        The file is not a mark.
    """
    return _receipt(_open(store, name), name)


def read_mark(store: Store, name: str) -> tuple[Receipt, pa.Table]:
    """The receipt of a mark and who is in it: the columns :data:`MARK_COLUMNS`, one row an attempt in the order of the batch."""
    file = _open(store, name)
    return _receipt(file, name), _columns(file, name, MARK_COLUMNS)


def read_attempts(store: Store, name: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of an attempts part that counts; one that a part of an older version lacks is null.

    Raises
    ------
    DatasetCorruptError
        It is gone, or no attempts part.
    """
    try:
        return _columns(_open(store, name), name, columns)
    except FileNotFoundError as error:
        raise gone(store, name) from error


def read_results(store: Store, name: str, columns: Sequence[str]) -> pa.Table:
    """Those of some columns that a results part has, in its own types.

    Raises
    ------
    DatasetCorruptError
        It is gone, or no Parquet file.
    """
    with explained(store, name), source_of(store, name) as source:
        file = pq.ParquetFile(source)
        present = set(file.schema_arrow.names)
        return file.read(columns=[column for column in columns if column in present])


def source_of(store: Store, name: str, block_size: int | None = None, size: int | None = None) -> contextlib.AbstractContextManager[Any]:
    """What pyarrow reads a part from: its path on a local disk, elsewhere a file that is read so many bytes at a time."""
    return contextlib.nullcontext(store.path(name)) if store.is_local else store.stream(name, block_size, size)


@contextlib.contextmanager
def explained(store: Store, name: str) -> Iterator[None]:
    """Whatever goes wrong with reading a results part that counts, told as whose fault it is.

    Raises
    ------
    DatasetCorruptError
        It is gone, or no Parquet file.
    StoreError
        The storage failed.
    """
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise gone(store, name) from error
    except (pa.ArrowException, OSError) as error:
        raise corrupt(name, str(error), "a results part") from error


def gone(store: Store, name: str) -> DatasetError:
    """The error of a part that counts and is not there, or that counted until compaction and vacuum took it away."""
    from dcompute.dataset.log import Log
    from dcompute.dataset.removal import removed

    if name.startswith(QUARANTINE):
        return DatasetError(
            f"{name} is gone from {store.url}: vacuum removed it when none of its records counted any more, or something else did. "
            "Open the dataset as it is now, or restore the file from a copy."
        )
    return removed(Log(store), name) or DatasetCorruptError(
        f"{name} is gone from {store.url}, and the log counts it: something other than dcompute removed it. Restore the file from a copy."
    )


def _open(store: Store, name: str) -> pq.ParquetFile:
    # a mark is small: elsewhere than on local disk one request for all of it is the quickest
    source = store.path(name) if store.is_local else io.BytesIO(store.read(name))
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise corrupt(name, str(error)) from error


def _receipt(file: pq.ParquetFile, name: str) -> Receipt:
    text = (file.metadata.metadata or {}).get(RECEIPT)
    if text is None:
        raise corrupt(name, "it has no receipt")
    try:
        return Receipt.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise corrupt(name, f"its receipt cannot be read: {error}") from error


def _columns(file: pq.ParquetFile, name: str, columns: Sequence[str]) -> pa.Table:
    present = set(file.schema_arrow.names)
    try:
        table = file.read(columns=[column for column in columns if column in present], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise corrupt(name, str(error)) from error
    return cast(table, pa.schema([ATTEMPTS_SCHEMA.field(column) for column in columns]))


def corrupt(name: str, why: str, what: str = "an attempts part") -> DatasetCorruptError:
    """The error of a part that is not what it should be."""
    return DatasetCorruptError(
        f"{name} is not {what} that dcompute wrote ({why}). It was damaged or changed from outside: restore the file from a copy."
    )


def _array(values: Any, field: pa.Field) -> pa.Array:
    if pa.types.is_timestamp(field.type):
        seconds = pc.multiply(pa.array(values, pa.float64()), 1e6)
        return pc.round(seconds).cast(pa.int64()).cast(field.type)
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:
        # a lone surrogate in a message or in what was printed: the row must be written whatever the user's text is
        return pa.array([None if text is None else text.encode("utf-8", "backslashreplace").decode() for text in values], field.type)
