"""Comparing columns of numbers with numbers of any type and size, exactly.

Arrow brings both to one type, and refuses what that does not hold: large integers, decimals with an integer, half floats with anything.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
# between two steps: what is below is the step itself or below it
_OF_THE_STEP_BELOW = {"<": "<=", "<=": "<=", ">": ">", ">=": ">"}
#: Holds every decimal that Arrow does.
_WIDE = Context(prec=80)


def comparison(name: str, type_: pa.DataType, sign: str, value: Any) -> Any:
    """An expression of Arrow; None where the column or what it is compared with is no number.

    Parameters
    ----------
    name, type_
        Of the column.
    sign
        As in ``filters=``.
    value
        A number, or several for ``in`` and ``not in``.
    """
    if not (pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)):
        return None
    if sign in ("in", "not in"):
        members = _members(value)
        return None if members is None else _one_of(name, type_, members, is_in=sign == "in")
    number = _number(value)
    if number is None or sign not in _OPERATORS:
        return None
    if pa.types.is_floating(type_):
        return _OPERATORS[sign](_wide(name, type_), pa.scalar(_float(number), pa.float64()))
    return _stepwise(pc.field(name), type_, sign, number)


def _one_of(name: str, type_: pa.DataType, members: Sequence[Any], *, is_in: bool) -> Any:
    if pa.types.is_floating(type_):
        type_, column = pa.float64(), _wide(name, type_)
        values = [one if one is None else _float(one) for one in members]
    else:
        column = pc.field(name)
        values = [one for one in (_held(one, type_) for one in members if one is not None) if one is not None]
        values += [None] if None in members else []
    found = column.isin(pa.array(values, type_))
    return found if is_in else ~found


def _stepwise(column: Any, type_: pa.DataType, sign: str, number: Any) -> Any:
    """Of columns whose values are whole steps: a number between two, or beyond all, is told by those that there are."""
    least, most = _bounds(type_)
    if _is_nan(number):
        return column >= _value(least, type_) if sign == "!=" else column > _value(most, type_)
    step, is_one = _step(number, type_)
    if least <= step <= most and (is_one or sign in _OF_THE_STEP_BELOW):
        return _OPERATORS[sign if is_one else _OF_THE_STEP_BELOW[sign]](column, _value(step, type_))
    is_true = sign == "!=" or (sign in ("<", "<=") and step > most) or (sign in (">", ">=") and step < least)
    # null stays null
    return column >= _value(least, type_) if is_true else column > _value(most, type_)


def _held(number: Any, type_: pa.DataType) -> Any:
    """A number as the column has it; None where it has none such."""
    least, most = _bounds(type_)
    if _is_nan(number):
        return None
    step, is_one = _step(number, type_)
    return _value(step, type_).as_py() if is_one and least <= step <= most else None


def _step(number: Any, type_: pa.DataType) -> tuple[int, bool]:
    """The last step that is not above a number, one beyond the bounds where it is beyond them, and whether it is the number."""
    least, most = _bounds(type_)
    if isinstance(number, (float, Decimal)) and math.isinf(number):
        return (most + 1 if number > 0 else least - 1), False
    if pa.types.is_decimal(type_):
        # 0.1 is meant where 0.1 is written
        number = Fraction(str(number) if isinstance(number, float) else number) * Fraction(10) ** type_.scale
    step = math.floor(number)
    return min(max(step, least - 1), most + 1), step == number


def _bounds(type_: pa.DataType) -> tuple[int, int]:
    if pa.types.is_decimal(type_):
        return 1 - 10**type_.precision, 10**type_.precision - 1
    if pa.types.is_unsigned_integer(type_):
        return 0, 2**type_.bit_width - 1
    return -(2 ** (type_.bit_width - 1)), 2 ** (type_.bit_width - 1) - 1


def _value(step: int, type_: pa.DataType) -> pa.Scalar:
    return pa.scalar(Decimal(step).scaleb(-type_.scale, _WIDE) if pa.types.is_decimal(type_) else step, type_)


def _wide(name: str, type_: pa.DataType) -> Any:
    # Arrow compares no half floats
    return pc.field(name).cast(pa.float64()) if pa.types.is_float16(type_) else pc.field(name)


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.copysign(sys.float_info.max, 1 if number > 0 else -1)


def _is_nan(number: Any) -> bool:
    return bool(number != number)  # math.isnan makes a float of it, which large integers have none of


def _members(values: Any) -> list[Any] | None:
    """Several numbers, with None for what is missing; None where they are none."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, (list, tuple, set, frozenset, range)):
        return None
    found = [(one, _number(one)) for one in values]
    return None if any(one is not None and number is None for one, number in found) else [number for _, number in found]


def _number(value: Any) -> Any:
    """A number of Python's own; None where it is none."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, np.number):
        value = value.item()
    return value if not isinstance(value, bool) and isinstance(value, (numbers.Real, Decimal)) else None
