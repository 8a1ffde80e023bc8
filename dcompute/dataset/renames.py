"""Columns that got other names: what a column of a part is called now, and what of a declaration is left to do. Pure.

A part keeps the names that it was written with, and a renaming stands in the log: it holds for the parts before it. So a column of the old
name that comes later is a column of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcompute.errors import SchemaError
from dcompute.records import is_whole

#: Old and new names of columns that are renamed at once.
Pairs = tuple[tuple[str, str], ...]

_RESERVED = ("item_key", "key_kind")


@dataclass(frozen=True, slots=True)
class Renames:
    """What was renamed, in the order of the log."""

    steps: tuple[tuple[int, Pairs], ...] = ()  #: position in the log, and what was renamed there

    def __bool__(self) -> bool:
        return bool(self.steps)

    def then(self, position: int, columns: Pairs) -> Renames:
        """These, and one more."""
        return Renames((*self.steps, (position, columns)))

    def stored(self, names: Iterable[str], position: int) -> dict[str, str]:
        """By the name that it has now, the name that each column of a part has in its file.

        Parameters
        ----------
        names
            Of the columns in the file.
        position
            Of the part in the log.
        """
        later = [dict(columns) for at, columns in self.steps if at > position]
        found = {}
        for name in names:
            now = name
            for step in later:
                now = step.get(now, now)
            found[now] = name
        return found

    def touch(self, names: Iterable[str], position: int) -> bool:
        """Whether a column of a part has another name now."""
        return bool(self) and any(now != name for now, name in self.stored(names, position).items())

    def did(self, old: str, new: str) -> bool:
        """Whether the last renaming that had to do with one of these names was this one."""
        for _, columns in reversed(self.steps):
            if any(name in pair for pair in columns for name in (old, new)):
                return (old, new) in columns
        return False


def pairs_of(given: Any) -> Pairs:
    """What a user declares, as pairs of an old and a new name.

    Raises
    ------
    SchemaError
        It is no mapping of names to other names.
    """
    if not isinstance(given, Mapping) or not given:
        raise SchemaError(f'{given!r} renames nothing: say old names and new ones, such as {{"temp": "temperature"}}')
    for old, new in given.items():
        for name in (old, new):
            if not isinstance(name, str) or not new:
                raise SchemaError(f"{old!r} cannot be renamed to {new!r}: names of columns are text")
            if not is_whole(name):
                raise SchemaError(f"{old!r} cannot be renamed to {new!r}: {name!r} is no text that Parquet can hold", column=ascii(name))
            if name in _RESERVED:
                raise SchemaError(f"{old!r} cannot be renamed to {new!r}: every dataset has {name!r} for itself", column=name)
        if "\0" in new:
            raise SchemaError(f"{old!r} cannot be renamed to {new!r}: some tools end a name at a zero character", column=new)
        if old == new:
            raise SchemaError(f"{old!r} is renamed to itself: say another name, or leave it out", column=old)
    return tuple(given.items())


def outstanding(declared: Pairs, columns: Sequence[str], renames: Renames, *, by_workload: bool = False) -> Pairs:
    """What of a declaration was not done yet: all of it or nothing, and of a workload's, which grows with its versions, pair by pair.

    Parameters
    ----------
    declared
        Old and new names.
    columns
        That the results have now.
    renames
        What was renamed so far.
    by_workload
        Whether a workload declares it: then results may have had the new name from the start.

    Raises
    ------
    SchemaError
        There is no such column, or two would have one name.
    """
    done = {pair for pair in declared if renames.did(*pair)}
    if not by_workload and len(done) < len(declared):
        done = set()
    if not by_workload:
        _refuse_return(done, columns)
    due = tuple(pair for pair in declared if pair[0] in columns and pair not in done)
    after = {*columns}.difference(old for old, _ in due)
    for old, new in due:
        if new in after:
            raise SchemaError(
                f"{old!r} cannot be renamed to {new!r}: the results have a column of that name already. Choose another name, or rename "
                "that column too",
                column=old,
            )
        after.add(new)
    for old, new in declared:
        if old not in columns and (old, new) not in done and not (by_workload and new in after):
            raise _missing(old, new, columns)
    return due


def _refuse_return(done: Collection[tuple[str, str]], columns: Sequence[str]) -> None:
    """Raise where a column that was renamed so is there again: it is another one, and to do nothing would hide that."""
    news = {new for _, new in done}
    for old, new in done:
        if old in columns and old not in news:
            raise SchemaError(
                f"{old!r} cannot be renamed to {new!r}: that was done before, and the results have a column {old!r} again, written since. "
                f"Give that one another name, or return {new!r} from the workload, and leave this line out",
                column=old,
            )


def renamed(names: Iterable[str], pairs: Pairs) -> list[str]:
    """Names after a renaming, in their order."""
    step = dict(pairs)
    return [step.get(name, name) for name in names]


def _missing(old: str, new: str, columns: Sequence[str]) -> SchemaError:
    near = difflib.get_close_matches(old, columns, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the results have {', '.join(columns) or 'no columns yet'}"
    return SchemaError(f"{old!r} cannot be renamed to {new!r}: there is no column {old!r}; {hint}", column=old)
