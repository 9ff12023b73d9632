"""One store's log: appended to in commits that callers share, read by partition and position."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import lmdb

from ikv_backends._lmdb_environment import CommitFailedError, LmdbEnvironment, Transaction
from ikv_transports._local_commits import Request, SharedCommits
from ikv_transports._local_entries import (
    IDENTITY_KEY,
    Entry,
    decode,
    entry_key,
    find_end,
    find_first,
)
from ikv_transports._local_followers import ring_all
from ikv_transports._local_opened import UnsyncedWrites, check_suspect
from ikvcore.errors import IKVError, OutcomeUnknownError, TransportError
from ikvcore.models import Bounds, Durability, LogMessage

__all__ = ["DirectoryKey", "LocalLog", "Taken", "directory_key"]

DirectoryKey: TypeAlias = tuple[int, int]
"""Device and inode."""


class Taken(NamedTuple):
    """What one read brought."""

    messages: list[LogMessage]
    reached: dict[int, int]
    """Partitions that moved, with the position after the last message taken."""
    commit: int | None
    """The commit that was read to its end for every partition asked for; None where more was there."""


class LocalLog:
    """Thread-safe. `users` is the table's count of who shares it."""

    def __init__(self, directory: Path, identity: str, durability: Durability, directory_fd: int) -> None:
        self.durability = durability
        self.users = 0
        self._directory = directory
        self.followers: Final = directory.parent / "followers"
        """The directory of the followers' FIFOs."""
        self._commits = SharedCommits(self._commit)
        check_suspect(directory, identity, directory_fd)
        self._engine = LmdbEnvironment(
            directory, sync=durability is Durability.POWER_LOSS, create=False, what="log", error=TransportError
        )
        self._check_identity(identity)
        self._key = directory_key(directory_fd)
        # Held open, so that its inode number is not given to the directory of a store that is created later.
        self._directory_fd = os.dup(directory_fd)
        self._unsynced = UnsyncedWrites(directory.parent, self._directory_fd)

    # -- appending -----------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> dict[int, int]:
        """Append `entries` in one commit, and give the position after the last one of each partition."""
        self.check()
        return self._commits.append(entries)

    def _commit(self, batch: list[Request]) -> IKVError | None:
        """Commit `batch`; what its callers are to raise if that failed."""
        needed = sum(request.size for request in batch)
        puts: list[tuple[bytes, bytes]] = []
        try:
            self.check_in_place()
            if not self._engine.sync:
                self._unsynced.begin()
            self._engine.write(lambda txn: _put(txn, batch, puts))
        except CommitFailedError as exc:
            return self._after_failed_commit(puts[0], exc.__cause__, needed)
        except lmdb.Error as exc:
            return _caused(self._engine.failure("written", exc, needed), exc)
        except IKVError as exc:
            return exc
        except OSError as exc:
            return _caused(self._engine.failure("marked as being written", exc), exc)
        ring_all(self.followers)
        return None

    def _after_failed_commit(self, first: tuple[bytes, bytes], cause: BaseException | None, needed: int) -> IKVError:
        """Look up, in an environment opened anew, whether the commit took effect after all."""
        with suppress(IKVError), self._engine.read() as txn:
            if txn.get(first[0]) != first[1]:
                return _caused(self._engine.failure("written", cause, needed), cause)
        unknown = f"the log at {str(self._directory)!r} may or may not hold these events durably: {cause}"
        return _caused(OutcomeUnknownError(unknown), cause)

    # -- reading -------------------------------------------------------------------------------

    def take(
        self, positions: Mapping[int, int], *, max_messages: int, max_bytes: int, unless: int | None = None
    ) -> Taken:
        """Read on from `positions`, partitions in that order, in one state; nothing where `unless` is its commit.

        At least one message is taken where there is one. Raises TransportError where the first one is damaged.
        """
        messages: list[LogMessage] = []
        reached: dict[int, int] = {}
        room = max_bytes
        with self._engine.read() as txn:
            commit = txn.id()
            if commit == unless:
                return Taken(messages, reached, commit)
            cursor = txn.cursor()
            for partition, start in positions.items():
                for key, stored in _entries_from(cursor, partition, start):
                    room -= len(stored)
                    if messages and (room < 0 or len(messages) >= max_messages):
                        return Taken(messages, reached, None)
                    try:
                        message = decode(key, stored, expected=start)
                    except TransportError:
                        if messages:  # what came before is right; the next read meets the damage first
                            return Taken(messages, reached, None)
                        raise
                    messages.append(message)
                    reached[partition] = start = message.position + 1
        return Taken(messages, reached, commit)

    def message_at(self, partition: int, position: int) -> LogMessage | None:
        """The message at exactly this position."""
        key = entry_key(partition, position)
        with self._engine.read() as txn:
            stored = txn.get(key)
        return None if stored is None else decode(key, stored, expected=position)

    def bounds(self, partitions: int) -> dict[int, Bounds]:
        """The bounds of all partitions, in one state."""
        with self._engine.read() as txn:
            cursor = txn.cursor()
            return {partition: _bounds(cursor, partition) for partition in range(partitions)}

    def size(self) -> int:
        """Bytes of the log's file."""
        self.check()
        return self._engine.size()

    def last_commit(self) -> int:
        """The engine's number of the last commit."""
        return self._engine.last_commit()

    # -- life ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ForkedError in a child of the process that opened the log."""
        self._engine.check()

    def is_forked(self) -> bool:
        """Whether `check` would raise: then closing is not for this process to do."""
        return self._engine.is_forked

    def check_in_place(self) -> None:
        """Raise TransportError if the store was deleted: its directory, or its file, is then no longer this one."""
        try:
            status = self._directory.stat()
            if (status.st_dev, status.st_ino) == self._key:
                self._engine.check_file()
                return
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise TransportError(f"the log at {str(self._directory)!r} cannot be reached: {exc}") from exc
        raise TransportError(f"the store of the log at {str(self._directory)!r} was deleted, and the log with it")

    def close(self) -> None:
        """Called by the table when the last user is gone."""
        self._unsynced.end(self._engine.bring_to_disk)
        self._engine.close()
        os.close(self._directory_fd)

    def _check_identity(self, identity: str) -> None:
        try:
            with self._engine.read() as txn:
                found = txn.get(IDENTITY_KEY)
            if found != identity.encode():
                raise TransportError(
                    f"the log at {str(self._directory)!r} is not that of its store: its identity is {found!r}, the "
                    f"store's is {identity!r}; restore both from one copy"
                )
        except BaseException:
            self._engine.close()
            raise


