"""Values that a row may hold: what a workload put into a column, in types that Arrow has and that open without user code."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from dcompute.errors import SchemaError

#: Lists and mappings may be nested this deep in a value.
DEEPEST = 64

#: Types that need no look at the value.
PLAIN = frozenset(
    {
        type(None), bool, int, float, str, bytes, decimal.Decimal, datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
    }
)  # fmt: skip
SEQUENCES = (list, tuple, range, collections.deque)

_NUMPY_KINDS = "biufSUmM"
#: Units of NumPy's times and the ones of Arrow that hold them exactly; a month or a year is no fixed time, but begins at a date.
_SAME_UNITS = {unit: unit for unit in ("s", "ms", "us", "ns")}
_TIME_UNITS = {
    "M": {"Y": "D", "M": "D", "W": "D", "D": "D", "h": "s", "m": "s", **_SAME_UNITS},
    "m": {"W": "s", "D": "s", "h": "s", "m": "s", **_SAME_UNITS},
}


def known(value: Any, column: str, depth: int = 0) -> Any:
    """The value in known types; NumPy scalars and one-dimensional arrays stay as they are, an empty mapping is None.

    Parameters
    ----------
    value
        What the workload returned.
    column
        The column's name, for the error.
    depth
        How deep in a value this one lies.

    Raises
    ------
    SchemaError
        No table has a place for it.
    """
    if type(value) in PLAIN:
        return value
    if depth > DEEPEST:
        raise SchemaError(f"Column {column!r}: a value is nested deeper than {DEEPEST} levels, or holds itself.", column=column)
    if is_row(value):
        inner = {column_name(name): known(element, column, depth + 1) for name, element in mapping(value).items()}
        return inner or None  # Parquet has no type for an empty structure
    if isinstance(value, SEQUENCES):
        return [element if type(element) in PLAIN else known(element, column, depth + 1) for element in value]
    library = module(value)
    if library == "numpy":
        return _numpy(value, column, depth)
    if library == "pandas":
        return _pandas(value, column)
    if library == "pyarrow":
        return _pyarrow(value, column, depth)
    return _other(value, column, depth)


def column_name(name: Any) -> str:
    """The name as plain text; anything but text is refused."""
    if isinstance(name, str):
        return str.__str__(name)
    raise SchemaError(
        f"A result has {name!r} ({type_name(name)}) for a column name: names of columns are text. "
        f"For many rows return a list of mappings, for one value a list in a column.",
        column=repr(name),
    )


def refuse_zeros(names: Iterable[Any]) -> None:
    """Refuse a name that not all readers read alike."""
    for name in names:
        if isinstance(name, str) and "\0" in name:
            raise SchemaError(
                f"A result has the column {name!r}, and some tools end a name at a zero character: leave it out of the name.", column=name
            )


def is_row(value: Any) -> bool:
    """Whether it has named fields: a mapping, a dataclass, a named tuple."""
    return isinstance(value, Mapping) or hasattr(type(value), "__dataclass_fields__") or is_named_tuple(value)


def is_named_tuple(value: Any) -> bool:
    """Whether it is a tuple with names."""
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def mapping(value: Any) -> dict[Any, Any]:
    """The fields of what :func:`is_row` says yes to."""
    if isinstance(value, Mapping):
        return dict(value)
    if is_named_tuple(value):
        return dict(zip(value._fields, value, strict=True))
    return {name: getattr(value, name) for name in type(value).__dataclass_fields__}


def module(value: Any) -> str:
    """The top package of the value's type."""
    return type(value).__module__.partition(".")[0]


def type_name(value: Any) -> str:
    """The qualified name of the value's type."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def broken(reason: str) -> str:
    """What is wrong with Arrow data whose values are not what its type says, and what to do, by Arrow's own complaint."""
    hint = "Make it binary, or decode it from its own encoding." if "UTF8" in reason else "Make it anew from plain values."
    return f"holds what its type forbids: {reason}. {hint}"


