"""Backend `rocksdb`: a log-structured tree, compressed. One process writes, others follow it. Extra `rocksdb`.

A commit is one write batch, after a comparison that nobody else's write can come after: there is one
process that writes, and in it one committer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import rocksdict
from rocksdict import Rdict, RdictIter

from ikv_backends._rocksdb_database import RocksDatabase
from ikv_backends._rocksdb_files import Shape
from ikvcore.errors import FencedError, IKVError, InvalidOptionError, StorageError
from ikvcore.hookspecs import hookimpl
from ikvcore.models import API_VERSION, BackendContext, BackendInfo, Durability, Meta, Sharing, WriteBatch

__all__ = ["RocksdbOptions", "RocksdbStorage"]

_COMPRESSIONS: Final = ("lz4", "zstd", "snappy", "none")
_BLOCK_PAIRS: Final = 256
_BLOCK_BYTES: Final = 1 << 20
_MOST_MEMORY: Final = 1 << 40
"""Beyond a terabyte it is a mistake; RocksDB would take it, up to numbers that Python cannot give it."""


@dataclass(frozen=True, kw_only=True)
class RocksdbOptions:
    """Options of the rocksdb backend."""

    durability: str = "power-loss"
    """"power-loss": commits are synced. "process-crash": the operating system writes them when it likes; after a power
    loss the replica is as it was some commits ago, and goes on from there."""
    compression: str = "lz4"
    """"lz4", "zstd" (smaller, slower), "snappy" or "none": of what is written from now on."""
    buffer_bytes: int = 8 << 20
    """What is gathered in memory before it is written as a table. What lies there is read again from the log whenever
    the files are opened, which takes about 0.1 s for 8 MiB: takeovers and followers wait for it."""
    cache_bytes: int = 64 << 20
    """Memory for blocks that were read, decompressed; in each process."""

    def __post_init__(self) -> None:
        if Durability.parse(self.durability) is Durability.NONE:
            raise InvalidOptionError("durability", self.durability, "rocksdb offers power-loss and process-crash")
        if self.compression not in _COMPRESSIONS:
            raise InvalidOptionError("compression", self.compression, f"use one of {', '.join(_COMPRESSIONS)}")
        for name, least in (("buffer_bytes", 1 << 16), ("cache_bytes", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST_MEMORY:
                raise InvalidOptionError(name, value, f"it is a number of bytes, {least:,} to {_MOST_MEMORY:,}")


class _RocksSnapshot:
    """One state: the last one, until that is about to change; then what an iterator made before it shows.

    rocksdict has snapshots, but iterates over the last state in all of them.
    """

    __slots__ = ("_database", "_id", "_instance", "_iterator", "_left")

    def __init__(self, database: RocksDatabase) -> None:
        self._database = database
        self._iterator: RdictIter | None = None
        self._left = False
        try:
            self._instance, self._id = database.enter(self)
        except IKVError:
            raise
        except Exception as exc:
            raise database.failure("read", exc) from exc

    def __enter__(self) -> _RocksSnapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._database.is_forked:
            self._iterator, self._left = None, True
            self._database.leave(self._instance, self)

    def pin(self, db: Rdict) -> None:
        """Keep the state. Under the database's lock, before it changes; perhaps before `enter` has come back."""
        if self._iterator is None:
            self._iterator = db.iter()

    def id(self) -> int:
        return self._id

    def get(self, key: bytes, /) -> bytes | None:
        value: bytes | None = self._instance.db.get(key)
        # Pinned before a change: whoever is not pinned after having read has read what was before.
        return value if self._iterator is None else self._pinned(self._iterator, key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, aligned."""
        found: list[bytes | None] = self._instance.db.get(list(keys)) or []
        return found if self._iterator is None else [self._pinned(self._iterator, key) for key in keys]

    @staticmethod
    def _pinned(iterator: RdictIter, key: bytes) -> bytes | None:
        iterator.seek(key)
        if iterator.valid():
            value: bytes | None = iterator.value() if iterator.key() == key else None
            return value
        iterator.status()
        return None

    def block(self, start: bytes, stop: bytes | None) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Some pairs from `start` on, and whether they are the last.

        The snapshot's own iterator, given up with it: one that were left over would keep the directory locked.
        """
        if self._left:
            raise StorageError("the snapshot was closed while it was scanned")
        with self._database.lock:
            self.pin(self._instance.db)
        iterator, pairs, size = self._iterator, list[tuple[bytes, bytes]](), 0
        assert iterator is not None
        iterator.seek(start)
        while iterator.valid():
            key = iterator.key()
            if stop is not None and key >= stop:
                return pairs, True
            if len(pairs) == _BLOCK_PAIRS or size > _BLOCK_BYTES:
                return pairs, False
            value = iterator.value()
            pairs.append((key, value))
            size += len(value)
            iterator.next()
        iterator.status()  # an error ends the iteration as the last key does
        return pairs, True


class RocksdbStorage:
    """Implements OrderedKeyValue and Follower in one directory."""

    def __init__(self, directory: Path, options: RocksdbOptions, *, follow: bool = False) -> None:
        shape = Shape(
            compression=options.compression,
            buffer_bytes=options.buffer_bytes,
            cache=rocksdict.Cache(options.cache_bytes),
        )
        self._database = RocksDatabase(directory, shape, follow=follow)
        self._write_options = rocksdict.WriteOptions()
        self._write_options.sync = options.durability == Durability.POWER_LOSS.word

    def snapshot(self) -> _RocksSnapshot:
        return _RocksSnapshot(self._database)

    def get_many(self, snapshot: _RocksSnapshot, keys: Sequence[bytes], /) -> list[bytes | None]:
        try:
            return snapshot.get_many(keys)
        except Exception as exc:
            raise self._database.failure("read", exc) from exc

    def scan(self, snapshot: _RocksSnapshot, start: bytes, stop: bytes | None, /) -> Iterator[tuple[bytes, bytes]]:
        last = False
        while not last:
            try:
                pairs, last = snapshot.block(start, stop)
            except Exception as exc:
                raise self._database.failure("read", exc) from exc
            yield from pairs
            if pairs:
                start = pairs[-1][0] + b"\x00"

    def commit(self, batch: WriteBatch, /, *, expect: Meta) -> None:
        def change(db: Rdict) -> Callable[[], None] | FencedError:
            for key, wanted in expect.items():
                found = db.get(key)
                if found != wanted:
                    return FencedError(wanted, found)
            written = _batch(batch)
            return lambda: db.write(written, self._write_options)

        self._database.write(change)

    def catch_up(self) -> None:
        self._database.catch_up()

    def close(self) -> None:
        self._database.close()


def _batch(batch: WriteBatch) -> rocksdict.WriteBatch:
    """In this order: what comes later in a batch wins."""
    written = rocksdict.WriteBatch(raw_mode=True)
    for start, stop in batch.ranges:
        if start < stop:  # RocksDB refuses others, and then all that comes after
            written.delete_range(start, stop)
    for key in batch.deletes:
        written.delete(key)
    for key, value in batch.puts.items():
        written.put(key, value)
    return written


@hookimpl
def ikv_backend_info() -> BackendInfo:
    return BackendInfo(
        name="rocksdb",
        api_version=API_VERSION,
        summary="RocksDB: small on disk and fast to write; one process writes, others follow",
        options=RocksdbOptions,
        durability=Durability.POWER_LOSS,
        sharing=Sharing.FOLLOWERS,
        max_value_bytes=0x7FFFFFFF,
        capabilities=frozenset({"Follower"}),
    )


@hookimpl
def ikv_open_backend(context: BackendContext) -> RocksdbStorage:
    if context.directory is None:
        raise StorageError("the rocksdb backend needs a directory")
    return RocksdbStorage(context.directory, context.options, follow=context.follow)
