"""How rows with the same key come together, column by column: what can be said of it, and what cannot be right is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dcompute.errors import ReportError, UsageError
from dcompute.report.writing import arrow_of

#: Of the same kind whatever came together before: what is combined may be combined again.
HOWS = ("sum", "prod", "min", "max")
_LEAVE = 'have the function return its sum and its count, combine both by "sum", and divide in the next stage'
_COUNTS = 'have the function count, as in frame.assign({name}=1), and say {{"{name}": "sum"}}'
_INSTEAD = {
    "count": _COUNTS, "size": _COUNTS, "mean": _LEAVE, "std": _LEAVE, "var": _LEAVE,
    "any": 'say {{"{name}": "max"}}', "all": 'say {{"{name}": "min"}}',
    "first": 'which row comes first is not defined: say "min" or "max"', "last": 'which row comes last is not defined: say "min" or "max"',
}  # fmt: skip


class Combine:
    """Brings rows with the same key together, column by column.

    Parameters
    ----------
    keys
        Columns of the key.
    how
        One of :data:`HOWS` for each other column.

    Raises
    ------
    UsageError
        It says something that cannot be combined again.
    """

    def __init__(self, keys: Sequence[str], how: Mapping[str, str]) -> None:
        self.keys = tuple(keys)
        self.how = dict(how)
        for name, one in self.how.items():
            if name in self.keys:
                raise UsageError(f"combine= has {name!r}, and {name!r} is of the key: rows with the same one come together, leave it out")
            if not isinstance(one, str) or one not in HOWS:
                raise UsageError(
                    f"combine= has {name!r}: {_quoted(one)}, which cannot be combined again where rows come later: {_instead(name, one)}"
                )

    def __call__(self, frame: Any) -> Any:
        """A row a key; where all rows of a key have null in a column, so does it."""
        # pandas calls the sum of nothing 0, and a function's null would become one
        both = {name: [how, "count"] for name, how in self.how.items()}
        found = frame.groupby(list(self.keys), dropna=False).agg(both)
        columns = {name: found[name, how].where(found[name, "count"] > 0) for name, how in self.how.items()}
        found.columns = [f"{number}" for number in range(len(found.columns))]
        return found.assign(**columns)[list(columns)].reset_index()

    def checked(self, report: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A report's function that is refused before anything is computed, where its result has other columns than can be combined."""

        def call(*frames: Any, **named: Any) -> Any:
            result = function(*frames, **named)
            names = _names_of(report, result)
            if names:
                self.check(report, names)
            return result

        return call

    def check(self, report: str, names: Sequence[str]) -> None:
        """Look whether it is said of each column of a result how it is combined.

        Raises
        ------
        ReportError
            It is not.
        """
        has = f"which the result does not have (it has {', '.join(names)})"
        for name in (*self.keys, *self.how):
            if name not in names:
                raise ReportError(f"report {report!r}: {'mergeable' if name in self.keys else 'combine'}= names {name!r}, {has}")
        unsaid = [name for name in names if name not in self.keys and name not in self.how]
        if unsaid:
            raise ReportError(
                f"report {report!r}: combine= says nothing of {_listed(unsaid)}: add how rows of one key come together, such as "
                f'"{unsaid[0]}": "sum" (there are {_either()}), or have the function leave it out'
            )


def _names_of(report: str, result: Any) -> list[str]:
    """Columns of a result, of a lazy one too; none of what is no table."""
    import pandas as pd

    known = getattr(result, "_meta", result)
    if isinstance(known, pd.DataFrame | pd.Series):
        known = known.iloc[:0]
    return list(arrow_of(report, known).column_names) if isinstance(known, pa.Table | pd.DataFrame | pd.Series) else []


def _instead(name: str, how: Any) -> str:
    words = _INSTEAD.get(how) if isinstance(how, str) else None
    return words.format(name=name) if words else f"say {_either()}, or a function of a Dask dataframe with all rows"


def _either() -> str:
    quoted = [f'"{how}"' for how in HOWS]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _quoted(how: Any) -> str:
    return f'"{how}"' if isinstance(how, str) else repr(how)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
