"""Events that differ in nothing but their values: the bytes between them are compared, and none is taken apart again.

What a writer publishes has the same fields over and over, and often values of the same lengths. A template is such an
event with holes: one struct cuts an event of the same length into the bytes around the holes, which have to be the
template's own, and the bytes in them. Protobuf would read the same in both, since lengths and tags are all alike.
"""

from __future__ import annotations

import struct
from typing import Final

from ikvcore._columns import ColumnFields, Columns
from ikvcore._wire import delimited, entry_head

__all__ = ["Template", "Templates"]

_HEADER_TAG: Final = 0x0A
_UPSERT_TAG: Final = b"\x12"
_DOCUMENT_TAG: Final = b"\x0a"
_MAX_HEADER: Final = 64
"""Longer ones are protobuf's: nothing as short can be nested so deeply that it refuses it."""
_MAX_FIELDS: Final = 256
_MAX_TEMPLATES: Final = 1_024
"""Past these all are forgotten, and met again as they come."""
_PATIENCE: Final = 8
"""So many events of its length that did not fit it, and a template gives way to another."""


class Template:
    """An upsert's event, as our writers put it, with holes for the header's content and the values."""

    __slots__ = ("around", "columns", "key_place", "missed", "unpack")

    def __init__(self, pieces: list[bytes], columns: Columns, key_place: int) -> None:
        """pieces: all bytes of an event, those around the holes and those in them by turns."""
        self.unpack = struct.Struct("".join(f"{len(piece)}s" for piece in pieces)).unpack
        """What stands around the holes: [::2]. The header's content: [1]. The values: [3::2]."""
        self.around = tuple(pieces[::2])
        self.columns = columns
        self.key_place = key_place
        self.missed = 0


class Templates:
    """One template for each length of events. Used by one thread."""

    def __init__(self) -> None:
        self.by_length: dict[int, Template] = {}

    def learn(self, value: bytes, fields: ColumnFields, key_place: int) -> None:
        """Make a template of an event that was read as `fields`, unless the one of its length is still good."""
        known = self.by_length.get(len(value))
        if known is not None:
            known.missed += 1
            if known.missed < _PATIENCE:
                return
        pieces = _pieces(value, fields)
        if pieces is None:
            return
        if len(self.by_length) >= _MAX_TEMPLATES:
            self.by_length.clear()
        self.by_length[len(value)] = Template(pieces, fields.columns, key_place)


def _pieces(value: bytes, fields: ColumnFields) -> list[bytes] | None:
    """The pieces of an event that is exactly what our writers make of these fields; None for any other."""
    if len(value) < 2 or value[0] != _HEADER_TAG or value[1] > _MAX_HEADER or len(fields) > _MAX_FIELDS:
        return None
    end = 2 + value[1]
    names, types = fields.columns.names, fields.columns.types
    heads = [entry_head(*each) for each in zip(names, types, map(len, fields.data), strict=True)]
    document = b"".join(part for pair in zip(heads, fields.data, strict=True) for part in pair)
    rest = delimited(_UPSERT_TAG, delimited(_DOCUMENT_TAG, document))
    if value[end:] != rest:
        return None
    heads[0] = rest[: len(rest) - len(document)] + heads[0]
    pieces = [value[:2], value[2:end]]
    for head, data in zip(heads, fields.data, strict=True):
        pieces += head, data
    return pieces
