"""Who holds the write lock of an SQLite file and was stopped with it; see _writer_watch.py.

The lock is one of the kernel's on a byte of the log's index (-shm), and /proc/locks says whose it is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from ikv_backends._writer_watch import Sight, Stopped, stopped

__all__ = ["SqliteSight"]

_WRITE_LOCK: Final = 120
"""The byte of the index that the writer locks: WAL_WRITE_LOCK of SQLite's wal.c, a part of its file format."""


class SqliteSight(Sight):
    """The looks at the write lock of the file with this index (-shm)."""

    def __init__(self, index: Path) -> None:
        super().__init__(index.parent)
        self._index = index

    def find(self) -> Stopped | None:
        with suppress(OSError, ValueError, LookupError):
            process = _writer(self._index)
            return None if process is None else stopped(process, self._index)
        return None


def _writer(index: Path) -> int | None:
    """Who holds the write lock, by the kernel's table: "1: POSIX ADVISORY WRITE 4711 fd:00:1234 120 120"."""
    inode = str(index.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1:4] == ["POSIX", "ADVISORY", "WRITE"] and words[5].rpartition(":")[2] == inode:
            first, last = int(words[6]), words[7]
            if first <= _WRITE_LOCK and (last == "EOF" or int(last) >= _WRITE_LOCK):
                return int(words[4])
    return None
