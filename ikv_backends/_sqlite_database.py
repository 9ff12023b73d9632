"""One SQLite file and this process's connections to it: how they are opened, lent, and given up, and what SQLite's
errors become.

A connection is used by one thread at a time. Those that read are lent to whoever opens a snapshot; the one that writes
is made with the first commit.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

from ikv_backends._inherited import OpenDirectories
from ikv_backends._sqlite_writer import SqliteSight
from ikv_backends._writer_watch import watch
from ikvcore.errors import ForkedError, IKVError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.forks import after_fork_in_child, leak

__all__ = ["SqliteDatabase"]

_log = logging.getLogger(__name__)

_FILE: Final = "replica.sqlite"
_PATIENCE: Final = 5.0
"""Seconds for which a lock of another process is waited for; twice that for the write lock, since a process that was
stopped with it is killed meanwhile."""
_CACHE_KIB: Final = 8192
_LOG_KEPT: Final = 16 << 20
_LOG_LIMIT: Final = 64 << 20
"""From this size on, a commit waits a moment for readers to leave the write-ahead log, so that it begins anew."""
_LOG_WAIT_MS: Final = 50
_LOG_EVERY: Final = 1.0
_MARGIN: Final = 1 << 20
"""Less free space than this counts as a full disk, where SQLite speaks of an input or output error."""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_TABLES: Final = (
    # BLOBs compare as unsigned bytes. Without rowids the records lie in the tree of the keys, found in one descent.
    "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS commits (number INTEGER NOT NULL)",
    "INSERT INTO commits SELECT 0 WHERE NOT EXISTS (SELECT * FROM commits)",
)

_open: Final = OpenDirectories()


class SqliteDatabase:
    """The database in one directory. Thread-safe; in a forked child every call but `close` raises ForkedError."""

    def __init__(self, directory: Path, *, sync: bool) -> None:
        """`sync`: commits survive a power loss. Raises StorageError, ReplicaDamagedError, ForkedError."""
        self.directory = directory
        self.is_waiting = False
        """See _writer_watch: whether a write was asked for that has not begun."""
        self._path = directory / _FILE
        self._sync = sync
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []  # list's own pop and append are atomic
        self._all: set[sqlite3.Connection] = set()
        self._closed = False
        self._forked = False
        self._log_looked = 0.0
        try:
            self._key = _open.enter(directory)
        except OSError as exc:
            raise self.failure("opened", exc) from exc
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        after_fork_in_child(self)
        watch(self, SqliteSight(self._path.with_name(f"{_FILE}-shm")))

    # -- reading and writing -------------------------------------------------------------------

    def lend(self) -> sqlite3.Connection:
        """A connection in a read transaction, whose state its first read decides; `take_back` is to be called."""
        if self._closed or self._forked:
            self._refuse()
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
        except sqlite3.Error as exc:
            raise self.failure("opened", exc) from exc
        try:
            connection.execute("BEGIN")
        except sqlite3.Error as exc:
            self._give_up(connection)
            raise self.failure("read", exc) from exc
        return connection

    def take_back(self, connection: sqlite3.Connection, cursors: Sequence[sqlite3.Cursor] = ()) -> None:
        """End the read transaction of a connection that was lent, and what reads from it. Nothing in a forked child."""
        if self._forked:
            return
        try:
            for cursor in cursors:
                cursor.close()
            connection.execute("ROLLBACK")
        except sqlite3.Error:  # whatever it is in, the next reader shall not be
            self._give_up(connection)
            return
        self._idle.append(connection)
        if self._closed:
            self._close_idle()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, committed at the end unless something is raised: then nothing has changed, but for a
        commit that fails itself, whose outcome the next snapshot shows."""
        if self._forked:
            self._refuse()
        with self._writing:
            if self._closed:
                self._refuse()
            try:
                if self._writer is None:
                    self._writer = self._connect()
                connection = self._writer
                self._begin_write(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException as exc:
                self._abandon_write()
                if isinstance(exc, sqlite3.Error):
                    raise self.failure("written", exc) from exc
                raise
            self._bound_log(connection)

    def _begin_write(self, connection: sqlite3.Connection) -> None:
        self.is_waiting = True
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            if _code(exc) not in _BUSY:
                raise
            connection.execute("BEGIN IMMEDIATE")
        finally:
            self.is_waiting = False

    def _abandon_write(self) -> None:
        """Roll back; a connection that cannot is not used again."""
        connection = self._writer
        if connection is None or self._forked:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._writer = None
            self._give_up(connection)

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Have the write-ahead log begin anew where it has grown long.

        SQLite copies it into the file every thousand pages by itself, but it begins anew only in a moment in which
        nobody reads from it, and beside readers that overlap there is none: then it would grow without end.
        """
        now = time.monotonic()
        if now - self._log_looked < _LOG_EVERY:
            return
        self._log_looked = now
        try:
            if os.stat(f"{self._path}-wal").st_size < _LOG_LIMIT:  # noqa: PTH116  on every commit's way
                return
            connection.execute(f"PRAGMA busy_timeout = {_LOG_WAIT_MS}")
            try:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")
        except (OSError, sqlite3.Error) as exc:  # the commit is made all the same, and a later one tries again
            _log.warning("the write-ahead log of %s could not be brought home: %s", self._path, exc)

    # -- life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close; a connection that is lent is closed when it comes back. Idempotent; nothing in a forked child."""
        if self._forked:
            return
        with self._writing:
            if self._closed:
                return
            self._closed = True
            writer, self._writer = self._writer, None
            if writer is not None:
                self._give_up(writer)
            self._close_idle()
            _open.leave(self._key)

    def forked(self) -> None:
        """See ikvcore.forks. A connection here believes in locks that are the parent's, so it is not even closed."""
        self._forked = True
        for connection in self._all:
            leak(connection)

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._give_up(self._idle.pop())

    def _give_up(self, connection: sqlite3.Connection) -> None:
        self._all.discard(connection)
        try:
            connection.close()
        except sqlite3.Error as exc:
            _log.warning("a connection to %s could not be closed: %s", self._path, exc)

    def _refuse(self) -> NoReturn:
        if self._forked:
            raise ForkedError("replica")
        raise StorageError(f"{self._described} is closed")

    @property
    def _described(self) -> str:
        return f"the replica at {str(self.directory)!r}"

    def _make(self) -> None:
        """Open the file, making it with its tables where it is not there. Others may be doing the same."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._make_file()
                self._idle.append(self._connect())
                if not self._is_made():
                    with self.write() as connection:
                        for statement in _TABLES:
                            connection.execute(statement)
                return
            except (sqlite3.Error, OSError) as exc:
                if isinstance(exc, IKVError):
                    raise
                # To turn the log on needs the file alone, and SQLite does not wait for that.
                if _code(exc) not in _BUSY or time.monotonic() > deadline:
                    raise self.failure("opened", exc) from exc
            time.sleep(0.01)

    def _is_made(self) -> bool:
        """Whether the tables are there: who only reads need not wait for who writes."""
        tables = self._idle[0].execute("SELECT count(*) FROM sqlite_schema WHERE name IN ('entries', 'commits')")
        if tables.fetchone() != (2,):
            return False
        if self._idle[0].execute("SELECT count(*) FROM commits").fetchone() != (1,):
            raise ReplicaDamagedError(f"{self._path.name} has lost the number of its last commit")
        return True

    def _make_file(self) -> None:
        """An empty file that only its owner may read: what SQLite puts beside it gets the same mode.

        Only where there is none: to close a file gives up every lock that this process has on it.
        """
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        self._all.add(connection)
        try:
            # Not mmap_size: a file that was cut short would end the process (SIGBUS).
            for setting in (
                "journal_mode = WAL",
                f"synchronous = {'FULL' if self._sync else 'NORMAL'}",
                f"journal_size_limit = {_LOG_KEPT}",
                f"cache_size = -{_CACHE_KIB}",
                "cell_size_check = ON",
                "temp_store = MEMORY",
            ):
                connection.execute(f"PRAGMA {setting}").fetchone()
        except BaseException:
            self._give_up(connection)
            raise
        return connection

    # -- errors --------------------------------------------------------------------------------

    def failure(self, done: str, exc: Exception) -> IKVError:
        """What an error becomes; `done` is what the database could not be."""
        if isinstance(exc, sqlite3.ProgrammingError) and self._closed:
            return StorageError(f"{self._described} is closed")
        code = _code(exc)
        if code in _DAMAGED:
            return ReplicaDamagedError(f"SQLite says of {self._path.name}: {exc}")
        full = code == sqlite3.SQLITE_FULL or getattr(exc, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and self._is_full()):
            return StorageFullError(self.directory, exc)
        waited = "; another process keeps it locked" if code in _BUSY else ""
        return StorageError(f"{self._described} could not be {done}: {type(exc).__name__}: {exc}{waited}")

    def _is_full(self) -> bool:
        with suppress(OSError):
            space = os.statvfs(self.directory)
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            largest = max(path.stat().st_size for path in self.directory.glob(f"{_FILE}*"))
            within_limit = limit == resource.RLIM_INFINITY or largest + _MARGIN < limit
            return space.f_bavail * space.f_frsize < _MARGIN or not within_limit
        return False


def _code(exc: Exception) -> int:
    """SQLite's primary result code, -1 for other errors."""
    code: int = getattr(exc, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else -1
