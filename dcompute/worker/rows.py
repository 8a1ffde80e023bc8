"""What a workload returned, as rows.

===========================================  ==========================================================
a mapping, dataclass, named tuple            one row
a scalar, a NumPy scalar or array            one row with the column ``value``
a list, tuple, generator, iterator of these  one row each
a pandas, Arrow or other dataframe           its rows (anything with ``__arrow_c_stream__``)
``None``                                     no row
===========================================  ==========================================================

Rows hold known types only, so that what :func:`encode` made can be opened by another process without running user code.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from dcompute.errors import SchemaError
from dcompute.worker.values import PLAIN, SEQUENCES, broken, column_name, is_row, known, mapping, module, refuse_zeros, type_name

if TYPE_CHECKING:
    import pyarrow as pa

#: No row, one row, many rows, or a table.
Rows: TypeAlias = "dict[str, Any] | list[dict[str, Any]] | pa.Table | None"

#: Columns that the dataset itself writes; together the identity of an item.
RESERVED = ("item_key", "key_kind")

_PICKLED = 0x80
# names of its own: what one item does to the module pickle must not fail the next
_dumps, _loads = pickle.dumps, pickle.loads


def to_rows(result: Any) -> Rows:
    """The rows of what a workload returned.

    A generator is consumed here, so what it raises is raised here too.

    Raises
    ------
    SchemaError
        Something of no known kind, a column with a reserved name, or a name that is no text.
    """
    kind = type(result)
    if result is None:
        return None
    if kind is dict:
        return _row(result)
    if kind in PLAIN:
        return {"value": result}
    if is_row(result):
        return _row(mapping(result))
    if isinstance(result, SEQUENCES):
        return [_row_of(element) for element in result]
    if _is_table(result):
        return to_table(result)
    if isinstance(result, (Iterator, KeysView, ValuesView)):
        return [_row_of(element) for element in result]
    return {"value": known(result, "value")}


def count(rows: Rows) -> int:
    """How many rows these are."""
    if rows is None:
        return 0
    return 1 if type(rows) is dict else len(rows)


def encode(rows: Rows) -> bytes:
    """Rows as bytes; none are the empty bytes."""
    if rows is None:
        return b""
    if type(rows) is dict or type(rows) is list:
        return _dumps(rows, 5)
    import pyarrow as pa

    table, sink = cast("pa.Table", rows), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return cast("bytes", sink.getvalue().to_pybytes())


def decode(data: bytes) -> Rows:
    """The rows that :func:`encode` made bytes of."""
    if not data:
        return None
    if data[0] == _PICKLED:
        rows: Rows = _loads(data)
        return rows
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def to_table(frame: Any) -> pa.Table:
    """A dataframe of any library as an Arrow table; a named index becomes columns.

    Raises
    ------
    SchemaError
        A column that appears twice, has a reserved name or no Arrow type, or whose values are not what their type says.
    """
    import pyarrow as pa

    try:
        table = _opened(frame)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, SchemaError):
            raise
        raise SchemaError(f"A {type_name(frame)} cannot become an Arrow table: {error}") from error
    for name, times in collections.Counter(table.column_names).items():
        if times > 1:
            raise SchemaError(f"A result has the column {name!r} {times} times: give each column a name of its own.", column=name)
    _refuse_reserved(table.column_names)
    _refuse_periods(table.schema)
    _refuse_broken(table, type_name(frame))
    return _unmarked(table.replace_schema_metadata(None))


def _opened(frame: Any) -> pa.Table:
    import pyarrow as pa

    if module(frame) == "pandas":
        return _from_pandas(frame)
    # handed over as a stream, names would end at a zero character, or end the process
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        return frame
    names = getattr(frame, "columns", ())
    refuse_zeros(names if isinstance(names, (list, tuple)) else ())
    return pa.table(frame)


def _unmarked(table: pa.Table) -> pa.Table:
    """Without marks of a dataset that it was read from: its files are not files here."""
    import pyarrow as pa

    if not any(field.metadata for field in table.schema):
        return table
    return pa.table(table.columns, schema=pa.schema([field.remove_metadata() for field in table.schema]))


def _refuse_periods(schema: pa.Schema) -> None:
    for field in schema:
        # stored as what Arrow makes of it, a month would be the number 648
        if getattr(field.type, "extension_name", "") == "pandas.period":
            raise SchemaError(
                f"Column {field.name!r} has periods, for which Parquet has no form: return their beginnings, .dt.to_timestamp(), or "
                "text, .astype(str).",
                column=field.name,
                types=(str(field.type), ""),
            )


def _refuse_broken(table: pa.Table, made_as: str) -> None:
    """Refuse values that only their reader would find broken, with those of all other items: 0.1 s for 100 MB of 1e6 rows."""
    import pyarrow as pa

    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        name, reason = _first_broken(table) or ("", str(error))
        column = f"column {name!r}" if name else "a column"
        raise SchemaError(f"In a result of type {made_as}, {column} {broken(reason)}", column=name) from error


def _first_broken(table: pa.Table) -> tuple[str, str] | None:
    """Name and complaint of the first column that is broken."""
    import pyarrow as pa

    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowException as error:
            return name, str(error)
    return None


def _from_pandas(frame: Any) -> pa.Table:
    import pyarrow as pa

    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [column_name(name) for name in frame.columns]
    return pa.Table.from_pandas(frame.set_axis(names, axis="columns"), preserve_index=False)


def _row_of(element: Any) -> dict[str, Any]:
    if type(element) is dict:
        return _row(element)
    if type(element) in PLAIN:
        return {"value": element}
    if is_row(element):
        return _row(mapping(element))
    return {"value": known(element, "value")}


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    if "item_key" in row or "key_kind" in row:
        _refuse_reserved(row)
    for name, value in row.items():
        if type(value) not in PLAIN or type(name) is not str:
            return {column_name(name): known(value, str(name)) for name, value in row.items()}
    return cast("dict[str, Any]", row)


def _refuse_reserved(names: Iterable[Any]) -> None:
    for name in names:
        if name in RESERVED:
            raise SchemaError(
                f"A result has the column {name!r}, which every dataset writes itself (item_key and key_kind say whose row it is): "
                f"give it another name in what the workload returns.",
                column=name,
            )


def _is_table(value: Any) -> bool:
    if not hasattr(type(value), "__arrow_c_stream__"):
        return False
    # A single column has that method too.
    return module(value) not in ("pandas", "pyarrow") or hasattr(value, "columns") or hasattr(value, "read_all")
