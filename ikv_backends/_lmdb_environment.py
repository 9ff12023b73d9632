"""One LMDB environment, for replicas and logs alike: how it is opened, used, repaired and given up, and what its errors
become.

What LMDB and its binding get wrong is handled here and nowhere else (design, section 7), but for one thing: a process
may open a directory once only, so who opens one here has to see to that (_lmdb_table.py does for replicas).
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn, TypeAlias, TypeVar

import lmdb

from ikv_backends._gate import Gate
from ikv_backends._lmdb_pages import check_pages
from ikv_backends._lmdb_writer import LmdbSight
from ikv_backends._maps import forget_pages
from ikv_backends._writer_watch import watch
from ikvcore.errors import ForkedError, IKVError, StorageFullError
from ikvcore.forks import after_fork_in_child, leak

__all__ = ["CommitFailedError", "LmdbEnvironment", "Transaction"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

Transaction: TypeAlias = "lmdb.Transaction[bytes]"

_RESERVE: Final = 1 << 40
"""Address space, not disk: large enough that hardly a process ever has to grow its map while others read."""
_SMALLEST_RESERVE: Final = 1 << 28
_MAX_READERS: Final = 4096
_LOCK_BYTES: Final = (_MAX_READERS + 64) * 64
"""The lock file: a cache line for each reader, and some for itself."""
_SPARE_TRANSACTIONS: Final = 64
_ATTEMPTS: Final = 4
_GROWTHS: Final = 8
_READER_CHECK_SECONDS: Final = 1.0
"""A look costs some microseconds for each process that reads; what a dead one pins, a busy writer piles up."""
_FORGET_EVERY: Final = 128
"""Commits after which a writer gives up the pages that it has touched."""
_MARGIN: Final = 1 << 20
"""Less free space than this beside what is written counts as a full disk: pages are copied on write."""
_DAMAGED: Final = (
    lmdb.CorruptedError,
    lmdb.CursorFullError,  # a tree deeper than any can be: its pages lead in a circle
    lmdb.InvalidError,
    lmdb.PageFullError,  # a page that was split and has no space all the same
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class CommitFailedError(Exception):
    """The commit itself failed: whether it took effect is for the caller to look up. The cause is LMDB's."""


class _SuspectError(Exception):
    """The environment has to be opened anew before it is used again."""


