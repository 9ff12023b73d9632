"""Frees an LMDB environment whose write transaction belongs to a process that was stopped (SIGSTOP, a debugger).

LMDB's write lock is a mutex in lock.mdb. The kernel gives it up for a process that dies, never for one that is stopped:
every writer of every process then waits for ever. Each process that has an environment open looks, four times a second,
who holds the mutex, and since when it has been stopped with it. Who waits to write kills that process if no write could
begin for five seconds, and if /proc says that it is stopped. Those five seconds count from the first look at which it
stood still, not from when somebody asked to write: otherwise they would come on top of the silence that a successor
waits for.

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
from typing import ClassVar, Final, NamedTuple, Protocol

from ikv_backends._lmdb_maps import mapping
from ikvcore.forks import after_fork_in_child

__all__ = ["WAIT", "Sight", "Stopped", "watch"]

_log = logging.getLogger(__name__)

WAIT: Final = 5.0
"""Seconds for which no write transaction could begin before the process that is in one may be killed."""

_LOOK_EVERY: Final = 0.25
"""Seconds. A look is a read of 76 bytes, and two small files of /proc where somebody writes at that moment."""
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
    def is_waiting(self) -> bool:
        """Whether a write transaction was asked for that has not begun."""


class Stopped(NamedTuple):
    """A thread that holds the write mutex and is stopped. Equal to an earlier one only if it never ran in between: a
    tracer stops one for moments, at every system call.
    """

    process: int
    thread: int
    switches: tuple[int, int]
    """How often the kernel has taken the processor from it: it has not gone on while these are the same."""


class Sight:
    """The looks at one environment's write mutex, one after the other. Another engine overrides who holds its lock."""

    possible: ClassVar[bool] = _KNOWN
    """Whether anybody may ever be found on this machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mutex: int | None = None
        self._stopped: Stopped | None = None
        self._since = 0.0

    def look(self, *, waiting: bool) -> int | None:
        """See who holds the mutex, and kill that process where somebody waits to write and it has stood still, with the
        mutex, for WAIT seconds of looks: no write could begin since then, whether it was tried or not. Its id, or None.
        """
        stopped = self._find()
        if stopped is None or stopped != self._stopped:
            self._stopped, self._since = stopped, time.monotonic()
        if stopped is None or not waiting or time.monotonic() - self._since <= WAIT:
            return None
        self._mutex = None  # find it again: where it was, another environment's may be by now
        if self._find() != stopped:
            return None
        with suppress(OSError):
            os.kill(stopped.process, signal.SIGKILL)
            _log.error(
                "process %d was stopped inside a write of %s, which kept everybody else from writing, and was killed",
                stopped.process,
                self._directory,
            )
            return stopped.process
        return None

    def _find(self) -> Stopped | None:
        """Who is stopped with the mutex, as far as anybody can tell."""
        try:
            if self._mutex is None:
                mapped = mapping(os.getpid(), self._directory / "lock.mdb") if _KNOWN else None
                if mapped is None:
                    return None
                self._mutex = mapped[0]
            owner = _owner(self._mutex)
            return _stopped(owner, self._directory) if owner else None
        except ProcessLookupError:  # whoever held it has died
            return None
        except (OSError, ValueError, LookupError, struct.error):
            self._mutex = None  # it may be somewhere else now
            return None


def _stopped(thread: int, directory: Path) -> Stopped | None:
    status = _status(thread)
    process = int(status["Tgid"])
    # A number from another pid namespace may be anybody's here: it has to be somebody who has this file mapped.
    if process == os.getpid() or status["State"][0] not in "Tt" or not _maps(process, directory):
        return None
    switches = int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])
    return Stopped(process, thread, switches)


def _owner(address: int) -> int:
    """The thread that holds the write mutex of the lock.mdb mapped there, 0 where nobody does. Raises ValueError."""
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        page = memory.read(_WRITER_MUTEX + _OWNER.size)
    magic, version = _HEAD.unpack_from(page)
    if magic != _MAGIC or version & 0xFFFF != _LOCK_VERSION:
        raise ValueError("this is no lock file of LMDB's")
    owner: int = _OWNER.unpack_from(page, _WRITER_MUTEX)[0]
    return owner


def _maps(process: int, directory: Path) -> bool:
    return mapping(process, directory / "lock.mdb") is not None


def _status(thread: int) -> dict[str, str]:
    lines = Path(f"/proc/{thread}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class _Watch:
    """One thread a process, which looks after all of its environments as long as there are some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakKeyDictionary[Waiting, Sight] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        after_fork_in_child(self)

    def add(self, environment: Waiting, sight: Sight) -> None:
        with self._lock:
            self._watched[environment] = sight
            if self._thread is None and sight.possible:
                self._thread = threading.Thread(target=self._run, name="ikvcore-writer-watch", daemon=True)
                self._thread.start()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._watched = weakref.WeakKeyDictionary()
        self._thread = None

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY)
            with self._lock:
                watched = list(self._watched.items())
                if not watched:
                    self._thread = None
                    return
            for environment, sight in watched:
                sight.look(waiting=environment.is_waiting)
            del watched, environment  # these references are not weak


_watch: Final = _Watch()


def watch(environment: Waiting, sight: Sight | None = None) -> None:
    """Free `environment` from stopped writers as long as it lives; the reference held is weak."""
    _watch.add(environment, sight or Sight(environment.directory))
