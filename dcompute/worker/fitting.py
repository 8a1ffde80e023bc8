"""Written rows brought to a schema that they do not join: what fits is cast, and the items that do not are named.

Columns are judged one by one. A column that cannot meet as a whole is judged by what each item has in it: a null, an empty list or a
structure without the field in question fits everything, and an integer that a float holds exactly fits a float. What values of other items
made of it in the column that they shared does not count: 2 beside a decimal is still 2.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.meeting import FILE, decimal, is_list, list_like, meet_fields
from dcompute.dataset.schema import RESERVED, cast_column, from_text, marked, meet
from dcompute.errors import SchemaError
from dcompute.secrecy import shown_value
from dcompute.worker.blocks import fitted


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why the rows of an item do not fit."""

    column: str
    message: str  #: with column, value and both types


class Fitting:
    """The schema as it is before and after the rows that were brought to it.

    Parameters
    ----------
    schema
        As text; None: nobody knows one yet.
    declared
        Whether it was declared: it does not grow then, and values fit its types or not at all.
    """

    def __init__(self, schema: str | None, *, declared: bool = False) -> None:
        self._fields: dict[str, pa.Field] = {field.name: field for field in (from_text(schema) if schema else ())}
        self._declared = pa.schema(list(self._fields.values())) if declared else None
        self._written: set[str] = set()
        self._marks: dict[str, bytes] = {}  # of columns that say where files of items are

    @property
    def written(self) -> pa.Schema:
        """The columns of the rows that were brought to it, without the keys."""
        return pa.schema([field for name, field in self._fields.items() if name in self._written])

    def fit(self, table: pa.Table, places: Any) -> tuple[pa.Table, dict[int, Misfit]]:
        """The rows that fit, cast; and by place the items that do not fit.

        Parameters
        ----------
        table
            Results rows.
        places
            Array with the place of each row's item.
        """
        import numpy as np

        self._marks = {field.name: mark for field in table.schema if (mark := (field.metadata or {}).get(FILE))}
        starts = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
        names = [name for name in table.column_names if name not in RESERVED]
        misfits: dict[int, Misfit] = {}
        for name in names if len(places) else ():
            for item, misfit in self._judge(name, table.column(name), starts):
                misfits.setdefault(int(places[starts[item]]), misfit)
        if misfits:
            table = table.filter(pa.array(~np.isin(places, list(misfits))))
        return self._brought(table, names), misfits

    def _brought(self, table: pa.Table, names: list[str]) -> pa.Table:
        columns, fields = [table.column(name) for name in RESERVED], [pa.field(name, pa.string()) for name in RESERVED]
        for name in names if table.num_rows else ():
            found = self._bring(name, table.column(name))
            if found is not None:
                field, values = found
                self._fields[name] = field
                self._written.add(name)
                fields.append(field)
                columns.append(values)
        return pa.table(columns, schema=pa.schema(fields))

    # -- which items do not fit ------------------------------------------------------------------------------------------------------

    def _judge(self, name: str, values: pa.ChunkedArray, starts: list[int]) -> list[tuple[int, Misfit]]:
        refusal = self._hopeless(name, values.type)
        if refusal is None:
            return self._halve(name, values, starts, 0, len(starts) - 1)
        import numpy as np

        present = np.add.reduceat(values.is_valid().to_numpy().astype(np.int64), starts[:-1])
        return [(int(item), _misfit(refusal, _of_item(values, starts, int(item)))) for item in np.flatnonzero(present)]

    def _hopeless(self, name: str, type_: pa.DataType) -> SchemaError | None:
        """Why no value of this type fits, where types alone tell it."""
        known = self._fields.get(name)
        if known is None or pa.types.is_nested(type_) or _may_be_of_neighbours(type_):
            return None
        try:
            meet(known.type, type_, column=name)
        except SchemaError as error:
            return error
        return None

    def _halve(self, name: str, values: pa.ChunkedArray, starts: list[int], low: int, high: int) -> list[tuple[int, Misfit]]:
        part = values.slice(starts[low], starts[high] - starts[low])
        try:
            self._bring(name, part)
        except SchemaError as error:
            if high - low == 1:
                return [(low, _misfit(error, part))]
            middle = (low + high) // 2
            return [*self._halve(name, values, starts, low, middle), *self._halve(name, values, starts, middle, high)]
        return []

    # -- values in the type of the schema --------------------------------------------------------------------------------------------

    def _bring(self, name: str, values: pa.ChunkedArray) -> tuple[pa.Field, pa.ChunkedArray] | None:
        """The column's field and the values in it; None where there is none, and nothing to be lost. Raises ``SchemaError``."""
        if self._declared is not None and name not in self._marks:
            return self._bring_to_declared(name, values)
        try:
            return self._join(name, values)
        except SchemaError:
            type_ = _narrow(values)
            if pa.types.is_null(type_):
                return None
            if type_.equals(values.type) and (type_ := _alone(values)).equals(values.type):
                raise
        return self._join(name, cast_column(values, type_, name))

    def _join(self, name: str, values: pa.ChunkedArray) -> tuple[pa.Field, pa.ChunkedArray]:
        field = pa.field(name, values.type, metadata={FILE: self._marks[name]} if name in self._marks else None)
        own = marked(pa.table([values], schema=pa.schema([field]))).schema.field(0)
        known = self._fields.get(name)
        field = own if known is None else meet_fields(known, own, name)
        return field, cast_column(values, field.type, name)

    def _bring_to_declared(self, name: str, values: pa.ChunkedArray) -> tuple[pa.Field, pa.ChunkedArray] | None:
        type_ = _narrow(values)
        known = self._fields.get(name)
        if pa.types.is_null(type_):
            return None if known is None else (known, pa.chunked_array([pa.nulls(len(values), known.type)], known.type))
        table = fitted(pa.table([cast_column(values, type_, name)], names=[name]), self._declared)
        return table.schema.field(0), table.column(0)


