"""Where a worker is at this moment: a page of shared memory that outlives it, for those who aim at it."""

from __future__ import annotations

import enum
import mmap
import struct
from pathlib import Path
from typing import Final

__all__ = ["Marks", "Stage"]

_COUNTERS: Final = ("acked", "applied", "commits", "fenced", "commits_at_fence", "reads", "seen", "stalls")
_STAGE: Final = 0
_FIRST_COUNTER: Final = 8
_LAST_COMMIT: Final = _FIRST_COUNTER + 8 * len(_COUNTERS)
_COUNTER: Final = struct.Struct("<Q")
_MOMENT: Final = struct.Struct("<d")


class Stage(enum.IntEnum):
    """The place of a process relative to a commit; of a reader, to a read (INSIDE: in its snapshot)."""

    STARTING = 0
    BEFORE = 1
    """It has something to commit, and is not in the call that does it."""
    INSIDE = 2
    """In the call, perhaps waiting for its turn."""
    TRANSACTION = 3
    """In the engine's transaction: it has begun to take what is to be changed."""
    AFTER = 4
    """The call has returned."""

    @property
    def when(self) -> str:
        """before, inside or after a commit."""
        if self in (Stage.INSIDE, Stage.TRANSACTION):
            return "inside"
        return "after" if self is Stage.AFTER else "before"


class Marks:
    """One worker's page. Written by the worker, read by whoever has the file; each entry is one aligned store."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def stage(self) -> Stage:
        """Where it is, or was when it died."""
        return Stage(self._page[_STAGE])

    def at(self, stage: int) -> None:
        """Say where this process is."""
        self._page[_STAGE] = stage

    def get(self, counter: str) -> int:
        """A counter's value."""
        value: int = _COUNTER.unpack_from(self._page, _place(counter))[0]
        return value

    def put(self, counter: str, value: int) -> None:
        """Set a counter."""
        _COUNTER.pack_into(self._page, _place(counter), value)

    def add(self, counter: str, more: int = 1) -> None:
        """Raise a counter."""
        self.put(counter, self.get(counter) + more)

    @property
    def last_commit(self) -> float:
        """time.monotonic() at the return of its last commit; 0 before the first."""
        value: float = _MOMENT.unpack_from(self._page, _LAST_COMMIT)[0]
        return value

    @last_commit.setter
    def last_commit(self, moment: float) -> None:
        _MOMENT.pack_into(self._page, _LAST_COMMIT, moment)

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()


def _place(counter: str) -> int:
    return _FIRST_COUNTER + 8 * _COUNTERS.index(counter)
