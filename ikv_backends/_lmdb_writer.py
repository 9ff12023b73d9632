"""Frees an LMDB environment whose write transaction belongs to a process that was stopped (SIGSTOP, a debugger).

LMDB's write lock is a mutex in lock.mdb. The kernel gives it up for a process that dies, never for one that is stopped:
every writer of every process then waits for ever. Who cannot begin to write for five seconds looks who holds the mutex,
and kills that process if, and only if, /proc says that it is stopped.

The mutex is read from our own mapping of lock.mdb, by LMDB's struct MDB_txninfo (mdb.c, lock version 1) and glibc's
pthread_mutex_t on 64-bit x86. On other machines nobody is ever found, and so nobody is killed.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import struct
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from ikv_backends._lmdb_maps import mapping
from ikvcore.forks import after_fork_in_child

__all__ = ["WAIT", "free_from_stopped_writer", "watch"]

_log = logging.getLogger(__name__)

WAIT: Final = 5.0
"""Seconds for which a write transaction could not begin before its holder is looked at."""

_LOOK_EVERY: Final = 1.0
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks at a process before it is killed: a tracer stops one for moments, at every system call."""
_KNOWN: Final = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
_MAGIC: Final = 0xBEEFC0DE
_LOCK_VERSION: Final = 1
_HEAD: Final = struct.Struct("<II")
_WRITER_MUTEX: Final = 64  # after MDB_txbody, padded to a cache line
_OWNER: Final = struct.Struct("<8xi")  # of pthread_mutex_t: lock, count, owner


class Waiting(Protocol):
    """Something that may be waiting to write."""

    directory: Path

    @property
    def waiting_since(self) -> float | None:
        """time.monotonic() when a write transaction was asked for that has not begun."""


def free_from_stopped_writer(directory: Path) -> int | None:
    """Kill the process in the write transaction of the environment in `directory` if it is stopped; its id, or None."""
    with suppress(OSError, ValueError, LookupError, struct.error):
        stopped = _stopped_writer(directory)
        if stopped is None:
            return None
        time.sleep(_LOOK_AGAIN)
        if _stopped_writer(directory) != stopped:
            return None  # it goes on
        process = stopped[0]
        os.kill(process, signal.SIGKILL)
        _log.error(
            "process %d was stopped inside a write of %s, which kept everybody else from writing, and was killed",
            process,
            directory,
        )
        return process
    return None


def _stopped_writer(directory: Path) -> tuple[int, ...] | None:
    """The process in the write transaction if it is stopped; then its thread, and how often that has run until now."""
    thread = _writer(directory)
    if thread is None:
        return None
    status = _status(thread)
    process = int(status["Tgid"])
    # A number from another pid namespace may be anybody's here: it has to be somebody who has this file mapped.
    if process == os.getpid() or status["State"][0] not in "Tt" or not _maps(process, directory):
        return None
    return process, thread, int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])


def _writer(directory: Path) -> int | None:
    """The thread that holds the write mutex."""
    mapped = mapping(os.getpid(), directory / "lock.mdb") if _KNOWN else None
    if mapped is None:
        return None
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        memory.seek(mapped[0])
        page = memory.read(_WRITER_MUTEX + _OWNER.size)
    magic, version = _HEAD.unpack_from(page)
    if magic != _MAGIC or version & 0xFFFF != _LOCK_VERSION:
        return None
    owner: int = _OWNER.unpack_from(page, _WRITER_MUTEX)[0]
    return owner or None


def _maps(process: int, directory: Path) -> bool:
    return mapping(process, directory / "lock.mdb") is not None


def _status(thread: int) -> dict[str, str]:
    lines = Path(f"/proc/{thread}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class _Watch:
    """One thread a process, which looks after all of its environments as long as there are some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakSet[Waiting] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        after_fork_in_child(self)

    def add(self, environment: Waiting) -> None:
        with self._lock:
            self._watched.add(environment)
            if self._thread is None and _KNOWN:
                self._thread = threading.Thread(target=self._run, name="ikvcore-lmdb-watch", daemon=True)
                self._thread.start()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._watched = weakref.WeakSet()
        self._thread = None

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY)
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    self._thread = None
                    return
            for environment in watched:
                since = environment.waiting_since
                if since is not None and time.monotonic() - since > WAIT:
                    free_from_stopped_writer(environment.directory)
            del watched, environment  # these references are not weak


_watch: Final = _Watch()


def watch(environment: Waiting) -> None:
    """Free `environment` from stopped writers as long as it lives; the reference held is weak."""
    _watch.add(environment)
