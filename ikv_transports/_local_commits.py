"""Group commit: callers that append at the same time share one commit, and each gets its own answer."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from ikv_transports._local_entries import Entry
from ikvcore.errors import IKVError, OutcomeUnknownError

__all__ = ["Request", "SharedCommits"]

_MAX_COMMIT_BYTES: Final = 64 << 20
"""A shared commit takes no more than this, but for a request that is larger by itself."""

_GATHER_SECONDS: Final = 0.0003
"""About a sync. Measured with 16 threads: 15 writes a commit instead of 8, in 0.5 s instead of 1.2 s for 8,000."""


class Request:
    """One caller's entries, on their way through a commit."""

    __slots__ = ("done", "entries", "failure", "reached", "size")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.size = sum(len(entry.body) for entry in entries)
        self.reached: dict[int, int] = {}
        """Filled by the commit: the position after the last entry of each partition."""
        self.failure: IKVError | None = None
        self.done = False


class SharedCommits:
    """While one caller commits, the others queue; then one of them commits everything that is queued.

    `commit` appends a batch of requests and gives the error that its callers are to raise, None if all went well.
    """

    def __init__(self, commit: Callable[[list[Request]], IKVError | None]) -> None:
        self._commit = commit
        lock = threading.Lock()
        self._turn = threading.Condition(lock)
        self._arrived = threading.Condition(lock)
        self._queue: deque[Request] = deque()
        self._leading = False
        self._callers = 0
        """How many took part in the last commit or waited for it to end; a lone writer never waits for others."""

    def append(self, entries: Sequence[Entry]) -> dict[int, int]:
        """Have `entries` committed together, and give the position after the last one of each partition."""
        request = Request(entries)
        try:
            self._enqueue(request)
            while self._wait_for_turn(request):
                self._lead()
        except BaseException:  # interrupted: it must not be written by some later call
            with self._turn, suppress(ValueError):
                self._queue.remove(request)
            raise
        if request.failure is not None:
            # An error a caller: one that is raised in several threads at once would mix up their tracebacks.
            raise copy.copy(request.failure) from request.failure.__cause__
        return request.reached

    def _enqueue(self, request: Request) -> None:
        with self._turn:
            self._queue.append(request)
            self._arrived.notify()

    def _wait_for_turn(self, request: Request) -> bool:
        """True where the caller has to commit for all, False where its request is done."""
        with self._turn:
            while self._leading and not request.done:
                self._turn.wait()
            if not request.done:
                self._leading = True
            return not request.done

    def _lead(self) -> None:
        """Commit what is queued, and tell its callers."""
        batch: list[Request] = []
        failure: IKVError | None = OutcomeUnknownError(
            "a commit to the log was interrupted: its events may or may not be in the log"
        )
        try:
            self._move_queue_to(batch)
            failure = self._commit(batch)
        finally:
            with self._turn:
                for request in batch:
                    request.failure = failure
                    request.done = True
                self._leading = False
                self._callers = len(batch) + len(self._queue)
                self._turn.notify_all()

    def _move_queue_to(self, batch: list[Request]) -> None:
        with self._turn:
            self._wait_for_callers()
            size = 0
            while self._queue and (not batch or size + self._queue[0].size <= _MAX_COMMIT_BYTES):
                # In this order an interrupt loses no request.
                batch.append(self._queue[0])
                size += self._queue.popleft().size

    def _wait_for_callers(self) -> None:
        """Give those whom the last commit released the time to come back, or commits would be half empty."""
        deadline = time.monotonic() + _GATHER_SECONDS
        while len(self._queue) < self._callers and (remaining := deadline - time.monotonic()) > 0:
            self._arrived.wait(remaining)
