"""Frees an engine's files from a process that was stopped (SIGSTOP, a debugger) inside a write transaction.

The kernel gives up the write lock of a process that dies, never of one that is stopped: every writer of every process
then waits for ever. Each process that has files open looks, four times a second, who holds the lock, and since when it
has been stopped with it. Who waits to write kills that process if no write could begin for five seconds, and if /proc
says that it is stopped. Those five seconds count from the first look at which it stood still, not from when somebody
asked to write: otherwise they would come on top of the silence that a successor waits for.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, Protocol

from ikv_backends._maps import mapping
from ikvcore.forks import after_fork_in_child

__all__ = ["WAIT", "Sight", "Stopped", "stopped", "watch"]

_log = logging.getLogger(__name__)

WAIT: Final = 5.0
"""Seconds for which no write transaction could begin before the process that is in one may be killed."""

_LOOK_EVERY: Final = 0.25
"""Seconds. A look is a small read, and two small files of /proc where somebody writes at that moment."""


class Waiting(Protocol):
    """Something that may be waiting to write."""

    @property
    def is_waiting(self) -> bool:
        """Whether a write transaction was asked for that has not begun."""


class Stopped(NamedTuple):
    """A thread that holds the write lock and is stopped. Equal to an earlier one only if it never ran in between: a
    tracer stops one for moments, at every system call.
    """

    process: int
    thread: int
    switches: tuple[int, int]
    """How often the kernel has taken the processor from it: it has not gone on while these are the same."""


def stopped(thread: int, file: Path) -> Stopped | None:
    """The thread, or process, with this number, if it is stopped and has `file` mapped: a number from another pid
    namespace may be anybody's here. Never this process. Raises OSError, LookupError, ValueError."""
    lines = Path(f"/proc/{thread}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    process = int(status["Tgid"])
    if process == os.getpid() or status["State"][0] not in "Tt" or mapping(process, file) is None:
        return None
    switches = int(status["voluntary_ctxt_switches"]), int(status["nonvoluntary_ctxt_switches"])
    return Stopped(process, thread, switches)


class Sight(ABC):
    """The looks at one directory's write lock, one after the other."""

    possible: ClassVar[bool] = True
    """Whether anybody may ever be found on this machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stopped: Stopped | None = None
        self._since = 0.0

    @abstractmethod
    def find(self) -> Stopped | None:
        """Who is stopped with the lock, as far as anybody can tell."""

    def look(self, *, waiting: bool) -> int | None:
        """See who holds the lock, and kill that process where somebody waits to write and it has stood still, with the
        lock, for WAIT seconds of looks: no write could begin since then, whether it was tried or not. Its id, or None.
        """
        found = self.find()
        if found is None or found != self._stopped:
            self._stopped, self._since = found, time.monotonic()
        if found is None or not waiting or time.monotonic() - self._since <= WAIT:
            return None
        if self.find_afresh() != found:
            return None
        with suppress(OSError):
            os.kill(found.process, signal.SIGKILL)
            _log.error(
                "process %d was stopped inside a write of %s, which kept everybody else from writing, and was killed",
                found.process,
                self._directory,
            )
            return found.process
        return None

    def find_afresh(self) -> Stopped | None:
        """The same, from nothing that an earlier look has found out."""
        return self.find()


class _Watch:
    """One thread a process, which looks after all of its files as long as there are some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: weakref.WeakKeyDictionary[Waiting, Sight] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        after_fork_in_child(self)

    def add(self, waiting: Waiting, sight: Sight) -> None:
        with self._lock:
            self._watched[waiting] = sight
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
            for waiting, sight in watched:
                sight.look(waiting=waiting.is_waiting)
            del watched, waiting  # these references are not weak


_watch: Final = _Watch()


def watch(waiting: Waiting, sight: Sight) -> None:
    """Free what `sight` looks at from stopped writers as long as `waiting` lives; the reference held is weak."""
    _watch.add(waiting, sight)
