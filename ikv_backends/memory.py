"""Backend `memory`: an ordered map in this process, the reference that other backends are compared with.

Commits change one map in place and leave what they replaced in an undo entry; a snapshot is a number, and reads the map
through the undo entries of later commits. So a commit costs what it changes, and snapshots cost nothing until one is
held across a commit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Final, NoReturn

from sortedcontainers import SortedDict

from ikvcore.errors import FencedError, ForkedError, StorageError
from ikvcore.forks import after_fork_in_child
from ikvcore.hookspecs import hookimpl
from ikvcore.models import API_VERSION, BackendContext, BackendInfo, Durability, Meta, Sharing, WriteBatch

__all__ = ["MemoryOptions", "MemoryStorage"]

_SCAN_BLOCK: Final = 256


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """The memory backend has no options."""


class _Undo:
    """What one commit replaced: key -> the value before it, None where there was none. `later` is the next commit's."""

    __slots__ = ("before", "later")

    def __init__(self) -> None:
        self.before: dict[bytes, bytes | None] = {}
        self.later: _Undo | None = None


class _MemorySnapshot:
    """One committed state. It keeps the undo entries of later commits alive, and they go when it goes."""

    __slots__ = ("_map", "_next", "_number")

    def __init__(self, data: SortedDict, number: int, pending: _Undo) -> None:
        self._map = data
        self._number = number
        self._next = pending

    def __enter__(self) -> _MemorySnapshot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def get(self, key: bytes, /) -> bytes | None:
        # The map first, the undo entries after it: a commit completes its entry before it touches the map, so a value
        # read too late is always found there as it was.
        value: bytes | None = self._map.get(key)
        for undo in self.undos():
            if key in undo.before:
                return undo.before[key]
        return value

    def id(self) -> int:
        return self._number

    def undos(self) -> Iterator[_Undo]:
        """The entries of commits after this state, oldest first."""
        undo = self._next
        while undo.later is not None:
            yield undo
            undo = undo.later


class MemoryStorage:
    """Implements OrderedKeyValue."""

    def __init__(self) -> None:
        self._map = SortedDict()
        self._lock = threading.Lock()
        # The commit number and the undo entry that the next commit will fill: replaced together, as one tuple.
        self._state = (0, _Undo())
        self._closed = False
        self._forked = False
        after_fork_in_child(self)

    def snapshot(self) -> _MemorySnapshot:
        if self._closed or self._forked:
            self._refuse()
        return _MemorySnapshot(self._map, *self._state)

    def get_many(self, snapshot: _MemorySnapshot, keys: Sequence[bytes], /) -> list[bytes | None]:
        get = snapshot.get
        return [get(key) for key in keys]

    def scan(self, snapshot: _MemorySnapshot, start: bytes, stop: bytes | None, /) -> Iterator[tuple[bytes, bytes]]:
        inclusive = True
        while True:
            keys = self._keys(snapshot, start, stop, inclusive)
            for key in keys:
                value = snapshot.get(key)
                if value is not None:
                    yield key, value
            if len(keys) < _SCAN_BLOCK:
                return
            start, inclusive = keys[-1], False

    def _keys(self, snapshot: _MemorySnapshot, start: bytes, stop: bytes | None, inclusive: bool) -> list[bytes]:
        """The next block of keys that the map or the snapshot has; all that are left if fewer than a block."""
        with self._lock:
            if self._closed:
                self._refuse()
            block = list(islice(self._map.irange(start, stop, (inclusive, False)), _SCAN_BLOCK))
            full = len(block) == _SCAN_BLOCK
            limit = block[-1] if full else stop
            gone = {
                key
                for undo in snapshot.undos()
                for key in undo.before
                if (key >= start if inclusive else key > start)
                and (limit is None or key < limit or (full and key == limit))
            }
        return sorted(gone.union(block)) if gone else block

    def commit(self, batch: WriteBatch, /, *, expect: Meta) -> None:
        if self._forked:
            self._refuse()
        with self._lock:
            if self._closed:
                self._refuse()
            for key, wanted in expect.items():
                found = self._map.get(key)
                if found != wanted:
                    raise FencedError(wanted, found)
            doomed = [key for start, stop in batch.ranges for key in self._map.irange(start, stop, (True, False))]
            number, undo = self._state
            for key in (*doomed, *batch.deletes, *batch.puts):
                undo.before.setdefault(key, self._map.get(key))
            undo.later = _Undo()  # from here on snapshots of the old state read through this entry
            for key in (*doomed, *batch.deletes):
                self._map.pop(key, None)
            self._map.update(batch.puts)
            self._state = (number + 1, undo.later)

    def close(self) -> None:
        self._closed = True

    def forked(self) -> None:
        """In a forked child: the lock may be held for ever, and the map is a copy that nobody keeps fresh."""
        self._forked = True

    def _refuse(self) -> NoReturn:
        if self._forked:
            raise ForkedError("memory replica")
        raise StorageError("the memory replica is closed")


@hookimpl
def ikv_backend_info() -> BackendInfo:
    return BackendInfo(
        name="memory",
        api_version=API_VERSION,
        summary="an ordered map in this process; gone with it",
        options=MemoryOptions,
        durability=Durability.NONE,
        sharing=Sharing.ONE_PROCESS,
        volatile=True,
    )


@hookimpl
def ikv_open_backend(context: BackendContext) -> MemoryStorage:
    return MemoryStorage()
