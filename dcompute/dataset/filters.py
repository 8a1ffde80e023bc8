"""Which rows are wanted: what a user gives as ``filters=``, checked against the columns there are."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dcompute import zones
from dcompute.errors import UsageError


@dataclass(frozen=True, slots=True)
class Filter:
    """An expression of Arrow, and the columns that it asks for."""

    expression: Any
    names: tuple[str, ...]

    def apply(self, table: pa.Table) -> pa.Table:
        """The rows of a table for which it is true; null is not true."""
        return table.filter(self.expression)

    @classmethod
    def of(cls, filters: Any, schema: pa.Schema) -> Filter | None:
        """What is given as ``filters=``; None where nothing is.

        Parameters
        ----------
        filters
            An expression of pyarrow, or tuples of column, operator and value as pandas, Dask and pyarrow take them: all in one list must
            hold, of several lists one.
        schema
            The columns there are.

        Raises
        ------
        UsageError
            It is none of these, names a column that is not there, or compares with a value of another type.
        """
        if filters is None:
            return None
        expression = filters if isinstance(filters, pc.Expression) else _expression(filters, schema)
        empty = schema.empty_table()
        try:
            empty.filter(expression)
        except pa.ArrowException as error:
            raise UsageError(f"filters={filters!s} cannot be asked of columns {_described(schema)}: {error}") from error
        return cls(expression, tuple(name for name in schema.names if _needs(expression, empty, name)))


def check_columns(columns: Sequence[str] | None, schema: pa.Schema) -> list[str]:
    """The columns that are asked for; None: all.

    Raises
    ------
    UsageError
        One is not there; it says which name is near.
    """
    if columns is None:
        return list(schema.names)
    if isinstance(columns, str):
        raise UsageError(f"columns={columns!r} is a text: give a list of names, such as [{columns!r}]")
    for name in columns:
        if name not in schema.names:
            raise _no_column(name, schema)
    return list(columns)


def _no_column(name: Any, schema: pa.Schema) -> UsageError:
    near = difflib.get_close_matches(str(name), schema.names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(schema.names)}"
    return UsageError(f"there is no column {name!r}: {hint}")


def _expression(filters: Any, schema: pa.Schema) -> Any:
    try:
        alternatives = filters if isinstance(filters[0], list) else [filters]
        names = [name for together in alternatives for name, _, _ in together]
        for name in names:
            if name not in schema.names:
                raise _no_column(name, schema)
        with zones.kept():
            return pq.filters_to_expression(alternatives)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise UsageError(
            f"filters={filters!r} cannot be read ({error}): give an expression such as pyarrow.compute.field('x') > 1, or a list of "
            "(column, operator, value) such as [('x', '>', 1)]"
        ) from error


def _needs(expression: Any, empty: pa.Table, name: str) -> bool:
    """Whether the expression asks for a column: without it, it cannot be evaluated."""
    try:
        empty.drop_columns([name]).filter(expression)
    except pa.ArrowException:
        return True
    return False


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
