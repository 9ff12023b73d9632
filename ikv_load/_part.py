"""A part of a source: what one query reads. Parquet files, which tell their own types, are parts as they are."""

# ruff: noqa: S608 - SQL is made here, of quoted names and of what the caller may ask for

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
from pyarrow import parquet

from ikv_load._engine import Connection, reason, text
from ikv_load._names import may_be_renamed, refuse_twins
from ikvcore.errors import InvalidArgumentError

__all__ = ["Part", "parquet_parts", "unreadable"]


@dataclass(frozen=True)
class Part:
    """One file, or files that are read as one, or a table."""

    name: str
    query: str
    weight: float = 1.0
    """Its share of the whole source's work, in any unit."""
    files: Sequence[str] = ()
    rows: int | None = None
    """How many rows it has, where that tells the progress; else DuckDB does."""


def parquet_parts(connection: Connection, files: Sequence[str]) -> list[Part]:
    """A part for each file."""
    parts = []
    for file in files:
        query = f"SELECT * FROM read_parquet({text(file)})"
        try:
            (counted,) = connection.execute(f"SELECT sum(num_rows) FROM parquet_file_metadata({text(file)})").fetchall()
            if may_be_renamed(connection.sql(query).columns):
                refuse_twins(repr(file), parquet.read_schema(file).names)
        except (duckdb.Error, pa.ArrowException) as exc:
            raise unreadable(file, exc) from exc
        parts.append(Part(file, query, weight=float(counted[0] or 1), files=[file]))
    return parts


def unreadable(file: str, exc: BaseException) -> InvalidArgumentError:
    """The error for a file of which not even the columns can be told."""
    return InvalidArgumentError(f"{file!r} cannot be read: {reason(exc)}")
