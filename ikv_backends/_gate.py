"""A gate between the many who use an engine and the one who changes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Gate"]


class Gate:
    """Lets uses run side by side, and whoever changes the engine run alone.

    A thread that is inside may ask to be alone: a signal handler, say, that closes what the code below it is using. It
    waits for the others only.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}
        self._shut = False

    def enter(self) -> None:
        """Come in, when nobody is alone."""
        with self._changed:
            while self._shut:
                self._changed.wait()
            thread = threading.get_ident()
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def leave(self) -> None:
        """From the thread that came in."""
        with self._changed:
            thread = threading.get_ident()
            left = self._inside.pop(thread) - 1
            if left:
                self._inside[thread] = left
            else:
                self._changed.notify_all()

    @contextmanager
    def alone(self, timeout: float | None = None) -> Iterator[bool]:
        """Keep all others out, after those inside have left. Gives False, with nobody kept out, where that has not come
        about within `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        if not self._shut_out(until):
            yield False
            return
        try:
            yield True
        finally:
            self._open()

    def _shut_out(self, until: float | None) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._shut, _left(until)):
                return False
            self._shut = True
            own = threading.get_ident()
            if self._changed.wait_for(lambda: not self._inside.keys() - {own}, _left(until)):
                return True
            self._open()
            return False

    def _open(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())
