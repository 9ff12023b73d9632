"""One DuckDB file: how it is made, opened, read by many threads and written by one, repaired and given up.

What DuckDB gets wrong is handled here (design, section 7): a crash while a file is created can leave it unopenable; a
fatal error ends every later statement; a forked child must touch nothing; a second open of the path in one process is
the first one in disguise.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import duckdb

from ikv_backends._duckdb_errors import is_fatal, storage_error
from ikv_backends._duckdb_log import cut_at_hole
from ikv_backends._gate import Gate
from ikvcore.errors import ForkedError, IKVError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.forks import after_fork_in_child, leak

__all__ = ["Connection", "DuckdbDatabase"]

_log = logging.getLogger(__name__)

Connection: TypeAlias = duckdb.DuckDBPyConnection

_FILE: Final = "replica.duckdb"
_FRESH: Final = "fresh.duckdb"
_SPARE_CURSORS: Final = 16
_PATIENCE: Final = 0.05
"""Seconds that a checkpoint waits for reads to end; meanwhile no others begin."""
_LOCKED_IN: Final = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
}
"""Nothing of the network, of the program's variables, and (see _connect) of other files is in a query's reach."""


class _Opened:
    """The files that this process has open, by device and inode of their directories."""

    def __init__(self) -> None:
        self.keys: set[tuple[int, int]] = set()
        self._inherited: set[tuple[int, int]] = set()
        after_fork_in_child(self)

    def enter(self, directory: Path) -> tuple[int, int]:
        status = directory.stat()
        key = (status.st_dev, status.st_ino)
        if key in self._inherited:
            # DuckDB would give us the parent's instance, of which only a picture is left.
            raise ForkedError("replica", reopened=True)
        if key in self.keys:
            raise StorageError(f"the replica at {str(directory)!r} is open in this process already; close it first")
        self.keys.add(key)
        return key

    def forked(self) -> None:
        self._inherited |= self.keys
        self.keys = set()


_opened: Final = _Opened()


class DuckdbDatabase:
    """Thread-safe; one transaction that writes at a time. In a forked child every call raises ForkedError.

    `create` fills a file that is made. Raises StorageError and its kin, ReplicaDamagedError, MountBusyError.
    """

    def __init__(
        self, directory: Path, *, memory_limit: str, threads: int, create: Callable[[Connection], None]
    ) -> None:
        self.directory = directory
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": str(directory / "spill"),
            **_LOCKED_IN,
        }
        self._gate = Gate()  # reads
        self._queries = Gate()  # queries of users: as long as they like
        self.running: set[Connection] = set()
        """Connections of queries; one that is closing interrupts them."""
        self._writing = threading.RLock()
        self._spare: deque[Connection] = deque()
        self._suspect = False
        self._closed = False
        self._is_forked = False
        self._wal = 0
        self.commits = 0
        """Since the file was opened."""
        self._root: Connection | None = None
        self._key = _opened.enter(directory)
        try:
            self._make(create)
            self._root = self._recover(directory / _FILE)
        except BaseException as exc:
            _opened.keys.discard(self._key)
            if isinstance(exc, OSError) and not isinstance(exc, IKVError):
                raise self._failed_to_make(exc) from exc
            raise
        after_fork_in_child(self)

    # -- use -----------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for short reads. No schema changes while it is held; each statement sees one committed state."""
        self._check()
        if self._suspect:
            self._reopen()
        self._gate.enter()
        try:
            cursor = self._borrow()
            try:
                yield cursor
            except duckdb.Error as exc:
                raise self._failure("read", exc) from exc
            else:
                self._give_back(cursor)
        finally:
            self._gate.leave()

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Connection]:
        """A transaction that its user ends with `commit`, in turn with others of its kind; else nothing of it remains.

        With `read_only` all statements see one state, and it waits for nobody.
        """
        if read_only:
            with self.reading() as cursor:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                with _ended(cursor):
                    yield cursor
            return
        self._check()
        with self._writing:
            if self._suspect:
                self._reopen()
            cursor = self._borrow()
            try:
                cursor.execute("BEGIN TRANSACTION")
                with _ended(cursor):
                    yield cursor
            except duckdb.Error as exc:
                raise self._failure("written", exc) from exc
            finally:
                if not self._is_forked:
                    cursor.close()  # whatever was registered with it goes too

    def commit(self, cursor: Connection, *, schema_changed: Callable[[], None] | None = None) -> None:
        """Commit, durably. Reads wait where the schema changes, and go on after `schema_changed` was called."""
        if schema_changed is None:
            self._commit(cursor)
        else:
            with self._gate.alone():
                self._commit(cursor)
                schema_changed()

    def _commit(self, cursor: Connection) -> None:
        try:
            cursor.execute("COMMIT")
        except duckdb.Error:
            self._suspect = True  # whether it took effect, the file knows
            raise
        self.commits += 1
        self._keep_wal()

    def _keep_wal(self) -> None:
        """Make the log file's name durable once it is new: DuckDB syncs its content alone."""
        try:
            inode = (self.directory / f"{_FILE}.wal").stat().st_ino
        except FileNotFoundError:  # there was a checkpoint
            inode = 0
        if inode not in (0, self._wal):
            _sync_directory(self.directory)
        self._wal = inode

    def checkpoint(self) -> bool:
        """Give deleted rows' space back, which DuckDB does only while nobody reads; False where somebody does."""
        with self._writing, self._gate.alone(_PATIENCE) as alone:
            if not alone or self.running:
                return False
            try:
                self._wal = 0  # the next one may get the same inode
                self._usable().execute("CHECKPOINT")
            except duckdb.Error as exc:
                raise self._failure("written", exc) from exc
            return True

    @contextmanager
    def querying(self) -> Iterator[Connection]:
        """A connection of its own in a transaction that cannot write, for statements of users."""
        self._check()
        if self._suspect:
            self._reopen()
        self._queries.enter()
        cursor: Connection | None = None
        try:
            cursor = self._usable().cursor()
            self.running.add(cursor)
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            with _ended(cursor):
                yield cursor
        except duckdb.Error as exc:
            raise self._failure("read", exc) from exc
        finally:
            if cursor is not None:
                self.running.discard(cursor)
                if not self._is_forked:
                    cursor.close()
            self._queries.leave()

    # -- life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close, after the reads and the commit that are under way; queries are interrupted. Idempotent.

        Raises StorageError where the file could not be closed in good order; its log brings back what was committed.
        """
        if self._is_forked:
            return
        with self._writing, self._all_alone():
            root, self._root, self._closed = self._root, None, True
            _opened.keys.discard(self._key)
            if root is None:
                return
            try:
                if not self._suspect:
                    root.execute("CHECKPOINT")
            except duckdb.Error as exc:
                raise self._failure("closed", exc) from exc
            finally:
                self._close_spares()
                root.close()

    def forked(self) -> None:
        """See ikvcore.forks: not even a destructor may run here, since it would wait for threads of the parent."""
        self._is_forked = True
        for handle in (self._root, *self._spare, *self.running):
            if handle is not None:
                leak(handle)

    def _reopen(self) -> None:
        with self._writing, self._all_alone():
            if not self._suspect:  # another thread did it while this one waited
                return
            if self._closed:
                raise self._closed_error()
            self._open_anew()
            _log.info("the replica at %s was opened anew", self.directory)

    def renew(self) -> bool:
        """Open the file anew, since DuckDB keeps some memory of each commit until it is closed; False where somebody
        reads for long or has a query. An error is the next call's: what was committed before stays so."""
        with self._writing, self._queries.alone(0) as unasked:
            if not unasked or self.running:  # one of this thread too
                return False
            with self._gate.alone(_PATIENCE) as alone:
                if alone:
                    try:
                        self._open_anew()
                    except IKVError as exc:
                        _log.warning("the replica at %s could not be opened anew: %s", self.directory, exc)
                return alone

    def _open_anew(self) -> None:
        root, self._root, self._wal, self.commits = self._root, None, 0, 0
        self._close_spares()
        if root is not None:
            root.close()
        self._suspect = True  # where it cannot be opened now, for want of descriptors say, the next call tries again
        self._root = self._recover(self.directory / _FILE)
        self._suspect = False

    @contextmanager
    def _all_alone(self) -> Iterator[None]:
        while True:
            for cursor in list(self.running):
                cursor.interrupt()
            with self._queries.alone(_PATIENCE) as alone:
                if alone:
                    with self._gate.alone():
                        yield
                    return

    def _make(self, create: Callable[[Connection], None]) -> None:
        """Make the file under another name first: one that a crash left half made could never be opened."""
        path, fresh = self.directory / _FILE, self.directory / _FRESH
        shutil.rmtree(self.directory / "spill", ignore_errors=True)
        if path.exists():
            return
        for left in self.directory.glob(f"{_FRESH}*"):
            left.unlink()
        root = self._connect(fresh)
        try:
            create(root)
            root.execute("CHECKPOINT")
        except duckdb.Error as exc:
            raise storage_error(self.directory, "made", exc) from exc
        finally:
            root.close()
        fresh.chmod(0o600)
        fresh.rename(path)
        _sync_directory(self.directory)

    def _recover(self, path: Path) -> Connection:
        """Open the file with its log, of which a power loss may have left a part of the last commit."""
        while True:
            try:
                return self._connect(path)
            except ReplicaDamagedError as exc:
                if not cut_at_hole(path.with_name(f"{path.name}.wal"), exc.__cause__):
                    raise

    def _connect(self, path: Path) -> Connection:
        try:
            root = duckdb.connect(str(path), config=self._config)
            root.execute("SET enable_external_access = false")
            root.execute("SET lock_configuration = true")
        except duckdb.Error as exc:
            raise storage_error(self.directory, "opened", exc) from exc
        return root

    def _failed_to_make(self, exc: OSError) -> StorageError:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFullError(self.directory, exc)
        return StorageError(f"the replica at {str(self.directory)!r} could not be made: {exc}")

    # -- parts ---------------------------------------------------------------------------------

    def _borrow(self) -> Connection:
        root = self._usable()
        try:
            return self._spare.pop()
        except IndexError:
            return root.cursor()

    def _give_back(self, cursor: Connection) -> None:
        if self._root is not None and len(self._spare) < _SPARE_CURSORS:
            self._spare.append(cursor)
        elif not self._is_forked:
            cursor.close()

    def _close_spares(self) -> None:
        while self._spare:
            self._spare.pop().close()

    def _usable(self) -> Connection:
        self._check()
        if self._root is None:
            raise self._closed_error()
        return self._root

    def _closed_error(self) -> StorageError:
        return StorageError(f"the replica at {str(self.directory)!r} is closed")

    def _check(self) -> None:
        if self._is_forked:
            raise ForkedError("replica")

    def _failure(self, done: str, exc: duckdb.Error) -> Exception:
        if self._root is None:
            return StorageError(f"the replica at {str(self.directory)!r} was closed")
        if is_fatal(exc):
            self._suspect = True
        return storage_error(self.directory, done, exc)


@contextmanager
def _ended(cursor: Connection) -> Iterator[None]:
    """End a transaction that its user did not commit."""
    try:
        yield
    finally:
        with suppress(duckdb.Error):  # it was committed, or has ended by its error
            cursor.execute("ROLLBACK")


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
