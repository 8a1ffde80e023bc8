"""Columns of a batch on their way: packed by the driver, passed on as bytes by workers, opened where they are first looked at.

A batch has thousands of items, and text by text, item by item, pickling its keys costs more than executing items that do little.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar, overload

from dcompute.records import ItemKey

T = TypeVar("T")

_BETWEEN = "\0"
_FINGERPRINT = 32  # hex digits


class Column(Sequence[T]):
    """One value an item; pickling it again copies bytes.

    Parameters
    ----------
    count
        How many values there are.
    data
        They, packed by the class.
    """

    __slots__ = ("_count", "_data", "_opened")

    def __init__(self, count: int, data: bytes) -> None:
        self._count = count
        self._data = data
        self._opened: tuple[T, ...] | None = None

    @abstractmethod
    def _open(self) -> tuple[T, ...]: ...

    @property
    def values(self) -> tuple[T, ...]:
        """All of them, opened once."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[T, ...]: ...
    def __getitem__(self, place: Any) -> Any:
        return self.values[place]

    def __iter__(self) -> Iterator[T]:
        return iter(self.values)

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Column, tuple)) and self.values == tuple(other)

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f"<{self._count} {type(self).__name__.lower()}, {len(self._data)} bytes>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._count, self._data)


class Keys(Column[ItemKey]):
    """Keys: the texts in one, and the kind once where all have the same."""

    __slots__ = ()

    @classmethod
    def of(cls, keys: Sequence[ItemKey]) -> Keys:
        """Pack them."""
        kinds = [key.kind for key in keys]
        return cls(len(keys), pickle.dumps((_joined([key.text for key in keys]), kinds[0] if _alike(kinds) else kinds), 5))

    def _open(self) -> tuple[ItemKey, ...]:
        texts, kinds = pickle.loads(self._data)  # noqa: S301  Dask's own wire
        each = repeat(kinds, self._count) if isinstance(kinds, str) else kinds
        return tuple(map(ItemKey._make, zip(_split(texts), each, strict=False)))


class Numbers(Column[int]):
    """Whole numbers: one where all are the same."""

    __slots__ = ()

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Numbers:
        """Pack them."""
        return cls(len(numbers), pickle.dumps(numbers[0] if _alike(numbers) else tuple(numbers), 5))

    def _open(self) -> tuple[int, ...]:
        packed = pickle.loads(self._data)  # noqa: S301
        return packed if isinstance(packed, tuple) else (packed,) * self._count


class Fingerprints(Column[str]):
    """Fingerprints: 16 bytes each where they are the 32 hex digits that nearly all are."""

    __slots__ = ()

    @classmethod
    def of(cls, prints: Iterable[str]) -> Fingerprints:
        """Pack them."""
        prints = list(prints)
        return cls(len(prints), pickle.dumps(_digits(prints) or _joined(prints), 5))

    def _open(self) -> tuple[str, ...]:
        packed = pickle.loads(self._data)  # noqa: S301
        if not isinstance(packed, bytes):
            return tuple(_split(packed))
        text = packed.hex()
        return tuple([text[start : start + _FINGERPRINT] for start in range(0, len(text), _FINGERPRINT)])


class Sealed:
    """One value of a class that this project does not know, pickled on its own and opened in its item's attempt.

    What its class raises when it is opened is then that item's failure, not its batch's.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self) -> Any:
        """The value; for the child that executes its item only."""
        return pickle.loads(self._data)  # noqa: S301  Dask's own wire, from the driver of this run

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._data,)


def opened(value: Any) -> Any:
    """A value as its workload takes it."""
    return value.open() if type(value) is Sealed else value


def _alike(values: Sequence[Any]) -> bool:
    return bool(values) and values.count(values[0]) == len(values)


def _digits(prints: list[str]) -> bytes | None:
    """The digits as bytes; None where one is no fingerprint of ours, whose text must come out as it went in."""
    if set(map(len, prints)) != {_FINGERPRINT}:
        return None
    text = "".join(prints)
    try:
        packed = bytes.fromhex(text)
    except ValueError:
        return None
    return packed if packed.hex() == text else None


def _joined(texts: list[str]) -> str | list[str]:
    """One text, where none of them holds what stands between them."""
    joined = _BETWEEN.join(texts)
    return joined if texts and joined.count(_BETWEEN) == len(texts) - 1 else texts


def _split(texts: str | list[str]) -> list[str]:
    return texts.split(_BETWEEN) if isinstance(texts, str) else texts
