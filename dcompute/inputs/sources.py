"""Where values come from: sequences, grids, tables and streams, each read in bunches."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from dcompute.errors import InputError, InternalError, KeyDerivationError
from dcompute.keys import derive
from dcompute.records import ItemKey
from dcompute.summary import counted


class Bunch(NamedTuple):
    """Some values in their order."""

    values: Sequence[Any]
    keys: Sequence[Any] | None = None  #: what their keys derive from, where it is not the values themselves
    stamps: Sequence[str] | None = None  #: their fingerprints, where the source knows them
    named: Sequence[ItemKey] | None = None  #: their keys, where the source has them
    shown: Sequence[Any] | None = None  #: what ``key=`` looks at, where it is not the values themselves
    sizes: Sequence[int] | None = None  #: about how many bytes each takes when it is sent, where the source knows


class Source(Protocol):
    """Values that can be counted and read again, or a stream of them."""

    @property
    def count(self) -> int | None:
        """How many values there are; None: a stream, which can be read once."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the keyword arguments that each value is; None: a value is one positional argument."""

    @property
    def distinct(self) -> bool:
        """Whether no key that a value gives by itself can come twice."""

    def bunches(self, size: int) -> Iterator[Bunch]:
        """All values, up to ``size`` at once."""

    def pick(self, positions: Sequence[int]) -> Bunch:
        """The values at these positions."""

    def describe(self) -> str:
        """What it is, for a person."""

    def why_none(self) -> str:
        """Where it has no values: what to look at."""


class Ready(ABC):
    """A stream of values that was made a source before it was given to a run; see :class:`Source`."""

    count: int | None = None
    distinct = True
    names: tuple[str, ...] | None = None
    sources: tuple[tuple[str, int], ...] = ()  #: datasets that it reads, each with the number of the last entry that counts

    @property
    def requests(self) -> int:
        """Requests made for it so far to an object store."""
        return 0

    @property
    @abstractmethod
    def takes_key(self) -> bool:
        """Whether ``key=`` makes sense."""

    @abstractmethod
    def bunches(self, size: int) -> Iterator[Bunch]:
        """As of any source."""

    @abstractmethod
    def pick(self, positions: Sequence[int]) -> Bunch:
        """As of any source."""

    @abstractmethod
    def describe(self) -> str:
        """As of any source."""

    @abstractmethod
    def why_none(self) -> str:
        """As of any source."""


class Values:
    """A sequence of values."""

    names = None

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values
        self.count = len(values)
        self.distinct = isinstance(values, range)

    def bunches(self, size: int) -> Iterator[Bunch]:
        """Slices of it."""
        for start in range(0, self.count, size):
            yield Bunch(list(self._values[start : start + size]))

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Members of it."""
        return Bunch([self._values[position] for position in positions])

    def describe(self) -> str:
        """Its type and length."""
        return f"a {type(self._values).__name__} of {self.count:,}"

    why_none = describe


class Stream:
    """Values that come once, one after another."""

    count, names, distinct = None, None, False

    def __init__(self, values: Iterator[Any]) -> None:
        self.values = values

    def bunches(self, size: int) -> Iterator[Bunch]:
        """What comes next; waits until ``size`` have come."""
        while values := list(itertools.islice(self.values, size)):
            yield Bunch(values)

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Nothing: a stream is not read again."""
        raise InternalError(f"a stream cannot be read again, for {len(positions)} values")

    def describe(self) -> str:
        """That it is one."""
        return "a stream"

    def why_none(self) -> str:
        """It may have been read before."""
        return "nothing came; a generator, an iterator or a pipe gives its values only once"


