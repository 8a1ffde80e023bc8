"""Column types of results: as text, how two meet, and how a table is brought to them.

Two types meet where every value of both can be told from the result. What decides that by values (an integer that a float cannot hold
exactly, a time that nanoseconds cannot reach) is known from a mark in the field's metadata, ``wide``, set by :func:`marked` when a part is
written:

* integers: the bits of the smallest form that holds all values, ``54`` for what lies beyond ±2**53, ``64`` beyond int64;
* timestamps and durations: the finest unit that reaches all values.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dcompute import zones
from dcompute.dataset import meeting
from dcompute.errors import SchemaError, WorkloadError
from dcompute.secrecy import shown_value

#: Columns that every results part begins with; a result may not have them.
RESERVED = ("item_key", "key_kind")

_PYTHON_TYPES: dict[Any, pa.DataType] = {
    bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary(),
    datetime.datetime: pa.timestamp("us"), datetime.date: pa.date32(), datetime.timedelta: pa.duration("us"),
}  # fmt: skip
_INT_LIMIT = 2**53
_NEEDS = "a newer dcompute, which knows files of items: update it"
_UNITS = ("s", "ms", "us", "ns")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def declared(schema: Any) -> pa.Schema:
    """The schema that a user declares: one of Arrow, its fields, or names and types.

    A type is Arrow's or NumPy's, the name of one, or a type of Python's own.

    Raises
    ------
    WorkloadError
        Which says what is no type, has a reserved name, or may not be null.
    """
    if isinstance(schema, pa.Schema):
        found = schema
    else:
        try:
            found = pa.schema([_declared_field(one) for one in (schema.items() if isinstance(schema, Mapping) else schema)])
        except WorkloadError:
            raise
        except (TypeError, ValueError):
            raise WorkloadError(f'schema={schema!r}: say names and types, such as {{"path": "string", "size": "int64"}}') from None
    for name, times in Counter(found.names).items():
        if name in RESERVED:
            raise WorkloadError(f"schema= has the column {name!r}, which every dataset writes itself: leave it out, or rename it")
        if "\0" in name:
            raise WorkloadError(f"schema= has the column {name!r}, and some tools end a name at a zero character: leave it out of the name")
        if times > 1:
            raise WorkloadError(f"schema= has the column {name!r} {times} times: names are different")
    for field in found:
        if _refuses_null(field):
            # kept silently, it would promise what no results part keeps
            raise WorkloadError(
                f"schema= declares {field}, and every column and element of a dataset may be null: leave nullable=False out, and raise an "
                "error in the workload where a value must not be missing"
            )
    return pa.schema([meeting.plain(field) for field in found])


def _refuses_null(field: pa.Field) -> bool:
    """Whether nulls are forbidden in it or below; a map's keys and the ends of runs never are null."""
    type_ = field.type
    if not field.nullable:
        return True
    if pa.types.is_run_end_encoded(type_):
        return False
    inner = [type_.item_field] if pa.types.is_map(type_) else [type_.field(index) for index in range(type_.num_fields)]
    return any(_refuses_null(child) for child in inner)


def _declared_field(one: Any) -> pa.Field:
    if isinstance(one, pa.Field):
        return one
    if isinstance(one, str):
        raise TypeError
    name, type_ = one
    if not isinstance(name, str):
        raise WorkloadError(f"schema= has the name {name!r} ({type(name).__name__}): names of columns are text")
    try:
        return pa.field(name, type_ if isinstance(type_, pa.DataType) else _type_of(type_))
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        raise WorkloadError(
            f'schema= has {type_!r} for column {name!r}, which is no type: say one of Arrow, as pyarrow.int64() or "int64"'
        ) from None


def _type_of(given: Any) -> pa.DataType:
    if given in _PYTHON_TYPES:
        return _PYTHON_TYPES[given]
    return pa.type_for_alias(given) if isinstance(given, str) else pa.from_numpy_dtype(given)


def to_text(schema: pa.Schema) -> str:
    """One line of JSON: Arrow's own form in base64, and names and types for human eyes.

    Only names, types and marks are kept, so that equal schemas have equal text.
    """
    plain = pa.schema([meeting.plain(field) for field in schema])
    arrow = base64.b64encode(plain.serialize().to_pybytes()).decode("ascii")
    columns = {field.name: str(field.type) for field in plain}
    if file_columns(plain):  # a version that does not know them must not read paths as text, and go on without the marks
        return json.dumps({"needs": _NEEDS, "columns": columns, "marked": arrow}, ensure_ascii=False)
    return json.dumps({"columns": columns, "arrow": arrow}, ensure_ascii=False)


