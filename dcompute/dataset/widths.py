"""How many bytes a row takes in memory: of text, lists and structures some rows tell it, as stored bytes do not where values repeat."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset.parts import source_of
from dcompute.dataset.pieces import File
from dcompute.dataset.schema import RESERVED
from dcompute.dataset.store import Store
from dcompute.errors import DcomputeError

# of a text nobody has looked at
_SHORT = 24
#: So many rows of a part are looked at; a row of more bytes as it is stored says enough by itself.
_ROWS, _ENOUGH = 32, 1 << 16


def row_bytes(store: Store, files: Sequence[File], schema: pa.Schema) -> int:
    """Bytes of a row, about.

    Parameters
    ----------
    store
        The dataset's.
    files
        Its parts; the largest one and the last one are looked into, where a column may have long values.
    schema
        The columns of a row.
    """
    fixed = sum(_SHORT if _is_long(field.type) else field.type.bit_width // 8 for field in schema)
    if not files or not any(_is_long(field.type) and field.name not in RESERVED for field in schema):
        return fixed
    chosen = {file.name: file for file in (max(files, key=lambda file: file.size), files[-1])}
    return fixed + max(_long_bytes(store, file) for file in chosen.values())


def _long_bytes(store: Store, part: File) -> int:
    """Bytes of the long values of a row; 0 where the part cannot be read, which who reads it is told."""
    try:
        with source_of(store, part.name, size=part.size) as source, pq.ParquetFile(source) as file:
            if not file.metadata.num_rows:
                return 0
            stored = sum(int(file.metadata.row_group(group).total_byte_size) for group in range(file.metadata.num_row_groups))
            if stored >= _ENOUGH * file.metadata.num_rows:
                return stored // int(file.metadata.num_rows)
            names = [field.name for field in file.schema_arrow if _is_long(field.type) and field.name not in RESERVED]
            first = next(file.iter_batches(_ROWS, columns=names), None) if names else None
            return int(first.nbytes) // int(first.num_rows) if first is not None and first.num_rows else 0
    except (DcomputeError, pa.ArrowException, OSError):
        return 0


def _is_long(type_: pa.DataType) -> bool:
    try:
        return int(type_.bit_width) < 0
    except ValueError:
        return True
