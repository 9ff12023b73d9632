"""One RocksDB directory in this process: the instance that is read, what writes, and what RocksDB's errors become.

RocksDB gives its lock up only when nothing of an instance is left, so the open snapshots of each are known, and one
that was replaced is closed by the last of them.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn, Protocol

from rocksdict import DbClosedError, Rdict

from ikv_backends._rocksdb_files import Files, NothingThereError, Shape, open_to_follow, open_to_write
from ikv_backends._rocksdb_forks import process
from ikvcore.errors import ForkedError, IKVError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.forks import after_fork_in_child, leak

__all__ = ["Instance", "RocksDatabase"]

_log = logging.getLogger(__name__)

_LEAVING_SECONDS: Final = 5.0
"""How long users of an instance that has to go are waited for: reads are short."""
_CATCH_UPS: Final = 5_000
"""How often an instance catches up in place: each time adds a line to a log in memory of its own doings."""
_MARGIN: Final = 1 << 20
_LACKING: Final = (os.strerror(errno.ENOENT), "switched to a new MANIFEST")
_FULL: Final = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Pinned(Protocol):
    """A snapshot, as far as its instance knows it."""

    def pin(self, db: Rdict) -> None:
        """Hold this state of `db`: it is about to be changed. Called under the lock that is held while it changes, by
        a thread that may come before the snapshot's own has returned from `enter`."""


class Instance:
    """An open RocksDB, and its open snapshots. `files` is what it shows, None for one that writes."""

    __slots__ = ("catch_ups", "db", "files", "snapshots")

    def __init__(self, db: Rdict, files: Files | None) -> None:
        self.db = db
        self.files = files
        self.snapshots: set[Pinned] = set()
        self.catch_ups = 0

    @property
    def writes(self) -> bool:
        """Whether it is the one that may write."""
        return self.files is None


