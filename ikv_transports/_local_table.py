"""The logs that this process has open. LMDB allows each once a process, so clients share them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ikv_transports._local_log import DirectoryKey, LocalLog, directory_key
from ikvcore.errors import ForkedError, InvalidOptionError, TransportError
from ikvcore.forks import after_fork_in_child
from ikvcore.models import Durability

__all__ = ["close_log", "open_log"]


class _Table:
    """By device and inode of their directories: one log may be reached by several paths."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[DirectoryKey, LocalLog] = {}
        self._inherited: set[DirectoryKey] = set()
        after_fork_in_child(self)

    def enter(self, directory: Path, identity: str, durability: Durability) -> LocalLog:
        with self._lock, _opened(directory) as directory_fd:
            key = directory_key(directory_fd)
            if key in self._inherited:
                # LMDB's binding remembers the parent's environment, and opening it twice would break its locks.
                raise ForkedError("log", reopened=True)
            log = self._open.get(key)
            if log is None:
                log = self._open[key] = LocalLog(directory, identity, durability, directory_fd)
            elif log.durability is not durability:
                raise InvalidOptionError(
                    "durability",
                    durability.word,
                    f"this process has the log open with {log.durability.word!r}; use one of the two for all of its "
                    "clients",
                )
            log.users += 1
            return log

    def leave(self, log: LocalLog) -> None:
        with self._lock:
            log.users -= 1
            if not log.users:
                self._open = {key: other for key, other in self._open.items() if other is not log}
                log.close()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._inherited |= self._open.keys()
        self._open = {}


_table: Final = _Table()


def open_log(directory: Path, identity: str, durability: Durability) -> LocalLog:
    """The log in an existing directory, opened or shared; pair with close_log.

    Raises TransportError, InvalidOptionError where it is open here with another durability, and ForkedError where a
    parent of this process had it open at the fork.
    """
    return _table.enter(directory, identity, durability)


def close_log(log: LocalLog) -> None:
    """Give up one use of the log; the last one closes it. Nothing in a forked child."""
    if not log.is_forked():
        _table.leave(log)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise TransportError(f"the log at {str(directory)!r} cannot be opened: {exc}") from exc
    try:
        yield fd
    finally:
        os.close(fd)
