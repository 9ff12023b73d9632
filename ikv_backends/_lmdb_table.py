"""The replicas' LMDB environments that this process has open: LMDB allows each once, so its users share it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final, TypeAlias

from ikv_backends._lmdb_environment import LmdbEnvironment
from ikvcore.errors import ForkedError, InvalidOptionError, ReplicaDamagedError, StorageError
from ikvcore.forks import after_fork_in_child

__all__ = ["close_environment", "open_environment"]

_Key: TypeAlias = tuple[int, int]


class _Table:
    """The environments of this process, by device and inode of their directories, and how many use each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, LmdbEnvironment] = {}
        self._users: dict[_Key, int] = {}
        self._inherited: set[_Key] = set()
        after_fork_in_child(self)

    def enter(self, directory: Path, *, sync: bool) -> LmdbEnvironment:
        status = directory.stat()
        key = (status.st_dev, status.st_ino)
        with self._lock:
            if key in self._inherited:
                # LMDB's binding remembers the parent's environment, and opening it twice would break its locks.
                raise ForkedError("replica", reopened=True)
            environment = self._open.get(key)
            if environment is None:
                environment = LmdbEnvironment(
                    directory,
                    sync=sync,
                    create=True,
                    what="replica",
                    error=StorageError,
                    damaged=ReplicaDamagedError,
                )
                self._open[key] = environment
            elif environment.sync != sync:
                words = {True: "power-loss", False: "process-crash"}
                raise InvalidOptionError(
                    "durability",
                    words[sync],
                    f"this process has the replica at {str(directory)!r} open with {words[environment.sync]!r}; use "
                    "one of the two for all of its clients",
                )
            self._users[key] = self._users.get(key, 0) + 1
            return environment

    def leave(self, environment: LmdbEnvironment) -> None:
        with self._lock:
            for key, other in list(self._open.items()):
                if other is environment:
                    self._users[key] -= 1
                    if not self._users[key]:
                        del self._open[key], self._users[key]
                        environment.close()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._inherited |= self._open.keys()
        self._open, self._users = {}, {}


_table: Final = _Table()


def open_environment(directory: Path, *, sync: bool) -> LmdbEnvironment:
    """A replica's environment in an existing directory, made if it is empty, or shared. Pair with close_environment.

    Raises StorageError, StorageFullError, InvalidOptionError (open here with another durability), and ForkedError
    where a parent of this process had it open when it forked.
    """
    return _table.enter(directory, sync=sync)


def close_environment(environment: LmdbEnvironment) -> None:
    """Give up one use; the last one closes. Nothing in a forked child."""
    if not environment.is_forked:
        _table.leave(environment)
