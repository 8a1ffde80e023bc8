"""Rows that are read piece by piece, as a lazy Dask dataframe or as one table in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.pieces import Piece


class Rows(Protocol):
    """Something that knows its columns and reads some of them of a piece."""

    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102

    def table(self, piece: Piece, names: Sequence[str]) -> pa.Table:
        """The rows of a piece that are wanted, in some of the columns; without columns it still has its number of rows."""
        ...


@dataclass(frozen=True)
class Reading:
    """Some columns of rows, in pieces: what there is to read, before it is read."""

    rows: Rows
    pieces: Sequence[Piece]
    columns: Sequence[str]
    label: str

    @property
    def schema(self) -> pa.Schema:
        """Of the columns."""
        return pa.schema([self.rows.schema.field(name) for name in self.columns])

    def to_arrow(self) -> pa.Table:
        """All of it in memory."""
        tables = [self.rows.table(piece, self.columns) for piece in self.pieces]
        if not self.columns:  # put together they would forget how many rows they have
            return bare(sum(table.num_rows for table in tables))
        return pa.concat_tables(tables) if tables else self.schema.empty_table()

    def to_dask(self) -> Any:
        """A lazy Dask dataframe; columns that its user does not ask for are not read."""
        import dask
        import dask.dataframe as dd

        from dcompute.dataset.counting import counted

        meta = to_pandas(self.schema.empty_table())
        # a dataset without rows is one partition without files
        pieces = self.pieces or [Piece()]
        # the types are Arrow's already; converted once more, strings would lose theirs
        with dask.config.set({"dataframe.convert-string": False}):
            frame = dd.from_map(Partition(self.rows), pieces, columns=list(self.columns), meta=meta, label=f"dcompute-{self.label}")
        return counted(frame)


@dataclass(frozen=True)
class Partition:
    """Reads one partition; a callable that Dask sends to workers and hands the columns that are needed.

    ``columns`` has no default: with one, Dask would ask for all columns where it needs none.
    """

    rows: Rows

    def __call__(self, piece: Piece, columns: Sequence[str]) -> Any:
        """A pandas dataframe with Arrow's types, so that integers with nulls stay integers."""
        return to_pandas(self.rows.table(piece, columns))


def to_pandas(table: pa.Table) -> Any:
    """A pandas dataframe with Arrow's types, in which NaN is null.

    pandas leaves missing values out, and takes NaN for one in columns of NumPy; in those of Arrow it does not, and its sums and means of
    groups come out as 0 there (3.1).
    """
    import pandas as pd

    if not table.num_columns:
        return pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    return _without_nan(table).to_pandas(types_mapper=pd.ArrowDtype)


def _without_nan(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            is_nan = pc.is_nan(table.column(index))
            if pc.any(is_nan).as_py():
                table = table.set_column(index, field, pc.if_else(is_nan, pa.scalar(None, field.type), table.column(index)))
    return table


def bare(rows: int) -> pa.Table:
    """So many rows without a column."""
    return pa.table({"": pa.nulls(rows)}).select([])
