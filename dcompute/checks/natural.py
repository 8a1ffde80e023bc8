"""Values of a column in a form that does not show with which others they shared it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: The largest integer up to which floats hold all.
_LARGEST = 2**53

#: As many digits as Arrow has.
_EXACT = Context(prec=80)
NUMBER, TEXT = "number", "text"

Mask: TypeAlias = npt.NDArray[np.bool_]


def plain(values: pa.ChunkedArray) -> Any:
    """As pandas has them; numbers are floats, where floats can hold them."""
    import pandas as pd

    type_ = values.type
    if not len(values):
        return pd.Series([], dtype=object, index=np.array([], dtype=np.int64))
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return _as_floats(values.to_numpy())
    if pa.types.is_decimal(type_) or pa.types.is_struct(type_):
        return objects(values)
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        values = values.cast(pa.timestamp(type_.unit, "UTC"))
    return pd.Series(values.to_pandas())


def _as_floats(numbers: Any) -> Any:
    import pandas as pd

    if numbers.dtype.kind == "f":
        return pd.Series(numbers.astype(np.float64))
    is_large = (numbers > _LARGEST) | (numbers < -_LARGEST)
    if not is_large.any():
        return pd.Series(numbers.astype(np.float64))
    return pd.Series([number if large else float(number) for number, large in zip(numbers.tolist(), is_large, strict=True)], dtype=object)


def objects(values: pa.ChunkedArray) -> Any:
    """As objects of Python."""
    import pandas as pd

    return pd.Series([as_object(value) for value in values.to_pylist()], dtype=object)


def as_object(value: Any) -> Any:
    """A value of Python that does not show what it shared a column with."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _LARGEST else value
    if isinstance(value, Decimal):
        return _shortest(value)
    if isinstance(value, list | tuple):
        return type(value)(as_object(element) for element in value)
    if isinstance(value, dict):  # fields that only others have are null
        return {name: as_object(element) for name, element in value.items() if element is not None}
    return value


def _shortest(value: Decimal) -> Decimal:
    short = value.normalize(_EXACT)
    exponent = short.as_tuple().exponent
    return short.quantize(Decimal(1), context=_EXACT) if isinstance(exponent, int) and exponent > 0 else short


def numbers_of(values: pa.ChunkedArray) -> tuple[Any, Mask]:
    """The numbers, and which are whole; no number where these are none."""
    type_ = values.type
    if pa.types.is_integer(type_):
        return values.to_numpy(), np.ones(len(values), dtype=bool)
    if pa.types.is_floating(type_):
        numbers = values.to_numpy().astype(np.float64)
        return numbers, (np.floor(numbers) == numbers) & (np.abs(numbers) <= _LARGEST)
    if pa.types.is_decimal(type_):
        numbers = values.to_numpy()
        return numbers, np.array([number == number.to_integral_value() for number in numbers], dtype=bool)
    return np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)


def kind_of(type_: pa.DataType) -> Any:
    """The same for types that can share a column."""
    is_ = pa.types
    if is_.is_integer(type_) or is_.is_floating(type_) or is_.is_decimal(type_):
        return NUMBER
    if is_.is_string(type_) or is_.is_large_string(type_):
        return TEXT
    return (type_.id, is_.is_timestamp(type_) and type_.tz is not None)


def in_halves(count: int, convert: Callable[[int, int], Any]) -> Any:
    """What is made of so many values by ``convert(start, stop)``, without those that it raises for alone."""
    import pandas as pd

    found: list[Any] = []
    waiting = [(0, count)]
    while waiting:
        start, stop = waiting.pop()
        try:
            made = convert(start, stop)
        except Exception:  # noqa: BLE001  whatever a type raises for what it does not take
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)] if stop - start > 1 else []
        else:
            found.append(made.set_axis(np.arange(start, stop)))
    return pd.concat(found) if found else pd.Series([], dtype=object, index=np.array([], dtype=np.int64))
