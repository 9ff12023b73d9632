"""The thread in which observers are told: off the paths of reads, writes and ingest, which never wait for it.

One a process, made when there is first something to tell, and so never where nobody observes. What is to be told waits
in a queue; beyond its bound it is lost, and counted.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TypeAlias

from ikvcore.forks import after_fork_in_child

__all__ = ["CAPACITY", "DRAIN_SECONDS", "Watched", "observation"]

_log = logging.getLogger(__name__)

CAPACITY: Final = 10_000
"""Events that may wait."""
DRAIN_SECONDS: Final = 1.0
"""How long a shutdown, and the end of the process, wait for events to be told."""
_LOOK_SECONDS: Final = 0.25

_Delivery: TypeAlias = Callable[[], None]


class Watched(Protocol):
    """Something that is looked at now and then in the observers' thread."""

    def look(self) -> bool:
        """Whether to look again."""


class Observation:
    """The queue and its thread. Any thread may call it, also a signal handler: SimpleQueue.put can be reentered."""

    def __init__(self) -> None:
        self.lost = 0
        """Events that found the queue full."""
        self.busy_with = ""
        """The observer that is being called."""
        self._begin()
        after_fork_in_child(self)
        atexit.register(self.wait)

    def _begin(self) -> None:
        self._queue: SimpleQueue[_Delivery] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._watched: list[Watched] = []  # touched by the thread alone
        self._delivered = 0
        self._stuck_at = -1

    def forked(self) -> None:
        """See ikvcore.forks: the thread is not there any more, and what waited is the parent's to tell."""
        self._begin()

    def put(self, deliver: _Delivery) -> None:
        """Have `deliver` called soon, in the thread; lost where too much waits already. Never waits."""
        if self._queue.qsize() >= CAPACITY:
            self._lose()
        else:
            self._enqueue(deliver)

    def watch(self, watched: Watched) -> None:
        """Look at `watched` now, and four times a second until it says that this was the last time."""
        self._enqueue(lambda: self._look_first(watched))

    def drain(self) -> None:
        """As `wait`, for a client that shuts down: after one vain wait the next ones wait for the thread to get on."""
        if self._stuck_at != self._delivered:
            self.wait()

    def wait(self, timeout: float = DRAIN_SECONDS) -> bool:
        """Wait until everything put so far has been delivered; whether it has. Does not wait in the thread itself."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        reached = threading.Event()
        self._enqueue(reached.set)
        if reached.wait(timeout):
            return True
        self._stuck_at = self._delivered
        return False

    def _lose(self) -> None:
        self.lost += 1
        if self.lost == 1:
            who = f"; {self.busy_with} is being told" if self.busy_with else ""
            _log.warning(
                "%d events wait to be told to observers%s: further ones are lost, and counted, until they are quicker",
                CAPACITY,
                who,
            )

    def _enqueue(self, deliver: _Delivery) -> None:
        self._queue.put(deliver)
        # Who finds the lock taken leaves it to the one who has it.
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._starting.release()

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, args=(self._queue,), name="ikvcore-observers", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending: nobody will be told
            return
        self._thread = thread

    def _run(self, queue: SimpleQueue[_Delivery]) -> None:
        looked = time.monotonic()
        while True:
            try:
                deliver = queue.get(timeout=_LOOK_SECONDS if self._watched else None)
            except Empty:
                pass
            else:
                self._deliver(deliver)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                self._watched = [each for each in self._watched if self._look(each)]
                looked = time.monotonic()

    def _deliver(self, deliver: _Delivery) -> None:
        try:
            deliver()
        except Exception:  # observers' own errors do not come this far
            _log.exception("telling observers failed")
        self._delivered += 1

    def _look_first(self, watched: Watched) -> None:
        if watched not in self._watched:
            self._watched.append(watched)
        if not self._look(watched):
            self._watched.remove(watched)

    @staticmethod
    def _look(watched: Watched) -> bool:
        try:
            return watched.look()
        except Exception:
            _log.exception("looking at a reader's health failed")
            return False


observation: Final = Observation()
"""This process's."""