def file_columns(schema: pa.Schema, kind: bytes | None = None) -> tuple[str, ...]:
    """The columns that say of files that items produced where they are, their sizes or checksums; or one kind of them."""
    marks = {field.name: (field.metadata or {}).get(meeting.FILE) for field in schema}
    return tuple(name for name, mark in marks.items() if mark is not None and kind in (None, mark))


@lru_cache(maxsize=64)
def from_text(text: str) -> pa.Schema:
    """The schema of :func:`to_text`.

    Raises
    ------
    SchemaError
        The text is not one of a schema.
    """
    try:
        found = json.loads(text)
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["marked" if "marked" in found else "arrow"])))
    except (ValueError, KeyError, TypeError, pa.ArrowException, OSError) as error:
        raise SchemaError(
            f"This is not the text of a schema: {text[:80]!r}. The file that holds it was damaged or written by hand."
        ) from error


def meet(a: pa.DataType, b: pa.DataType, *, column: str = "") -> pa.DataType:
    """The type that holds the values of both.

    Raises
    ------
    SchemaError
        There is none; it has the column and both types.
    """
    return meeting.meet_fields(pa.field(column, a), pa.field(column, b), column).type


def join_schemas(old: pa.Schema | None, new: pa.Schema) -> pa.Schema:
    """The schema that holds rows of both: columns of ``old`` in their order, then those that ``new`` adds.

    Raises
    ------
    SchemaError
        A column's two types cannot meet, or a name stands twice.
    """
    _refuse_doubles(new)
    if old is None:
        return pa.schema([meeting.plain(field) for field in new])
    fields = {field.name: field for field in old}
    for field in new:
        known = fields.get(field.name)
        fields[field.name] = meeting.plain(field) if known is None else meeting.meet_fields(known, field, field.name)
    return pa.schema(list(fields.values()))


def join(old: str | None, new: str | None) -> str | None:
    """:func:`join_schemas` on text; None is a schema that nobody knows yet."""
    if new is None or new == old:
        return old
    if old is None:
        return to_text(join_schemas(None, from_text(new)))
    return to_text(join_schemas(from_text(old), from_text(new)))


def join_declared(known: str | None, schema: str | None, *, example: Callable[[str], str] = lambda _column: "") -> str | None:
    """The schema of a dataset for which another one is declared now: what is there stays readable.

    Parameters
    ----------
    known, schema
        The dataset's, and the declared one.
    example
        What a row has in a column, for the error.

    Raises
    ------
    SchemaError
        A column's declared type cannot meet the one that the dataset has.
    """
    try:
        return join(known, schema)
    except SchemaError as error:
        row = example(error.column)
        raise SchemaError(
            f"schema= declares column {error.column!r} as {error.types[1]}, and the dataset has it as {error.types[0]}"
            f"{f' ({row})' if row else ''}; these two cannot meet. Declare a type that holds both, give the column another name, or write "
            "to another dataset",
            column=error.column,
            types=error.types,
        ) from None


def joins(old: str | None, new: str | None) -> bool:
    """Whether :func:`join` would give a schema."""
    try:
        join(old, new)
    except SchemaError:
        return False
    return True


def marked(table: pa.Table) -> pa.Table:
    """The table in the types that lie on disk (no dictionaries, no views), with ``wide`` marks by its values."""
    schema = pa.schema([meeting.plain(field) for field in table.schema])
    plain = cast(table, schema)
    # the fields of ``schema``: a table that needed no cast may call the elements of its lists otherwise
    fields = [_marked_field(field, plain.column(index)) for index, field in enumerate(schema)]
    return pa.table(plain.columns, schema=pa.schema(fields)) if fields else plain


def cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the schema's columns; absent ones are null, others are left out.

    Raises
    ------
    SchemaError
        A value does not fit its column's type; it has column, types and, where it can be told, the value.
    """
    if table.schema.equals(schema):
        return table
    names = set(table.column_names)
    columns = [
        cast_column(table.column(field.name), field.type, field.name)
        if field.name in names
        else pa.chunked_array([pa.nulls(table.num_rows, field.type)], field.type)
        for field in schema
    ]
    if not columns:  # without columns a table forgets how many rows it has
        return table.select([])
    return pa.table(columns, schema=schema)


def cast_column(values: pa.ChunkedArray, type_: pa.DataType, column: str) -> pa.ChunkedArray:
    """One column in another type; see :func:`cast`. ``column`` is its name for the error."""
    if values.type.equals(type_):
        return values
    try:
        return _cast(values, type_)
    except (pa.ArrowException, SchemaError, TypeError, ValueError, OverflowError) as error:
        raise misfit(values, type_, column) from error


def _cast(values: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_null(type_):
        return _by_value(values, type_)
    meet(values.type, type_)  # Arrow's cast would read numbers from text, and take any number for true
    if meeting.needs_values(values.type):
        return _by_value(values, type_)
    try:
        return values.cast(type_)
    except pa.ArrowNotImplementedError:
        return _by_value(values, type_)


def _by_value(values: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    # slow, right and rare: nested forms that Arrow's cast does not know or takes for others
    with zones.kept():
        return pa.chunked_array([pa.array([_reshaped(value, type_) for value in values.to_pylist()], type_)], type_)


def _reshaped(value: Any, type_: pa.DataType) -> Any:
    if value is None or pa.types.is_null(type_):
        return None if value in (None, {}) else value
    if meeting.is_list(type_):
        return [_reshaped(element, type_.value_type) for element in value]
    if pa.types.is_struct(type_):
        return {child.name: _reshaped(value.get(child.name), child.type) for child in type_}
    return value


def misfit(values: pa.ChunkedArray, type_: pa.DataType, column: str) -> SchemaError:
    """The error of a column that does not fit a type, with its first value that does not."""
    value = _first_misfit(values, type_, column)
    return SchemaError(
        f"Column {column!r} has {values.type} values where {type_} is needed{f', and {value} does not fit' if value else ''}. "
        f"Return one type from the workload, or declare schema= with one that holds both.",
        column=column,
        types=(str(type_), str(values.type)),
        value=value,
    )


def _first_misfit(values: pa.ChunkedArray, type_: pa.DataType, column: str) -> str:
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _misfits(values.slice(low, middle - low), type_) else (middle, high)
    if low == high:
        return ""
    return shown_value(column, values[low].as_py())


def _misfits(values: pa.ChunkedArray, type_: pa.DataType) -> bool:
    if values.null_count == len(values):
        return False
    try:
        _cast(values, type_)
    except (pa.ArrowException, SchemaError, TypeError, ValueError, OverflowError):
        return True
    return False


def _refuse_doubles(schema: pa.Schema) -> None:
    for first, second in pairwise(sorted(schema.names)):
        if first == second:
            raise SchemaError(f"Column {first!r} stands twice in a result: give its columns different names.", column=first)


def _marked_field(field: pa.Field, values: pa.ChunkedArray) -> pa.Field:
    type_ = field.type
    if pa.types.is_struct(type_):
        parts = [_marked_field(child, pc.struct_field(values, [index])) for index, child in enumerate(type_)]
        return field.with_type(pa.struct(parts))
    if meeting.is_list(type_):
        return field.with_type(meeting.list_like(type_, _marked_field(type_.value_field, pc.list_flatten(values))))
    if pa.types.is_map(type_):
        return field.with_type(_marked_map(type_, values))
    mark = _mark(type_, values)
    return field.with_metadata({**(field.metadata or {}), meeting.WIDE: mark}) if mark else field


def _marked_map(type_: pa.MapType, values: pa.ChunkedArray) -> pa.MapType:
    keys = pa.chunked_array([chunk.keys for chunk in values.chunks], type_.key_type)
    items = pa.chunked_array([chunk.items for chunk in values.chunks], type_.item_type)
    return pa.map_(_marked_field(type_.key_field, keys), _marked_field(type_.item_field, items))


def _mark(type_: pa.DataType, values: pa.ChunkedArray) -> bytes | None:
    if pa.types.is_int64(type_) or pa.types.is_uint64(type_):
        low, high = _extremes(values)
        if high >= 2**63:
            return b"64"
        return b"54" if high > _INT_LIMIT or low < -_INT_LIMIT else None
    if (pa.types.is_timestamp(type_) or pa.types.is_duration(type_)) and type_.unit != "ns":
        low, high = _extremes(values.cast(pa.int64()))
        return _finest_unit(max(high, -low) / _PER_SECOND[type_.unit])
    return None


def _finest_unit(seconds: float) -> bytes | None:
    for unit in reversed(_UNITS):
        if seconds * _PER_SECOND[unit] < 2**63:
            return None if unit == "ns" else unit.encode()
    return b"s"


def _extremes(values: pa.ChunkedArray) -> tuple[int, int]:
    found: dict[str, Any] = pc.min_max(values).as_py()
    return found["min"] or 0, found["max"] or 0
