"""From DuckDB's types to those of fields, in SQL: what a column becomes by itself, and what a cast makes of it.

A conversion is NULL where the value cannot be converted, so that its row can be refused and the others loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from duckdb.sqltypes import DuckDBPyType

from ikvcore.errors import InvalidArgumentError, near_miss
from ikvcore.fields import FieldType

__all__ = [
    "NESTED",
    "NOTHING",
    "TIMESTAMP_WORDS",
    "TYPE_WORDS",
    "Conversion",
    "as_text",
    "by_itself",
    "cast_to",
    "check_words",
]

TYPE_WORDS: Final = {each.name.lower(): each for each in FieldType if each is not FieldType.UNKNOWN}
"""The words for a cast."""
TIMESTAMP_WORDS: Final = ("iso", "epoch-us")
NESTED: Final = frozenset({"list", "struct", "tuple", "map", "union", "array", "variant"})
NOTHING: Final = "null"
"""The id of the type of a column without any value."""

_INT32: Final = frozenset({"tinyint", "smallint", "integer", "utinyint", "usmallint"})
_INT64: Final = frozenset({"uinteger", "bigint"})
_WHOLE: Final = _INT32 | _INT64 | {"ubigint", "hugeint", "uhugeint"}
_FLOATS: Final = frozenset({"float", "double"})
_TEXT: Final = frozenset({"varchar", "enum", "uuid"})
_ZONED: Final = "timestamp with time zone"
_TIMES: Final = frozenset({"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", _ZONED, "date"})
_SQL: Final = {
    FieldType.INT32: "INTEGER",
    FieldType.INT64: "BIGINT",
    FieldType.FLOAT32: "FLOAT",
    FieldType.FLOAT64: "DOUBLE",
    FieldType.BOOLEAN: "BOOLEAN",
}
_WHOLE_NUMBER: Final = r"'^\s*[+-]?[0-9]+(\.0*)?\s*$'"


@dataclass(frozen=True)
class Conversion:
    """A column's way into a field."""

    field_type: FieldType
    value: str
    """SQL; NULL where the value cannot be converted."""
    lossy: str = "false"
    """SQL: whether the value would lose something."""
    total: bool = False
    """Whether every value can be converted."""


def by_itself(column: str, column_type: DuckDBPyType, timestamps: str) -> Conversion | None:
    """What a column becomes without a cast; None for types that need one."""
    kind = column_type.id
    if _is_json(column_type):
        return None  # values of several types, or objects: as text, numbers would no longer be numbers
    if kind in _TIMES:
        return _iso(column, kind) if timestamps == "iso" else _epoch(column, kind)
    if kind in _INT32:
        return Conversion(FieldType.INT32, f"CAST({column} AS INTEGER)", total=True)
    if kind in _INT64:
        return Conversion(FieldType.INT64, f"CAST({column} AS BIGINT)", total=True)
    if kind in _TEXT:
        return Conversion(FieldType.STRING, f"CAST({column} AS VARCHAR)", total=True)
    as_it_is = {
        "float": FieldType.FLOAT32,
        "double": FieldType.FLOAT64,
        "blob": FieldType.BYTES,
        "boolean": FieldType.BOOLEAN,
    }
    return Conversion(as_it_is[kind], column, total=True) if kind in as_it_is else None


def cast_to(name: str, column: str, column_type: DuckDBPyType, word: str) -> Conversion:
    """What a cast makes of a column. Raises InvalidArgumentError where no value could be cast."""
    field_type = TYPE_WORDS[word]
    kind = column_type.id
    if field_type is FieldType.STRING:
        return Conversion(field_type, as_text(column, column_type))
    if field_type is FieldType.BYTES:
        return Conversion(field_type, column if kind == "blob" else f"encode({as_text(column, column_type)})")
    if field_type is FieldType.INT64 and kind in _TIMES:
        return _epoch(column, kind)
    if kind not in _WHOLE | _FLOATS | _TEXT | {"decimal", "boolean", "bignum"}:
        raise InvalidArgumentError(
            f"column {name!r} is {column_type}, which cannot be cast to {word}; cast it to string or bytes, or "
            "convert it in select"
        )
    return _number(column, column_type, field_type)


