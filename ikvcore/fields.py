"""Field types, and a value's way into bytes and back.

A field's value travels and is stored in the wire encoding of the published IKV schema: INT32 and FLOAT32 are 4
bytes, INT64 and FLOAT64 8 bytes, BOOLEAN 1 byte, all little-endian; STRING is UTF-8; BYTES is itself. Keeping that
encoding from the writer to the replica is what makes NaN payloads and -0.0 come back bit-equal.
"""

from __future__ import annotations

import enum
import math
import operator
import struct
from typing import Any, Final, TypeAlias

from ikvcore.errors import FieldNameError, FieldValueError, UnsupportedTypeError

__all__ = ["FIXED_WIDTHS", "FieldBytes", "FieldType", "Value", "check_name", "decode", "encode", "encode_any"]

Value: TypeAlias = "int | float | str | bytes | bool"


class FieldType(enum.IntEnum):
    """The type of a field; numbers are those of the wire format."""

    UNKNOWN = 0
    INT32 = 1
    INT64 = 2
    FLOAT32 = 3
    FLOAT64 = 4
    STRING = 5
    BYTES = 6
    BOOLEAN = 7

    # Enum's own hash is a Python function, and types are hashed for every field that is ingested.
    __hash__ = int.__hash__


FieldBytes: TypeAlias = tuple[FieldType, bytes]
"""A value with its type, in the wire encoding."""

FIXED_WIDTHS: Final[dict[FieldType, int]] = {
    FieldType.INT32: 4,
    FieldType.INT64: 8,
    FieldType.FLOAT32: 4,
    FieldType.FLOAT64: 8,
    FieldType.BOOLEAN: 1,
}
"""Width in bytes of each fixed-width type; STRING and BYTES are absent."""

_INT_STRUCTS: Final = {FieldType.INT32: struct.Struct("<i"), FieldType.INT64: struct.Struct("<q")}
_FLOAT_STRUCTS: Final = {FieldType.FLOAT32: struct.Struct("<f"), FieldType.FLOAT64: struct.Struct("<d")}
_FALSE: Final = b"\x00"
_TRUE: Final = b"\x01"


def check_name(name: object) -> str:
    """Return `name` if it can name a field, else raise FieldNameError."""
    if not isinstance(name, str) or not name:
        raise FieldNameError(name)
    try:
        name.encode()
    except UnicodeEncodeError as exc:
        raise FieldNameError(name, f"it has no UTF-8 form ({exc.reason})") from exc
    return name


def encode(name: str, field_type: FieldType, value: object) -> bytes:
    """Encode `value` for field `name` as `field_type`.

    NumPy scalars are taken where their Python twins are, bytearray and memoryview where bytes are, ints where floats
    are. Raises UnsupportedTypeError for a value of another type, FieldValueError for one out of range.
    """
    if field_type is FieldType.STRING:
        return _encode_string(name, value)
    if field_type is FieldType.BYTES:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise UnsupportedTypeError(name, value, f"a BYTES field takes bytes, not {type(value).__name__}")
    if field_type in _INT_STRUCTS:
        return _encode_int(name, field_type, value)
    if field_type in _FLOAT_STRUCTS:
        return _encode_float(name, field_type, value)
    if field_type is FieldType.BOOLEAN:
        if isinstance(value, bool) or _numpy_kind(value) == "b":
            return _TRUE if value else _FALSE
        raise UnsupportedTypeError(name, value, f"a BOOLEAN field takes bool, not {type(value).__name__}")
    raise FieldValueError(name, value, "UNKNOWN is not a type that a field can be given")


def encode_any(name: str, value: object) -> FieldBytes:
    """Encode `value` as the type of its Python class: bool, int (INT64), float (FLOAT64), str or bytes.

    None is refused: a field is removed with delete_fields, never by writing None.
    """
    kind = _numpy_kind(value)
    if isinstance(value, bool) or kind == "b":
        field_type = FieldType.BOOLEAN
    elif isinstance(value, int) or kind in ("i", "u"):
        field_type = FieldType.INT64
    elif isinstance(value, float) or kind == "f":
        field_type = FieldType.FLOAT64
    elif isinstance(value, str):
        field_type = FieldType.STRING
    elif isinstance(value, (bytes, bytearray, memoryview)):
        field_type = FieldType.BYTES
    elif value is None:
        raise UnsupportedTypeError(name, value, "to remove a field, use IKVWriter.delete_fields")
    else:
        raise UnsupportedTypeError(
            name, value, f"fields hold bool, int, float, str or bytes, not {type(value).__name__}"
        )
    return field_type, encode(name, field_type, value)


def decode(field_type: FieldType, data: bytes) -> Value:
    """The Python value of `data`, which must be valid for `field_type`; any non-zero BOOLEAN byte is True."""
    if field_type is FieldType.STRING:
        return str(data, "utf-8")
    if field_type is FieldType.BYTES:
        return data
    if field_type is FieldType.BOOLEAN:
        return data != _FALSE
    number = _INT_STRUCTS.get(field_type) or _FLOAT_STRUCTS[field_type]
    value: int | float = number.unpack(data)[0]
    return value


def _encode_string(name: str, value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as exc:
            raise FieldValueError(name, value, f"it has no UTF-8 form ({exc.reason})") from exc
    hint = "; use put_bytes_field for bytes" if isinstance(value, (bytes, bytearray, memoryview)) else ""
    raise UnsupportedTypeError(name, value, f"a STRING field takes str, not {type(value).__name__}{hint}")


def _encode_int(name: str, field_type: FieldType, value: Any) -> bytes:
    if isinstance(value, bool) or _numpy_kind(value) == "b":
        raise UnsupportedTypeError(name, value, "use put_bool_field for bool")
    # operator.index takes what is exactly an int, NumPy's among them, and refuses floats and strings.
    try:
        number = operator.index(value)
    except TypeError as exc:
        raise UnsupportedTypeError(
            name, value, f"an {field_type.name} field takes int, not {type(value).__name__}"
        ) from exc
    try:
        return _INT_STRUCTS[field_type].pack(number)
    except struct.error as exc:
        bits = 8 * FIXED_WIDTHS[field_type] - 1
        raise FieldValueError(name, value, f"{field_type.name} holds -2**{bits} to 2**{bits} - 1") from exc


def _encode_float(name: str, field_type: FieldType, value: Any) -> bytes:
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or _numpy_kind(value) in ("f", "i", "u")):
        raise UnsupportedTypeError(name, value, f"a {field_type.name} field takes float, not {type(value).__name__}")
    if field_type is FieldType.FLOAT32 and _numpy_kind(value) == "f" and value.dtype.itemsize == 4:
        # A float32 scalar gives its own bytes: the way through a Python float would quieten a signalling NaN.
        data: bytes = value.astype("<f4").tobytes()
        return data
    try:
        number = float(value)
        if math.isinf(number) and value != number:  # a NumPy longdouble becomes infinite without an error
            raise OverflowError
        return _FLOAT_STRUCTS[field_type].pack(number)
    except OverflowError as exc:
        raise FieldValueError(name, value, f"it is out of the range of {field_type.name}") from exc


def _numpy_kind(value: object) -> str:
    """The dtype kind of a NumPy scalar ('b', 'i', 'u', 'f', ...), '' for anything else; NumPy is not imported."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "shape", None) != ():
        return ""
    return str(getattr(dtype, "kind", ""))
