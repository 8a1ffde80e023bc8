"""Checks as a user declares them: expressions of pyarrow, functions, schemas of pandera; alone, in a list, or by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dcompute.errors import DcomputeError, WorkloadError
from dcompute.records import CHECK_NAMES

_CHANGES = "it would judge other rows than those that are written"
_BESIDE = "rows are judged by themselves, and which are beside each other is chance"


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """Something that must be true of each row, by its name."""

    name: str
    given: Any  #: an expression of pyarrow, a schema of pandera, or a function

    def __repr__(self) -> str:
        return f"<Check {self.name}>"


class Said(NamedTuple):
    """What one check says of rows that do not pass, in any order; a row may stand several times."""

    rows: Sequence[int]
    reasons: Sequence[str]


def is_expression(given: Any) -> bool:
    """Whether it is an expression of pyarrow, which nobody has who did not load it."""
    return type(given).__name__ == "Expression" and type(given).__module__.partition(".")[0] == "pyarrow"


def is_pandera(given: Any) -> bool:
    """Whether it is a schema of pandera, or one of its models."""
    bases = given.__mro__ if isinstance(given, type) else type(given).__mro__
    return any(base.__module__.partition(".")[0] == "pandera" for base in bases)


def checks_of(given: Any, argument: str = "checks") -> tuple[Check, ...]:
    """The checks that a user declares; None are none.

    Parameters
    ----------
    given
        One, several, or several by name.
    argument
        What it was given as, for errors.

    Raises
    ------
    WorkloadError
        One is no check, or two have one name.
    """
    if given is None:
        return ()
    if isinstance(given, tuple) and all(isinstance(one, Check) for one in given):
        return given
    found = tuple(_check(name, one, argument) for name, one in named(given))
    refuse_doubles([one.name for one in found], argument, WorkloadError)
    return found


def named(given: Any) -> Iterable[tuple[Any, Any]]:
    """Each of what is given as ``checks=``, with the name that it was given; None: it has none."""
    if isinstance(given, Mapping):
        return given.items()
    alone = is_expression(given) or is_pandera(given) or callable(given) or not isinstance(given, Iterable) or isinstance(given, str)
    return [(None, one) for one in ([given] if alone else given)]


def name_of(name: Any, given: Any) -> str:
    """What a check is called: as the user names it, else by itself."""
    if name is not None:
        return str(name)
    if is_expression(given):
        return str(given)
    if is_pandera(given):
        return str(_name_of_schema(given) or type(given).__name__)
    return str(getattr(given, "__name__", None) or type(given).__name__)


def _name_of_schema(given: Any) -> Any:
    if not isinstance(given, type):
        return getattr(given, "name", None)
    # a model's attributes are columns, also one that is called "name"
    return getattr(getattr(given, "Config", None), "name", None) or given.__name__


def refuse_doubles(names: list[str], argument: str, error: Callable[[str], DcomputeError]) -> None:
    """Raise where two checks have one name."""
    for name in names:
        if names.count(name) > 1:
            raise error(f'two checks are called {name!r}: name them, as {argument}={{"positive": ...}}')


def _check(name: Any, given: Any, argument: str) -> Check:
    called = name_of(name, given)
    if CHECK_NAMES.strip() in called or not called.strip():
        raise WorkloadError(f"{argument}= has the name {called!r}: give it one without a semicolon, such as 'positive'")
    if is_pandera(given):
        schema = _schema(given, argument)
        _refuse_options(called, schema, argument)
        return Check(called, schema)
    if is_expression(given) or callable(given):
        return Check(called, given)
    raise WorkloadError(
        f"{argument}= has {given!r}, which is no check: give an expression such as pyarrow.compute.field('x') > 0, a function, or a "
        "DataFrameSchema of pandera"
    )


def _schema(given: Any, argument: str) -> Any:
    schema = given.to_schema() if isinstance(given, type) and hasattr(given, "to_schema") else given
    if not type(schema).__module__.startswith("pandera.api.pandas") or type(schema).__name__ != "DataFrameSchema":
        raise WorkloadError(
            f"{argument}= has a {type(given).__module__}.{type(given).__qualname__}: of pandera's schemas it takes those of pandas, "
            "pandera.pandas.DataFrameSchema and DataFrameModel"
        )
    return schema


def _refuse_options(name: str, schema: Any, argument: str) -> None:
    """Raise where a schema would let rows pass that do not, or judges them by those that happen to be beside them."""
    for owner, part in [("", schema), *((f" of {column!r}", part) for column, part in schema.columns.items())]:
        reasons = {
            "drop_invalid_rows": (part.drop_invalid_rows, "rows that do not pass would be lost to it"),
            "parsers": (part.parsers, _CHANGES),
            "add_missing_columns": (getattr(part, "add_missing_columns", False), _CHANGES),
            "default": (getattr(part, "default", None) is not None, _CHANGES),
            "n_failure_cases": (any(rule.n_failure_cases is not None for rule in part.checks), "other rows would pass silently"),
            "unique": (part.unique, _BESIDE),
            "groupby": (any(rule.groupby is not None for rule in part.checks), _BESIDE),
            "index": (getattr(part, "index", None) is not None, "rows have none"),
        }
        for option, (is_used, why) in reasons.items():
            if is_used:
                raise WorkloadError(f"{argument}= has the schema {name!r} with {option}{owner}: {why}; leave it out")
