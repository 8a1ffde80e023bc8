"""The inputs' columns beside the results: those of grids and of tables whose keys hold all values of a row."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dcompute.dataset.filters import Filter, check_columns
from dcompute.dataset.frames import Reading, Rows, bare
from dcompute.dataset.pieces import Piece
from dcompute.dataset.schema import RESERVED, cast_column, join_schemas, marked
from dcompute.dataset.spelled import MAPPING, arguments_of
from dcompute.errors import SchemaError, UsageError

_ZONED = "datetime with a zone"
_NANOSECONDS = r'"\$(datetime|timedelta)":"[^"]*\.\d{7}'


@dataclass(frozen=True)
class WithInputs:
    """Rows, and the columns that their keys hold."""

    rows: Rows
    inputs: Mapping[str, pa.Field]  #: column -> the name and type in the keys
    where: Filter | None = None

    @property
    def schema(self) -> pa.Schema:
        """The rows' own columns, then the inputs'."""
        return pa.schema([*self.rows.schema, *(field.with_name(name) for name, field in self.inputs.items())])

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("WithInputs", self.rows, str(self.schema), None if self.where is None else str(self.where.expression))

    def table(self, piece: Piece, names: Sequence[str]) -> pa.Table:
        """The rows of a piece that are wanted, in some of the columns."""
        wanted = list(dict.fromkeys([*names, *(self.where.names if self.where else ())]))
        made = [name for name in wanted if name in self.inputs]
        own = [name for name in wanted if name not in self.inputs]
        table = self.rows.table(piece, list(dict.fromkeys([*own, *(RESERVED[:1] if made else ())])))
        if made:
            values = self._values(table.column("item_key"), made)
            table = pa.table([values[name] if name in values else table.column(name) for name in wanted], names=wanted)
        if self.where is not None:
            table = self.where.apply(table)
        return table.select(list(names)) if names else bare(table.num_rows)

    def _values(self, keys: pa.ChunkedArray, made: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        # many rows of one item have one key
        distinct = keys.combine_chunks().dictionary_encode()
        opened = [arguments_of(text) for text in distinct.dictionary.to_pylist()]
        fields = {name: self.inputs[name] for name in made}
        return {
            name: cast_column(pa.chunked_array([_column(opened, field.name, field.type)]), field.type, name).take(distinct.indices)
            for name, field in fields.items()
        }


def with_inputs(reading: Reading, columns: Sequence[str] | None, filters: Any) -> Reading:
    """Results with the columns of their inputs; all keys are read once, for the types.

    Parameters
    ----------
    reading
        The results, all columns, without filters.
    columns, filters
        What is wanted, of the inputs' columns too.

    Raises
    ------
    UsageError
        The keys do not hold the inputs.
    """
    fields = _fields(replace(reading, columns=RESERVED))
    taken = set(reading.schema.names)
    inputs: dict[str, pa.Field] = {}
    for field in fields:
        name = field.name
        while name in taken:
            name += "_input"
        taken.add(name)
        inputs[name] = field
    rows = WithInputs(reading.rows, inputs)
    where = Filter.of(filters, rows.schema)
    return replace(reading, rows=replace(rows, where=where), columns=check_columns(columns, rows.schema))


def _fields(keys: Reading) -> pa.Schema:
    try:
        return _joined(keys)
    except SchemaError as error:
        raise UsageError(
            f"the inputs have values of two types that cannot meet ({error}): read the results without inputs=True, and open item_key, "
            "which is JSON, yourself"
        ) from error


def _joined(keys: Reading) -> pa.Schema:
    schema = pa.schema([])
    with_nan: set[str] = set()
    for texts in _distinct(keys):
        opened = [arguments_of(text) for text in texts]
        names = dict.fromkeys(name for one in opened for name in one)
        schema = join_schemas(schema, marked(pa.table({name: _column(opened, name) for name in names})).schema)
        with_nan.update(name for name in names if any(_is_nan(one.get(name)) for one in opened))
    # among numbers, or with nothing else beside it, NaN is a float
    floats = [
        field.name for field in schema if field.name in with_nan and (pa.types.is_null(field.type) or pa.types.is_integer(field.type))
    ]
    return join_schemas(schema, pa.schema([pa.field(name, pa.float64()) for name in floats]))


def _distinct(keys: Reading) -> Iterator[list[str]]:
    for piece in keys.pieces:
        table = keys.rows.table(piece, RESERVED)
        others = table.filter(pc.not_equal(table.column("key_kind"), MAPPING))
        if others.num_rows:
            text, kind = (others.column(name)[0].as_py() for name in RESERVED)
            raise UsageError(
                f"results(inputs=True): the key {text!r} ({kind}) does not hold its input. Those of grids do, and of tables without a "
                "named index and without key=. Merge the results with your table on item_key"
            )
        texts = table.column("item_key").unique()
        fine = texts.filter(pc.match_substring_regex(texts, _NANOSECONDS))
        if len(fine):
            raise UsageError(
                f"results(inputs=True): the key {fine[0].as_py()!r} holds nanoseconds, which would be lost. Merge the results with your "
                "table on item_key, or open item_key, which is JSON, yourself"
            )
        yield texts.to_pylist()


def _column(opened: Sequence[Mapping[str, Any]], name: str, type_: pa.DataType | None = None) -> pa.Array:
    """The values of one name; NaN, which pandas has for what is missing, is null where no float is."""
    values = [one.get(name) for one in opened]
    kinds = {_kind(value) for value in values if value is not None and not _is_nan(value)}
    if any(map(_is_nan, values)):
        if (kinds and kinds <= {"int", "float"}) or (type_ is not None and pa.types.is_floating(type_)):
            kinds.add("float")
        else:
            values = [None if _is_nan(value) else value for value in values]
    if len(kinds) > 1 and kinds != {"int", "float"}:
        raise SchemaError(f"column {name!r}: {', '.join(sorted(kinds))}", column=name)
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        told = {"int": "integers beyond 64 bits", "float, int": "float, and int beyond ±2**53"}.get(", ".join(sorted(kinds)), str(error))
        raise SchemaError(f"column {name!r}: {told}", column=name) from None


def _kind(value: Any) -> str:
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return _ZONED
    return "datetime" if isinstance(value, datetime.datetime) else type(value).__name__


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
