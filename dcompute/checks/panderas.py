"""Schemas of pandera as checks of rows.

Pandera looks at pandas dataframes. Which rows stand beside each other is chance, and must not decide: a column that pandera wants as
integers is given as such where its values are whole, whatever other rows made of it; rows with other values in it are judged apart. So are
rows in which a column is null that the schema does not ask for: they have it from others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dcompute import zones
from dcompute.checks.forms import Check, Said
from dcompute.errors import CheckError, MissingExtraError
from dcompute.secrecy import shown_value

_LARGEST = 2**53


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
    rows: list[int] = []
    reasons: list[str] = []
    table = table.drop_columns([name for name in keys if name in table.column_names and name not in check.given.columns])
    for places, absent in _apart(check.given, table):
        own = table if len(places) == table.num_rows else table.take(pa.array(places))
        for place, reason in _failures(check, own.drop_columns(absent)):
            rows.append(int(places[place]))
            reasons.append(reason)
    return Said(rows, reasons)


def _apart(schema: Any, table: pa.Table) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    """The places of rows that can be judged together, and the columns that these rows do not have.

    Apart are the rows whose values are such as the schema wants them, those where one is null, and the others.
    """
    good, null = np.ones(table.num_rows, dtype=bool), np.zeros(table.num_rows, dtype=bool)
    for name in _plain_integers(schema, table):
        good &= np.asarray(_whole(table.column(name)))
        null |= np.asarray(table.column(name).is_null())
    optional = list(_optional(schema, table))
    kinds = np.column_stack([np.where(good, 0, np.where(null, 1, 2)), *(np.asarray(table.column(name).is_null()) for name in optional)])
    found, kind_of = np.unique(kinds, axis=0, return_inverse=True) if optional else np.unique(kinds, return_inverse=True)
    for number, kind in enumerate(found.reshape(len(found), -1)):
        absent = [name for name, is_absent in zip(optional, kind[1:], strict=True) if is_absent]
        yield np.flatnonzero(kind_of.reshape(-1) == number), absent


def _optional(schema: Any, table: pa.Table) -> Iterator[str]:
    """Columns that a row need not have, and that a null in it would fail."""
    unnamed = schema.strict is True or any(column.regex for column in schema.columns.values())
    for name in table.column_names:
        column = schema.columns.get(name)
        if unnamed if column is None else not (column.required or column.nullable):
            yield name


def _plain_integers(schema: Any, table: pa.Table) -> Iterator[str]:
    """Columns that the schema wants as NumPy's integers or truth values, which know no null."""
    for name, column in schema.columns.items():
        wanted = str(column.dtype)
        if name in table.column_names and wanted.startswith(("int", "uint", "bool")):
            type_ = table.schema.field(name).type
            if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_):
                yield name


def _whole(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(values.type):
        return values.is_valid()
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), _LARGEST))
    return pc.fill_null(whole, False)


def _failures(check: Check, table: pa.Table) -> Iterator[tuple[int, str]]:
    """Place and reason of each failure, in the rows of this table."""
    errors = _errors()
    frame = _frame(check.given, table)
    try:
        with _switched_on():
            check.given.validate(frame, lazy=True)
    except errors.SchemaErrors as found:
        cases = found.failure_cases
        columns = (cases[name].tolist() for name in ("schema_context", "column", "check", "failure_case", "index"))
        for context, column, rule, value, index in zip(*columns, strict=True):
            yield from _of_case(check, table.num_rows, (context, column, rule, value, index))
    except errors.SchemaError as found:
        raise CheckError(f"the check {check.name!r} cannot be asked: {found}", check=check.name) from found
    except (Exception, SystemExit) as error:
        raise CheckError(f"the check {check.name!r} raised {type(error).__name__}: {error}", check=check.name) from error


def _of_case(check: Check, count: int, case: tuple[Any, ...]) -> Iterator[tuple[int, str]]:
    context, column, rule, value, index = case
    where = f"{column}: " if isinstance(column, str) and context == "Column" else ""
    text = f"{where}{rule} fails for {shown_value(str(column), value)}"
    if index is not None and index == index:  # not a number
        yield int(index), text
        return
    if isinstance(value, str) and "Error(" in value and rule != "column_in_dataframe":
        raise CheckError(f"the check {check.name!r}: {rule} raised {value}", check=check.name)
    # it is the column that fails, and with it each of its rows
    yield from ((place, text) for place in range(count))


def _frame(schema: Any, table: pa.Table) -> Any:
    """The rows as pandas has them, numbered from 0; columns that the schema wants as integers are such where that loses nothing."""
    for name in _plain_integers(schema, table):
        values, wanted = table.column(name), str(schema.columns[name].dtype)
        if pa.types.is_floating(values.type) and wanted != "bool" and bool(pc.all(_whole(values)).as_py()):
            table = table.set_column(table.column_names.index(name), name, values.cast(pa.int64()))
    frame = table.to_pandas()
    for name, column in schema.columns.items():
        wanted = str(column.dtype)
        if name in frame.columns and wanted.startswith(("Int", "UInt", "boolean")) and str(frame[name].dtype) != wanted:
            frame[name] = _as_nullable(table.column(name), wanted, frame[name])
    return frame


def _as_nullable(values: pa.ChunkedArray, wanted: str, otherwise: Any) -> Any:
    import pandas as pd

    try:
        return pd.Series(values.to_pylist(), dtype=wanted)
    except (TypeError, ValueError):
        return otherwise


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
