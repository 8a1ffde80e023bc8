"""Arguments that are the same for every item, so that no item can change those of the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: Lists, mappings and sets in the params are copied for each call while they have so many members altogether: 10 us for a flat one.
LARGEST = 1000

_HOLDERS = (list, dict, set, bytearray, tuple)


def giver(params: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """Gives the params for one call: lists, mappings, sets and byte arrays in them are the call's own.

    Larger ones than :data:`LARGEST`, and objects of all other types, are one object for all items of a child, as globals are.
    """
    given = dict(params)
    if sum(map(_size, given.values())) > LARGEST:
        return lambda: given
    return _copier(given) or given.copy


def _copier(value: Any) -> Callable[[], Any] | None:
    """Gives copies of a value as it is now; None where it is of no type that a call could change."""
    kind = type(value)
    if kind not in _HOLDERS:
        return None
    if kind is set or kind is bytearray:
        return value.copy().copy  # type: ignore[no-any-return]
    members = value.items() if kind is dict else enumerate(value)
    inner = [(place, copier) for place, member in members if (copier := _copier(member)) is not None]
    if kind is tuple:
        return _refilled(list(value), inner, tuple) if inner else None
    return _refilled(value.copy(), inner, None) if inner else value.copy().copy


def _refilled(kept: Any, inner: list[tuple[Any, Callable[[], Any]]], kind: Callable[[Any], Any] | None) -> Callable[[], Any]:
    def fill() -> Any:
        copy = kept.copy()
        for place, copier in inner:
            copy[place] = copier()
        return copy if kind is None else kind(copy)

    return fill


def _size(value: Any) -> int:
    """How many members it has, at any depth; a byte array counts a thousandth of its bytes."""
    kind = type(value)
    if kind is bytearray:
        return len(value) // 1000
    if kind not in _HOLDERS:
        return 0
    return len(value) + sum(map(_size, value.values() if kind is dict else value))
