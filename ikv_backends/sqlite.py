"""Backend `sqlite`: one table of bytes in an SQLite file, shared by processes. It needs the standard library alone.

A snapshot is a read transaction of the write-ahead log; a commit is one write transaction that first compares what the
core expects.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from ikv_backends._sqlite_database import SqliteDatabase
from ikvcore.errors import FencedError, InvalidOptionError, StorageError
from ikvcore.hookspecs import hookimpl
from ikvcore.models import API_VERSION, BackendContext, BackendInfo, Durability, Meta, Sharing, WriteBatch

__all__ = ["SqliteOptions", "SqliteStorage"]

_MAX_VALUE_BYTES: Final = 1_000_000_000 - 65_540 - 64
"""SQLite's limit is of a row: the key, the value, and a few bytes that say how long they are."""
_MOST_AT_ONCE: Final = 256

_GET: Final = "SELECT value FROM entries WHERE key = ?"
_NUMBER: Final = "SELECT number FROM commits"


@dataclass(frozen=True, kw_only=True)
class SqliteOptions:
    """Options of the sqlite backend."""

    durability: str = "power-loss"
    """"power-loss": commits are synced. "process-crash": the log is synced now and then; after a power loss the replica
    is as it was some commits ago, and goes on from there."""

    def __post_init__(self) -> None:
        if Durability.parse(self.durability) is Durability.NONE:
            raise InvalidOptionError("durability", self.durability, "sqlite offers power-loss and process-crash")


class _SqliteSnapshot:
    """A read transaction. The number of the last commit is its first read, which decides the state."""

    __slots__ = ("_cursors", "_database", "_number", "connection")

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self.connection = database.lend()
        self._cursors: list[sqlite3.Cursor] = []
        try:
            self._number: int = self.connection.execute(_NUMBER).fetchone()[0]
        except sqlite3.Error as exc:
            database.take_back(self.connection)
            raise database.failure("read", exc) from exc

    def __enter__(self) -> _SqliteSnapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An iterator that an exception's traceback keeps alive would hold its transaction open beyond our rollback, and
        # the connection's next reader would see this old state.
        self._database.take_back(self.connection, self._cursors)

    def get(self, key: bytes, /) -> bytes | None:
        row = self.connection.execute(_GET, (key,)).fetchone()
        return None if row is None else row[0]

    def id(self) -> int:
        return self._number

    def cursor(self, query: str, values: Sequence[bytes]) -> sqlite3.Cursor:
        """The rows of a query, to be read while the snapshot is open."""
        cursor = self.connection.execute(query, values)
        self._cursors.append(cursor)
        return cursor


class SqliteStorage:
    """Implements OrderedKeyValue in one directory."""

    def __init__(self, directory: Path, options: SqliteOptions) -> None:
        self._database = SqliteDatabase(directory, sync=options.durability == Durability.POWER_LOSS.word)

    def snapshot(self) -> _SqliteSnapshot:
        return _SqliteSnapshot(self._database)

    def get_many(self, snapshot: _SqliteSnapshot, keys: Sequence[bytes], /) -> list[bytes | None]:
        try:
            if len(keys) == 1:
                return [snapshot.get(keys[0])]
            found: dict[bytes, bytes] = {}
            for first in range(0, len(keys), _MOST_AT_ONCE):
                found.update(_many(snapshot.connection, keys[first : first + _MOST_AT_ONCE]))
        except sqlite3.Error as exc:
            raise self._database.failure("read", exc) from exc
        return [found.get(key) for key in keys]

    def scan(self, snapshot: _SqliteSnapshot, start: bytes, stop: bytes | None, /) -> Iterator[tuple[bytes, bytes]]:
        until, bounds = ("", (start,)) if stop is None else ("AND key < ?", (start, stop))
        try:
            yield from snapshot.cursor(
                f"SELECT key, value FROM entries WHERE key >= ? {until} ORDER BY key",  # noqa: S608  no input in it
                bounds,
            )
        except sqlite3.Error as exc:
            raise self._database.failure("read", exc) from exc

    def commit(self, batch: WriteBatch, /, *, expect: Meta) -> None:
        with self._database.write() as connection:
            for key, wanted in expect.items():
                row = connection.execute(_GET, (key,)).fetchone()
                if (row and row[0]) != wanted:
                    raise FencedError(wanted, row and row[0])
            connection.executemany("DELETE FROM entries WHERE key >= ? AND key < ?", batch.ranges)
            connection.executemany("DELETE FROM entries WHERE key = ?", ((key,) for key in batch.deletes))
            # In key order neighbouring records share pages that were changed already.
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", sorted(batch.puts.items()))
            connection.execute("UPDATE commits SET number = number + 1")

    def verify(self) -> list[str]:
        """See Verify: SQLite's own check of its pages; what the entries say is for the core to know."""
        with self.snapshot() as snapshot:
            try:
                rows = snapshot.connection.execute("PRAGMA integrity_check(10)").fetchall()
            except sqlite3.Error as exc:
                return [str(self._database.failure("read", exc))]
        return [f"SQLite's integrity check: {found}" for (found,) in rows if found != "ok"]

    def close(self) -> None:
        self._database.close()


def _many(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of some keys. One statement for all of them costs a third of one for each."""
    # Few lengths, so that their statements stay prepared: the last key stands for those that are missing.
    places = 1 << (len(keys) - 1).bit_length()
    marks = ",".join("?" * places)
    query = f"SELECT key, value FROM entries WHERE key IN ({marks})"  # noqa: S608  marks only
    return connection.execute(query, (*keys, *[keys[-1]] * (places - len(keys))))


@hookimpl
def ikv_backend_info() -> BackendInfo:
    return BackendInfo(
        name="sqlite",
        api_version=API_VERSION,
        summary="SQLite: the standard library alone; shared by the processes of a host",
        options=SqliteOptions,
        durability=Durability.POWER_LOSS,
        sharing=Sharing.SHARED,
        max_value_bytes=_MAX_VALUE_BYTES,
        capabilities=frozenset({"Verify"}),
    )


@hookimpl
def ikv_open_backend(context: BackendContext) -> SqliteStorage:
    if context.directory is None:
        raise StorageError("the sqlite backend needs a directory")
    return SqliteStorage(context.directory, context.options)
