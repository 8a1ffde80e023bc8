"""What a report promises of its rows, and what is told where a promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dcompute.checks.forms import Check as Declared
from dcompute.checks.forms import checks_of as rows_checks_of
from dcompute.checks.forms import is_expression, is_pandera, name_of, named, refuse_doubles
from dcompute.checks.judging import judge, truth
from dcompute.checks.panderas import text_of
from dcompute.errors import DcomputeError, ReportError, UsageError
from dcompute.report.dropping import plain_mask


@dataclass(frozen=True, slots=True)
class RowCheck:
    """An expression that must be true of each row, or a schema of pandera."""

    name: str
    expression: Any

    @property
    def text(self) -> str:
        """What changes where the check does."""
        return text_of(self.expression) if is_pandera(self.expression) else str(self.expression)

    def broken(self, table: pa.Table) -> pa.Table:
        """The rows of which it is not true; null is not true."""
        if is_pandera(self.expression):
            return table.take(pa.array(judge((Declared(self.name, self.expression),), table).rows))
        return table.filter(pa.array(~truth(self.expression, table)))


@dataclass(frozen=True, slots=True)
class WholeCheck:
    """A function of the whole result, as a Dask dataframe: true or false, or a series that is true for each good row."""

    name: str
    function: Callable[[Any], Any]


Check = RowCheck | WholeCheck


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that some rows break."""

    check: str
    rows: int | None  #: None: it is one of the whole result
    example: str


def checks_of(given: Any) -> tuple[Check, ...]:
    """The checks that a user declares: expressions of pyarrow and functions, in a list or by name.

    Raises
    ------
    UsageError
        One is neither.
    """
    found = tuple(_check(name, one) for name, one in named(given))
    refuse_doubles([one.name for one in found], "checks", UsageError)
    return found


def first_broken(report: str, found: Iterable[Broken]) -> ReportError | None:
    """The error of the first check that is broken, with all rows that break it."""
    together: dict[str, Broken] = {}
    for one in found:
        known = together.get(one.check)
        rows = one.rows if known is None or known.rows is None or one.rows is None else known.rows + one.rows
        together[one.check] = Broken(one.check, rows, known.example if known is not None else one.example)
    for one in together.values():
        what = "the result does not pass" if one.rows is None else f"{one.rows:,} row{'s do' if one.rows != 1 else ' does'} not pass"
        example = f", such as {one.example}" if one.example else ""
        return ReportError(
            f"report {report!r}: {what} the check {one.check!r}{example}. Nothing was published: what counted before still counts",
            check=one.check,
            rows=one.rows,
            example=one.example,
        )
    return None


def example_of(table: pa.Table) -> str:
    """The first row, for people."""
    text = ", ".join(f"{name}={value!r}" for name, value in table.slice(0, 1).to_pylist()[0].items()) if table.num_rows else ""
    return text if len(text) <= 500 else text[:500] + "..."


def check_whole(report: str, check: WholeCheck, frame: Any, compute: Callable[..., tuple[Any, ...]]) -> Broken | None:
    """What a function says of the whole result.

    Parameters
    ----------
    report
        Its name.
    check
        The function.
    frame
        The result, as a Dask dataframe.
    compute
        Computes several things of Dask at once.
    """
    try:
        return _said(check.name, check.function(frame), frame, compute)
    except AssertionError as error:
        return Broken(check.name, None, str(error))
    except DcomputeError:
        raise
    except Exception as error:
        raise ReportError(
            f"report {report!r}: the check {check.name!r} raised {type(error).__name__}: {error}", check=check.name
        ) from error


def _said(name: str, said: Any, frame: Any, compute: Callable[..., tuple[Any, ...]]) -> Broken | None:
    if hasattr(said, "npartitions") and getattr(said, "ndim", 0) == 1:
        bad = frame[~plain_mask(said)]
        count, example = compute(bad.shape[0], bad.head(1, npartitions=-1, compute=False))
        return Broken(name, int(count), example_of(pa.Table.from_pandas(example, preserve_index=False))) if count else None
    (answer,) = compute(said)
    if getattr(answer, "ndim", 0) == 1:
        bad_rows = int((~plain_mask(answer)).sum())
        return Broken(name, bad_rows, "") if bad_rows else None
    return None if bool(answer) else Broken(name, None, "")


def _check(name: Any, given: Any) -> Check:
    if is_expression(given):
        return RowCheck(name_of(name, given), given)
    if is_pandera(given):
        (check,) = rows_checks_of({name_of(name, given): given})
        return RowCheck(check.name, check.given)
    if callable(given):
        return WholeCheck(name_of(name, given), given)
    raise UsageError(
        f"checks= has {given!r}, which is neither an expression such as pyarrow.compute.field('x') > 0 nor a function nor a schema of "
        "pandera"
    )
