"""Rows as Arrow columns: the type of a column from all its values at once.

Arrow's own inference is given one Python type at a time, because given several it loses what should not be lost: a datetime among dates its
time, a naive datetime among aware ones its meaning, text among bytes its type. The types found then meet by the rules of the dataset.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pyarrow as pa

from dcompute import zones
from dcompute.dataset.meeting import meet_fields
from dcompute.dataset.schema import cast_column, marked
from dcompute.errors import SchemaError
from dcompute.secrecy import HIDDEN, shown_value

_NONE = type(None)
_TROUBLE = (pa.ArrowException, ValueError, TypeError, OverflowError)
#: A list array with 32 bit offsets holds fewer elements.
_LARGE = 2**31 - 1


def column(values: Sequence[Any], name: str) -> pa.Array:
    """The values as an Arrow array.

    Parameters
    ----------
    values
        Of known types (``values.known``).
    name
        The column's, for the error.

    Raises
    ------
    SchemaError
        Two of the values have types that cannot meet, or one has no Arrow form; it has column, types and value.
    """
    with zones.kept():
        return _column(values, name)


def _column(values: Sequence[Any], name: str) -> pa.Array:
    kinds = set(map(type, values))
    kinds.discard(_NONE)
    if not kinds:
        return pa.nulls(len(values))
    if len(kinds) == 1:
        (kind,) = kinds
        grouper = _group_of(kind)
        if grouper is None or len({grouper(value) for value in values if value is not None}) == 1:
            return _array(kind, values, name)
    return _mixed(values, name)


def _group_of(kind: type) -> Callable[[Any], Hashable] | None:
    """What else than the Python type makes values different types; None: nothing."""
    if kind is datetime.datetime:
        return lambda value: value.tzinfo
    module = kind.__module__.partition(".")[0]
    if module == "numpy":
        return lambda value: value.dtype.str
    return (lambda value: getattr(value, "tz", None)) if module == "pandas" else None


def _mixed(values: Sequence[Any], name: str) -> pa.Array:
    """The array of values of several types, in which these meet."""
    groups: dict[Hashable, list[int]] = {}
    groupers: dict[type, Callable[[Any], Hashable] | None] = {}
    for position, value in enumerate(values):
        kind = type(value)
        if kind is _NONE:
            continue
        if kind not in groupers:
            groupers[kind] = _group_of(kind)
        grouper = groupers[kind]
        group: Hashable = (kind, None if grouper is None else grouper(value))
        groups.setdefault(group, []).append(position)
    arrays, field = [], pa.field(name, pa.null())
    for positions in groups.values():
        member = values[positions[0]]
        array = _array(type(member), [values[position] for position in positions], name)
        field = _meeting(field, array, name, member)
        arrays.append(array)
    return _together(arrays, list(groups.values()), len(values), field)


def _meeting(field: pa.Field, array: pa.Array, name: str, member: Any) -> pa.Field:
    own = marked(pa.table([array], names=[name])).schema.field(0)
    try:
        return meet_fields(field, own, name)
    except SchemaError as error:
        raise SchemaError(
            f"Column {name!r} has {error.types[0]} and {error.types[1]} values in one result or batch, and these cannot meet: "
            f"{shown_value(name, member)} is {error.types[1]}. Return one type from the workload, or declare schema=.",
            column=name,
            types=error.types,
            value=shown_value(name, member),
        ) from None


def _together(arrays: list[pa.Array], positions: list[list[int]], length: int, field: pa.Field) -> pa.Array:
    import numpy as np

    order = np.full(length, -1, dtype=np.int64)
    order[np.fromiter(itertools.chain.from_iterable(positions), np.int64)] = np.arange(sum(map(len, positions)))
    chunks = [chunk for array in arrays for chunk in cast_column(pa.chunked_array([array]), field.type, field.name).chunks]
    return pa.concat_arrays(chunks).take(pa.array(order, mask=order < 0))


def _array(kind: type, values: Sequence[Any], name: str) -> pa.Array:
    try:
        return _BUILDERS.get(kind, _other)(values, name)
    except SchemaError:
        raise
    except _TROUBLE as error:
        value = shown_value(name, _first_bad(kind, values, name))
        # Arrow's words have the value too
        why = f": {error}" if value != HIDDEN else ""
        raise SchemaError(
            f"Column {name!r}: {value} ({kind.__name__}) has no Arrow type{why}",
            column=name,
            types=(kind.__name__, ""),
            value=value,
        ) from error


def _first_bad(kind: type, values: Sequence[Any], name: str) -> Any:
    present = [value for value in values if value is not None]
    for value in present:
        try:
            _BUILDERS.get(kind, _other)([value], name)
        except (SchemaError, *_TROUBLE):
            return value
    return present[0]


def _integers(values: Sequence[Any], _name: str) -> pa.Array:
    try:
        return pa.array(values, pa.int64())
    except OverflowError:
        return pa.array(values, pa.uint64())


def _lists(values: Sequence[Any], name: str) -> pa.Array:
    lengths = [0 if value is None else len(value) for value in values]
    elements = column(list(itertools.chain.from_iterable(value for value in values if value)), name)
    return _list_array(values, lengths, elements)


def _list_array(values: Sequence[Any], lengths: list[int], elements: pa.Array) -> pa.Array:
    ends = list(itertools.accumulate(lengths, initial=0))
    # An offset that is null makes the list that begins there null.
    offsets = [None if value is None else start for value, start in zip(values, ends, strict=False)] + ends[-1:]
    if ends[-1] >= _LARGE:
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), elements)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements)


def _structs(values: Sequence[Any], name: str) -> pa.Array:
    names = names_of(value for value in values if value is not None)
    rows = [{} if value is None else value for value in values]
    fields = [column([row.get(inner) for row in rows], f"{name}.{inner}") for inner in names]
    absent = pa.array([value is None for value in values], pa.bool_())
    return pa.StructArray.from_arrays(fields, names=names, mask=absent)


def names_of(rows: Any) -> list[str]:
    """The names in any of the rows, in the order in which they appear."""
    names: dict[str, None] = {}
    for row in rows:
        if not row.keys() <= names.keys():
            names.update(dict.fromkeys(row))
    return list(names)


def _other(values: Sequence[Any], _name: str) -> pa.Array:
    kind = type(next(value for value in values if value is not None))
    module = kind.__module__.partition(".")[0]
    if module == "numpy" and kind.__name__ == "ndarray":
        return _ndarrays(values)
    if module == "numpy" and kind.__name__ in ("datetime64", "timedelta64"):
        return _times(values)
    if module == "pandas":
        import pandas as pd

        return pa.array(pd.Series(values))
    return pa.array(values)


def _times(values: Sequence[Any]) -> pa.Array:
    import numpy as np

    # as an array: from a list of scalars pyarrow takes no days
    dtype = next(value.dtype for value in values if value is not None)
    return pa.array(np.array(values, dtype))


def _ndarrays(values: Sequence[Any]) -> pa.Array:
    import numpy as np

    lengths = [0 if value is None else len(value) for value in values]
    return _list_array(values, lengths, pa.array(np.concatenate([value for value in values if value is not None])))


_BUILDERS: dict[type, Callable[[Sequence[Any], str], pa.Array]] = {int: _integers, list: _lists, dict: _structs}
