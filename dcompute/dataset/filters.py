"""Which rows are wanted: what a user gives as ``filters=``, checked against the columns there are."""

from __future__ import annotations

import contextlib
import difflib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dcompute import zones
from dcompute.dataset.comparison import comparison
from dcompute.errors import UsageError


@dataclass(frozen=True, slots=True)
class Filter:
    """An expression of Arrow, and the columns that it asks for."""

    expression: Any
    names: tuple[str, ...]

    def apply(self, table: pa.Table) -> pa.Table:
        """The rows of a table for which it is true; null is not true.

        Raises
        ------
        UsageError
            It cannot be asked of a value in the table.
        """
        try:
            return table.filter(self.expression)
        except pa.ArrowException as error:
            raise UsageError(
                f"filters={self.expression!s} cannot be asked of a value in {', '.join(map(repr, self.names))}: {error}. Compare with a "
                "value of the column's own type, or cast the column, as in pyarrow.compute.field('n').cast('float64') > 1.5"
            ) from error

    @classmethod
    def of(cls, filters: Any, schema: pa.Schema) -> Filter | None:
        """What is given as ``filters=``; None where nothing is.

        Parameters
        ----------
        filters
            An expression of pyarrow, or tuples of column, operator and value as pandas, Dask and pyarrow take them: all in one list must
            hold, of several lists one; an empty list asks for nothing.
        schema
            The columns there are.

        Raises
        ------
        UsageError
            It is none of these, names a column that is not there, or compares with a value of another type.
        """
        if filters is None or _is_empty(filters):
            return None
        expression = filters if isinstance(filters, pc.Expression) else _expression(filters, schema)
        empty = schema.empty_table()
        try:
            empty.filter(expression)
            # some types are compared no sooner than there is a row
            pa.table([pa.nulls(1, field.type) for field in schema], schema=schema).filter(expression)
            _try_on_values(expression, schema)
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
    wanted = list(columns)
    for name in wanted:
        if name not in schema.names:
            raise _no_column(name, schema)
    return wanted


def _no_column(name: Any, schema: pa.Schema) -> UsageError:
    near = difflib.get_close_matches(str(name), schema.names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(schema.names)}"
    return UsageError(f"there is no column {name!r}: {hint}")


def _is_empty(filters: Any) -> bool:
    return isinstance(filters, (list, tuple)) and all(isinstance(one, list) and not one for one in filters)


def _expression(filters: Any, schema: pa.Schema) -> Any:
    try:
        alternatives = filters if isinstance(filters[0], list) else [filters]
        names = [name for together in alternatives for name, _, _ in together]
        for name in names:
            if name not in schema.names:
                raise _no_column(name, schema)
        with zones.kept():
            alike = [
                reduce(operator.and_, [_comparison(name, sign, value, schema) for name, sign, value in together])
                for together in alternatives
            ]
        return reduce(operator.or_, alike)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise UsageError(
            f"filters={filters!r} cannot be read ({error}): give an expression such as pyarrow.compute.field('x') > 1, or a list of "
            "(column, operator, value) such as [('x', '>', 1)]"
        ) from error


def _comparison(name: str, sign: str, value: Any, schema: pa.Schema) -> Any:
    type_ = schema.field(name).type
    of_numbers = comparison(name, type_, sign, value)
    if of_numbers is not None:
        return of_numbers
    if sign in ("in", "not in") and isinstance(value, (list, set, tuple)) and all(one is None for one in value):
        # it is nothing that tells its type
        value = pa.array(list(value), type_)
        return pc.field(name).isin(value) if sign == "in" else ~pc.field(name).isin(value)
    return pq.filters_to_expression([(name, sign, value)])


def _try_on_values(expression: Any, schema: pa.Schema) -> None:
    """Raise where types do not go together; what only some values do not allow is for the reading to say."""
    row = [_example(field.type) for field in schema]
    with contextlib.suppress(pa.ArrowInvalid):
        pa.table(row, schema=schema).filter(expression)


def _example(type_: pa.DataType) -> pa.Array:
    for value in (1, 1.5, "x", b"x", True):
        with contextlib.suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
            return pa.array([value], type_)
    return pa.nulls(1, type_)


def _needs(expression: Any, empty: pa.Table, name: str) -> bool:
    """Whether the expression asks for a column: without it, it cannot be evaluated."""
    try:
        empty.drop_columns([name]).filter(expression)
    except pa.ArrowException:
        return True
    return False


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
