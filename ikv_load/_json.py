"""JSON lines. The types are those that JSON has: text stays as it is, also where it looks like a date or a UUID."""

# ruff: noqa: S608 - SQL is made here, of quoted names and of what the caller may ask for

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb

from ikv_load._engine import Connection, text
from ikv_load._names import may_be_renamed, refuse_twins
from ikv_load._part import Part, unreadable

__all__ = ["json_parts"]

_GUESSED: Final = frozenset({"date", "time", "timestamp", "timestamp with time zone", "timestamp_ns", "uuid"})


def json_parts(connection: Connection, files: Sequence[str]) -> list[Part]:
    """One part for all files. They are read once to their end first: a name that came later would else be unknown."""
    listed = f"[{', '.join(map(text, files))}], format = 'newline_delimited'"
    name = files[0] if len(files) == 1 else f"{len(files)} files"
    try:
        relation = connection.sql(
            f"SELECT * FROM read_json({listed}, sample_size = -1, maximum_sample_files = 2147483647, "
            "map_inference_threshold = -1)"
        )
    except duckdb.Error as exc:
        raise unreadable(name, exc) from exc
    if may_be_renamed(relation.columns):
        refuse_twins(name if len(files) > 1 else repr(name), _names(connection, listed))
    columns = ", ".join(
        f"{text(column)}: {text('VARCHAR' if kind.id in _GUESSED else _declared(str(kind)))}"
        for column, kind in zip(relation.columns, relation.types, strict=True)
    )
    return [Part(name, f"SELECT * FROM read_json({listed}, columns = {{{columns}}})", files=files)]


def _names(connection: Connection, listed: str) -> list[str]:
    found = connection.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM read_json_objects({listed})").fetchall()
    return sorted(name for (name,) in found)


def _declared(kind: str) -> str:
    """A column without any value has a type that cannot be declared."""
    return "VARCHAR" if "NULL" in kind else kind
