"""Frees an SQLite file whose write transaction belongs to a process that was stopped (SIGSTOP, a debugger).

SQLite's write lock is a lock of the kernel's on a byte of the log's index. The kernel gives it up for a process that
dies, never for one that is stopped. Who cannot begin to write for five seconds looks in /proc who holds it, and kills
that process if, and only if, it is stopped. As for LMDB (_lmdb_writer.py), but without a thread that watches: SQLite
itself stops waiting.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ikv_backends._lmdb_maps import mapping

__all__ = ["free_from_stopped_writer"]

_log = logging.getLogger(__name__)

_WRITE_LOCK: Final = 120
"""The byte of the index that the writer locks: WAL_WRITE_LOCK of SQLite's wal.c, a part of its file format."""
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at a process before it is killed: a tracer stops one for moments, at every system call."""


def free_from_stopped_writer(index: Path) -> int | None:
    """Kill the process in the write transaction of the file with this -shm file if it is stopped; its id, or None."""
    with suppress(OSError, ValueError, LookupError):
        stopped = _stopped_writer(index)
        if stopped is None:
            return None
        time.sleep(_LOOK_AGAIN)
        if _stopped_writer(index) != stopped:
            return None  # it goes on
        process = stopped[0]
        os.kill(process, signal.SIGKILL)
        _log.error(
            "process %d was stopped inside a write of %s, which kept everybody else from writing, and was killed",
            process,
            index.parent,
        )
        return process
    return None


def _stopped_writer(index: Path) -> tuple[int, ...] | None:
    """The process in the write transaction if it is stopped, and how often it has run until now."""
    process = _writer(index)
    if process is None or process == os.getpid():
        return None
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # A number from another pid namespace may be anybody's here: it has to be somebody who has this file mapped.
    if status["State"][0] not in "Tt" or mapping(process, index) is None:
        return None
    return process, int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])


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
