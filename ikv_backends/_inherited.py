"""Directories that a parent of this process had open in an engine when it forked.

Engines keep tables of what their process has open and locked, and a forked child inherits them: it would believe that
it holds locks which are its parent's. So what was open at a fork is not opened again in the child.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Final, TypeAlias

from ikvcore.errors import ForkedError
from ikvcore.forks import after_fork_in_child

__all__ = ["Key", "OpenDirectories"]

Key: TypeAlias = tuple[int, int]


class OpenDirectories:
    """What one engine has open in this process, by device and inode. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Final[Counter[Key]] = Counter()
        self._inherited: Final[set[Key]] = set()
        after_fork_in_child(self)

    def enter(self, directory: Path) -> Key:
        """Say that `directory` is about to be opened. Raises ForkedError where a parent has it open."""
        status = directory.stat()
        key = (status.st_dev, status.st_ino)
        with self._lock:
            if key in self._inherited:
                raise ForkedError("replica", reopened=True)
            self._open[key] += 1
        return key

    def leave(self, key: Key) -> None:
        """Say that it is closed."""
        with self._lock:
            self._open[key] -= 1

    def forked(self) -> None:
        """See ikvcore.forks."""
        self._lock = threading.Lock()
        self._inherited.update(key for key, users in self._open.items() if users)
        self._open.clear()
