"""Backend `lmdb`, the default: one LMDB environment a generation, shared by processes.

Reads are LMDB's own transactions, pooled by py-lmdb; a commit is one write transaction that first compares what the
core expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb

from ikv_backends._lmdb_environment import CommitFailedError, LmdbEnvironment
from ikv_backends._lmdb_table import close_environment, open_environment
from ikvcore.errors import FencedError, InvalidOptionError, StorageError
from ikvcore.hookspecs import hookimpl
from ikvcore.models import API_VERSION, BackendContext, BackendInfo, Durability, Meta, Sharing, WriteBatch

__all__ = ["LmdbOptions", "LmdbStorage"]

_MAX_KEY_BYTES: Final = 511
_MAX_VALUE_BYTES: Final = 0x7FFFFFFF


@dataclass(frozen=True, kw_only=True)
class LmdbOptions:
    """Options of the lmdb backend."""

    durability: str = "power-loss"
    """"power-loss": commits are synced. "process-crash": the operating system writes them when it likes, which is
    faster; after a power loss the replica may have to be rebuilt from the log.
    """

    def __post_init__(self) -> None:
        if Durability.parse(self.durability) is Durability.NONE:
            raise InvalidOptionError("durability", self.durability, "lmdb offers power-loss and process-crash")


class LmdbStorage:
    """Implements OrderedKeyValue in one directory."""

    def __init__(self, directory: Path, options: LmdbOptions) -> None:
        sync = options.durability == Durability.POWER_LOSS.word
        self._environment: LmdbEnvironment | None = open_environment(directory, sync=sync)
        self._directory = directory

    def snapshot(self) -> lmdb.Transaction[bytes]:
        environment = self._environment or self._refuse()
        try:
            return environment.begin()
        except lmdb.Error:
            return environment.begin_read()

    def get_many(self, snapshot: lmdb.Transaction[bytes], keys: Sequence[bytes], /) -> list[bytes | None]:
        get = snapshot.get
        try:
            return [get(key) for key in keys]
        except lmdb.Error as exc:
            raise (self._environment or self._refuse()).failure("read", exc) from exc

    def scan(
        self, snapshot: lmdb.Transaction[bytes], start: bytes, stop: bytes | None, /
    ) -> Iterator[tuple[bytes, bytes]]:
        try:
            with snapshot.cursor() as cursor:
                if not cursor.set_range(start):
                    return
                for key, value in cursor.iternext():
                    if stop is not None and key >= stop:
                        return
                    yield key, value
        except lmdb.Error as exc:
            raise (self._environment or self._refuse()).failure("read", exc) from exc

    def commit(self, batch: WriteBatch, /, *, expect: Meta) -> None:
        environment = self._environment or self._refuse()
        try:
            fenced = environment.write(lambda txn: _change(txn, batch, expect))
        except CommitFailedError as exc:
            raise environment.failure("written", exc.__cause__) from exc.__cause__
        except lmdb.Error as exc:
            raise environment.failure("written", exc) from exc
        if fenced is not None:
            raise fenced

    def verify(self) -> list[str]:
        """See Verify: the pages; what the entries say is for the core to know."""
        return (self._environment or self._refuse()).check_pages()

    def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            close_environment(environment)

    def _refuse(self) -> LmdbEnvironment:
        raise StorageError(f"the replica at {self._directory} is closed")


def _change(txn: lmdb.Transaction[bytes], batch: WriteBatch, expect: Meta) -> FencedError | None:
    """Carry out a batch; or change nothing, and return the error that says why."""
    for key, wanted in expect.items():
        found = txn.get(key)
        if found != wanted:
            return FencedError(wanted, found)
    for start, stop in batch.ranges:
        _delete_range(txn, start, stop)
    for key in batch.deletes:
        txn.delete(key)
    # In key order neighbouring records share pages that are already in the transaction.
    txn.cursor().putmulti(sorted(batch.puts.items()))
    return None


def _delete_range(txn: lmdb.Transaction[bytes], start: bytes, stop: bytes) -> None:
    with txn.cursor() as cursor:
        found = cursor.set_range(start)
        while found and cursor.key() < stop:
            found = cursor.delete() and bool(cursor.key())


@hookimpl
def ikv_backend_info() -> BackendInfo:
    return BackendInfo(
        name="lmdb",
        api_version=API_VERSION,
        summary="LMDB: the default; fastest single reads, shared by the processes of a host",
        options=LmdbOptions,
        durability=Durability.POWER_LOSS,
        sharing=Sharing.SHARED,
        max_key_bytes=_MAX_KEY_BYTES,
        max_value_bytes=_MAX_VALUE_BYTES,
        capabilities=frozenset({"Verify"}),
    )


@hookimpl
def ikv_open_backend(context: BackendContext) -> LmdbStorage:
    if context.directory is None:
        raise StorageError("the lmdb backend needs a directory")
    return LmdbStorage(context.directory, context.options)
