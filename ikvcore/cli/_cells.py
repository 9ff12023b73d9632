"""Values as text that a terminal can show: nothing in them is obeyed, and none is longer than a person reads."""

from __future__ import annotations

import base64
import math
import struct
from typing import Final

from ikvcore.fields import FieldType, Value

__all__ = ["cell", "plain_text", "type_word", "visible"]

_LONGEST: Final = 500
_FLOAT32: Final = struct.Struct("<f")


def visible(text: str) -> str:
    """`text` with its control and other unseen characters escaped as Python's repr does."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def plain_text(value: Value, field_type: FieldType | None = None) -> str:
    """A value as text: bytes in base64, booleans as true and false, a FLOAT32 in no more digits than it has."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if field_type is FieldType.FLOAT32:
        return _shortest(float(value))
    return value if isinstance(value, str) else repr(value)


def cell(value: Value, field_type: FieldType | None = None, *, longest: int = _LONGEST, tell_size: bool = True) -> str:
    """A value for a table; one of more than `longest` characters is cut, with a mark, and how long it is."""
    if not isinstance(value, (str, bytes)) or len(value) <= longest:
        return visible(plain_text(value, field_type))
    unit = "bytes" if isinstance(value, bytes) else "characters"
    return f"{visible(plain_text(value[:longest]))}…" + (f" ({len(value):,} {unit})" if tell_size else "")


def type_word(field_type: FieldType) -> str:
    """A type as it is written on the command line."""
    return field_type.name.lower()


def _shortest(value: float) -> str:
    """The shortest number whose nearest FLOAT32 is `value`, which is one."""
    if not math.isfinite(value):
        return repr(value)
    texts = (repr(float(f"{value:.{digits}g}")) for digits in range(6, 10))
    return next(text for text in texts if _as_float32(float(text)) == value)


def _as_float32(value: float) -> float:
    try:
        single: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    except OverflowError:  # the largest FLOAT32, rounded up
        return math.inf
    return single
