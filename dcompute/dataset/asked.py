"""Keys as a user names them: by their text alone, or with their kind."""

from __future__ import annotations

from collections.abc import Iterable

from dcompute.errors import UsageError
from dcompute.records import ItemKey

#: The text of a key, or a pair of it and the kind of key.
Key = str | tuple[str, str]


def asked(keys: Iterable[Key]) -> tuple[ItemKey | str, ...]:
    """The keys that are named, each once, in their order.

    Raises
    ------
    UsageError
        It is one text, or something in it is no key.
    """
    if isinstance(keys, str):
        raise UsageError(f"keys={keys!r} is one text: give a list of keys, as keys=[{keys!r}]")
    return tuple(dict.fromkeys(map(_one, keys)))


def _one(key: Key) -> ItemKey | str:
    if isinstance(key, str):
        return key
    if isinstance(key, tuple) and len(key) == 2 and all(isinstance(part, str) for part in key):
        return ItemKey(*key)
    raise UsageError(f"{key!r} is no key as a dataset has them: give the text in item_key, or a pair of it and key_kind")
