"""Attempt rows of one batch, column by column.

Of the thirty-seven columns most are the same in all rows of a batch of short items: those are written down once. Rows as tuples would cost
an item as much as executing one that does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dcompute.dataset.parts import Mostly, attempts_of, same
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
        All of ``records.ATTEMPT_COLUMNS``: ``Mostly`` where most rows have one value, else a value a row.
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

    def quarantine(self, counts: Mapping[int, int]) -> None:
        """Say of the attempts at these places how many records of theirs are in the quarantine, and no results."""
        rows, quarantined, outcome = self.each("rows"), self.each("quarantined"), self.each("outcome")
        for place, count in counts.items():
            quarantined[place] = count
            if outcome[place] == SUCCEEDED:
                rows[place] -= count
        self.columns.update(rows=rows, quarantined=quarantined)

    def each(self, name: str) -> list[Any]:
        """The values of a column, one a row, as a list of its own."""
        column = self.columns[name]
        return column.each(self._count) if isinstance(column, Mostly) else _listed(column)

    def whose(self) -> list[ItemKey]:
        """Whose attempts they are."""
        return list(map(ItemKey, self.each("item_key"), self.each("key_kind")))

    def first(self, name: str) -> str:
        """The text that the first row has, "" for none."""
        return str(next(iter(self.each(name)), None) or "")

    def total(self, name: str) -> float:
        """The sum of a column; what nobody knows counts nothing."""
        column = self.columns[name]
        return float(np.nansum(np.asarray(self.each(name) if isinstance(column, Mostly) else column, dtype=np.float64)))

    def largest(self, name: str) -> int:
        """The largest whole number of a column, 0 where there is none."""
        column = self.columns[name]
        values = (column.value, *column.others.values()) if isinstance(column, Mostly) else column
        return max((int(value or 0) for value in values), default=0) if self._count else 0

    def table(self) -> pa.Table:
        """They as a table of ``ATTEMPTS_SCHEMA``."""
        return attempts_of(self.columns, self._count)


def outcomes(failures: Mapping[int, Failure]) -> dict[str, Any]:
    """The columns that say how attempts ended: all are successes but for the failures at these places."""
    rows = {
        place: (FAILED, failure.kind, failure.error, failure.message, failure.traceback or None, failure.exit_code, failure.signal)
        for place, failure in failures.items()
    }
    usual = zip(_OUTCOME, _SUCCEEDED, strict=True)
    return {name: Mostly(value, {place: row[at] for place, row in rows.items()}) for at, (name, value) in enumerate(usual)}


def alike(values: Sequence[Any]) -> Any:
    """A column that often is the same in all rows."""
    return same(values[0]) if values and values.count(values[0]) == len(values) else list(values)


def _listed(column: Any) -> list[Any]:
    if isinstance(column, pa.Array):
        return list(column.to_pylist())
    return list(column.tolist() if isinstance(column, np.ndarray) else column)
