"""The rows of a published version, to read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dcompute.dataset import pieces
from dcompute.dataset.filters import check_columns
from dcompute.dataset.frames import Reading, bare
from dcompute.dataset.schema import cast
from dcompute.dataset.store import Store
from dcompute.errors import DatasetCorruptError, DatasetError
from dcompute.report.publishing import version_name
from dcompute.report.versions import File

PARTITION_FILES = 500
PARTITION_ROWS = 1_000_000


_REPLACED = (
    "newer versions of the report replaced the one that had it, and its retention is over. Read the newest one, or keep= more of them"
)
_REMOVED = (
    "the newest version of the report has it, so that something other than dcompute removed it. Restore the file from a copy, or run the "
    "report with full=True"
)


@dataclass(frozen=True)
class ReportRows:
    """Reads files of a report."""

    store: Store
    schema: pa.Schema
    number: int = 0  #: of the version; 0: it is not published yet

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__qualname__, self.store.url, str(self.schema))

    def table(self, piece: pieces.Piece, names: Sequence[str]) -> pa.Table:
        """The rows of some files in some columns."""
        if not names:
            return bare(sum(file.count for file in piece.files))
        wanted = pa.schema([self.schema.field(name) for name in names])
        tables = [cast(self._read(file.name, names), wanted) for file in piece.files]
        return pa.concat_tables(tables) if tables else wanted.empty_table()

    def _why(self) -> str:
        return _REMOVED if self.number and not self.store.exists(version_name(self.number + 1)) else _REPLACED

    def _read(self, name: str, names: Sequence[str]) -> pa.Table:
        try:
            source = self.store.path(name) if self.store.is_local else io.BytesIO(self.store.read(name))
            with pq.ParquetFile(source) as file:
                present = set(file.schema_arrow.names)
                return file.read(columns=[one for one in names if one in present])
        except FileNotFoundError as error:
            raise DatasetError(f"{name} is gone from {self.store.url}: {self._why()}") from error
        except (pa.ArrowException, OSError) as error:
            raise DatasetCorruptError(f"{self.store.url}/{name} is damaged ({error}): run the report again, with full=True") from error


def reading(
    store: Store, schema: pa.Schema, files: Sequence[File], label: str, columns: Sequence[str] | None = None, *, number: int = 0
) -> Reading:
    """Files of a report, before they are read; ``number`` is that of the version, where there is one."""
    found = (pieces.File(file.name, 0, size=file.size, count=file.rows) for file in files)
    grouped = pieces.by_rows(found, most_files=PARTITION_FILES, most_rows=PARTITION_ROWS)
    return Reading(ReportRows(store, schema, number), grouped, check_columns(columns, schema), label)
