"""Backend `plyvel` for ikvcore: LevelDB, through plyvel. For one process.

LevelDB keeps its keys in the order of their bytes and has snapshots, so it is an OrderedKeyValue almost as it is. What
this module adds: the comparison before a commit, whom to wait for before it is closed, errors, and forks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import plyvel

from ikvcore import errors
from ikvcore.forks import after_fork_in_child, leak
from ikvcore.hookspecs import hookimpl
from ikvcore.models import API_VERSION, BackendContext, BackendInfo, Durability, Meta, Sharing, WriteBatch

_LAST: Final = b"\xff" * 65_542
"""An entry of our own after the longest key that the core can ask for. plyvel's iterators end at an unreadable block as
they end at the last key, without an error: one that did not come as far as this entry has failed."""
_FULL: Final = ("No space left on device", "Disk quota exceeded", "File too large")
_PATIENCE: Final = 5.0  # seconds that reads under way are waited for


@dataclass(frozen=True, kw_only=True)
class PlyvelOptions:
    """The plyvel backend has no options."""


class _PlyvelSnapshot:
    """One committed state, for the thread that opened it."""

    def __init__(self, storage: PlyvelStorage, number: int, state: plyvel.Snapshot) -> None:
        self._storage, self._number, self._state = storage, number, state
        self.thread = threading.get_ident()
        self.handles = [state]

    def get(self, key: bytes, /) -> bytes | None:
        self._storage.check()
        try:
            value: bytes | None = self._state.get(key, verify_checksums=True)
        except plyvel.Error as exc:
            self._storage.fail("read", exc)
        return value

    def id(self) -> int:
        return self._number

    def iterate(self, start: bytes) -> plyvel.Iterator:
        self._storage.check()
        self.handles.append(self._state.iterator(start=start, verify_checksums=True))
        return self.handles[-1]

    def end(self) -> None:
        for iterator in self.handles[1:]:
            iterator.close()
        del self.handles, self._state  # plyvel gives a snapshot up when nothing refers to it


class PlyvelStorage:
    """Implements OrderedKeyValue in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._commits = directory, 0
        self._suspect = self._closed = self._forked = False
        self._writing = threading.Lock()
        # plyvel frees a database under those who read it: so we know who does. `_left` guards `_db` and the table.
        self._left = threading.Condition()
        self._readers: set[_PlyvelSnapshot] = set()
        self._db = self._open()
        after_fork_in_child(self)

    def _open(self) -> plyvel.DB:
        try:
            db = plyvel.DB(str(self._directory), create_if_missing=True)
            if db.get(_LAST) is None:
                if next(iter(db), None) is not None:
                    raise plyvel.CorruptionError("the last entry is missing")
                db.put(_LAST, b"")
        except Exception as exc:
            self.fail("opened", exc)
        return db

    @contextmanager
    def snapshot(self) -> Iterator[_PlyvelSnapshot]:
        self.check()
        with self._left:
            self.check()
            # A commit under way makes the state newer than its number, which the contract allows, and never older.
            snapshot = _PlyvelSnapshot(self, self._commits, self._db.snapshot())
            self._readers.add(snapshot)
        try:
            yield snapshot
        finally:
            if not self._forked:
                with self._left:
                    snapshot.end()
                    self._readers.remove(snapshot)
                    self._left.notify_all()

    def get_many(self, snapshot: _PlyvelSnapshot, keys: Sequence[bytes], /) -> list[bytes | None]:
        return [snapshot.get(key) for key in keys]

    def scan(self, snapshot: _PlyvelSnapshot, start: bytes, stop: bytes | None, /) -> Iterator[tuple[bytes, bytes]]:
        try:
            for key, value in snapshot.iterate(start):
                if key >= (_LAST if stop is None else stop):
                    return
                yield key, value
            raise plyvel.CorruptionError("a scan ended before the last entry")
        except plyvel.Error as exc:
            self.fail("read", exc)

    def commit(self, batch: WriteBatch, /, *, expect: Meta) -> None:
        self.check()
        with self._writing:
            if self._suspect:
                with self._left:
                    self._shut()
                    self._db, self._suspect = self._open(), False
            with self.snapshot() as before:
                for key, wanted in expect.items():
                    if (found := before.get(key)) != wanted:
                        raise errors.FencedError(wanted, found)
                doomed = [key for start, stop in batch.ranges for key, _ in self.scan(before, start, stop)]
                written = self._db.write_batch()
                for key in (*doomed, *batch.deletes):
                    written.delete(key)
                for key, value in batch.puts.items():
                    written.put(key, value)
            try:
                self._suspect = True  # a failed write can leave LevelDB's log unfit for the next one
                written.write()
                self._suspect = False
            except plyvel.Error as exc:
                self.fail("written", exc)
            with self._left:
                self._commits += 1

    def _shut(self) -> None:
        """Close the database when nobody reads; a snapshot of this very thread does nothing meanwhile."""
        own = threading.get_ident()
        if not self._left.wait_for(lambda: all(each.thread == own for each in self._readers), _PATIENCE):
            raise errors.StorageError(f"the replica at {self._directory} cannot be closed while it is read; try again")
        self._db.close()

    def close(self) -> None:
        if self._forked:
            return
        with self._writing, self._left:
            if not self._closed:
                self._shut()
                self._closed = True

    def forked(self) -> None:
        """See ikvcore.forks: to free anything of LevelDB would be to wait for a thread that the child does not have."""
        self._forked = True
        for handle in (self._db, *(handle for each in self._readers for handle in each.handles)):
            leak(handle)

    def check(self) -> None:
        if self._forked:
            raise errors.ForkedError("replica")
        if self._closed or self._db.closed:  # the latter where it could not be opened anew
            raise errors.StorageError(f"the replica at {self._directory} is closed")

    def fail(self, done: str, exc: Exception) -> NoReturn:
        """Raise what an error of plyvel becomes; `done` is what could not be done."""
        if isinstance(exc, plyvel.CorruptionError):
            raise errors.ReplicaDamagedError(f"LevelDB says of {self._directory.name}: {exc}") from exc
        if any(text in str(exc) for text in _FULL):
            raise errors.StorageFullError(self._directory, exc) from exc
        raise errors.StorageError(f"the replica at {self._directory} could not be {done}: {exc}") from exc


@hookimpl
def ikv_backend_info() -> BackendInfo:
    return BackendInfo(
        name="plyvel",
        api_version=API_VERSION,
        summary="LevelDB through plyvel, for one process",
        options=PlyvelOptions,
        # Commits are handed to the operating system and not synced. LevelDB can sync its log, but not the directory in
        # which a new log appears: what a power loss leaves would depend on the file system, so nothing is promised.
        durability=Durability.PROCESS_CRASH,
        sharing=Sharing.ONE_PROCESS,
    )


@hookimpl
def ikv_open_backend(context: BackendContext) -> PlyvelStorage:
    assert context.directory is not None, "only volatile backends get none"
    return PlyvelStorage(context.directory)
