"""The cells of a CSV file, which are all text, as values that lose nothing of it.

A column becomes numbers only where each of its cells is what Python writes for the number: ``7`` and ``0.5`` are, ``007``, ``0.10`` and
``1e3`` are not. So a value gives its cell back, and keys of different cells differ. A row has the same values in every file in which its
columns are of the same sort.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

#: What stands in files for a value that is missing. Here it is text as all else is.
_MISSING = frozenset({"na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>"})


def exact(cells: Sequence[str]) -> list[Any]:
    """A column's values: integers and floats, truth values, or text; None for an empty cell."""
    present = [cell for cell in cells if cell]
    found = next((values for read in (_integers, _numbers, _truths) if (values := read(present)) is not None), None)
    if found is None or not present:
        return [cell or None for cell in cells]
    if len(present) == len(cells):
        return found
    rest = iter(found)
    return [next(rest) if cell else None for cell in cells]


def misread(cells: Sequence[str]) -> str:
    """Of a column that looks like numbers, or like truth values, and is text, the first cell which makes it that; "" of others."""
    present = [cell for cell in cells if cell and cell.strip().lower() not in _MISSING]
    for fits, reads in ((_is_number, _number), (_is_truth, _truth)):
        if present and all(map(fits, present)):
            return next((cell for cell in cells if cell and not _succeeds(reads, cell)), "")
    return ""


def _integers(cells: list[str]) -> list[Any] | None:
    # the quick way for the usual table: no call of ours for each cell
    try:
        numbers = list(map(int, cells))
        return numbers if list(map(str, numbers)) == cells else None
    except ValueError:
        return None


def _numbers(cells: list[str]) -> list[Any] | None:
    return _read(_number, cells)


def _truths(cells: list[str]) -> list[Any] | None:
    return _read(_truth, cells)


def _read(read: Callable[[str], Any], cells: list[str]) -> list[Any] | None:
    try:
        return list(map(read, cells))
    except ValueError:
        return None


def _number(cell: str) -> int | float:
    """The number that is written so."""
    number = float(cell)
    if repr(number) == cell and math.isfinite(number):
        return number
    whole = int(cell)
    if str(whole) == cell:
        return whole
    raise ValueError(cell)


def _truth(cell: str) -> bool:
    if cell not in ("True", "False"):
        raise ValueError(cell)
    return cell == "True"


def _is_number(cell: str) -> bool:
    return _succeeds(float, cell)


def _is_truth(cell: str) -> bool:
    return cell.lower() in ("true", "false")


def _succeeds(read: Callable[[str], Any], cell: str) -> bool:
    return _read(read, [cell]) is not None