class LmdbEnvironment:
    """One environment. Thread-safe; in a forked child every call but `close` raises ForkedError.

    what: "replica" or "log", for messages. error: the class that LMDB's errors become; damaged: what becomes of a file
    that is not what LMDB wrote. create: make an empty environment where there is none; otherwise an absent or empty
    file is an error, since its content would be gone in silence.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sync: bool,
        create: bool,
        what: str,
        error: type[IKVError],
        damaged: Callable[[str], IKVError] | None = None,
    ) -> None:
        self.directory = directory
        self.sync = sync
        self.is_forked = False
        self._what = what
        self._error = error
        self._damaged: Callable[[str], IKVError] = damaged or (
            lambda text: error(f"{self._described} is damaged: {text}")
        )
        self._data_file = directory / "data.mdb"
        self._gate = Gate()
        self._suspect = False
        self._readers_checked = time.monotonic()
        self._commits = 0
        self._waiting: set[int] = set()  # threads that wait for LMDB's write lock
        self._env: lmdb.Environment | None = self._open(create)
        status = self._data_file.stat()
        self._opened_file = (status.st_dev, status.st_ino)
        self.begin: Callable[[], Transaction] = self._env.begin
        """LMDB's own method, for reads that are too short for a call more. Where it fails, `begin_read` knows why."""
        after_fork_in_child(self)
        watch(self, LmdbSight(directory))

    @staticmethod
    def create(directory: Path, entries: dict[bytes, bytes]) -> None:
        """Make an environment that holds `entries`, durably, in an empty directory that no one else knows yet.

        Raises lmdb.Error, OSError.
        """
        _reserve_lock_file(directory)
        # Format 1 is the one that every release of LMDB's Python binding reads.
        with lmdb.open(str(directory), map_size=_MARGIN, mode=0o600, lib_version=0) as env:
            for name in ("data.mdb", "lock.mdb"):
                (directory / name).chmod(0o600)  # the umask may have taken even the owner's bits
            with env.begin(write=True) as txn:
                for key, value in entries.items():
                    txn.put(key, value)

    # -- transactions --------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read transaction on the last commit."""
        txn = self._begin(write=False)
        try:
            yield txn
        except lmdb.Error as exc:
            raise self.failure("read", exc) from exc
        finally:
            if self.is_forked:  # the child unwinds; the transaction's reader slot is the parent's
                leak(txn)
            else:
                txn.abort()
                self._gate.leave()

    def begin_read(self) -> Transaction:
        """A read transaction that nobody waits for: if the environment has to be changed, it ends with lmdb.Error."""
        txn = self._begin(write=False)
        self._gate.leave()
        return txn

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in a write transaction, commit it, and return what it returned.

        A `change` that declines returns, with nothing changed, rather than raise: py-lmdb's abort waits for a moment in
        which no other thread is inside the environment, and would hold LMDB's write lock that long. `change` may run
        again, from the beginning, where the map had to grow. Raises CommitFailedError where the commit failed. Whatever
        else is raised, by `change` too, nothing has changed.
        """
        for _ in range(_GROWTHS):
            try:
                return self._write_once(change)
            except lmdb.MapFullError as exc:
                self._grow(exc)
        return self._write_once(change)

    def _write_once(self, change: Callable[[Transaction], T]) -> T:
        txn = self._begin(write=True)
        try:
            try:
                result = change(txn)
            except BaseException:
                txn.abort()
                raise
            try:
                txn.commit()
            except lmdb.MapFullError:
                raise
            except lmdb.Error as exc:
                # After a failed commit LMDB may refuse everything until it is opened anew.
                self._suspect = True
                raise CommitFailedError from exc
            self._commits += 1
            if self._commits % _FORGET_EVERY == 0:
                forget_pages(self._data_file)  # inside the gate, where nobody changes the map
        finally:
            self._gate.leave()
        if time.monotonic() - self._readers_checked > _READER_CHECK_SECONDS:
            self._check_readers()
        return result

    def _grow(self, cause: lmdb.MapFullError) -> None:
        """Double the map, which is only ever too small where address space was short when it was opened."""
        if self._is_full(0):
            raise self.failure("written", cause) from cause
        with self._gate.alone():
            env = self._usable()
            try:
                env.set_mapsize(2 * env.info()["map_size"])
            except (lmdb.Error, OverflowError, MemoryError) as exc:
                raise self.failure("written", cause) from exc

    def _begin(self, *, write: bool) -> Transaction:
        """A transaction, inside the gate. What keeps one from beginning is cured, and it is tried again."""
        self.check()
        for attempt in range(1, _ATTEMPTS + 1):
            self._gate.enter()
            try:
                if self._suspect:
                    raise _SuspectError
                return self._begin_write() if write else self._usable().begin()
            except BaseException as exc:
                self._gate.leave()
                cure = self._cure(exc)
                if cure is None or attempt == _ATTEMPTS:
                    if isinstance(exc, lmdb.Error):
                        raise self.failure("opened", exc) from exc
                    raise
            with self._gate.alone():
                cure()
        raise AssertionError("the last attempt raises or returns")

    def _begin_write(self) -> Transaction:
        thread = threading.get_ident()
        self._waiting.add(thread)
        try:
            return self._usable().begin(write=True)
        finally:
            self._waiting.discard(thread)

    @property
    def is_waiting(self) -> bool:
        """See _writer_watch."""
        return bool(self._waiting)

    def _cure(self, exc: BaseException) -> Callable[[], object] | None:
        if isinstance(exc, _SuspectError):
            return self._reopen
        if isinstance(exc, lmdb.MapResizedError):
            return self._take_over_map_size
        if isinstance(exc, lmdb.ReadersFullError):
            return self._check_readers
        return None

    def _take_over_map_size(self) -> None:
        self._usable().set_mapsize(0)

    def _check_readers(self) -> None:
        """Free the slots of killed readers: their snapshots keep pages from being used again, and the file grows."""
        self._readers_checked = time.monotonic()
        self._usable().reader_check()

    # -- the environment's life ----------------------------------------------------------------

    def last_commit(self) -> int:
        """LMDB's number of the last commit."""
        self.check()
        self._gate.enter()
        try:
            return self._usable().info()["last_txnid"]
        finally:
            self._gate.leave()

    def size(self) -> int:
        """Bytes of the data file, by stat: opening LMDB's files by other means would harm its locks."""
        try:
            return self._data_file.stat().st_size
        except OSError as exc:
            raise self._error(f"{self._described} has lost its data file: {exc}") from exc

    def check_file(self) -> None:
        """Raise where the data file is no longer the one that was opened: what is written would be nowhere."""
        found = None
        with suppress(FileNotFoundError):
            status = self._data_file.stat()
            found = (status.st_dev, status.st_ino) if status.st_size else None
        if found != self._opened_file:
            raise self._damaged(
                "its data file was removed, emptied or replaced while it was open; end the processes that use it, and "
                "restore the file"
            )

    def check_pages(self) -> list[str]:
        """What is wrong with the file's pages at the last commit, see _lmdb_pages; others may be writing."""
        try:
            return check_pages(self._data_file, self.read)
        except OSError as exc:
            raise self.failure("read", exc) from exc

    def close(self) -> None:
        """Close for the process, after the transactions that are under way. Idempotent.

        Raises what `failure` makes where commits could not be brought to the disk; closed it is then too.
        """
        if self.is_forked:
            return
        with self._gate.alone():
            env, self._env = self._env, None
            self.begin = self._refuse
            if env is not None:
                try:
                    if not self.sync:
                        self._sync(env)
                except lmdb.Error as exc:
                    raise self.failure("synced", exc) from exc
                finally:
                    env.close()

    def bring_to_disk(self) -> bool:
        """Sync what commits left to the operating system; whether that succeeded."""
        self.check()
        self._gate.enter()
        try:
            self._sync(self._usable())
        except lmdb.Error as exc:
            _log.warning("%s could not be synced: %s", self._described, exc)
            return False
        finally:
            self._gate.leave()
        return True

    @staticmethod
    def _sync(env: lmdb.Environment) -> None:
        """Bring to disk what commits left to the operating system: what was closed in good order survives it all."""
        env.sync(True)

    def forked(self) -> None:
        """See ikvcore.forks. Closing here would clear the parent's reader slots, so the environment is leaked."""
        self.is_forked = True
        self.begin = self._refuse
        if self._env is not None:
            leak(self._env)

    def check(self) -> None:
        """Raise ForkedError in a child of the process that opened the log; before any lock is waited for."""
        if self.is_forked:
            raise ForkedError(self._what)

    def _usable(self) -> lmdb.Environment:
        if self._env is None or self.is_forked:
            self._refuse()
        return self._env

    def _refuse(self) -> NoReturn:
        self.check()
        raise self._error(f"{self._described} was closed")

    @property
    def _described(self) -> str:
        return f"the {self._what} at {str(self.directory)!r}"

    def _open(self, create: bool) -> lmdb.Environment:
        if not create and self.size() == 0:
            raise self._damaged("its data file is empty")
        try:
            _reserve_lock_file(self.directory)
        except OSError as exc:
            raise self.failure("opened", exc) from exc
        reserve = _RESERVE
        while True:
            try:
                env = lmdb.open(
                    str(self.directory),
                    map_size=reserve,
                    create=create,
                    sync=self.sync,
                    metasync=self.sync,
                    mode=0o600,
                    readahead=False,
                    max_readers=_MAX_READERS,
                    max_spare_txns=_SPARE_TRANSACTIONS,
                    lib_version=0,  # for a new one: data format 1, which every release of py-lmdb reads
                )
                break
            except (lmdb.MemoryError, MemoryError) as exc:
                if reserve <= _SMALLEST_RESERVE:
                    raise self._error(f"no address space for {self._described}: {exc}") from exc
                reserve >>= 1  # a limit on address space (ulimit -v)
            except (lmdb.Error, OSError) as exc:  # the binding makes the directory, in Python's own way
                raise self.failure("opened", exc) from exc
        self._check_length(env)
        env.reader_check()
        return env

    def _check_length(self, env: lmdb.Environment) -> None:
        """Refuse a file that ends before pages that it needs: touching those kills the process (SIGBUS)."""
        wanted = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if (found := self.size()) >= wanted:
            return
        missing = check_pages(self._data_file, env.begin, end_alone=True)
        if missing:
            env.close()
            raise self._damaged(
                f"its data file has {found:,} bytes of at least {wanted:,} ({missing[0]}); restore it from a copy"
            )

    def _reopen(self) -> None:
        if not self._suspect:  # another thread did it while this one waited
            return
        self.begin = self.begin_read  # which waits until this is done: reads go on
        self._usable().close()
        # Closed for good if it cannot be opened now: a later call says so, and so does a new client.
        self._env = None
        self.check_file()
        self._env = self._open(create=False)
        self.begin = self._env.begin
        self._suspect = False

    # -- errors --------------------------------------------------------------------------------

    def failure(self, done: str, exc: BaseException | None, needed: int = 0) -> IKVError:
        """What an LMDB error becomes; `done` is what the environment could not be, `needed` the bytes that were to be
        added.

        A full disk does not always say so: LMDB turns a short write into EIO, so the space itself is looked at.
        """
        code = exc.errno if isinstance(exc, OSError) else getattr(exc, "code", 0)
        if isinstance(exc, lmdb.MapFullError | lmdb.DiskError) or code in _FULL or self._is_full(needed):
            return StorageFullError(self.directory, exc)
        if isinstance(exc, _DAMAGED):
            return self._damaged(f"{type(exc).__name__}: {exc}")
        return self._error(f"{self._described} could not be {done}: {type(exc).__name__}: {exc}")

    def _is_full(self, needed: int) -> bool:
        with suppress(OSError, IKVError):
            space = os.statvfs(self.directory)
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            within_limit = limit == resource.RLIM_INFINITY or self.size() + needed + _MARGIN < limit
            return space.f_bavail * space.f_frsize < needed + _MARGIN or not within_limit
        return False


def _reserve_lock_file(directory: Path) -> None:
    """Give the lock file its space on the disk before LMDB maps it, sparse: where a disk is full, touching a page of it
    that has none kills the process (SIGBUS). Raises OSError.

    Only before the environment is opened, and only where space is missing: to close the file gives up the locks that
    this process has on it.
    """
    path = directory / "lock.mdb"
    with suppress(FileNotFoundError):
        status = path.stat()
        if status.st_size >= _LOCK_BYTES and status.st_blocks * 512 >= _LOCK_BYTES:
            return
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, _LOCK_BYTES)
    finally:
        os.close(file)