def _narrow(values: pa.ChunkedArray) -> pa.DataType:
    """The type without what has no value in it: null for nothing but nulls, structures without fields that are never there."""
    type_ = values.type
    if values.null_count == len(values):
        return pa.null()
    if pa.types.is_struct(type_):
        children = [child.with_type(_narrow(pc.struct_field(values, [place]))) for place, child in enumerate(type_)]
        children = [child for child in children if not pa.types.is_null(child.type)]
        return pa.struct(children) if children else pa.null()
    if is_list(type_):
        return list_like(type_, type_.value_field.with_type(_narrow(pc.list_flatten(values))))
    return type_


def _may_be_of_neighbours(type_: pa.DataType) -> bool:
    """Whether values of other types become values of this one where they share a column."""
    return bool(_narrower(type_))


def _alone(values: pa.ChunkedArray) -> pa.DataType:
    """The type that these values would have had without those of other items beside them, as far as they are the same in it."""
    for one in _narrower(values.type):
        with contextlib.suppress(pa.ArrowException):  # it says what it would lose
            values.cast(one)
            return one
    return values.type


def _narrower(type_: pa.DataType) -> list[pa.DataType]:
    """Types whose values become ones of this type beside others, the narrowest first."""
    if pa.types.is_floating(type_):
        return [pa.int64()]
    if pa.types.is_decimal(type_):
        scale = type_.scale
        return [pa.int64(), *(decimal(whole + scale, scale) for whole in range(1, type_.precision - scale + 1))]
    if pa.types.is_timestamp(type_) and type_.unit == "ns":
        return [pa.timestamp("us", type_.tz)]
    return [pa.duration("us")] if pa.types.is_duration(type_) and type_.unit == "ns" else []


def _of_item(values: pa.ChunkedArray, starts: list[int], item: int) -> pa.ChunkedArray:
    return values.slice(starts[item], starts[item + 1] - starts[item])


def _misfit(error: SchemaError, values: pa.ChunkedArray) -> Misfit:
    message = error.message
    if not error.value and (value := _first_value(error.column, values)):
        message = f"{message} The value is {value}."
    return Misfit(error.column, message)


def _first_value(name: str, values: pa.ChunkedArray) -> str:
    present = values.drop_null()
    with contextlib.suppress(ValueError, OverflowError, ArithmeticError):  # a time that Python has no form for
        return shown_value(name, present[0].as_py()) if len(present) else ""
    return ""
