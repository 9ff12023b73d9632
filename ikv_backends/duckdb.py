"""Backend `duckdb`: documents as rows of a table that SQL reads, in one DuckDB file a generation.

It is native to documents: a field is a column (_duckdb_columns), a commit reads and rewrites the rows that it names
(_duckdb_batch), beside the metadata (_duckdb_ledger). The file belongs to one process at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ikv_backends._duckdb_batch import DocumentBatch
from ikv_backends._duckdb_columns import Column, Columns
from ikv_backends._duckdb_database import Connection, DuckdbDatabase
from ikv_backends._duckdb_document import key_hash
from ikv_backends._duckdb_ledger import (
    Ledger,
    check_format,
    read_counts,
    read_meta,
    scan_meta,
    write_format,
)
from ikv_backends._duckdb_query import run_query
from ikv_backends._duckdb_rest import decode_rest
from ikv_backends._duckdb_rows import Schema
from ikv_backends._duckdb_verify import wrong_in
from ikvcore.errors import InvalidOptionError, StorageError
from ikvcore.fields import FieldType
from ikvcore.hookspecs import hookimpl
from ikvcore.models import (
    API_VERSION,
    BackendContext,
    BackendInfo,
    Cursor,
    Durability,
    Meta,
    Mutation,
    Page,
    Projection,
    Row,
    Sharing,
)

__all__ = ["DuckdbOptions", "DuckdbStorage", "decode_rest"]

_SIZE: Final = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B)", re.IGNORECASE)
_MOST_COLUMNS: Final = 1_000
_KEYS_A_STATEMENT: Final = 1_000
_SPARE_ROWS: Final = 100_000
"""Rows rewritten before their old space is asked for back, unless there are more documents than that."""
_MOST_COMMITS: Final = 10_000
"""Commits of one opening of the file: DuckDB keeps some 1.5 KB of memory of each until it is closed."""
_BETWEEN_TRIES: Final = 100
"""Commits until it is tried again, where somebody read for long: readers wait for each try."""


@dataclass(frozen=True, kw_only=True)
class DuckdbOptions:
    """Options of the duckdb backend."""

    max_columns: int = 256
    """Fields that get a column of their own, in the order of their first use; 0 to 1,000. Each makes commits slower."""
    memory_limit: str = "1GB"
    """What DuckDB may use of memory, before it goes to the disk: a number and KB, MB, GB or TB."""
    threads: int = 2
    """Threads that DuckDB computes with."""

    def __post_init__(self) -> None:
        if not isinstance(self.max_columns, int) or not 0 <= self.max_columns <= _MOST_COLUMNS:
            raise InvalidOptionError("max_columns", self.max_columns, f"use a whole number from 0 to {_MOST_COLUMNS:,}")
        if not isinstance(self.memory_limit, str) or not _SIZE.fullmatch(self.memory_limit):
            raise InvalidOptionError("memory_limit", self.memory_limit, "use a size such as 512MB or 4GB")
        if not isinstance(self.threads, int) or not 1 <= self.threads <= 1024:
            raise InvalidOptionError("threads", self.threads, "use a whole number from 1 to 1,024")


class DuckdbStorage:
    """Implements Storage, Verify and Query in one directory."""

    def __init__(self, directory: Path, options: DuckdbOptions) -> None:
        self._limit = options.max_columns
        self._database = DuckdbDatabase(
            directory, memory_limit=options.memory_limit, threads=options.threads, create=_create
        )
        try:
            with self._database.reading() as cursor:
                check_format(cursor, directory)
                self._schema = Schema(_columns(cursor, self._limit))
        except BaseException:
            self._database.close()
            raise
        self._rewritten = 0

    # -- reads ---------------------------------------------------------------------------------

    def get(self, key: bytes, projection: Projection) -> Row | None:
        """See Storage."""
        return self.get_many([key], projection)[0]

    def get_many(self, keys: Sequence[bytes], projection: Projection) -> list[Row | None]:
        """See Storage."""
        hashes = iter({key_hash(key) for key in keys})
        rows: dict[bytes, Row] = {}
        with self._one_state(len(keys)) as cursor:
            plan = self._schema.plan(projection)
            while some := list(islice(hashes, _KEYS_A_STATEMENT)):
                # By the hash alone: with more conditions DuckDB no longer looks into the index.
                among = ", ".join(map(str, some))
                cursor.execute(f"SELECT p, k, {plan.select} FROM ikv.rows WHERE h IN ({among})")
                for partition, key, *values in cursor.fetchall():
                    rows[partition.to_bytes(2, "big") + key] = plan.row(values)
        return [rows.get(key) for key in keys]

    def _one_state(self, keys: int) -> AbstractContextManager[Connection]:
        """For so many keys: one statement sees one state by itself."""
        one_statement = keys <= _KEYS_A_STATEMENT
        return self._database.reading() if one_statement else self._database.transaction(read_only=True)

    def scan(self, projection: Projection, *, after: Cursor | None, limit: int) -> Page:
        """See Storage. In the order in which the documents were made, which rewriting one doesn't change."""
        with self._database.reading() as cursor:
            plan = self._schema.plan(projection)
            cursor.execute(
                f"SELECT born, p, k, {plan.select} FROM ikv.rows WHERE born > ? ORDER BY born LIMIT ?",
                [-1 if after is None else int.from_bytes(after, "big"), limit],
            )
            found = cursor.fetchall()
        rows = [(partition.to_bytes(2, "big") + key, plan.row(values)) for _, partition, key, *values in found]
        return Page(rows, found[-1][0].to_bytes(8, "big") if len(found) == limit else None)

    def count(self) -> int:
        """See Storage."""
        with self._database.reading() as cursor:
            return sum(documents for documents, _ in read_counts(cursor).values())

    def read_meta(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Storage."""
        with self._database.reading() as cursor:
            found = read_meta(cursor, keys)
        return [found.get(key) for key in keys]

    def scan_meta(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """See Storage."""
        with self._database.reading() as cursor:
            return scan_meta(cursor, prefix)

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """See Query."""
        return run_query(self._database, sql, parameters)

    def verify(self) -> list[str]:
        """See Verify."""
        with self._database.transaction(read_only=True) as cursor:
            return wrong_in(cursor, self._schema.columns)

    # -- writes --------------------------------------------------------------------------------

    def apply(self, mutations: Sequence[Mutation], *, meta: Meta, expect: Meta) -> None:
        """See Storage."""
        with self._database.transaction() as cursor:
            ledger = Ledger(cursor, meta, expect, {mutation.partition for mutation in mutations})
            columns = self._schema.columns.draft()
            batch = DocumentBatch(cursor, columns, mutations)
            batch.write(ledger.take_numbers(batch.new))
            ledger.count(batch.added, batch.cleared)
            ledger.write()
            grew = len(columns) > len(self._schema.columns)
            self._database.commit(cursor, schema_changed=(lambda: self._use(columns)) if grew else None)
        self._give_space_back(batch.rewritten)

    def _use(self, columns: Columns) -> None:
        self._schema = Schema(columns)

    def _give_space_back(self, rewritten: int) -> None:
        self._rewritten += rewritten
        if self._rewritten >= _SPARE_ROWS and self._rewritten >= self.count() and self._database.checkpoint():
            self._rewritten = 0
        beyond = self._database.commits - _MOST_COMMITS
        if beyond >= 0 and beyond % _BETWEEN_TRIES == 0:
            self._database.renew()

    def close(self) -> None:
        """See Storage."""
        self._database.close()


def _create(root: Connection) -> None:
    root.execute("BEGIN TRANSACTION")
    root.execute("CREATE SCHEMA ikv")
    root.execute("CREATE TABLE ikv.meta (k BLOB, v BLOB)")
    root.execute("CREATE TABLE ikv.columns (position INTEGER, name VARCHAR, type UTINYINT)")
    root.execute("CREATE TABLE ikv.rows (p USMALLINT, k BLOB, h UBIGINT, born BIGINT, rest BLOB)")
    # Not unique: a row that a reader still sees must not stand in the way of its successor.
    root.execute("CREATE INDEX rows_by_hash ON ikv.rows (h)")
    root.execute(Columns([], 0).view())
    write_format(root)
    root.execute("COMMIT")


def _columns(cursor: Connection, limit: int) -> Columns:
    cursor.execute("SELECT position, name, type FROM ikv.columns ORDER BY position")
    return Columns([Column(position, name, FieldType(kind)) for position, name, kind in cursor.fetchall()], limit)


@hookimpl
def ikv_backend_info() -> BackendInfo:
    return BackendInfo(
        name="duckdb",
        api_version=API_VERSION,
        summary="DuckDB: documents as a table for SQL; one process at a time",
        options=DuckdbOptions,
        durability=Durability.PROCESS_CRASH,  # commits are synced, but a checkpoint overwrites what it still needs
        sharing=Sharing.ONE_PROCESS,
        capabilities=frozenset({"Verify", "Query"}),
    )


@hookimpl
def ikv_open_backend(context: BackendContext) -> DuckdbStorage:
    if context.directory is None:
        raise StorageError("the duckdb backend needs a directory")
    return DuckdbStorage(context.directory, context.options)
