"""A document while its commit is planned: values by column, in the wire encoding, and what has no column."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from ikv_backends._duckdb_columns import FLOATS, Columns, storable
from ikv_backends._duckdb_rest import unpack_rest
from ikvcore.fields import FieldBytes
from ikvcore.models import DropFields, storage_key

__all__ = ["Document", "Place", "is_dropped", "key_hash"]

_HASH: Final = struct.Struct("<Q")

Place = tuple[int, bytes]
"""Partition and key."""


def key_hash(key: bytes) -> int:
    """What the index finds a storage key by. Two keys may share it."""
    number: int = _HASH.unpack(blake2b(key, digest_size=8).digest())[0]
    return number


class Document:
    """A document as its batch leaves it. `changed` tells whether it is to be written."""

    __slots__ = ("born", "cells", "changed", "exists", "hash", "place", "rest", "row")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.hash = key_hash(storage_key(*place))
        self.row: int | None = None  # where it is stored
        self.born: int | None = None  # which of all documents it was, None for a new one
        self.cells: dict[int, bytes] = {}  # by column, in the wire encoding
        self.rest: dict[str, FieldBytes] = {}
        self.exists = False
        self.changed = False

    def stored_as(self, row: int, born: int, rest: bytes | None, cells: dict[int, bytes]) -> None:
        """Take over what its row holds."""
        self.row, self.born, self.exists = row, born, True
        self.rest, self.cells = unpack_rest(rest), cells

    def remove(self) -> None:
        """Leave no document."""
        if self.exists:
            self.exists, self.changed, self.born = False, True, None
            self.cells, self.rest = {}, {}

    def upsert(self, fields: Iterable[tuple[str, FieldBytes]], columns: Columns) -> None:
        """Set fields, each in its column, or in `rest` where it can have none."""
        self.exists = self.changed = True
        cells, by_name = self.cells, columns.by_name
        for name, (field_type, data) in fields:
            column = by_name.get(name) or columns.get_or_add(name, field_type)
            if (
                column is not None
                and column.type is field_type
                and (field_type not in FLOATS or storable(field_type, data))
            ):
                cells[column.position] = data
                if self.rest:
                    self.rest.pop(name, None)
            else:
                self.rest[name] = field_type, data
                if column is not None:
                    cells.pop(column.position, None)

    def delete_fields(self, names: Iterable[str], columns: Columns) -> None:
        """Remove fields, as far as they are there."""
        for name in names:
            column = columns.by_name.get(name)
            if self.rest.pop(name, None) is not None or (
                column is not None and self.cells.pop(column.position, None) is not None
            ):
                self.changed = True

    def drop(self, mutation: DropFields, columns: Columns) -> None:
        """Remove the fields that a drop means."""
        names = [*self.rest, *(columns.all[position].name for position in self.cells)]
        self.delete_fields([name for name in names if is_dropped(mutation, name)], columns)


def is_dropped(drop: DropFields, name: str) -> bool:
    """Whether a drop means the field of this name."""
    return name not in drop.keep and (name in drop.names or name.startswith(drop.prefixes))