def _numpy(value: Any, column: str, depth: int) -> Any:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        raise _no_place(value, column)
    if dtype.names is not None:  # records
        if value.ndim:
            return [known(element, column, depth + 1) for element in value]
        return known(dict(zip(dtype.names, value.tolist(), strict=True)), column, depth + 1)
    if dtype.kind in "OV" or hasattr(value, "mask"):  # objects and masked arrays
        return known(value.tolist(), column, depth + 1)
    if dtype.kind in "mM":
        value = _in_arrow_unit(value, column)
        if value is None:
            return None
    if dtype.kind not in _NUMPY_KINDS:
        raise _no_place(value, column, f" ({dtype})")
    if value.ndim == 0:
        return value.item() if dtype.kind in "SU" else value[()]
    if value.ndim > 1:
        return [_numpy(element, column, depth + 1) for element in value]
    import numpy as np

    native = np.ascontiguousarray(value)
    return native if native.dtype.isnative else native.astype(native.dtype.newbyteorder("="))


def _in_arrow_unit(value: Any, column: str) -> Any:
    """Times in a unit that Arrow has; None for a single one that is none."""
    import numpy as np

    if value.ndim == 0 and np.isnat(value):
        return None
    dtype = value.dtype
    unit, step = np.datetime_data(dtype)
    wanted = _TIME_UNITS[dtype.kind].get(unit, "s" if np.isnat(value).all() else None)
    if wanted is None:
        raise _no_place(value, column, f" in the unit {unit!r}, which Arrow lacks: return value.astype('{dtype.kind}8[ns]') or numbers")
    if (unit, step) == (wanted, 1):
        return value
    found = value.astype(f"{dtype.kind}8[{wanted}]")
    if not ((found.astype(dtype) == value) | np.isnat(value)).all():
        raise _no_place(value, column, f": it lies outside of the range of {found.dtype}")
    return found


def _pandas(value: Any, column: str) -> Any:
    name = type(value).__name__
    if name in ("NAType", "NaTType"):
        return None
    if name == "Timestamp":
        return value if value.nanosecond else value.to_pydatetime()
    if name == "Timedelta":
        return value if value.nanoseconds else value.to_pytimedelta()
    if name == "DataFrame":
        raise _no_place(value, column, ": return one dataframe, pandas.concat([...]) of several; .to_dict() for a column")
    raise _no_place(value, column, ": return .to_frame() for many rows, .to_dict() for one row, .to_numpy() for a list in a column")


def _pyarrow(value: Any, column: str, depth: int) -> Any:
    import pyarrow as pa

    method = next((method for method in ("as_py", "to_pylist") if hasattr(value, method)), None)
    if method is None:
        raise _no_place(value, column)
    try:
        value.validate(full=True)  # broken ones would end the process that reads them
    except pa.ArrowException as error:
        raise SchemaError(f"Column {column!r}: a {type_name(value)} {broken(str(error))}", column=column) from error
    return known(getattr(value, method)(), column, depth + 1)


def _other(value: Any, column: str, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return known(value.value, column, depth + 1)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (int, float, decimal.Decimal)):
        return next(kind(value) for kind in (int, float, decimal.Decimal) if isinstance(value, kind))
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return _time(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if hasattr(type(value), "__dask_graph__"):
        raise _no_place(value, column, ", since it is not computed yet: return .compute()")
    if hasattr(type(value), "__array__"):  # tensors and quantities
        import numpy as np

        return _numpy(np.asarray(value), column, depth + 1)
    raise _no_place(value, column)


def _time(value: datetime.date | datetime.time | datetime.timedelta) -> Any:
    """The value without its subclass."""
    if isinstance(value, datetime.timedelta):
        return datetime.timedelta(value.days, value.seconds, value.microseconds)
    if isinstance(value, datetime.time):
        return datetime.time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
    if isinstance(value, datetime.datetime):
        clock = datetime.time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)
        return datetime.datetime.combine(datetime.date(value.year, value.month, value.day), clock)
    return datetime.date(value.year, value.month, value.day)


def _no_place(value: Any, column: str, more: str = "") -> SchemaError:
    name = type_name(value)
    hint = more or ": return text, numbers, dates, lists, mappings or a dataframe"
    return SchemaError(
        f"Column {column!r}: a value of type {name} has no place in a table{hint}.", column=column, types=(name, ""), value=name
    )
