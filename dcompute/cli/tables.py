"""Rows of a Dask or pandas dataframe as text: aligned columns for people, JSON lines for programs."""

from __future__ import annotations

import base64
import difflib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any

from dcompute.errors import UsageError

#: Characters of a cell that people see; JSON has all.
CELL = 60

Row = dict[str, Any]


def rows(frame: Any, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a dataframe, as mappings of plain Python values, a partition at a time.

    Parameters
    ----------
    frame
        A Dask or pandas dataframe.
    columns
        Names of the columns wanted, in this order; all where None.
    """
    import pyarrow as pa

    chosen = frame if columns is None else frame[_known(list(columns), [str(name) for name in frame.columns])]
    for part in _partitions(chosen):
        yield from pa.Table.from_pandas(part, preserve_index=False).to_pylist()


def _known(columns: list[str], existing: list[str]) -> list[str]:
    for name in columns:
        if name not in existing:
            close = difflib.get_close_matches(name, existing, n=1)
            hint = f"is {close[0]!r} meant?" if close else f"these are: {', '.join(existing)}"
            raise UsageError(f"there is no column {name!r}; {hint}")
    return columns


def _partitions(frame: Any) -> Iterator[Any]:
    if not hasattr(frame, "npartitions"):
        yield frame
        return
    for number in range(frame.npartitions):
        # Not on a cluster that happens to be configured: reading needs none.
        yield frame.get_partition(number).compute(scheduler="synchronous")


def print_json(found: Iterator[Row], limit: int | None, write: Callable[[str], Any]) -> None:
    """Write a JSON object a line, for all rows or the first ``limit``."""
    for row in islice(found, limit):
        write(to_json(row))


def to_json(value: Any) -> str:
    """One line of JSON that every reader takes.

    Null for NaN and infinity, ISO 8601 for times, seconds for durations, the digits of decimals as text, base64 for bytes.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else str(value)


def print_table(found: Iterator[Row], limit: int, write: Callable[[str], Any]) -> int:
    """Write up to ``limit`` rows in aligned columns under a heading.

    Returns
    -------
    int
        How many rows were written; one more is taken from ``found`` where there are more.
    """
    shown = list(islice(found, limit))
    if not shown:
        return 0
    names = list(shown[0])
    lines = [names, *([_cell(row[name]) for name in names] for row in shown)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    right = [all(isinstance(row[name], int | float | None) for row in shown) for name in names]
    for line in lines:
        cells = (cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in zip(line, widths, right, strict=True))
        write("  ".join(cells).rstrip())
    return len(shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return _short(repr(value))
    return _short(" ".join((value if isinstance(value, str) else to_json(value).strip('"')).split()))


def _short(text: str) -> str:
    return text if len(text) <= CELL else f"{text[: CELL - 3]}..."
