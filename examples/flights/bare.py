"""The engines themselves, with nothing above them: what the demo compares a reader with.

Each keeps a document as one value of JSON, which is not decoded when it is read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["BARE", "Bare"]

Documents = Iterable[tuple[bytes, bytes]]

_TABLE = "CREATE TABLE documents (id BLOB PRIMARY KEY, document BLOB)"
_INSERT = "INSERT INTO documents VALUES (?, ?)"
_GET = "SELECT document FROM documents WHERE id = ?"
_GET_MANY = "SELECT id, document FROM documents WHERE id IN ({})"


class Bare(NamedTuple):
    """An engine that holds documents."""

    name: str
    get: Callable[[bytes], Any]
    get_many: Callable[[Sequence[bytes]], Any]
    close: Callable[[], Any]


def bare_lmdb(directory: Path, documents: Documents) -> Bare:
    """Each read, of one or of many, is a transaction."""
    import lmdb

    environment = lmdb.open(str(directory / "lmdb"), map_size=1 << 33, sync=False)
    with environment.begin(write=True) as transaction:
        for key, document in documents:
            transaction.put(key, document)

    def get(key: bytes) -> bytes | None:
        with environment.begin() as transaction:
            return transaction.get(key)

    def get_many(keys: Sequence[bytes]) -> list[bytes | None]:
        with environment.begin() as transaction:
            return [transaction.get(key) for key in keys]

    return Bare("LMDB", get, get_many, environment.close)


def bare_rocksdb(directory: Path, documents: Documents) -> Bare:
    """With the binding's own settings."""
    from rocksdict import Options, Rdict

    database = Rdict(str(directory / "rocksdb"), Options(raw_mode=True))
    for key, document in documents:
        database[key] = document
    database.flush()
    return Bare("RocksDB", database.get, lambda keys: database.get(list(keys)), database.close)


def bare_sqlite(directory: Path, documents: Documents) -> Bare:
    """One connection, in the write-ahead-log mode."""
    connection = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(_TABLE)
    connection.execute("BEGIN")
    connection.executemany(_INSERT, documents)
    connection.execute("COMMIT")

    def get(key: bytes) -> Any:
        return connection.execute(_GET, [key]).fetchone()

    def get_many(keys: Sequence[bytes]) -> Any:
        return connection.execute(_GET_MANY.format(",".join("?" * len(keys))), keys).fetchall()

    return Bare("SQLite", get, get_many, connection.close)


def bare_duckdb(directory: Path, documents: Documents) -> Bare:
    """Two threads, as the backend has by default."""
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect(str(directory / "bare.duckdb"), config={"threads": 2})
    connection.execute(_TABLE)
    keys, values = zip(*documents, strict=True)
    connection.register("given", pa.table({"id": pa.array(keys), "document": pa.array(values)}))
    connection.execute("INSERT INTO documents SELECT * FROM given")
    connection.unregister("given")

    def get(key: bytes) -> Any:
        return connection.execute(_GET, [key]).fetchone()

    def get_many(keys: Sequence[bytes]) -> Any:
        return connection.execute(_GET_MANY.format(",".join("?" * len(keys))), keys).fetchall()

    return Bare("DuckDB", get, get_many, connection.close)


def bare_memory(_directory: Path, documents: Documents) -> Bare:
    """A dictionary."""
    kept = dict(documents)
    return Bare("dict", kept.get, lambda keys: [kept.get(key) for key in keys], kept.clear)


BARE: dict[str, Callable[[Path, Documents], Bare]] = {
    "duckdb": bare_duckdb,
    "lmdb": bare_lmdb,
    "memory": bare_memory,
    "rocksdb": bare_rocksdb,
    "sqlite": bare_sqlite,
}
"""By the name of the backend."""
