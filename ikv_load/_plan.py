"""The query of a load: each row as the values of its fields, and the number of the first thing that is wrong with it.

chosen      the rows that the caller asks for, see _rows
converted   each value in the type of its field; NULL where that cannot be
judged      the number of a verdict, NULL for rows that can be loaded
"""

# ruff: noqa: S608 - SQL is made here, of quoted names and of what the caller may ask for

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ikv_load._engine import Connection, text
from ikv_load._rows import Column, Rows
from ikv_load._types import NESTED, NOTHING, Conversion, as_text, by_itself, cast_to
from ikvcore.errors import InvalidArgumentError, near_miss
from ikvcore.fields import FieldType
from ikvcore.models import StoreDescription

__all__ = ["Field", "Plan", "Wishes", "make_plan"]

_MAX_KEY_BYTES: Final = 65_535


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the caller asks for."""

    primary_key: str | None
    select: str | None
    where: str | None
    timestamps: str
    casts: Mapping[str, str]
    keep_refused: bool
    """Whether refused rows are wanted whole."""


class Field(NamedTuple):
    """A column of the plan's query that becomes a field."""

    name: str
    type: FieldType


@dataclass(frozen=True)
class Plan:
    """A query whose columns are the fields, then the number of a verdict, then, where asked for, the refused row as
    JSON.
    """

    query: str
    fields: Sequence[Field]
    verdicts: Sequence[str]


class _Output(NamedTuple):
    """A field, the SQL of its value, and verdicts, each with the condition in SQL of the rows that it is on."""

    field: Field
    value: str
    checks: Sequence[tuple[str, str]]


def make_plan(connection: Connection, source: str, store: StoreDescription, wishes: Wishes) -> Plan:
    """The plan for the rows of `source`, a query. Raises InvalidArgumentError and FieldNameError."""
    rows = Rows(connection, source, wishes.select, wishes.where)
    outputs = [*_keys(rows, store, wishes.primary_key), *_fields(rows, store, wishes)]
    checks = [check for output in outputs for check in output.checks]
    return Plan(
        query=_query(rows, outputs, checks, whole=wishes.keep_refused),
        fields=[output.field for output in outputs],
        verdicts=[verdict for verdict, _ in checks],
    )


def _query(rows: Rows, outputs: Sequence[_Output], checks: Sequence[tuple[str, str]], *, whole: bool) -> str:
    values = [f"v{number}" for number in range(len(outputs))]
    converted = ", ".join(f"{output.value} AS {value}" for output, value in zip(outputs, values, strict=True))
    verdict = " ".join(f"WHEN {condition} THEN {number}" for number, (_, condition) in enumerate(checks))
    # Conditions speak of the columns as chosen (c, k) and as converted (v).
    judged = f"SELECT *, CASE {verdict} END AS verdict FROM (SELECT *, {converted} FROM ({rows.query}))"
    refused = ""
    if whole:
        pairs = ", ".join(f"{text(column.name)}, {column.sql}" for column in rows.columns)
        refused = f", CASE WHEN verdict IS NOT NULL THEN CAST(json_object({pairs}) AS VARCHAR) END AS refused"
    return f"SELECT {', '.join(values)}, verdict{refused} FROM ({judged})"


# -- keys --------------------------------------------------------------------------------------


def _keys(rows: Rows, store: StoreDescription, primary_key: str | None) -> Iterator[_Output]:
    if primary_key is None:
        column = rows.named(store.primary_key, "primary key", or_expression=True)
    else:
        column = rows.expression(primary_key, "primary key")
    yield _key(0, Field(store.primary_key, store.primary_key_type), column, "primary key")
    if store.partitioning_key is not None and store.partitioning_key != store.primary_key:
        column = rows.named(store.partitioning_key, "partitioning key")
        yield _key(1, Field(store.partitioning_key, store.partitioning_key_type), column, "partitioning key")


def _key(number: int, field: Field, column: Column, role: str) -> _Output:
    kind = column.type.id
    if kind in NESTED:
        raise InvalidArgumentError(f"the {role} would be {column.type}; a key is text or bytes: take a part of it")
    # A STRING key is converted to text and back, which shows what is not UTF-8.
    as_bytes = kind == "blob" and field.type is FieldType.BYTES
    value = column.sql if as_bytes else f"encode({as_text(column.sql, column.type)})"
    size = f"octet_length(v{number})"
    checks = [
        (f"{role} is NULL", f"{column.sql} IS NULL"),
        (f"{role} is not text", f"v{number} IS NULL"),
        (f"{role} is empty", f"{size} = 0"),
        (f"{role} has over {_MAX_KEY_BYTES:,} bytes", f"{size} > {_MAX_KEY_BYTES}"),
    ]
    return _Output(field, value, checks)


# -- fields ------------------------------------------------------------------------------------


def _fields(rows: Rows, store: StoreDescription, wishes: Wishes) -> Iterator[_Output]:
    columns = [column for column in rows.columns if column.name not in store.key_fields]
    _check_casts(rows, store, wishes.casts)
    conversions = [(column, _conversion(column, wishes)) for column in columns if column.type.id != NOTHING]
    unloadable = [column for column, conversion in conversions if conversion is None]
    if unloadable:
        raise InvalidArgumentError(_unloadable(unloadable))
    first = len(store.key_fields)
    for number, (column, conversion) in enumerate(conversions, first):
        assert conversion is not None
        yield _output(f"v{number}", column, conversion)


def _conversion(column: Column, wishes: Wishes) -> Conversion | None:
    word = wishes.casts.get(column.name)
    if word is None:
        return by_itself(column.sql, column.type, wishes.timestamps)
    return cast_to(column.name, column.sql, column.type, word)


def _output(value: str, column: Column, conversion: Conversion) -> _Output:
    field = Field(column.name, conversion.field_type)
    if conversion.total:
        return _Output(field, conversion.value, ())
    verdict = f"column {column.name!r} does not become {conversion.field_type.name.lower()}"
    condition = f"{column.sql} IS NOT NULL AND ({value} IS NULL OR {conversion.lossy})"
    return _Output(field, conversion.value, [(verdict, condition)])


def _check_casts(rows: Rows, store: StoreDescription, casts: Mapping[str, str]) -> None:
    names = [column.name for column in rows.columns]
    for name in casts:
        if name in store.key_fields:
            raise InvalidArgumentError(f"column {name!r} is a key of the store, whose type is fixed; cast others")
        if name not in names:
            raise InvalidArgumentError(
                f"no column is named {name!r}, which is to be cast{near_miss(name, names)}; the columns are "
                f"{', '.join(map(repr, names))}"
            )


def _unloadable(columns: Sequence[Column]) -> str:
    """One message for all of them."""
    nested = [f"{column.name!r} ({column.type})" for column in columns if column.type.id in NESTED]
    others = [f"{column.name!r} ({column.type})" for column in columns if column.type.id not in NESTED]
    parts = []
    if nested:
        parts.append(
            f"nested columns cannot be fields: {', '.join(nested)}; take parts of them in select, leave them out, or "
            "cast them to string, which gives JSON"
        )
    if others:
        parts.append(f"columns of these types need a cast: {', '.join(others)}; say to what, such as string or float64")
    return "; ".join(parts)
