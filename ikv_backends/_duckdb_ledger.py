"""What stands beside the documents: the core's metadata, and how many documents each partition holds.

One table of keys and values. By first byte of its key: `m` is the core's, `c` a partition's count and the sum of its
keys' hashes (mod 2^64), `n` the number of the next new document, `f` the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ikv_backends._duckdb_database import Connection
from ikvcore.errors import FencedError, FormatVersionError, ReplicaDamagedError
from ikvcore.models import Meta

__all__ = ["Ledger", "check_format", "read_counts", "read_meta", "scan_meta", "write_format"]

_META: Final = b"m"
_COUNT: Final = b"c"
_NEXT: Final = b"n"
_FORMAT: Final = b"f"
_VERSION: Final = 1
_COUNTS: Final = struct.Struct("<QQ")
_WRAP: Final = 1 << 64


class Ledger:
    """The entries that one commit reads and writes."""

    def __init__(self, cursor: Connection, meta: Meta, expect: Meta, partitions: Iterable[int]) -> None:
        """Raises FencedError where `expect` is not what stands."""
        self._cursor = cursor
        keys = {_META + key for key in (*meta, *expect)} | {_count_key(partition) for partition in partitions} | {_NEXT}
        self._stored = _read(cursor, keys)
        for key, wanted in expect.items():
            found = self._stored.get(_META + key)
            if found != wanted:
                raise FencedError(wanted, found)
        self._changed: dict[bytes, bytes | None] = {_META + key: value for key, value in meta.items()}

    def take_numbers(self, count: int) -> int:
        """The first of `count` numbers that nothing else has."""
        first = int.from_bytes(self._stored.get(_NEXT, b""), "little")
        if count:
            self._changed[_NEXT] = (first + count).to_bytes(8, "little")
        return first

    def count(self, added: Mapping[int, tuple[int, int]], cleared: set[int]) -> None:
        """Note how partitions grew; see DocumentBatch.added."""
        for partition, (documents, total) in added.items():
            key = _count_key(partition)
            stored = None if partition in cleared else self._stored.get(key)
            before = (0, 0) if stored is None else _COUNTS.unpack(stored)
            self._changed[key] = _COUNTS.pack(before[0] + documents, (before[1] + total) % _WRAP)

    def write(self) -> None:
        """Change the table."""
        updates = {key: value for key, value in self._changed.items() if value is not None and key in self._stored}
        inserts = {key: value for key, value in self._changed.items() if value is not None and key not in self._stored}
        deletes = [key for key, value in self._changed.items() if value is None and key in self._stored]
        if updates:
            self._cursor.execute(
                f"UPDATE ikv.meta SET v = new.v FROM (VALUES {_pairs(updates)}) AS new(k, v) WHERE meta.k = new.k",
                _flat(updates),
            )
        if deletes:
            self._cursor.execute(f"DELETE FROM ikv.meta WHERE k IN ({_marks(deletes)})", deletes)
        if inserts:
            self._cursor.execute(f"INSERT INTO ikv.meta VALUES {_pairs(inserts)}", _flat(inserts))


def read_meta(cursor: Connection, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """The core's entries among `keys`."""
    found = _read(cursor, {_META + key for key in keys})
    return {key[1:]: value for key, value in found.items()}


def scan_meta(cursor: Connection, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """The core's entries whose key begins with `prefix`, ascending."""
    return [(key[1:], value) for key, value in _scan(cursor, _META + prefix)]


def read_counts(cursor: Connection) -> dict[int, tuple[int, int]]:
    """Documents, and sum of their keys' hashes, by partition."""
    return {int.from_bytes(key[1:], "big"): _COUNTS.unpack(value) for key, value in _scan(cursor, _COUNT)}


def write_format(cursor: Connection) -> None:
    """Note the format of a new file."""
    cursor.execute("INSERT INTO ikv.meta VALUES (?, ?)", [_FORMAT, b"%d" % _VERSION])


def check_format(cursor: Connection, directory: Path) -> None:
    """Raises FormatVersionError, ReplicaDamagedError."""
    found = _read(cursor, {_FORMAT}).get(_FORMAT, b"")
    if not found.isdigit():
        raise ReplicaDamagedError("its file does not say which format it has")
    if int(found) > _VERSION:
        raise FormatVersionError(directory, int(found), _VERSION)


def _read(cursor: Connection, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    keys = list(keys)
    if not keys:
        return {}
    cursor.execute(f"SELECT k, v FROM ikv.meta WHERE k IN ({_marks(keys)})", keys)
    return dict(cursor.fetchall())


def _scan(cursor: Connection, prefix: bytes) -> list[tuple[bytes, bytes]]:
    # From the prefix to the next first byte: few entries are left to look at here.
    stop = bytes([prefix[0] + 1])
    cursor.execute("SELECT k, v FROM ikv.meta WHERE k >= ? AND k < ? ORDER BY k", [prefix, stop])
    return [(key, value) for key, value in cursor.fetchall() if key.startswith(prefix)]


def _count_key(partition: int) -> bytes:
    return _COUNT + partition.to_bytes(2, "big")


def _marks(keys: Iterable[bytes]) -> str:
    return ", ".join("?" for _ in keys)


def _pairs(entries: Mapping[bytes, bytes]) -> str:
    return ", ".join("(?::BLOB, ?::BLOB)" for _ in entries)


def _flat(entries: Mapping[bytes, bytes]) -> list[bytes]:
    return [each for entry in entries.items() for each in entry]
