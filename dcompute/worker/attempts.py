"""Attempt rows of one batch, column by column.

Of the thirty-seven columns most are the same in all rows of a batch of short items: those are written down once. Rows as tuples would cost
an item as much as executing one that does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dcompute.dataset.parts import Same, attempts_of
from dcompute.records import ATTEMPT_COLUMNS, FAILED, SUCCEEDED, Failure, ItemKey

_OUTCOME = ("outcome", "kind", "error", "message", "traceback", "exit_code", "signal")
_SUCCEEDED = (SUCCEEDED, None, None, None, None, None, None)


class Attempts:
    """One attempt row for each outcome, in the order of the batch.

    Parameters
    ----------
    count
        How many rows.
    columns
        All of ``records.ATTEMPT_COLUMNS``: ``Same`` where all rows have one value, else a value a row.
    """

    def __init__(self, count: int, columns: Mapping[str, Any]) -> None:
        self.columns = dict(columns)
        self._count = count

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[Any]]) -> Attempts:
        """Rows whose values are in the order of ``records.ATTEMPT_COLUMNS``."""
        values = zip(*rows, strict=True) if rows else iter([()] * len(ATTEMPT_COLUMNS))
        return cls(len(rows), {name: list(column) for name, column in zip(ATTEMPT_COLUMNS, values, strict=True)})

    def __len__(self) -> int:
        return self._count

    def fail(self, failures: Mapping[int, Failure]) -> None:
        """Make the attempts at these places failures, with no rows."""
        if not failures:
            return
        lists = {name: self.each(name) for name in ("outcome", "kind", "error", "message", "rows")}
        for place, failure in failures.items():
            changed = {"outcome": FAILED, "kind": failure.kind, "error": failure.error, "message": failure.message, "rows": 0}
            for name, value in changed.items():
                lists[name][place] = value
        self.columns.update(lists)

    def each(self, name: str) -> list[Any]:
        """The values of a column, one a row, as a list of its own."""
        column = self.columns[name]
        if isinstance(column, Same):
            return [column.value] * self._count
        return list(column.tolist() if isinstance(column, np.ndarray) else column)

    def whose(self) -> list[ItemKey]:
        """Whose attempts they are."""
        return list(map(ItemKey, self.each("item_key"), self.each("key_kind")))

    def first(self, name: str) -> str:
        """The text that the first row has, "" for none."""
        column = self.columns[name]
        return str((column.value if isinstance(column, Same) else column[0]) or "") if self._count else ""

    def total(self, name: str) -> float:
        """The sum of a column; what nobody knows counts nothing."""
        column = self.columns[name]
        if isinstance(column, Same):
            return float(column.value or 0.0) * self._count
        return float(np.nansum(np.asarray(column, dtype=np.float64)))

    def largest(self, name: str) -> int:
        """The largest whole number of a column, 0 where there is none."""
        column = self.columns[name]
        return int(column.value or 0) if isinstance(column, Same) else max((int(value or 0) for value in column), default=0)

    def table(self) -> pa.Table:
        """They as a table of ``ATTEMPTS_SCHEMA``."""
        return attempts_of(self.columns, self._count)


def outcomes(count: int, failures: Mapping[int, Failure]) -> dict[str, Any]:
    """The columns that say how attempts ended, all successes but for the failures at these places."""
    if not failures:
        return {name: Same(value) for name, value in zip(_OUTCOME, _SUCCEEDED, strict=True)}
    rows = [_SUCCEEDED] * count
    for place, failure in failures.items():
        rows[place] = (
            FAILED, failure.kind, failure.error, failure.message, failure.traceback or None, failure.exit_code, failure.signal,
        )  # type: ignore[assignment]  # fmt: skip
    return dict(zip(_OUTCOME, map(list, zip(*rows, strict=True)), strict=True))


def some(count: int, values: Mapping[int, Any], others: Any = None) -> Any:
    """A column with values at some places, and the same at all others."""
    if not values:
        return Same(others)
    column = [others] * count
    for place, value in values.items():
        column[place] = value
    return column


def alike(values: Sequence[Any]) -> Any:
    """A column that often is the same in all rows."""
    first = values[0] if values else None
    return Same(first) if all(value == first for value in values) else list(values)
