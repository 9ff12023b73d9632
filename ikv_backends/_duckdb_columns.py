"""Which field lives in which column: a field's first value gives it one of its type, as long as there is room.

What has no column, and values of another type than their field's column, live in the column `rest` (_duckdb_rest).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ikvcore.fields import FieldType, decode

__all__ = ["FLOATS", "Column", "Columns", "encoder", "storable"]

_SQL_TYPES: Final = {
    FieldType.INT32: "INTEGER",
    FieldType.INT64: "BIGINT",
    FieldType.FLOAT32: "FLOAT",
    FieldType.FLOAT64: "DOUBLE",
    FieldType.STRING: "VARCHAR",
    FieldType.BYTES: "BLOB",
    FieldType.BOOLEAN: "BOOLEAN",
}
_OWN: Final = {"_partition": "p", "_key": "k", "_rest": "rest"}
"""Columns of the view that are no fields."""
_RESERVED: Final = frozenset({*_OWN, "rowid"})
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST: Final = 250
FLOATS: Final = frozenset({FieldType.FLOAT32, FieldType.FLOAT64})
"""Types of which not every value is `storable`."""
_NANS: Final = {FieldType.FLOAT32: bytes.fromhex("0000c07f"), FieldType.FLOAT64: bytes.fromhex("000000000000f87f")}


_ENCODERS: Final[dict[FieldType, Callable[[Any], bytes]]] = {
    FieldType.INT32: struct.Struct("<i").pack,
    FieldType.INT64: struct.Struct("<q").pack,
    FieldType.FLOAT32: struct.Struct("<f").pack,
    FieldType.FLOAT64: struct.Struct("<d").pack,
    FieldType.STRING: str.encode,
    FieldType.BYTES: bytes,
    FieldType.BOOLEAN: struct.Struct("?").pack,
}


class Column(NamedTuple):
    """One field's column."""

    position: int
    name: str
    type: FieldType

    @property
    def sql(self) -> str:
        """Its name in the table, where fields have no say."""
        return f"c{self.position}"

    @property
    def sql_type(self) -> str:
        """Its type in the table."""
        return _SQL_TYPES[self.type]


class Columns:
    """The columns of one schema. Changed only by whoever made this object, before it is shared."""

    def __init__(self, columns: list[Column], limit: int) -> None:
        self.all = columns
        self._limit = limit
        self.by_name = {column.name: column for column in columns}
        """To look a field's column up."""
        self._folded = {_folded(column.name) for column in columns}

    def __iter__(self) -> Iterator[Column]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def draft(self) -> Columns:
        """A copy to add to."""
        return Columns(list(self.all), self._limit)

    def get_or_add(self, name: str, field_type: FieldType) -> Column | None:
        """A field's column, a new one if it has none; None where it can have none."""
        column = self.by_name.get(name)
        if column is None and len(self.all) < self._limit and self._fits(name):
            column = Column(len(self.all), name, field_type)
            self.all.append(column)
            self.by_name[name] = column
            self._folded.add(_folded(name))
        return column

    def _fits(self, name: str) -> bool:
        """Whether SQL can tell this name from all others: it ignores their case."""
        folded = _folded(name)
        fits = folded and len(name) <= _LONGEST and not _UNFIT.search(name)
        return bool(fits) and folded not in _RESERVED and folded not in self._folded

    def view(self) -> str:
        """What SQL sees as `documents`."""
        fields = [f"{column.sql} AS {_quoted(column.name)}" for column in self.all]
        own = [f"{column} AS {name}" for name, column in _OWN.items()]
        return f"CREATE OR REPLACE VIEW documents AS SELECT {', '.join([*fields, *own])} FROM ikv.rows"


def storable(field_type: FieldType, data: bytes) -> bool:
    """Whether a column gives this value back bit by bit: DuckDB may make all NaNs one."""
    nan = _NANS.get(field_type)
    if nan is None:
        return True
    value = decode(field_type, data)
    return value == value or data == nan


def encoder(field_type: FieldType) -> Callable[[Any], bytes]:
    """What brings a value that a column gave back into the wire encoding."""
    return _ENCODERS[field_type]


def _quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _folded(name: str) -> str:
    return name.casefold()
