"""What a fork does to RocksDB as a whole: its threads are gone in the child, and it would wait for them."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

from ikvcore.forks import after_fork_in_child

__all__ = ["process"]


class _Process:
    """Whether RocksDB may be used here: not where a parent has ever used it, open or closed at the fork."""

    def __init__(self) -> None:
        self.used = False
        self.spoilt = False
        after_fork_in_child(self)

    def forked(self) -> None:
        self.spoilt = self.used
        if self.spoilt:
            _leave_without_destructors()


def _leave_without_destructors() -> None:
    """At its exit RocksDB joins its threads. Those of a parent are not there, and to join them can crash the child: so
    it ends where that would begin, after Python's own end."""
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):  # glibc has it
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


process: Final = _Process()
