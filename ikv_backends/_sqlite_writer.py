"""Who holds the write lock of an SQLite file and was stopped in its transaction (SIGSTOP, a debugger).

SQLite's write lock is a lock of the kernel's on a byte of the log's index. The kernel gives it up for a process that
dies, never for one that is stopped. It is looked for in /proc/locks by the thread that looks after LMDB's environments,
under the same rule: see _lmdb_writer.py.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from ikv_backends._lmdb_maps import mapping
from ikv_backends._lmdb_writer import Sight, Stopped

__all__ = ["SqliteSight"]

_WRITE_LOCK: Final = 120
"""The byte of the index that the writer locks: WAL_WRITE_LOCK of SQLite's wal.c, a part of its file format."""


class SqliteSight(Sight):
    """The looks at the write lock of the file with this index (-shm)."""

    possible: ClassVar[bool] = True

    def __init__(self, index: Path) -> None:
        super().__init__(index.parent)
        self._index = index

    def _find(self) -> Stopped | None:
        with suppress(OSError, ValueError, LookupError):
            return _stopped_writer(self._index)
        return None


def _stopped_writer(index: Path) -> Stopped | None:
    process = _writer(index)
    if process is None or process == os.getpid():
        return None
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # A number from another pid namespace may be anybody's here: it has to be somebody who has this file mapped.
    if status["State"][0] not in "Tt" or mapping(process, index) is None:
        return None
    switches = int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])
    return Stopped(process, process, switches)


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
