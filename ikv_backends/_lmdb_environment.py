"""One LMDB environment a directory and process, shared by whoever opens it there, with LMDB's traps handled.

py-lmdb refuses to open one path twice in a process, LMDB's locks would break if it did, and an environment inherited
over a fork must not be touched. So environments are kept in one table, counted, and given up for good in a forked
child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import lmdb

from ikvcore.errors import ForkedError, IKVError, InvalidOptionError, StorageError, StorageFullError
from ikvcore.forks import after_fork_in_child, leak

__all__ = ["LmdbEnvironment", "close_environment", "open_environment"]

_RESERVE: Final = 1 << 40
"""Address space for one environment: sparse, so that no process has to grow its map while others read."""
_SMALLEST_RESERVE: Final = 1 << 30
_MAX_READERS: Final = 4096
_SPARE_TRANSACTIONS: Final = 64
_NO_SPACE: Final = 4 << 20
"""Below this much free space an I/O error of a commit is taken for a full disk: LMDB does not always tell."""
_ATTEMPTS: Final = 4

T = TypeVar("T")
_Key = tuple[int, int]


class LmdbEnvironment:
    """A counted environment. `error` is the class that driver errors become, `what` what it is called in messages."""

    def __init__(self, directory: Path, *, sync: bool, what: str, error: type[IKVError]) -> None:
        self.directory = directory
        self.sync = sync
        self.users = 0
        self._what = what
        self._error = error
        self._write_lock = threading.Lock()
        self._forked = False
        self._env = self._open()
        self.begin: Callable[[], lmdb.Transaction[bytes]] = self._env.begin
        """LMDB's own method while the environment is usable: reads are too cheap for a call more."""
        after_fork_in_child(self)

    def read(self) -> lmdb.Transaction[bytes]:
        """Begin a read transaction. Slow path for what `begin` can raise."""
        for _ in range(_ATTEMPTS):
            try:
                return self.begin()
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)  # another process grew it: take over its size
            except lmdb.ReadersFullError:
                if not self._env.reader_check():
                    break
            except lmdb.Error as exc:
                raise self.translated(exc) from exc
        raise self._error(f"the {self._what} at {self.directory} cannot be read: all reader slots are taken")

    def write(self, change: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Run `change` in a write transaction and commit it; anything raised inside changes nothing.

        `change` may run again, from the beginning, where the map had to grow.
        """
        if self._forked:
            self._refuse_forked()
        with self._write_lock:
            for _ in range(_ATTEMPTS):
                try:
                    with self._env.begin(write=True) as txn:
                        return change(txn)
                except lmdb.MapResizedError:
                    self._env.set_mapsize(0)
                except lmdb.MapFullError as exc:
                    self._grow(exc)
                except lmdb.Error as exc:
                    # After a failed commit every call fails until the environment is opened anew.
                    failure = self.translated(exc)
                    self._reopen()
                    raise failure from exc
        raise self._error(f"the {self._what} at {self.directory} could not be written: its map keeps changing")

    def translated(self, exc: Exception) -> IKVError:
        """The error that a driver error becomes."""
        if isinstance(exc, lmdb.MapFullError | lmdb.DiskError) or self._free_bytes() < _NO_SPACE:
            return StorageFullError(self.directory, exc)
        return self._error(f"the {self._what} at {self.directory} failed: {type(exc).__name__}: {exc}")

    def last_commit(self) -> int:
        """LMDB's number of the last committed write transaction."""
        return int(self._env.info()["last_txnid"])

    def check_readers(self) -> int:
        """Free the slots of dead readers, whose snapshots keep pages from being used again; how many there were."""
        return self._env.reader_check()

    def close(self) -> None:
        """Close for the process; called by the table when the last user is gone."""
        with self._write_lock:
            self.begin = self._refuse_closed
            self._env.close()

    def forked(self) -> None:
        """See ikvcore.forks: the child touches nothing, and closing would clear the parent's reader slots."""
        self._forked = True
        self.begin = self._refuse_forked
        self._write_lock = threading.Lock()
        leak(self._env)

    def _open(self) -> lmdb.Environment:
        reserve = _RESERVE
        while True:
            try:
                env = lmdb.open(
                    str(self.directory),
                    map_size=reserve,
                    sync=self.sync,
                    metasync=self.sync,
                    mode=0o600,
                    readahead=False,
                    max_readers=_MAX_READERS,
                    max_spare_txns=_SPARE_TRANSACTIONS,
                    lib_version=0,  # data format 1, which every release of py-lmdb reads
                )
            except (lmdb.MemoryError, MemoryError):
                # A limit on address space: take less, and grow when it is needed.
                if reserve <= _SMALLEST_RESERVE:
                    raise
                reserve >>= 2
            except lmdb.Error as exc:
                raise self.translated(exc) from exc
            else:
                env.reader_check()
                return env

    def _reopen(self) -> None:
        self._env.close()
        self.begin = self._refuse_closed
        self._env = self._open()
        self.begin = self._env.begin

    def _grow(self, cause: lmdb.MapFullError) -> None:
        if self._free_bytes() < _NO_SPACE:
            raise StorageFullError(self.directory, cause) from cause
        try:
            self._env.set_mapsize(2 * self._env.info()["map_size"])
        except (lmdb.Error, OverflowError) as exc:
            raise StorageFullError(self.directory, exc) from exc

    def _free_bytes(self) -> int:
        try:
            space = os.statvfs(self.directory)
        except OSError:
            return _NO_SPACE  # the directory is gone: no reason to speak of space
        return space.f_bavail * space.f_frsize

    def _refuse_closed(self) -> NoReturn:
        raise self._error(f"the {self._what} at {self.directory} is closed")

    def _refuse_forked(self) -> NoReturn:
        raise ForkedError(self._what)


class _Table:
    """The environments of this process, by device and inode of their directories."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, LmdbEnvironment] = {}
        self._inherited: set[_Key] = set()
        after_fork_in_child(self)

    def enter(self, directory: Path, *, sync: bool, what: str, error: type[IKVError]) -> LmdbEnvironment:
        status = directory.stat()
        key = (status.st_dev, status.st_ino)
        with self._lock:
            if key in self._inherited:
                raise ForkedError(what, reopened=True)
            environment = self._open.get(key)
            if environment is None:
                environment = LmdbEnvironment(directory, sync=sync, what=what, error=error)
                self._open[key] = environment
            elif environment.sync != sync:
                words = {True: "power-loss", False: "process-crash"}
                raise InvalidOptionError(
                    "durability",
                    words[sync],
                    f"the {what} at {directory} is open in this process with {words[environment.sync]!r}; "
                    "one process uses one durability for it",
                )
            environment.users += 1
            return environment

    def leave(self, environment: LmdbEnvironment) -> None:
        with self._lock:
            environment.users -= 1
            if environment.users:
                return
            for key, other in list(self._open.items()):
                if other is environment:
                    del self._open[key]
                    environment.close()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._inherited |= self._open.keys()
        self._open = {}


_table = _Table()


def open_environment(
    directory: Path, *, sync: bool, what: str, error: type[IKVError] = StorageError
) -> LmdbEnvironment:
    """The environment of an existing directory, opened or shared. Pair with close_environment.

    Raises `error`, StorageFullError, InvalidOptionError (open here with another durability), and ForkedError where a
    parent of this process had it open when it forked: LMDB cannot open it again then.
    """
    return _table.enter(directory, sync=sync, what=what, error=error)


def close_environment(environment: LmdbEnvironment) -> None:
    """Give up one use; the last one closes."""
    _table.leave(environment)
