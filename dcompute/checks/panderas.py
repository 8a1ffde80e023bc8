"""Schemas of pandera as checks of rows.

Pandera looks at pandas dataframes. Which rows stand beside each other is chance, and must not decide: whether a value is of the type that
the schema asks for is told by the value (:mod:`dcompute.checks.asked`), and a row without a column has null there. Pandera is asked for the
rest, of rows with nulls in the same columns where these matter.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dcompute import zones
from dcompute.checks.asked import Asked, asked, unseen
from dcompute.checks.forms import Check, Said
from dcompute.checks.natural import Mask, as_object
from dcompute.errors import CheckError, MissingExtraError
from dcompute.secrecy import shown_value


def text_of(schema: Any) -> str:
    """A text that changes where the schema does, as far as pandera tells."""
    columns = [f"{name}: {column} {column.nullable} {column.unique} {column.checks}" for name, column in schema.columns.items()]
    return "\n".join([str(schema), str(schema.checks), *columns])


def broken_by(check: Check, table: pa.Table, keys: Collection[str] = ()) -> Said:
    """The rows that a schema does not validate.

    Parameters
    ----------
    check
        The schema.
    table
        The rows.
    keys
        Columns that it is given only where it names them.

    Raises
    ------
    CheckError
        A function of the schema raised.
    """
    errors = _errors()
    table = table.drop_columns([name for name in keys if name in table.column_names and name not in check.given.columns])
    try:
        with zones.kept():
            rows = _Rows(check, table)
            failures = [*rows.of_other_types(), *rows.not_valid(errors)]
    except CheckError:
        raise
    except (Exception, SystemExit) as error:
        raise CheckError(f"the check {check.name!r} raised {type(error).__name__}: {error}", check=check.name) from error
    return Said([row for row, _ in failures], [reason for _, reason in failures])


class _Rows:
    """The rows of a table, as a schema asks for them."""

    def __init__(self, check: Check, table: pa.Table) -> None:
        self._check = check
        self._schema = _of_any_type(check.given)
        self._table = _with_absent(check.given, table)
        self._wanted = {name: _wanted(check.given, name) for name in self._table.column_names}
        self._columns: dict[str, Asked] = {}
        for name in self._table.column_names:
            dtype, coerces = _type_of(check.given, self._wanted[name])
            if self._wanted[name] is None and dtype is None and not check.given.checks:
                self._columns[name] = unseen(self._table.column(name))
            else:
                self._columns[name] = asked(self._table.column(name), dtype, coerces)
        self._optional = set(_optional(check.given, self._table))
        self._rest = np.ones(table.num_rows, dtype=bool)

    def of_other_types(self) -> Iterator[tuple[int, str]]:
        """Rows in which a value is not of the type that is asked for, or missing where it must not be; they are judged no further."""
        for name, column in self._columns.items():
            wanted = self._wanted[name]
            dtype, coerces = _type_of(self._check.given, wanted)
            rule = f"{'coerce_dtype' if coerces else 'dtype'}('{dtype}')"
            for place in np.flatnonzero(column.is_other).tolist():
                yield place, f"{name}: {rule} fails for {_shown(name, self._table.column(name)[place])}"
            self._rest &= ~column.is_other
            if wanted is not None and not wanted.nullable and name not in self._optional:
                yield from (
                    (place, f"{name}: not_nullable fails: it is null or not there") for place in np.flatnonzero(column.is_missing).tolist()
                )
                self._rest &= ~column.is_missing

    def not_valid(self, errors: Any) -> Iterator[tuple[int, str]]:
        """Those of the others that pandera does not validate."""
        for places, absent in self._apart():
            yield from self._failures(errors, places, absent)

    def _apart(self) -> Iterator[tuple[npt.NDArray[np.int64], Collection[str]]]:
        """The places of rows that can be judged together, and the columns that these rows do not have.

        Apart are rows without a column that a row need not have, and those with a null where NumPy knows none.
        """
        rest = np.flatnonzero(self._rest)
        kinds: dict[str, Mask] = {}
        for name, column in self._columns.items():
            mask = column.is_missing if name in self._optional or _knows_no_null(column.values.dtype) else _large(column)
            if mask is not None and mask[rest].any():
                kinds[name] = mask[rest]
        if not kinds:
            yield from [(rest, ())] if len(rest) else []
            return
        found, kind_of = np.unique(np.column_stack(list(kinds.values())), axis=0, return_inverse=True)
        for number, kind in enumerate(found):
            absent = [name for name, is_so in zip(kinds, kind, strict=True) if is_so and name in self._optional]
            yield rest[kind_of.reshape(-1) == number], absent

    def _failures(self, errors: Any, places: npt.NDArray[np.int64], absent: Collection[str]) -> Iterator[tuple[int, str]]:
        try:
            found = list(_found(self._check, self._schema, self._frame(places, absent), errors))
        except CheckError:
            if len(places) == 1:
                raise
            # the others pass or not, whoever shares their table
            for half in np.array_split(places, 2):
                yield from self._failures(errors, half, absent)
            return
        yield from ((int(places[place]), reason) for place, reason in found)

    def _frame(self, places: npt.NDArray[np.int64], absent: Collection[str]) -> Any:
        """The rows as pandas has them, numbered from 0."""
        import pandas as pd

        names = [name for name in self._columns if name not in absent]
        if _is_model_of_rows(self._schema):
            columns = {name: [as_object(value) for value in self._table.column(name).take(pa.array(places)).to_pylist()] for name in names}
            return pd.DataFrame(columns, index=range(len(places)), columns=names, dtype=object)
        made = {name: self._columns[name].values.reindex(places).infer_objects().set_axis(range(len(places))) for name in names}
        return pd.DataFrame(made, index=range(len(places)), columns=names)


def _with_absent(schema: Any, table: pa.Table) -> pa.Table:
    """The table with nulls for columns that the schema names and no row has, where a row must have them or may have null."""
    model = schema.dtype.column_names if _is_model_of_rows(schema) else ()
    named = [name for name, column in schema.columns.items() if not column.regex and (column.required or column.nullable)]
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name in [*named, *model]:
        if isinstance(name, str) and name not in columns:
            columns[name] = pa.chunked_array([pa.nulls(table.num_rows)])
    return pa.table(columns) if columns else table


def _wanted(schema: Any, name: str) -> Any:
    """What the schema says of a column; None: nothing."""
    for own, column in schema.columns.items():
        if own == name or (column.regex and isinstance(own, str) and re.match(own, name)):
            return column
    return None


def _type_of(schema: Any, column: Any) -> tuple[Any, bool]:
    """The type that is asked for, None where it is any, and whether values are made it."""
    if _is_model_of_rows(schema):
        return None, False
    if schema.dtype is not None and (column is not None or not schema.columns):
        return schema.dtype, bool(schema.coerce or (column is not None and column.coerce))
    if column is None or column.dtype is None:
        return None, False
    return column.dtype, bool(schema.coerce or column.coerce)


def _of_any_type(schema: Any) -> Any:
    """The schema without what was asked before, and without the order of columns: that of a row is chance."""
    found = copy.copy(schema)
    found.columns = {}
    for name, column in schema.columns.items():
        found.columns[name] = own = copy.copy(column)
        own.dtype, own.coerce = None, False
    found.ordered = False
    if not _is_model_of_rows(schema):
        found.dtype, found.coerce = None, False
    return found


def _is_model_of_rows(schema: Any) -> bool:
    """Whether it is one of pydantic, which takes rows as mappings."""
    return hasattr(schema.dtype, "column_names")


def _optional(schema: Any, table: pa.Table) -> Iterator[str]:
    """Columns that a row need not have, and that a null in it would fail."""
    unnamed = schema.strict is True or any(column.regex for column in schema.columns.values())
    for name in table.column_names:
        column = schema.columns.get(name)
        if unnamed if column is None else not (column.required or column.nullable):
            yield name


def _knows_no_null(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "iub"


def _large(column: Asked) -> Mask | None:
    """Where a column has integers that are no floats, beside floats; None: nowhere."""
    values = column.values
    if values.dtype != np.dtype(object):
        return None
    found = np.zeros(len(column.is_missing), dtype=bool)
    found[values.index] = [type(value) is int for value in values]
    return found


def _found(check: Check, schema: Any, frame: Any, errors: Any) -> Iterator[tuple[int, str]]:
    """Place and reason of each failure, in the rows of this frame."""
    try:
        with _switched_on():
            schema.validate(frame, lazy=True)
    except errors.SchemaErrors as found:
        _refuse_raised(check, found.schema_errors, errors)
        cases = found.failure_cases
        columns = (cases[name].tolist() for name in ("schema_context", "column", "check", "failure_case", "index"))
        for context, column, rule, value, index in zip(*columns, strict=True):
            yield from _of_case(len(frame), (context, column, rule, value, index))
    except errors.SchemaError as found:
        raise CheckError(f"the check {check.name!r} cannot be asked: {found}", check=check.name) from found
    except (Exception, SystemExit) as error:
        raise CheckError(f"the check {check.name!r} raised {type(error).__name__}: {error}", check=check.name) from error


def _refuse_raised(check: Check, found: Iterable[Any], errors: Any) -> None:
    """Raise where a rule did: pandera says that all it was asked of fails."""
    for error in found:
        if error.reason_code is errors.SchemaErrorReason.CHECK_ERROR:
            rule = getattr(error.check, "error", None) or getattr(error.check, "name", None) or error.check
            raise CheckError(f"the check {check.name!r}: {rule} raised {error.failure_cases}", check=check.name)


def _of_case(count: int, case: tuple[Any, ...]) -> Iterator[tuple[int, str]]:
    context, column, rule, value, index = case
    where = f"{column}: " if isinstance(column, str) and context == "Column" else ""
    text = f"{where}{rule} fails for {shown_value(str(column), value)}"
    if index is not None and index == index:  # not a number
        yield int(index), text
        return
    # it is the column that fails, and with it each of its rows
    yield from ((place, text) for place in range(count))


def _shown(name: str, value: Any) -> str:
    try:
        return shown_value(name, value.as_py())
    except (ValueError, OverflowError, ArithmeticError):  # a time that Python has no form for
        return shown_value(name, str(value))


def _switched_on() -> Any:
    """A context in which neither the environment nor the user's code has switched pandera off."""
    from pandera.config import ValidationDepth, config_context

    return config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA)


def _errors() -> Any:
    try:
        with zones.kept():
            import pandera.errors
    except ImportError as error:
        raise MissingExtraError('checks with pandera need it where items are executed: pip install "dcompute[checks]"') from error
    return pandera.errors
