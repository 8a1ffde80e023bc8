"""Types of columns that other tools have no form for."""

from __future__ import annotations

import pyarrow as pa

from dcompute.dataset.meeting import is_list, list_like
from dcompute.errors import UsageError


def refuse_wide_decimals(schema: pa.Schema, tool: str) -> None:
    """Raise where a column has decimals of more than 38 digits: other tools would fail, or read them as floats.

    Raises
    ------
    UsageError
        Which names the column, and what reads it.
    """
    for field in schema:
        if _has_wide_decimals(field.type):
            raise UsageError(
                f"column {field.name!r} is {field.type}, and {tool} holds decimals of 38 digits at most: read it with to_arrow() or "
                "results(), or give the other columns only, with columns="
            )


def without_halves(schema: pa.Schema) -> pa.Schema:
    """The schema with floats of 32 bits in place of those of 16, which DuckDB takes from files and not from Arrow."""
    return pa.schema([field.with_type(_wider(field.type)) for field in schema])


def _has_wide_decimals(type_: pa.DataType) -> bool:
    return pa.types.is_decimal256(type_) or any(_has_wide_decimals(type_.field(place).type) for place in range(type_.num_fields))


def _wider(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_float16(type_):
        return pa.float32()
    if is_list(type_):
        return list_like(type_, type_.value_field.with_type(_wider(type_.value_type)))
    if pa.types.is_struct(type_):
        return pa.struct([child.with_type(_wider(child.type)) for child in type_])
    return type_
