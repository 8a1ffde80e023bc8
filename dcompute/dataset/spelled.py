"""Values of items from their keys: where a key is all of the value, written out, it gives the value back.

What the keys look like is said in ``dcompute.keys``: JSON for tuples and mappings, in which an object with one name that begins with ``$``
stands for what JSON has no type for, and a name that begins with ``$`` has another ``$`` before it.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import json
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dcompute.records import ItemKey

#: Kinds of key that mappings and tuples have.
MAPPING, TUPLE = "dict", "tuple"


def value_of(key: ItemKey) -> Any:
    """The value that gave a key by itself; the key's text, where its kind is not known.

    Integers beyond 64 bits, times with nanoseconds and such come back as Python's own types, paths as ``pathlib`` ones.
    """
    if key.kind in (MAPPING, TUPLE):
        found = _opened(json.loads(key.text))
        return tuple(found) if key.kind == TUPLE else found
    return _READERS.get(key.kind, str)(key.text)


def of_many_types(key: ItemKey) -> str:
    """What a key holds that values of several types write alike, with the zone of a time lost; "" where there is no such thing.

    That numbers of NumPy are written as Python's is left out: they are what they equal.
    """
    if key.kind in (MAPPING, TUPLE):
        return _unsure(json.loads(key.text))
    return _UNSURE.get(key.kind, "")


def _unsure(value: Any) -> str:
    if value is None:
        return "a missing value"
    if isinstance(value, dict):
        tagged = [_UNSURE[name[1:]] for name in value if len(value) == 1 and name[:1] == "$" and name[1:] in _UNSURE]
        return next(filter(None, [*tagged, *map(_unsure, value.values())]), "")
    return next(filter(None, map(_unsure, value)), "") if isinstance(value, list) else ""


def arguments_of(text: str) -> Mapping[str, Any]:
    """The names and values in a key of kind ``dict``, with values that a column may hold."""
    return {name: _stored(value) for name, value in _opened(json.loads(text)).items()}


def _opened(value: Any) -> Any:
    if isinstance(value, list):
        return [_opened(member) for member in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, member),) = value.items()
        if name == "$dict":
            return {_hashable(_opened(key)): _opened(one) for key, one in member}
        if name[:1] == "$" and name[1:2] != "$":
            return _READERS.get(name[1:], str)(member)
    return {name[1:] if name.startswith("$$") else name: _opened(member) for name, member in value.items()}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _stored(value: Any) -> Any:
    """The value as a column may hold it: what Arrow has no type for as text."""
    if isinstance(value, list):
        return [_stored(member) for member in value]
    if isinstance(value, dict):
        return {str(name): _stored(member) for name, member in value.items()} or None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # Arrow has no half characters
    return str(value) if isinstance(value, (Path, uuid.UUID, fractions.Fraction, complex)) else value


def _unescaped(text: str) -> str:
    """The text of a key with half characters, which has them as ``\\udc80`` and its backslashes doubled."""
    return re.sub(r"\\(\\|u[0-9a-f]{4})", lambda found: "\\" if found[1] == "\\" else chr(int(found[1][1:], 16)), text)


def _integer(text: str) -> int:
    return int(text, 16) if "0x" in text else int(text)


def _timedelta(text: str) -> datetime.timedelta:
    # exact: seconds as a float would lose microseconds of long times
    return datetime.timedelta(microseconds=int(decimal.Decimal(text) * 10**6))


_UNSURE = {"datetime": "a time", "timedelta": "a duration"}

_READERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "bool": lambda text: text == "true",
    "int": _integer,
    "float": float,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": _timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "fraction": fractions.Fraction,
    "complex": complex,
    "path": Path,
    "str_escaped": _unescaped,
    "path_escaped": lambda text: Path(_unescaped(text)),
}
