"""Keys and fingerprints: the text that identifies an input on disk, and the digest that tells whether it changed.

Both are the same in every process, on every machine and in every version of Python: never a position, never a hash of a pickle.

==================================  ==============  ==========================================================
value                               kind            text
==================================  ==============  ==========================================================
text                                ``str``         itself
numbers                             ``int`` ...     written out: ``7``, ``0.5``, ``true``
date, time, datetime                their name      ISO 8601
timedelta                           ``timedelta``   seconds
UUID, path                          their name      written out, paths with ``/``
tuple, mapping                      their name      JSON with sorted names
==================================  ==============  ==========================================================

In JSON a member that JSON has no type for is an object with one name that begins with ``$``: ``{"$date": "2024-05-01"}``.
A name that begins with ``$`` is written with another ``$`` before it.

Half characters (lone surrogates, from file names that are no text) are written as ``\\udc80``, because no table can hold them. Text and
paths that have some are of the kinds ``str_escaped`` and ``path_escaped`` then, with every backslash doubled, so that the text ``\\udc80``
has another key; in JSON a backslash is doubled anyway.

Fingerprints tell apart what keys write alike: ``{"a": (1, 2)}`` and ``{"a": [1, 2]}``, or named tuples with other names. In both a NumPy
scalar is what it equals in Python, an enumerated text is a text, and the order of names is no difference.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import os
import re
import struct
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any

from dcompute.errors import KeyDerivationError
from dcompute.garbage import uncollected
from dcompute.records import ItemKey

#: Kinds of key that mappings and tuples have.
MAPPING, TUPLE = "dict", "tuple"
_CONTAINERS = (MAPPING, TUPLE)
#: After the kind of a text or a path with half characters.
ESCAPED = "_escaped"

_FINGERPRINT_BYTES = 16
# beyond this many digits Python refuses to write an integer in decimal, because that takes quadratic time
_MOST_BITS = 10_000
_PLAIN = frozenset({str, int, bool, type(None)})
_PLAIN_OR_FLOAT = _PLAIN | {float}
_TEXT = frozenset({str})
_SURROGATES = re.compile("[\ud800-\udfff]")

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class _NoText(Exception):  # noqa: N818  never leaves this module
    """A value has no canonical text."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


# ------------------------------------------------------------------------------------------------------------------------- keys


def derive(value: Any) -> ItemKey:
    """The key that a value gives by itself.

    Raises
    ------
    KeyDerivationError
        No stable text stands for a value of this type.
    """
    kind = type(value)
    if kind is str:
        return ItemKey(value, "str") if value.isascii() else _written(ItemKey(value, "str"))
    if kind is int:
        return ItemKey(_int_text(value), "int")
    try:
        if (kind is dict or kind is tuple) and _is_plain(value):
            return ItemKey(_json(value, strict=True, plain=True), MAPPING if kind is dict else TUPLE)
        found = _key(value, strict=True)
    except _NoText as missing:
        raise _underivable(value, missing.value) from None
    except RecursionError:
        raise KeyDerivationError(
            f"no key can be derived from a {_name(kind)} that is nested too deep, or holds itself: pass key="
        ) from None
    if found is None:
        raise _underivable(value, value)
    return found


def fingerprint(value: Any) -> str:
    """32 hex digits that change when the value does; "" where that cannot be told from a value of its type."""
    kind = type(value)
    try:
        if kind is str or kind is int:
            return digest_of(derive(value))
        key = _key(value, strict=False)
        return digest_of(key if key is not None else ItemKey(_speakable(_encode(_tagged(value, strict=False))), "value"))
    except (_NoText, RecursionError):
        return ""


def uncomparable(value: Any) -> str:
    """The type in a value for which :func:`fingerprint` cannot tell whether it changed; "" where it can."""
    try:
        if _key(value, strict=False) is None:
            _encode(_tagged(value, strict=False))
    except _NoText as missing:
        return _name(type(missing.value))
    except RecursionError:
        return _name(type(value))
    return ""