def directory_key(fd: int) -> DirectoryKey:
    """What tells an open directory from any other, whatever its path."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _put(txn: Transaction, batch: list[Request], puts: list[tuple[bytes, bytes]]) -> None:
    """Give the entries of `batch` their positions and put them; `puts` is what was put."""
    cursor = txn.cursor()
    ends: dict[int, int] = {}
    for request in batch:
        for entry in request.entries:
            position = ends.get(entry.partition)
            if position is None:
                position = find_end(cursor, entry.partition)
            puts.append(entry.at(position))
            ends[entry.partition] = request.reached[entry.partition] = position + 1
    _, added = cursor.putmulti(puts, overwrite=False)
    if added != len(puts):
        raise TransportError("the log is damaged: a position after its end is taken; restore it from a copy")


def _entries_from(cursor: lmdb.Cursor[bytes], partition: int, position: int) -> Iterator[tuple[bytes, bytes]]:
    """A partition's entries as they are stored, from a position on."""
    if cursor.set_range(entry_key(partition, position)):
        stop = entry_key(partition + 1, 0)
        for key, stored in cursor:
            if key >= stop:
                return
            yield key, stored


def _bounds(cursor: lmdb.Cursor[bytes], partition: int) -> Bounds:
    # Nothing is trimmed yet; if something ever was, a replica has to know.
    end = find_end(cursor, partition)
    first = find_first(cursor, partition) or 0
    return Bounds(first, end, complete=first == 0)


def _caused(error: IKVError, cause: BaseException | None) -> IKVError:
    error.__cause__ = cause
    return error
