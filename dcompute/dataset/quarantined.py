"""The parts of the quarantine: their names, columns and how they are written.

A part lies beside the results parts of its batch and counts when that counts. What it has of a row is there twice: as JSON text for people,
and, so that it can be released, each column under ``row.`` and its name, in its own type.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dcompute.dataset.parts import write_results

#: Of a row that an item returned, and of a value that it was to be called with.
RESULT, INPUT = "result", "input"
#: Before the name of a row's own column.
ROW = "row."

_TEXT = pa.string()
#: What there is of each record, beside the columns of its row.
QUARANTINE_SCHEMA = pa.schema(
    [
        ("item_key", _TEXT),
        ("key_kind", _TEXT),
        ("attempt", pa.int32()),
        ("source", _TEXT),
        ("check", _TEXT),
        ("reason", _TEXT),
        ("record", _TEXT),
        ("time", pa.timestamp("us", tz="UTC")),
        ("run", _TEXT),
        ("batch", _TEXT),
        ("fingerprint", _TEXT),
    ]
)


def write_quarantine(target: Any, about: pa.Table, rows: pa.Table | None) -> None:
    """Write a part.

    Parameters
    ----------
    target
        A path or a binary file object.
    about
        Of :data:`QUARANTINE_SCHEMA`.
    rows
        The row of each record, in its own columns; None where no record is a row.
    """
    for field, column in zip(rows.schema, rows.columns, strict=True) if rows is not None else ():
        about = about.append_column(field.with_name(ROW + field.name), column)
    write_results(target, about)
