"""Inputs that do not pass a check, before any item of a batch is executed.

Expressions and schemas see all inputs of a batch as one table. Where that cannot be made, or a check raises, halves are judged, down to
single inputs: an input hurts its own item only. Functions see one value each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from dcompute.checks.forms import Check, is_expression, is_pandera
from dcompute.checks.judging import holds, judge, raised
from dcompute.errors import CheckError, CheckFailed, DcomputeError, SchemaError
from dcompute.packed import opened
from dcompute.records import CHECK_NAMES, Failure
from dcompute.secrecy import shown_value
from dcompute.worker.attempt import REFUSED, encode_failure
from dcompute.worker.blocks import table_of
from dcompute.worker.refusal import refusal
from dcompute.worker.rows import to_rows
from dcompute.worker.sieve import text_of


def refused(
    checks: Sequence[Check], values: Sequence[Any], indexes: Iterable[int], *, keywords: bool, begin: Callable[[int], object] | None = None
) -> dict[int, bytes]:
    """By index, the failures of items whose inputs do not pass, as a journal holds them.

    Parameters
    ----------
    checks
        What must be true of each input.
    values
        Those of the batch.
    indexes
        Of the items that are to be executed.
    keywords
        Whether values are mappings of columns, as those of grids and tables are.
    begin
        Called before functions are asked of an item's value.
    """
    judging = _Judging(checks, keywords)
    for index in indexes:
        if begin is not None and judging.asks_functions:
            begin(index)
        judging.take(index, values[index])
    judging.end()
    return {index: _encoded(index, failure, judging) for index, failure in judging.failures.items()}


class _Judging:
    def __init__(self, checks: Sequence[Check], keywords: bool) -> None:
        self._of_tables = [check for check in checks if is_expression(check.given) or is_pandera(check.given)]
        self._of_values = [check for check in checks if check not in self._of_tables]
        self.asks_functions = bool(self._of_values)
        self._keywords = keywords
        self._rows: list[tuple[int, Any]] = []
        self.values: dict[int, Any] = {}
        self.failures: dict[int, DcomputeError] = {}
        self.broken: dict[int, tuple[list[str], list[str]]] = {}  # names of checks, and reasons

    def take(self, index: int, value: Any) -> None:
        """Judge by functions, and keep the value for the others."""
        try:
            value = self.values[index] = opened(value)
        except BaseException:  # noqa: BLE001  whatever its class raises: the item's call will raise it again, and fails of it
            return
        try:
            for check in self._of_values:
                # a check looks: what it does to the mapping must not reach the item
                if not holds(check, _asked(check, dict(value) if self._keywords else value)):
                    self._note(index, check.name, f"{check.name}: not true of {shown_value('value', value)}")
            if self._of_tables:
                self._rows.append((index, to_rows(dict(value) if self._keywords else {"value": value})))
        except (CheckError, SchemaError) as error:
            self.failures[index] = error

    def end(self) -> None:
        """Judge by tables; all failures are known then."""
        if self._rows:
            self._judge(self._rows)
        for index, (names, reasons) in self.broken.items():
            text = CHECK_NAMES.join(reasons)
            self.failures.setdefault(index, CheckFailed(f"its input does not pass: {text}", check=CHECK_NAMES.join(names)))

    def _judge(self, rows: list[tuple[int, Any]]) -> None:
        try:
            table, places = table_of(rows)
            found = judge(self._of_tables, table)
        except (CheckError, SchemaError, pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            if len(rows) > 1:
                self._judge(rows[: len(rows) // 2])
                self._judge(rows[len(rows) // 2 :])
            else:
                own = error if isinstance(error, DcomputeError) else SchemaError(f"its input makes no table: {error}")
                self.failures[rows[0][0]] = own
            return
        for row, names, reason in zip(found.rows.tolist(), found.names, found.reasons, strict=True):
            self._note(int(places[row]), names, reason)

    def _note(self, index: int, names: str, reason: str) -> None:
        known = self.broken.setdefault(index, ([], []))
        known[0].append(names)
        known[1].append(reason)


def _asked(check: Check, value: Any) -> Any:
    try:
        return check.given(value)
    except (Exception, SystemExit) as error:
        raise raised(check, error) from error


def _encoded(index: int, error: DcomputeError, judging: _Judging) -> bytes:
    failure: Failure = refusal(index, type(error), error.message)
    told: dict[str, Any] = {
        "kind": str(failure.kind), "error": failure.error, "bases": list(failure.bases), "message": failure.message, "traceback": "",
    }  # fmt: skip
    if isinstance(error, CheckFailed):
        names, reasons = judging.broken[index]
        value = judging.values[index]
        record = text_of(value if judging._keywords else {"value": value})
        told[REFUSED] = {"check": CHECK_NAMES.join(names), "reason": CHECK_NAMES.join(reasons), "record": record}
    return encode_failure(told)
