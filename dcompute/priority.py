"""Priorities: which of two that wait goes first.

A priority is a whole number, and higher goes first. Four have names, with room between them and beyond.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from dcompute.errors import UsageError

#: Names of priorities, the highest first.
PRIORITIES: Mapping[str, int] = {"urgent": 20, "high": 10, "normal": 0, "low": -10}
#: From one name to the next: what waiting gains with ``ageing=``.
LEVEL = 10
#: Dask sends priorities as numbers that every worker can compare: beyond this nobody needs them.
_LARGEST = 1_000_000


def parse_priority(value: Any, what: str = "priority") -> int:
    """The number that a priority means: ``"high"``, ``10`` or ``"10"``.

    Raises
    ------
    UsageError
        It is neither a whole number nor one of the names.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        if text in PRIORITIES:
            return PRIORITIES[text]
        try:
            value = int(text)
        except ValueError:
            close = difflib.get_close_matches(text, PRIORITIES, n=1)
            hint = f"; is {close[0]!r} meant?" if close else ""
            raise UsageError(f"{what}={value!r}: say a whole number (higher goes first) or one of {', '.join(PRIORITIES)}{hint}") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{what}={value!r}: say a whole number (higher goes first) or one of {', '.join(PRIORITIES)}")
    if abs(value) > _LARGEST:
        raise UsageError(f"{what}={value!r}: say a number between {-_LARGEST:,} and {_LARGEST:,}")
    return value


def aged(priority: int, waited: float, ageing: float | None) -> int:
    """The priority of what has waited for so many seconds: a level more after each ``ageing`` seconds; None: it stays."""
    return priority if ageing is None or waited <= 0 else priority + LEVEL * int(waited / ageing)


def name_priority(priority: int) -> str:
    """A priority for a person: its name, or the number where it has none."""
    return next((name for name, number in PRIORITIES.items() if number == priority), str(priority))