def digest_of(key: ItemKey) -> str:
    """The fingerprint of a value that has this key by itself and holds no tuple or list."""
    return blake2b(f"{key.kind}:{key.text}".encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


def item_seed(seed: int, key: ItemKey) -> int:
    """The seed of an item, below 2**63: the same on every retry, worker and later run with this ``seed=``."""
    digest = blake2b(f"{seed}\0{key.kind}\0{key.text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def item_seeds(seed: int, keys: Sequence[ItemKey]) -> list[int]:
    """What :func:`item_seed` gives for each of the keys, in half the time."""
    starts = {kind: blake2b(f"{seed}\0{kind}\0".encode("utf-8", "surrogatepass"), digest_size=8) for kind in {key.kind for key in keys}}
    found = []
    for text, kind in keys:
        state = starts[kind].copy()
        state.update(text.encode("utf-8", "surrogatepass"))
        found.append(state.digest())
    return [number >> 1 for number in struct.unpack(f">{len(found)}Q", b"".join(found))]


def derive_many(values: Sequence[Any]) -> tuple[list[ItemKey], list[str]]:
    """Keys and fingerprints of values; about 1.5 us each where all are text, or all are integers.

    Raises
    ------
    KeyDerivationError
        As :func:`derive`; which value it is, is for the caller to find.
    """
    kinds = set(map(type, values))
    if kinds == {int} or (kinds == {str} and all(map(str.isascii, values))):
        name = "int" if kinds == {int} else "str"
        try:
            texts = list(map(str, values))
        except ValueError:  # an integer of thousands of digits
            return _one_by_one(values)
        start = blake2b(f"{name}:".encode(), digest_size=_FINGERPRINT_BYTES).copy
        prints = []
        for text in texts:
            state = start()
            state.update(text.encode())
            prints.append(state.hexdigest())
        make = ItemKey._make
        with uncollected():
            return [make((text, name)) for text in texts], prints
    return _one_by_one(values)


def _one_by_one(values: Sequence[Any]) -> tuple[list[ItemKey], list[str]]:
    keys = [derive(value) for value in values]
    return keys, [_print_of(value, key) for value, key in zip(values, keys, strict=True)]


def _print_of(value: Any, key: ItemKey) -> str:
    """The fingerprint of a value whose key is known: most hold nothing that a key leaves open."""
    is_open = key.kind in _CONTAINERS and (key.text.find("[", 1) > 0 or (type(value) not in (dict, tuple) and _names(value)))
    return fingerprint(value) if is_open else digest_of(key)


def _key(value: Any, *, strict: bool) -> ItemKey | None:
    """The key of a value; None where it is not of a type that gives one by itself."""
    scalar = _scalar(value)
    if scalar is not None:
        return _written(scalar) if scalar.kind != "none" else None
    if isinstance(value, tuple):
        return ItemKey(_json(value, strict=strict), TUPLE)
    if isinstance(value, Mapping):
        return ItemKey(_json(value, strict=strict), MAPPING)
    return None


def _json(value: Any, *, strict: bool, plain: bool = False) -> str:
    if not plain and not _is_plain(value):
        value = _outermost(value, strict=strict)
    try:
        return _speakable(_encode(value))
    except ValueError:  # integers of thousands of digits
        return _speakable(_encode(_outermost(value, strict=strict)))


def _is_plain(value: Any) -> bool:
    """Whether JSON as it is says all there is to say."""
    if type(value) is dict:
        return set(map(type, value)) <= _TEXT and not any(name[:1] == "$" for name in value) and _are_plain_leaves(value.values())
    return type(value) is tuple and _are_plain_leaves(value)


def _are_plain_leaves(values: Collection[Any]) -> bool:
    kinds = set(map(type, values))
    return kinds <= _PLAIN or (kinds <= _PLAIN_OR_FLOAT and all(map(_is_plain_leaf, values)))


def _is_plain_leaf(value: Any) -> bool:
    kind = type(value)
    return kind in _PLAIN or (kind is float and math.isfinite(value))


def _underivable(value: Any, part: Any) -> KeyDerivationError:
    where = "" if part is value else f", which holds a {_name(type(part))},"
    hint = "pass key=, a function of the value or a column's name, that gives a text or a number"
    if isinstance(value, list):
        hint += "; or make it a tuple"
    return KeyDerivationError(f"no stable key can be derived from a {_name(type(value))}{where} such as {_excerpt(value)}: {hint}")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _excerpt(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  a value that cannot be printed is no reason to hide what is wrong with it
        return "one that cannot be printed"
    return text if len(text) <= 80 else f"{text[:77]}..."


# ---------------------------------------------------------------------------------------------------------------------- scalars


def _written(scalar: ItemKey) -> ItemKey:
    """The key as a table can hold it; a kind of its own keeps texts with half characters apart from those that spell them."""
    text, kind = scalar
    if text.isascii() or _SURROGATES.search(text) is None:
        return scalar
    return ItemKey(_speakable(text.replace("\\", "\\\\")), f"{kind}{ESCAPED}")


def _speakable(text: str) -> str:
    """The text with half characters written as ``\\udc80``; backslashes of its own are doubled before."""
    return text if text.isascii() else _SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _int_text(value: int) -> str:
    return int.__repr__(value) if value.bit_length() < _MOST_BITS else hex(value)


def _float_text(value: float) -> str:
    return float.__repr__(value)


def _timedelta_text(value: datetime.timedelta) -> str:
    nanoseconds = ((value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds) * 1000 + int(getattr(value, "nanoseconds", 0))
    sign, nanoseconds = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}".rstrip("0").rstrip(".")


def _plain_path(value: os.PathLike[Any]) -> str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise _NoText(value)
    return text.replace(os.sep, "/") if os.sep != "/" else text


#: The first that fits decides: datetimes are dates too, booleans integers.
_SCALARS: tuple[tuple[type, str, Callable[[Any], str]], ...] = (
    (bool, "bool", lambda value: "true" if value else "false"),
    (str, "str", lambda value: str.__str__(value)),
    (int, "int", _int_text),
    (float, "float", _float_text),
    (datetime.datetime, "datetime", lambda value: value.isoformat()),
    (datetime.date, "date", lambda value: value.isoformat()),
    (datetime.time, "time", lambda value: value.isoformat()),
    (datetime.timedelta, "timedelta", _timedelta_text),
    (uuid.UUID, "uuid", str),
    (decimal.Decimal, "decimal", str),
    (fractions.Fraction, "fraction", str),
    (complex, "complex", complex.__repr__),
    (os.PathLike, "path", _plain_path),
)
_NONE = ItemKey("", "none")


def _scalar(value: Any) -> ItemKey | None:
    """Kind and text of a value that is one, half characters as they are; kind ``none`` for what stands for nothing."""
    kind = type(value)
    if value is None or kind.__name__ in ("NaTType", "NAType"):
        return _NONE
    if isinstance(value, (tuple, Mapping)):
        return None
    module = kind.__module__
    if module == "numpy":
        value = _from_numpy(value)
    for known, name, write in _SCALARS:
        if isinstance(value, known):
            return ItemKey(write(value), name)
    if module == "numpy" and kind.__name__ in ("datetime64", "timedelta64"):
        return ItemKey(str(value), kind.__name__.removesuffix("64"))
    return None


def _from_numpy(value: Any) -> Any:
    # the nanoseconds of a datetime64 would become a bare integer
    if (
        getattr(value, "ndim", None) == 0
        and hasattr(value, "item")
        and type(value).__name__ not in ("datetime64", "timedelta64", "ndarray")
    ):
        return value.item()
    return value


# --------------------------------------------------------------------------------------------------------- values within values


def _tagged(value: Any, *, strict: bool) -> Any:
    """The value as JSON has it; keys take what is text by nature (``strict``), fingerprints what has canonical bytes too."""
    if _is_plain_leaf(value) and not (type(value) is int and value.bit_length() >= _MOST_BITS):
        return value
    scalar = _scalar(value)
    if scalar is not None:
        return _tagged_scalar(scalar)
    if isinstance(value, Mapping):
        return _tagged_mapping(value, strict=strict)
    if isinstance(value, (tuple, list)):
        return _tagged_sequence(value, strict=strict)
    if strict:
        raise _NoText(value)
    return _tagged_rarer(value)


def _outermost(value: Any, *, strict: bool) -> Any:
    """The value with all that it holds; that it is a tuple is said by its kind of key."""
    if isinstance(value, tuple) and not _names(value):
        return [_tagged(member, strict=strict) for member in value]
    return _tagged(value, strict=strict)


def _tagged_sequence(value: Sequence[Any], *, strict: bool) -> Any:
    members = [_tagged(member, strict=strict) for member in value]
    if strict or isinstance(value, list):
        return members
    names = _names(value)
    return {"$tuple": members, "$names": names} if names else {"$tuple": members}


def _names(value: Any) -> list[str]:
    """The names of a named tuple's members."""
    names = getattr(value, "_fields", ()) if isinstance(value, tuple) else ()
    return list(map(str, names)) if isinstance(names, tuple) else []


def _tagged_scalar(scalar: ItemKey) -> Any:
    text, kind = scalar
    if kind == "none":
        return None
    if kind == "str":
        return text
    if kind == "bool":
        return text == "true"
    if kind == "int" and not text.lstrip("-").startswith("0x"):
        return int(text)
    if kind == "float" and math.isfinite(number := float(text)):
        return number
    return {f"${kind}": text}


def _tagged_mapping(value: Mapping[Any, Any], *, strict: bool) -> Any:
    if all(isinstance(name, str) for name in value):
        return {_escaped(str.__str__(name)): _tagged(member, strict=strict) for name, member in value.items()}
    pairs = [[_tagged(name, strict=strict), _tagged(member, strict=strict)] for name, member in value.items()]
    return {"$dict": sorted(pairs, key=_encode)}


def _escaped(name: str) -> str:
    return f"${name}" if name.startswith("$") else name


def _tagged_rarer(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        name = "$bytearray" if isinstance(value, bytearray) else "$bytes"
        return {name: blake2b(value, digest_size=_FINGERPRINT_BYTES).hexdigest()}
    if isinstance(value, enum.Enum):
        return {"$enum": [_name(kind), value.name]}
    if isinstance(value, AbstractSet):
        return {"$frozenset" if isinstance(value, frozenset) else "$set": _sorted_tags(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"$record": [_name(kind), _tagged(fields, strict=False)]}
    if isinstance(value, range):
        return {"$range": [value.start, value.stop, value.step]}
    library = kind.__module__.partition(".")[0]
    if library == "numpy":
        return _tagged_array(value)
    if library == "pandas":
        return _tagged_pandas(value)
    raise _NoText(value)


def _sorted_tags(values: Iterable[Any]) -> list[Any]:
    return sorted((_tagged(value, strict=False) for value in values), key=_encode)


def _tagged_array(value: Any) -> Any:
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.hasobject or dtype.names is not None:
        raise _NoText(value)
    # the order of bytes is the machine's: little-endian everywhere the digest is compared
    data = value.astype(dtype.newbyteorder("<"), order="C", copy=False).tobytes()
    return {"$array": [dtype.newbyteorder("<").str, list(value.shape), blake2b(data, digest_size=_FINGERPRINT_BYTES).hexdigest()]}


def _tagged_pandas(value: Any) -> Any:
    # not imported: who has a value of it has it
    hash_pandas_object = sys.modules["pandas"].util.hash_pandas_object
    if not hasattr(value, "index") and not hasattr(value, "dtype"):
        raise _NoText(value)
    try:
        hashes = hash_pandas_object(value, index=True).to_numpy()
    except TypeError:  # a column of objects that cannot be hashed
        raise _NoText(value) from None
    columns = [_tagged(name, strict=False) for name in getattr(value, "columns", ())]
    types = [str(dtype) for dtype in (value.dtypes if hasattr(value, "columns") else [value.dtype])]
    return {"$pandas": [type(value).__name__, columns, types, _tagged_array(hashes)]}