def check_words(casts: Mapping[str, str], timestamps: str) -> None:
    """Raise InvalidArgumentError for a word that is none of ours."""
    if timestamps not in TIMESTAMP_WORDS:
        raise InvalidArgumentError(
            f"timestamps cannot be {timestamps!r}{near_miss(str(timestamps), TIMESTAMP_WORDS)}; use "
            f"{' or '.join(TIMESTAMP_WORDS)}"
        )
    for name, word in casts.items():
        if word not in TYPE_WORDS:
            raise InvalidArgumentError(
                f"column {name!r} cannot be cast to {word!r}{near_miss(str(word), TYPE_WORDS)}; the types are "
                f"{', '.join(TYPE_WORDS)}"
            )


def as_text(column: str, column_type: DuckDBPyType) -> str:
    """SQL for a value as text: times in ISO 8601, bytes as the UTF-8 that they are, nested values as JSON."""
    kind = column_type.id
    if kind in _TIMES:
        return _iso(column, kind).value
    if _is_json(column_type):
        return f"({column} ->> '$')"
    if kind == "blob":
        return f"TRY(decode({column}))"
    return f"CAST(to_json({column}) AS VARCHAR)" if kind in NESTED else f"CAST({column} AS VARCHAR)"


def _is_json(column_type: DuckDBPyType) -> bool:
    return str(column_type) == "JSON"  # its id is varchar's


def _iso(column: str, kind: str) -> Conversion:
    """ISO 8601 has four digits for the year; times with a zone are told in UTC."""
    if kind == "date":
        text = f"strftime({column}, '%Y-%m-%d')"
    else:
        moment = f"({column} AT TIME ZONE 'UTC')" if kind == _ZONED else column
        fraction = "%n" if kind == "timestamp_ns" else "%f"
        text = f"rtrim(rtrim(strftime({moment}, '%Y-%m-%dT%H:%M:%S.{fraction}'), '0'), '.')"
    suffix = " || 'Z'" if kind == _ZONED else ""
    return Conversion(
        FieldType.STRING,
        f"CASE WHEN isfinite({column}) AND year({column}) BETWEEN 1 AND 9999 THEN {text}{suffix} END",
    )


def _epoch(column: str, kind: str) -> Conversion:
    lossy = f"epoch_ns({column}) % 1000 <> 0" if kind == "timestamp_ns" else "false"
    return Conversion(FieldType.INT64, f"epoch_us({column})", lossy)


def _number(column: str, column_type: DuckDBPyType, field_type: FieldType) -> Conversion:
    """DuckDB's casts round, take any number for true, and the text '1.5' for the integer 2: what that would lose is
    found here.
    """
    kind, wanted = column_type.id, _SQL[field_type]
    if kind in _TEXT:
        column = as_text(column, column_type)
    value = f"TRY_CAST({column} AS {wanted})"
    lossy = "false"
    if field_type is FieldType.BOOLEAN:
        lossy = "false" if kind in _TEXT | {"boolean"} else f"{column} NOT IN (0, 1)"
    elif field_type in (FieldType.INT32, FieldType.INT64):
        if kind in _TEXT:
            lossy = f"NOT regexp_full_match({column}, {_WHOLE_NUMBER})"
        elif kind in _FLOATS | {"decimal"}:
            lossy = f"{column} <> trunc({column})"
    elif kind in _WHOLE | {"decimal", "bignum"}:
        lossy = f"TRY_CAST({value} AS {column_type}) IS DISTINCT FROM {column}"
    elif kind in _TEXT:
        lossy = f"isinf({value}) AND NOT contains(lower({column}), 'inf')"
    return Conversion(field_type, value, lossy)
