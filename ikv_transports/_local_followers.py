"""How a log wakes its followers, in this process and others: each has a FIFO, rung with a byte after a commit.

FIFOs rather than sockets, whose paths may not be longer than 104 to 108 bytes; and rather than polling, which costs a
percent of a core at 10 ms. A bell that is lost costs latency only: followers also look by themselves every SLOW_POLL
seconds.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from ikvcore.errors import ForkedError, TransportError
from ikvcore.forks import after_fork_in_child

__all__ = ["SLOW_POLL", "Doorbell", "ring_all"]

SLOW_POLL: Final = 0.25
"""Seconds."""

_UNFINISHED: Final = "."
"""First character of a FIFO's name until its read end is open; writers would take it for a dead follower's."""


class Doorbell:
    """One follower's FIFO. One thread waits; any thread may ring."""

    def __init__(self, followers: Path) -> None:
        self._path = followers / secrets.token_hex(16)
        self._lock = threading.Lock()
        self._forked = False
        self._fd = self._make()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        after_fork_in_child(self)

    def wait(self, timeout: float) -> None:
        """Return when rung, or after `timeout` seconds."""
        self._poll.poll(max(timeout, 0.0) * 1000)

    def drain(self) -> None:
        """Forget what was rung so far. To be called before the log is read, so that a later commit rings anew."""
        with suppress(OSError):
            while len(os.read(self._fd, 4096)) == 4096:
                pass

    def ring(self) -> None:
        """Wake the waiting thread, or its next wait. Nothing happens after close."""
        if self._forked:
            raise ForkedError("log")
        with self._lock:
            if self._fd >= 0:
                with suppress(OSError):  # already rung; or what is only late, since the waiter also looks by itself
                    os.write(self._fd, b"\0")

    def close(self) -> None:
        """Not while a thread waits. Idempotent; in a forked child the parent's FIFO stays."""
        if self._forked:
            return
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(fd)

    def forked(self) -> None:
        """See ikvcore.forks. The child lets go of the read end, so that a dead parent's FIFO is known as stale."""
        self._forked = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make(self) -> int:
        unfinished = self._path.with_name(_UNFINISHED + self._path.name)
        try:
            os.mkfifo(unfinished, 0o600)
            unfinished.chmod(0o600)  # whatever the umask
            # Both ends are held, or the FIFO would be at its end for ever after the first writer closed it.
            fd = os.open(unfinished, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            unfinished.rename(self._path)
        except OSError as exc:
            with suppress(OSError):
                unfinished.unlink()
            raise TransportError(f"a follower cannot wait for the log at {str(self._path.parent)!r}: {exc}") from exc
        return fd


def ring_all(followers: Path) -> None:
    """Wake every follower whose FIFO is in the directory, and remove the FIFOs of dead ones."""
    try:
        names = os.listdir(followers)  # noqa: PTH208  # names are all that is needed, after every commit
    except OSError:
        return  # the store is being deleted; its followers find out by themselves
    for name in names:
        if not name.startswith(_UNFINISHED):
            _ring(f"{followers}/{name}")


def _ring(path: str) -> None:
    try:
        # Opening a device, or a file behind a link, might do something; only FIFOs are touched.
        if not stat.S_ISFIFO(os.lstat(path).st_mode):
            return
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # nobody has the read end: its follower died
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108  # paths are plain text here, see ring_all
        return
    try:
        with suppress(OSError):  # already rung, or gone since it was opened
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"\0")
    finally:
        os.close(fd)
