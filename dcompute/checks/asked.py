"""The values of a column as a schema of pandera asks for them, and the rows whose values are other ones.

A column of a table has one type, in which all its rows meet: beside 1.5 an integer is a float, beside a decimal it is a decimal, and a
column without a value has no type at all. So the type says little of a row; its value does, and the type that the schema asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dcompute.checks.natural import NUMBER, TEXT, Mask, in_halves, kind_of, numbers_of, objects, plain


class Asked(NamedTuple):
    """A column of a table."""

    values: Any  #: those that are as they are asked for, a series of pandas by their places
    is_missing: Mask  #: null, or not a number
    is_other: Mask  #: there, and of another type


def asked(column: pa.ChunkedArray, dtype: Any, coerces: bool) -> Asked:
    """The values as they are asked for.

    Parameters
    ----------
    column
        Of the table.
    dtype
        Pandera's; None: any.
    coerces
        Whether values are turned into it where this can be done.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_missing = np.asarray(column.is_null(nan_is_null=True))
    places = np.flatnonzero(~is_missing)
    present = column if len(places) == len(column) else column.take(pa.array(places))
    if _is_any(dtype):
        values = plain(present)
    else:
        values = _coerced(present, dtype) if coerces else _typed(present, dtype)
        values = values if len(values) else _none(dtype)
    is_other = ~is_missing
    values.index = places[values.index]
    is_other[values.index] = False
    return Asked(values, is_missing, is_other)


def unseen(column: pa.ChunkedArray) -> Asked:
    """A column that nothing is asked of, which is not read for it."""
    return Asked(plain(column.slice(0, 0)), np.asarray(column.is_null(nan_is_null=True)), np.zeros(len(column), dtype=bool))


def _is_any(dtype: Any) -> bool:
    """Also categories that are not named: any value is one, and their type would be that of those that happen to be there."""
    return dtype is None or getattr(dtype, "categories", dtype) is None


def _none(dtype: Any) -> Any:
    """No value, of a type."""
    import pandas as pd

    type_ = dtype.type
    is_known = isinstance(type_, pd.api.extensions.ExtensionDtype) or (isinstance(type_, np.dtype) and type_.kind != "U")
    return pd.Series([], dtype=type_ if is_known else object, index=np.array([], dtype=np.int64))


# ---------------------------------------------------------------------------------------------------------------- of a type


def _typed(values: pa.ChunkedArray, dtype: Any) -> Any:
    """Those that are of it."""
    import pandas as pd

    type_ = dtype.type
    if isinstance(type_, pd.ArrowDtype):
        return _of_arrow(values, dtype)
    if isinstance(type_, pd.CategoricalDtype):
        found = plain(values.slice(0, 0) if pa.types.is_nested(values.type) else values)
        return found[found.isin(type_.categories)].astype(type_)
    kind = "U" if isinstance(type_, pd.StringDtype) else "" if isinstance(type_, pd.SparseDtype) else getattr(type_, "kind", "")
    return _KNOWN.get(kind, _of_objects)(values, dtype)


def _integers(values: pa.ChunkedArray, dtype: Any) -> Any:
    numbers, is_whole = numbers_of(values)
    type_ = getattr(dtype.type, "numpy_dtype", dtype.type)
    limits = np.iinfo(type_)
    fits = np.flatnonzero(is_whole & (numbers >= limits.min).astype(bool) & (numbers <= limits.max).astype(bool))
    return _series(numbers[fits].astype(type_), fits, dtype)


def _floats(values: pa.ChunkedArray, dtype: Any) -> Any:
    numbers, is_whole = numbers_of(values)
    if pa.types.is_decimal(values.type) or kind_of(values.type) != NUMBER:
        fits = np.flatnonzero(is_whole)
    else:
        type_ = getattr(dtype.type, "numpy_dtype", dtype.type)
        with np.errstate(over="ignore"):
            fits = np.flatnonzero(np.isfinite(numbers.astype(type_)) | ~np.isfinite(numbers))
    return _series(numbers[fits].astype(np.float64), fits, dtype)


def _truths(values: pa.ChunkedArray, dtype: Any) -> Any:
    places = np.arange(len(values) if pa.types.is_boolean(values.type) else 0)
    return _series(values.to_numpy()[places].astype(bool), places, dtype)