class RocksDatabase:
    """Thread-safe; in a forked child every call but `close` raises ForkedError."""

    def __init__(self, directory: Path, shape: Shape, *, follow: bool) -> None:
        """Raises StorageError, ReplicaDamagedError, StorageFullError, ForkedError."""
        if process.spoilt:
            raise ForkedError("replica", reopened=True)
        process.used = True
        self._directory = directory
        self._shape = shape
        self._follows = follow
        self.lock = threading.Lock()
        """Held over what is current, its snapshots, and each change of what it shows."""
        self._writing = threading.Lock()
        self._suspect = False
        self._closed = False
        self.is_forked = False
        self._retired: set[Instance] = set()
        self._current: Instance = self._open_follower() if follow else self._open_writer()
        after_fork_in_child(self)

    # -- reading -------------------------------------------------------------------------------

    def enter(self, snapshot: Pinned) -> tuple[Instance, int]:
        """The instance to read, and the number of its last write; `leave` is to be called."""
        if self.is_forked:
            self._refuse()
        with self.lock:
            if self._closed:
                self._refuse()
            instance = self._current
            number = instance.db.latest_sequence_number()
            instance.snapshots.add(snapshot)
        return instance, number

    def leave(self, instance: Instance, snapshot: Pinned) -> None:
        """End a snapshot. Not in a forked child."""
        with self.lock:
            instance.snapshots.discard(snapshot)
            last = not instance.snapshots and instance in self._retired
            if last:
                self._retired.discard(instance)
        if last:
            self._dispose(instance)

    def catch_up(self) -> None:
        """See Follower."""
        if not self._follows:
            return
        if self.is_forked:
            self._refuse()
        with self._writing:
            self._check_open()
            try:
                files = Files.of(self._directory)
                if files != self._current.files and not self._catch_up_in_place(files):
                    self._replace(self._open_follower())
            except OSError as exc:
                raise self.failure("read", exc) from exc

    def _catch_up_in_place(self, files: Files) -> bool:
        """Whether the current instance now shows at least `files`: see _rocksdb_files on when it could not."""
        instance = self._current
        with self.lock:  # nobody enters meanwhile
            known = instance.files
            if (
                known is None
                or instance.snapshots
                or instance.catch_ups == _CATCH_UPS
                or files.manifest != known.manifest
            ):
                return False
            instance.catch_ups += 1
            try:
                instance.db.try_catch_up_with_primary()
            except Exception:  # opening it anew tells what is wrong
                instance.files = Files(frozenset(), frozenset())
                return False
            if Files.of(self._directory).manifest != files.manifest:
                return False
            instance.files = files
        return True

    # -- writing -------------------------------------------------------------------------------

    def write(self, change: Callable[[Rdict], Callable[[], None] | Exception]) -> None:
        """Have `change` look at the last state, alone, and carry out what it returns, or raise that: then nothing has
        changed. An error of RocksDB makes the instance suspect."""
        if self.is_forked:
            self._refuse()
        if self._follows:
            raise StorageError(f"{self._described} is written by another process; this one follows")
        with self._writing:
            self._check_open()
            if self._suspect:
                self._reopen()
            try:
                work = change(self._current.db)
                if isinstance(work, Exception):
                    raise work
                with self.lock:  # nobody enters between the state that is pinned and the next
                    for snapshot in self._current.snapshots:
                        snapshot.pin(self._current.db)
                    work()
            except IKVError:
                raise
            except Exception as exc:
                self._suspect = True
                raise self.failure("written", exc) from exc

    def _reopen(self) -> None:
        """After a failed write RocksDB refuses everything but reads until it is opened anew. Reads go on meanwhile, in
        an instance that follows, and stay there if the disk is full for good."""
        if self._current.writes:
            failed = self._current
            self._replace(self._open_follower())
            self._wait_for_users(failed)
        self._replace(self._open_writer())
        self._suspect = False

    def _wait_for_users(self, instance: Instance) -> None:
        deadline = time.monotonic() + _LEAVING_SECONDS
        while instance in self._retired:
            if time.monotonic() > deadline:
                raise StorageError(f"{self._described} has to be opened anew, but is being read; try again")
            time.sleep(0.001)

    # -- life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close once the reads under way have ended. Idempotent; nothing in a forked child.

        Raises StorageError where what was written could not be brought to the disk; closed it is then too.
        """
        if self.is_forked:
            return
        with self._writing:
            with self.lock:
                if self._closed:
                    return
                self._closed = True
            try:
                if self._current.writes:
                    self._current.db.flush_wal(True)
            except Exception as exc:
                raise self.failure("synced", exc) from exc
            finally:
                self._retire(self._current)
                with suppress(StorageError):
                    self._wait_for_users(self._current)

    def forked(self) -> None:
        """See ikvcore.forks. To free anything of RocksDB here would wait for threads that are gone."""
        self.is_forked = True
        for instance in (self._current, *self._retired):
            for handle in (instance.db, *instance.snapshots):
                leak(handle)

    def _replace(self, following: Instance) -> None:
        with self.lock:
            before, self._current = self._current, following
        self._retire(before)

    def _retire(self, instance: Instance) -> None:
        with self.lock:
            used = bool(instance.snapshots)
            if used:
                self._retired.add(instance)
        if not used:
            self._dispose(instance)

    def _dispose(self, instance: Instance) -> None:
        try:
            instance.db.close()
        except Exception as exc:  # what it could not write it has said before; its lock is given up all the same
            _log.debug("RocksDB said when %s was closed: %s", self._described, exc)

    def _open_writer(self) -> Instance:
        try:
            return Instance(open_to_write(self._directory, self._shape), None)
        except Exception as exc:
            raise self.failure("opened", exc) from exc

    def _open_follower(self) -> Instance:
        try:
            return Instance(*open_to_follow(self._directory, self._shape))
        except NothingThereError as exc:
            if any(self._directory.glob("*.sst")):
                raise ReplicaDamagedError(f"RocksDB's file CURRENT is missing in {self._directory.name}") from exc
            raise StorageError(f"{self._described} was not made yet") from exc
        except Exception as exc:
            raise self.failure("opened", exc) from exc

    def _check_open(self) -> None:
        if self._closed:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self.is_forked:
            raise ForkedError("replica")
        raise StorageError(f"{self._described} is closed")

    @property
    def _described(self) -> str:
        return f"the replica at {str(self._directory)!r}"

    # -- errors --------------------------------------------------------------------------------

    def failure(self, done: str, exc: Exception) -> IKVError:
        """What an error becomes; `done` is what the files could not be. RocksDB's kinds are told by their texts."""
        if isinstance(exc, IKVError):
            return exc
        if isinstance(exc, DbClosedError):
            return StorageError(f"{self._described} is closed")
        text = str(exc)
        if any(word in text for word in _FULL) or (text.startswith("IO error") and self._is_full()):
            return StorageFullError(self._directory, text)
        # What was made and lacks a file now, also after several tries, is not what was written.
        if text.startswith("Corruption") or (done == "opened" and any(word in text for word in _LACKING)):
            return ReplicaDamagedError(f"RocksDB says of {self._directory.name}: {text}")
        return StorageError(f"{self._described} could not be {done}: {text}")

    def _is_full(self) -> bool:
        with suppress(OSError):
            space = os.statvfs(self._directory)
            return space.f_bavail * space.f_frsize < _MARGIN
        return False
