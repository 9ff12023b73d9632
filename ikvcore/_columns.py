"""A decoded document's fields, held so that documents share what they have in common.

A (type, value) tuple for each field would be most of what ingest allocates, and Python's garbage collector would look
at every one of them, again and again: measured, 40 % of ingest's time. A tuple of bytes it leaves alone.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import Final

from ikvcore.fields import FieldBytes, FieldType

# Bound once: reaching a member through its enum class is slow in Python 3.11.
_STRING: Final = FieldType.STRING
_BOOLEAN: Final = FieldType.BOOLEAN

__all__ = ["ColumnFields", "Columns"]


class Columns:
    """Names and types of fields, in order, each name once. Compared by identity, so that caches are keyed cheaply."""

    __slots__ = ("flags", "is_plain", "names", "places", "texts", "types")

    def __init__(self, columns: Sequence[tuple[str, FieldType]]) -> None:
        self.names: tuple[str, ...]
        self.types: tuple[FieldType, ...]
        self.names, self.types = zip(*columns, strict=True) if columns else ((), ())
        self.places = {name: place for place, name in enumerate(self.names)}
        self.texts = tuple([place for place, field_type in enumerate(self.types) if field_type is _STRING])
        self.flags = tuple([place for place, field_type in enumerate(self.types) if field_type is _BOOLEAN])
        self.is_plain = not (self.texts or self.flags)
        """Whether any bytes are values in their one form."""


class ColumnFields(Mapping[str, FieldBytes]):
    """Fields as Upsert carries them: `data` holds the values of `columns`, in that order."""

    __slots__ = ("columns", "data")

    def __init__(self, columns: Columns, data: tuple[bytes, ...]) -> None:
        self.columns = columns
        self.data = data

    def __getitem__(self, name: str) -> FieldBytes:
        place = self.columns.places[name]
        return self.columns.types[place], self.data[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.names)

    def __len__(self) -> int:
        return len(self.data)

    def items(self) -> ItemsView[str, FieldBytes]:
        # A dict made at once is several times as fast as Mapping's own way, item by item.
        return dict(zip(self.columns.names, zip(self.columns.types, self.data, strict=True), strict=True)).items()

    def __repr__(self) -> str:
        return repr(dict(self))