def _times(values: pa.ChunkedArray, dtype: Any) -> Any:
    """The unit is that of the column: pandera's is always the finest, and says nothing of a value."""
    wants_zone = getattr(dtype.type, "tz", None) is not None or getattr(dtype, "time_zone_agnostic", False)
    is_good = pa.types.is_timestamp(values.type) and (values.type.tz is not None) == wants_zone
    found = plain(values if is_good else values.slice(0, 0))
    zone = getattr(dtype.type, "tz", None)
    return found.dt.tz_convert(zone) if is_good and zone is not None else found


def _spans(values: pa.ChunkedArray, _: Any) -> Any:
    return plain(values if pa.types.is_duration(values.type) else values.slice(0, 0))


def _texts(values: pa.ChunkedArray, dtype: Any) -> Any:
    found = plain(values if kind_of(values.type) == TEXT else values.slice(0, 0).cast(pa.string()))
    return found if isinstance(dtype.type, np.dtype) else found.astype(dtype.type)


def _of_arrow(values: pa.ChunkedArray, dtype: Any) -> Any:
    wanted = dtype.type.pyarrow_dtype
    if kind_of(wanted) != kind_of(values.type):
        return _none(dtype)
    if kind_of(wanted) == NUMBER and pa.types.is_decimal(wanted) != pa.types.is_decimal(values.type):
        return _of_arrow_whole(values, wanted)
    return _arrow_in_halves(values, wanted)


def _of_arrow_whole(values: pa.ChunkedArray, wanted: pa.DataType) -> Any:
    places = np.flatnonzero(numbers_of(values)[1])
    found = _arrow_in_halves(values.take(pa.array(places)).cast(pa.int64()), wanted)
    found.index = places[found.index]
    return found


def _arrow_in_halves(values: pa.ChunkedArray, wanted: pa.DataType) -> Any:
    import pandas as pd

    def convert(start: int, stop: int) -> Any:
        return pa.table({"": values.slice(start, stop - start).cast(wanted)}).to_pandas(types_mapper=pd.ArrowDtype)[""]

    return in_halves(len(values), convert)


def _of_objects(values: pa.ChunkedArray, dtype: Any) -> Any:
    """Those that pandera itself takes for it; any value is an object."""
    from pandera import dtypes
    from pandera.engines import numpy_engine
    from pandera.engines.pandas_engine import Engine

    if isinstance(dtype, numpy_engine.Object):
        return plain(values)
    found = objects(values)
    if isinstance(dtype, dtypes.Decimal):
        found = found.map(lambda value: Decimal(value) if type(value) is int else value).astype(object)
    elif dtype.type != np.dtype(object) and not hasattr(dtype, "generic_type"):
        found = plain(values)
    said = dtype.check(Engine.dtype(found.dtype), found)
    return found[np.broadcast_to(np.asarray(said, dtype=bool), len(found))]


def _series(values: Any, places: Any, dtype: Any) -> Any:
    import pandas as pd

    return pd.Series(values, index=places).astype(dtype.type)


#: By the kind of a type, as NumPy has them.
_KNOWN: dict[str, Callable[[pa.ChunkedArray, Any], Any]] = {
    "i": _integers, "u": _integers, "f": _floats, "b": _truths, "M": _times, "m": _spans, "U": _texts,
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- made one


def _coerced(values: pa.ChunkedArray, dtype: Any) -> Any:
    """Those that can be made it."""
    source = _source(values, dtype)
    found = in_halves(len(source), lambda start, stop: dtype.coerce(source.iloc[start:stop].reset_index(drop=True)))
    return found.set_axis(source.index[found.index])


def _source(values: pa.ChunkedArray, dtype: Any) -> Any:
    """As they are made it from: whole numbers are integers, and each time in words is read by itself."""
    import pandas as pd

    type_ = values.type
    if pa.types.is_integer(type_):
        return pd.Series(values.to_pandas())
    if pa.types.is_decimal(type_):
        return objects(values).map(lambda value: int(value) if value == value.to_integral_value() else value).astype(object)
    if pa.types.is_floating(type_) or pa.types.is_nested(type_):
        return objects(values)
    found = plain(values)
    if kind_of(type_) == TEXT and getattr(dtype.type, "kind", "") == "M" and not dtype.to_datetime_kwargs:
        return in_halves(len(found), lambda start, stop: pd.to_datetime(found.iloc[start:stop], format="mixed"))
    return found
