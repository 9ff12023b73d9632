"""The column `rest`: fields that have no column, in one value of bytes.

A map or list column of DuckDB's own would be readable by SQL, but 2.0 corrupts those under updates and deletes beside
reads ("Corrupted LIST column", or a crash), so it is bytes: for each field its type, the lengths of its name and of its
value, then both, the value in the wire encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from ikvcore.errors import ReplicaDamagedError
from ikvcore.fields import FieldBytes, FieldType, Value, decode

__all__ = ["decode_rest", "pack_rest", "unpack_rest"]

_HEAD: Final = struct.Struct("<BII")


def pack_rest(fields: Mapping[str, FieldBytes]) -> bytes | None:
    """The column's value; None for no fields."""
    parts: list[bytes] = []
    for name, (field_type, data) in fields.items():
        encoded = name.encode()
        parts += (_HEAD.pack(field_type, len(encoded), len(data)), encoded, data)
    return b"".join(parts) or None


def unpack_rest(packed: bytes | None) -> dict[str, FieldBytes]:
    """The inverse of pack_rest. Raises ReplicaDamagedError."""
    fields: dict[str, FieldBytes] = {}
    at = 0
    try:
        while packed and at < len(packed):
            kind, name_length, length = _HEAD.unpack_from(packed, at)
            start = at + _HEAD.size + name_length
            at = start + length
            fields[packed[start - name_length : start].decode()] = FieldType(kind), packed[start:at]
    except (struct.error, ValueError) as exc:
        raise ReplicaDamagedError(f"the fields without a column cannot be taken apart ({exc!r})") from exc
    return fields


def decode_rest(packed: bytes | None) -> dict[str, tuple[FieldType, Value]]:
    """What the column `_rest` of `documents` holds, by name; for those who read it by a query."""
    return {name: (kind, decode(kind, data)) for name, (kind, data) in unpack_rest(packed).items()}
