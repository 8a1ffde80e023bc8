"""Rows of many items as one Arrow table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from dcompute.dataset.meeting import is_list
from dcompute.dataset.schema import cast
from dcompute.errors import SchemaError
from dcompute.worker.columns import column, names_of
from dcompute.worker.values import refuse_zeros

#: More columns than this are not a table any more: the item that goes beyond it fails.
MOST_COLUMNS = 10_000


#: An item's place in the batch, and its rows.
Entry: TypeAlias = tuple[int, Any]


def blocks(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Neighbours whose rows make one table: rows of Python, or Arrow tables of one schema."""
    found: list[list[Entry]] = []
    last: Any = ()
    for entry in entries:
        schema = entry[1].schema if isinstance(entry[1], pa.Table) else None
        if schema is last or (schema is not None and last and schema.equals(last)):
            found[-1].append(entry)
        else:
            found.append([entry])
            last = schema
    return found


def table_of(block: Sequence[Entry]) -> tuple[pa.Table, Any]:
    """The rows of a block, and of each row the index of its item.

    Raises
    ------
    SchemaError
        A column has a name that not all readers read alike, or values that no column holds; or there are too many columns.
    """
    table, indexes = _table_of(block)
    refuse_zeros(_all_names(table.schema))
    return table, indexes


def _all_names(fields: Iterable[pa.Field]) -> Iterator[str]:
    for field in fields:
        yield field.name
        yield from _all_names(field.type.field(place) for place in range(field.type.num_fields))


def _table_of(block: Sequence[Entry]) -> tuple[pa.Table, Any]:
    import numpy as np

    if isinstance(block[0][1], pa.Table):
        indexes = np.repeat([item for item, _ in block], [len(table) for _, table in block])
        return pa.concat_tables([table for _, table in block]), indexes
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    for item, own in block:
        if type(own) is dict:
            rows.append(own)
            places.append(item)
        else:
            rows.extend(own)
            places.extend([item] * len(own))
    names = names_of(rows)
    if len(names) > MOST_COLUMNS:
        raise SchemaError(f"A result takes the dataset beyond {MOST_COLUMNS} columns: return many rows instead of many columns.")
    arrays = [column([row.get(name) for row in rows], name) for name in names]
    return pa.table(arrays, names=names), places


def fitted(table: pa.Table, declared: pa.Schema) -> pa.Table:
    """The table in the declared types; a column or a field of a structure that was not declared does not fit."""
    for field in table.schema:
        place = declared.get_field_index(field.name)
        extra = field.name if place < 0 else _extra(field.type, declared.field(place).type, field.name)
        if extra:
            raise SchemaError(
                f"Column {extra!r} is not in the declared schema ({', '.join(declared.names)}): "
                f"declare it in schema=, or leave it out of the result.",
                column=field.name,
                types=("", str(field.type)),
            )
    return cast(table, pa.schema([declared.field(name) for name in table.column_names]))


def _extra(type_: pa.DataType, declared: pa.DataType, name: str) -> str:
    """The path of a structure's field that was not declared, "" where there is none."""
    if is_list(type_) and is_list(declared):
        return _extra(type_.value_type, declared.value_type, name)
    if not (pa.types.is_struct(type_) and pa.types.is_struct(declared)):
        return ""
    known = {field.name: field.type for field in declared}
    for field in type_:
        extra = _extra(field.type, known[field.name], f"{name}.{field.name}") if field.name in known else f"{name}.{field.name}"
        if extra:
            return extra
    return ""