class Grid:
    """All combinations of some axes, the last axis changing quickest; made by :func:`dcompute.grid`."""

    def __init__(self, axes: Mapping[str, Any]) -> None:
        if not axes:
            raise InputError("grid() has no axes: say them as grid(a=[1, 2], b=[3, 4])")
        self._axes = {name: _axis(name, values) for name, values in axes.items()}
        self.names: tuple[str, ...] = tuple(axes)
        self.count = math.prod(map(len, self._axes.values()))

    @property
    def distinct(self) -> bool:
        """Whether no axis has a value twice."""
        try:
            return all(len({derive((value,)) for value in values}) == len(values) for values in self._axes.values())
        except KeyDerivationError:
            return False

    def bunches(self, size: int) -> Iterator[Bunch]:
        """Combinations in their order."""
        names = self.names
        combinations = itertools.product(*self._axes.values())
        while rows := list(itertools.islice(combinations, size)):
            yield Bunch([dict(zip(names, row, strict=True)) for row in rows])

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Combinations by number."""
        return Bunch([self._at(position) for position in positions])

    def _at(self, position: int) -> dict[str, Any]:
        found = {}
        for name, values in reversed(self._axes.items()):
            position, place = divmod(position, len(values))
            found[name] = values[place]
        return {name: found[name] for name in self.names}

    def describe(self) -> str:
        """Its axes."""
        return f"a grid of {' x '.join(f'{len(values):,} {name}' for name, values in self._axes.items())} = {self.count:,}"

    why_none = describe

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<{self.describe()}>"


def _axis(name: str, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise InputError(f"grid({name}={values!r}): an axis is a list of values, such as {name}=[{values!r}]")
    return values if isinstance(values, (list, tuple, range)) else list(values)


class Frame:
    """The rows of a pandas dataframe; its named index gives the keys."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names: tuple[str, ...] = column_names(frame.columns)
        self.levels: tuple[Any, ...] = tuple(frame.index.names)
        self._has_keys = all(name is not None for name in self.levels)
        self.count = len(frame)

    @property
    def distinct(self) -> bool:
        """Whether it has a named index without repetitions."""
        return self._has_keys and bool(self._frame.index.is_unique)

    def bunches(self, size: int) -> Iterator[Bunch]:
        """Its rows from the top."""
        for start in range(0, self.count, size):
            yield self._bunch(self._frame.iloc[start : start + size])

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Rows by number."""
        return self._bunch(self._frame.iloc[list(positions)])

    def _bunch(self, part: Any) -> Bunch:
        columns = [part.iloc[:, place].tolist() for place in range(len(self.names))]
        rows = (
            [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else [{} for _ in range(len(part))]
        )
        return Bunch(rows, part.index.tolist() if self._has_keys else None)

    def describe(self) -> str:
        """Its shape."""
        return f"a table of {counted(self.count, 'row')} with {counted(len(self.names), 'column')}"

    why_none = describe


class Partitions:
    """The rows of a Dask dataframe, computed a partition at a time."""

    count, distinct = None, False

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names: tuple[str, ...] = column_names(frame.columns)
        self.levels: tuple[Any, ...] = tuple(frame._meta.index.names)

    def bunches(self, size: int) -> Iterator[Bunch]:
        """Rows of one partition after another."""
        for number in range(self._frame.npartitions):
            yield from Frame(self._frame.partitions[number].compute()).bunches(size)

    def pick(self, positions: Sequence[int]) -> Bunch:
        """Nothing: it would be computed again."""
        raise InternalError(f"a Dask dataframe is not computed again, for {len(positions)} rows")

    def describe(self) -> str:
        """Its shape."""
        return f"a Dask dataframe of {counted(self._frame.npartitions, 'partition')} with {counted(len(self.names), 'column')}"

    why_none = describe


def check_index(levels: Sequence[Any]) -> None:
    """Refuse an index of several levels that gives no keys: rows would be told apart by their values alone.

    Raises
    ------
    InputError
        Some of its levels have no name.
    """
    if len(levels) > 1 and None in levels:
        named = ", ".join("(no name)" if level is None else repr(level) for level in levels)
        raise InputError(
            f"the table's index has the levels {named}, and without a name it gives no keys: name all of them with "
            ".rename_axis([...]), pass key=, or drop them with .reset_index(drop=True)"
        )


def column_names(columns: Any) -> tuple[str, ...]:
    """Names under which a table's rows are passed.

    Raises
    ------
    InputError
        One is no text, or comes twice.
    """
    names = tuple(columns)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"the table has a column {name!r}: rows are passed as keyword arguments, so rename it to a text")
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise InputError(f"the table has two columns {twice!r}: rows are passed as keyword arguments, so rename one")
    return names
