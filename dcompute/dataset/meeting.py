"""How two column types meet: the table of rules behind ``schema``, pure and without values."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from dcompute.errors import SchemaError

#: Name of the mark in a field's metadata; see ``schema``.
WIDE = b"wide"
#: The mark of a column that says of files that items produced where they are (from the dataset on), their sizes or their checksums.
FILE = b"dcompute.file"
FILE_KINDS = (b"url", b"size", b"checksum")

_UNITS = ("s", "ms", "us", "ns")
_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}
_FLOATS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}
#: Decimal digits of the largest integer of so many bits.
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
#: The most digits that a decimal of Arrow has.
DECIMAL_DIGITS = 76

_is = pa.types
_FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (_is.is_null, "null"),
    (_is.is_boolean, "bool"),
    (_is.is_integer, "int"),
    (_is.is_floating, "float"),
    (_is.is_decimal, "decimal"),
    (_is.is_string, "text"),
    (_is.is_large_string, "text"),
    (_is.is_binary, "binary"),
    (_is.is_large_binary, "binary"),
    (_is.is_fixed_size_binary, "binary"),
    (_is.is_timestamp, "timestamp"),
    (_is.is_duration, "duration"),
    (_is.is_date, "date"),
    (_is.is_time, "time"),
    (_is.is_struct, "struct"),
    (_is.is_map, "map"),
)


class _CannotMeetError(Exception):
    """Two types cannot meet; the text is the reason where the types alone do not tell it."""

    def __init__(self, why: str = "", advice: str = "Return one type from the workload, or declare schema=.") -> None:
        super().__init__(why)
        self.advice = advice  #: what to do


def is_list(type_: pa.DataType) -> bool:
    """Whether it is a list of any form that lies on disk."""
    return bool(_is.is_list(type_) or _is.is_large_list(type_) or _is.is_fixed_size_list(type_))


def decimal(precision: int, scale: int) -> pa.DataType:
    """The smaller one of the types for so many digits."""
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def list_like(type_: pa.DataType, item: pa.Field) -> pa.DataType:
    """A list of the same form with another item."""
    if _is.is_fixed_size_list(type_):
        return pa.list_(item, type_.list_size)
    return pa.large_list(item) if _is.is_large_list(type_) else pa.list_(item)


def needs_values(type_: pa.DataType) -> bool:
    """Whether Arrow's own cast cannot be trusted with it.

    pyarrow 26 casts a list view to a list of nothing, without an error; an empty struct inside another type it does not cast at all.
    """
    if _is.is_list_view(type_) or _is.is_large_list_view(type_):
        return True
    if _is.is_struct(type_) and not type_.num_fields:
        return True
    return any(needs_values(type_.field(index).type) for index in range(type_.num_fields))


def plain(field: pa.Field) -> pa.Field:
    """The field as it lies on disk: nullable, no dictionaries, views or extensions, no metadata but the ``wide`` mark.

    Raises
    ------
    SchemaError
        Parquet has no form for its type.
    """
    return _with_file(_field(field.name, _plain_type(field), _wide(field)), _file(field))


def meet_fields(a: pa.Field, b: pa.Field, column: str) -> pa.Field:
    """The field that holds the values of both; ``column`` is its full name for the error."""
    try:
        return _meet(plain(a), plain(b))
    except _CannotMeetError as reason:
        why = f" ({reason})" if str(reason) else ""
        raise SchemaError(
            f"Column {column!r} has type {a.type} in the dataset and {b.type} in a new result, and these two cannot meet{why}. "
            f"{reason.advice}",
            column=column,
            types=(str(a.type), str(b.type)),
        ) from None


def _field(name: str, type_: pa.DataType, wide: bytes | None) -> pa.Field:
    return pa.field(name, type_, metadata={WIDE: wide} if wide else None)


def _wide(field: pa.Field) -> bytes | None:
    mark: bytes | None = (field.metadata or {}).get(WIDE)
    return mark


def _file(field: pa.Field) -> bytes | None:
    mark: bytes | None = (field.metadata or {}).get(FILE)
    return mark


def _with_file(field: pa.Field, mark: bytes | None) -> pa.Field:
    return field.with_metadata({**(field.metadata or {}), FILE: mark}) if mark else field


def _plain_type(field: pa.Field) -> pa.DataType:
    type_ = _unwrapped(field.type)
    if _is.is_struct(type_):
        # Parquet has no struct without fields: an empty mapping is stored as null
        return pa.struct([plain(child) for child in type_]) if type_.num_fields else pa.null()
    if _is.is_map(type_):
        return pa.map_(_of(type_.key_field), _of(type_.item_field))
    if is_list(type_):
        return list_like(type_, plain(type_.value_field.with_name("element")))
    if _is.is_date64(type_):
        return pa.date32()
    is_negative = _is.is_decimal(type_) and type_.scale < 0  # Parquet counts digits behind the point only
    if is_negative and type_.precision - type_.scale <= DECIMAL_DIGITS:
        return decimal(type_.precision - type_.scale, 0)
    if _is.is_union(type_) or _is.is_interval(type_) or is_negative:
        raise SchemaError(
            f"Column {field.name!r} has type {type_}, for which Parquet has no form: return it as text, numbers or a mapping.",
            column=field.name,
            types=(str(type_), ""),
        )
    return type_


def _unwrapped(type_: pa.DataType) -> pa.DataType:
    while True:
        if isinstance(type_, pa.BaseExtensionType):
            type_ = type_.storage_type
        elif _is.is_dictionary(type_) or _is.is_run_end_encoded(type_):
            type_ = type_.value_type
        elif _is.is_string_view(type_):
            return pa.string()
        elif _is.is_binary_view(type_):
            return pa.binary()
        elif _is.is_list_view(type_):
            return pa.list_(type_.value_field)
        elif _is.is_large_list_view(type_):
            return pa.large_list(type_.value_field)
        else:
            return type_


def _of(field: pa.Field) -> pa.Field:
    return pa.field(field.name, plain(field).type, nullable=field.nullable, metadata=plain(field).metadata)


def _family(type_: pa.DataType) -> str:
    if is_list(type_):
        return "list"
    return next((family for test, family in _FAMILIES if test(type_)), "other")


def _meet(a: pa.Field, b: pa.Field) -> pa.Field:
    families = (_family(a.type), _family(b.type))
    if families[0] == "null":
        return b.with_name(a.name)
    if families[1] == "null":
        return a
    if _file(a) != _file(b):
        raise _CannotMeetError(
            "one is of files that items produced, the other is what items returned",
            advice="Give output() another column=, and declare no column of a file in schema=.",
        )
    if mark := _file(a):
        return _with_file(_meet(_without_file(a), _without_file(b)), mark)
    rule = _RULES.get(families)
    if rule is not None:
        return rule(a, b)
    if a.type.equals(b.type):
        return a
    raise _CannotMeetError


def _without_file(field: pa.Field) -> pa.Field:
    return _field(field.name, field.type, _wide(field))


def _int(a: pa.Field, b: pa.Field) -> pa.Field:
    marks = [mark for mark in (_wide(a), _wide(b)) if mark]
    wide = max(marks) if marks else None
    signed = [_is.is_signed_integer(field.type) for field in (a, b)]
    bits = [field.type.bit_width for field in (a, b)]
    if all(signed):
        return _field(a.name, _SIGNED[max(bits)], wide)
    if not any(signed):
        return _field(a.name, _UNSIGNED[max(bits)], wide)
    if wide == b"64":  # no integer of Arrow's holds both
        return _field(a.name, pa.decimal128(_DIGITS[64], 0), None)
    needed = max(width if is_signed else min(2 * width, 64) for width, is_signed in zip(bits, signed, strict=True))
    return _field(a.name, _SIGNED[needed], wide)


def _float(a: pa.Field, b: pa.Field) -> pa.Field:
    return _field(a.name, _FLOATS[max(a.type.bit_width, b.type.bit_width)], None)


def _int_float(a: pa.Field, b: pa.Field) -> pa.Field:
    if _wide(a) or _wide(b):
        raise _CannotMeetError("it has integers beyond ±2**53, which no float holds exactly")
    return _field(a.name, pa.float64(), None)


def _decimal(a: pa.Field, b: pa.Field) -> pa.Field:
    (whole_a, scale_a), (whole_b, scale_b) = _decimal_digits(a.type), _decimal_digits(b.type)
    scale = max(scale_a, scale_b)
    precision = max(whole_a, whole_b) + scale
    if precision > DECIMAL_DIGITS:
        raise _CannotMeetError(f"together they need {precision} digits, and {DECIMAL_DIGITS} is the most")
    return _field(a.name, decimal(precision, scale), None)


def _decimal_digits(type_: pa.DataType) -> tuple[int, int]:
    if _is.is_integer(type_):
        return _DIGITS[type_.bit_width], 0
    return type_.precision - type_.scale, type_.scale


def _text(a: pa.Field, b: pa.Field) -> pa.Field:
    large = _is.is_large_string(a.type) or _is.is_large_string(b.type)
    return _field(a.name, pa.large_string() if large else pa.string(), None)


def _binary(a: pa.Field, b: pa.Field) -> pa.Field:
    if a.type.equals(b.type):
        return a
    large = _is.is_large_binary(a.type) or _is.is_large_binary(b.type)
    return _field(a.name, pa.large_binary() if large else pa.binary(), None)


def _unit(a: pa.Field, b: pa.Field) -> tuple[str, bytes | None]:
    finest = max(_UNITS.index(a.type.unit), _UNITS.index(b.type.unit))
    marks = [mark for mark in (_wide(a), _wide(b)) if mark]
    wide = min(marks, key=lambda mark: _UNITS.index(mark.decode())) if marks else None
    if wide and _UNITS.index(wide.decode()) < finest:
        raise _CannotMeetError(f"it has times that 64 bits of {_UNITS[finest]} do not reach")
    return _UNITS[finest], wide


def _timestamp(a: pa.Field, b: pa.Field) -> pa.Field:
    if (a.type.tz is None) != (b.type.tz is None):
        raise _CannotMeetError("one has a time zone, the other has none")
    unit, wide = _unit(a, b)
    return _field(a.name, pa.timestamp(unit, a.type.tz if a.type.tz == b.type.tz else "UTC"), wide)


def _duration(a: pa.Field, b: pa.Field) -> pa.Field:
    unit, wide = _unit(a, b)
    return _field(a.name, pa.duration(unit), wide)


def _time(a: pa.Field, b: pa.Field) -> pa.Field:
    unit, _ = _unit(a, b)
    return _field(a.name, pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit), None)


def _struct(a: pa.Field, b: pa.Field) -> pa.Field:
    fields = {child.name: child for child in a.type}
    for child in b.type:
        known = fields.get(child.name)
        fields[child.name] = child if known is None else _meet(known, child)
    return _field(a.name, pa.struct(list(fields.values())), None)


def _list(a: pa.Field, b: pa.Field) -> pa.Field:
    item = _meet(a.type.value_field, b.type.value_field)
    fixed = [field.type.list_size if _is.is_fixed_size_list(field.type) else -1 for field in (a, b)]
    if fixed[0] == fixed[1]:
        return _field(a.name, list_like(b.type if _is.is_large_list(b.type) else a.type, item), None)
    large = _is.is_large_list(a.type) or _is.is_large_list(b.type)
    return _field(a.name, pa.large_list(item) if large else pa.list_(item), None)


def _map(a: pa.Field, b: pa.Field) -> pa.Field:
    key = _meet(a.type.key_field, b.type.key_field)
    item = _meet(a.type.item_field, b.type.item_field)
    return _field(a.name, pa.map_(key.with_nullable(False), item), None)


_RULES: dict[tuple[str, str], Callable[[pa.Field, pa.Field], pa.Field]] = {
    ("int", "int"): _int,
    ("float", "float"): _float,
    ("int", "float"): _int_float,
    ("float", "int"): _int_float,
    ("decimal", "decimal"): _decimal,
    ("int", "decimal"): _decimal,
    ("decimal", "int"): _decimal,
    ("text", "text"): _text,
    ("binary", "binary"): _binary,
    ("timestamp", "timestamp"): _timestamp,
    ("duration", "duration"): _duration,
    ("time", "time"): _time,
    ("struct", "struct"): _struct,
    ("list", "list"): _list,
    ("map", "map"): _map,
}
