"""What is SQLite's own: files and modes, transactions that stay open, a log that grows, errors by code, forks."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ikv_backends import _sqlite_database
from ikv_backends._sqlite_database import SqliteDatabase
from ikv_backends.sqlite import SqliteOptions, SqliteStorage
from ikvcore.errors import FencedError, InvalidOptionError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.models import WriteBatch
from ikvcore.testing._parallel import run_threads

PATIENCE = 60.0
FAST = SqliteOptions(durability="process-crash")


@pytest.fixture
def storage(directory: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(directory, FAST)
    yield storage
    storage.close()


def put(storage: SqliteStorage, **values: bytes) -> None:
    storage.commit(WriteBatch(puts={name.encode(): value for name, value in values.items()}), expect={})


def get(storage: SqliteStorage, key: bytes) -> bytes | None:
    with storage.snapshot() as snapshot:
        return snapshot.get(key)


def pragma(storage: SqliteStorage, name: str) -> Any:
    """A setting, as whoever reads or writes has it."""
    with storage.snapshot() as snapshot:
        return snapshot.connection.execute(f"PRAGMA {name}").fetchone()[0]


# -- files -------------------------------------------------------------------------------------


def test_files_are_the_owners_alone_whatever_the_umask(directory: Path) -> None:
    old = os.umask(0o000)
    try:
        storage = SqliteStorage(directory, FAST)
        put(storage, a=b"1")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    storage.close()
    assert modes == dict.fromkeys(("replica.sqlite", "replica.sqlite-wal", "replica.sqlite-shm"), 0o600)


@pytest.mark.parametrize(("word", "level"), [("power-loss", 2), ("process-crash", 1)])
def test_commits_are_synced_for_power_loss_alone(directory: Path, word: str, level: int) -> None:
    storage = SqliteStorage(directory, SqliteOptions(durability=word))
    with storage._database.write() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert pragma(storage, "journal_mode") == "wal"
    storage.close()


@pytest.mark.parametrize("word", ["none", "sometimes", ""])
def test_other_durabilities_are_refused(word: str) -> None:
    with pytest.raises(InvalidOptionError, match="durability"):
        SqliteOptions(durability=word)


def test_a_directory_that_is_gone_is_an_error(directory: Path) -> None:
    directory.rmdir()
    with pytest.raises(StorageError, match=r"could not be opened|No such file"):
        SqliteStorage(directory, FAST)


def test_opening_does_not_wait_for_who_writes(directory: Path, storage: SqliteStorage) -> None:
    """A process that was stopped inside a commit may hold the lock for ever."""
    put(storage, a=b"1")
    with storage._database.write():
        other = SqliteStorage(directory, FAST)
        assert get(other, b"a") == b"1"
        other.close()


# -- transactions ------------------------------------------------------------------------------


def test_an_iterator_that_is_left_over_pins_no_state(storage: SqliteStorage) -> None:
    """Its statement would hold the old state on the connection that the next reader gets."""
    put(storage, a=b"1", b=b"1")
    with storage.snapshot() as snapshot:
        left = storage.scan(snapshot, b"", None)
        next(left)
    put(storage, a=b"2")
    with storage.snapshot() as later:
        assert later.connection is snapshot.connection
        assert later.get(b"a") == b"2"
    with pytest.raises(StorageError):
        list(left)


def test_a_snapshot_outlives_the_close_of_its_storage(storage: SqliteStorage) -> None:
    """Another thread may be inside the engine; its connection is closed when it comes back."""
    put(storage, a=b"1")
    with storage.snapshot() as snapshot:
        storage.close()
        assert snapshot.get(b"a") == b"1"
    assert not storage._database._all
    with pytest.raises(StorageError, match="closed"):
        storage.snapshot()


def test_the_id_is_of_the_state_also_for_commits_of_others(directory: Path, storage: SqliteStorage) -> None:
    other = SqliteStorage(directory, FAST)
    ids = []
    for turn in range(4):
        put((storage, other)[turn % 2], a=b"%d" % turn)
        for each in (storage, other):
            with each.snapshot() as snapshot:
                ids.append(snapshot.id())
    other.close()
    assert ids == [n for n in range(1, 5) for _ in range(2)]


def test_a_refused_commit_lets_the_next_one_begin(directory: Path, storage: SqliteStorage) -> None:
    other = SqliteStorage(directory, FAST)
    with pytest.raises(FencedError):
        storage.commit(WriteBatch(puts={b"a": b"1"}), expect={b"a": b"other"})
    put(other, a=b"2")
    other.close()
    assert get(storage, b"a") == b"2"


def test_who_cannot_begin_to_write_says_who_may_be_in_the_way(
    directory: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_database, "_PATIENCE", 0.05)
    other = SqliteStorage(directory, FAST)
    with storage._database.write(), pytest.raises(StorageError, match="another process keeps it locked"):
        put(other, a=b"1")
    put(other, a=b"2")
    other.close()


# -- the log -----------------------------------------------------------------------------------


def test_the_log_begins_anew_beside_readers_that_overlap(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no moment without a reader in it; without a limit it would hold every commit there ever was."""
    for name, value in {"_LOG_LIMIT": 1 << 20, "_LOG_KEPT": 1 << 18, "_LOG_EVERY": 0.0}.items():
        monkeypatch.setattr(_sqlite_database, name, value)
    storage = SqliteStorage(directory, FAST)
    log, done, sizes = storage._database._path.with_name("replica.sqlite-wal"), threading.Event(), [0]

    def read() -> None:
        held = storage.snapshot()
        while not done.is_set():
            done.wait(0.002)
            following = storage.snapshot()
            held.__exit__(None, None, None)
            held = following
        held.__exit__(None, None, None)

    def write() -> None:
        try:
            for _ in range(120):
                put(storage, a=os.urandom(100_000))
                sizes.append(log.stat().st_size)
        finally:
            done.set()

    run_threads([write, read, read])
    storage.close()
    assert max(sizes) < 6 << 20


# -- errors ------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_work_goes_on_after_it(storage: SqliteStorage) -> None:
    put(storage, a=b"1")
    connection = storage._database._writer
    assert connection is not None
    connection.execute("PRAGMA max_page_count = 10")
    with pytest.raises(StorageFullError):
        put(storage, b=b"x" * 100_000)
    put(storage, a=b"2")
    connection.execute("PRAGMA max_page_count = 1000000")
    put(storage, b=b"x" * 100_000)
    assert get(storage, b"a") == b"2"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_CORRUPT, ReplicaDamagedError),
        (sqlite3.SQLITE_CORRUPT_INDEX, ReplicaDamagedError),
        (sqlite3.SQLITE_NOTADB, ReplicaDamagedError),
        (sqlite3.SQLITE_IOERR_READ, StorageError),
        (sqlite3.SQLITE_BUSY, StorageError),
        (sqlite3.SQLITE_READONLY, StorageError),
    ],
)
def test_errors_are_translated_by_their_code(storage: SqliteStorage, code: int, error: type[StorageError]) -> None:
    driver = sqlite3.OperationalError("as SQLite says")
    driver.sqlite_errorcode = code
    assert type(storage._database.failure("read", driver)) is error


def test_an_input_error_on_a_full_disk_is_a_full_disk(storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = sqlite3.OperationalError("disk I/O error")
    driver.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    monkeypatch.setattr(SqliteDatabase, "_is_full", lambda _: True)
    assert isinstance(storage._database.failure("written", driver), StorageFullError)


def test_a_file_of_something_else_is_damage(directory: Path) -> None:
    (directory / "replica.sqlite").write_bytes(b"this is no database" * 1000)
    with pytest.raises(ReplicaDamagedError, match=r"replica\.sqlite"):
        SqliteStorage(directory, FAST)


def test_a_number_of_the_last_commit_that_is_gone_is_damage(directory: Path, storage: SqliteStorage) -> None:
    with storage._database.write() as connection:
        connection.execute("DELETE FROM commits")
    with pytest.raises(ReplicaDamagedError):
        SqliteStorage(directory, FAST)


def test_verify_finds_a_page_of_nonsense(directory: Path) -> None:
    storage = SqliteStorage(directory, FAST)
    storage.commit(WriteBatch(puts={b"%06d" % n: b"v" * 100 for n in range(5000)}), expect={})
    assert storage.verify() == []
    storage.close()
    path = directory / "replica.sqlite"
    content = bytearray(path.read_bytes())
    content[40 * 4096 : 40 * 4096 + 64] = os.urandom(64)
    path.write_bytes(content)
    storage = SqliteStorage(directory, FAST)
    assert storage.verify()
    storage.close()


# -- processes ---------------------------------------------------------------------------------


def run(program: str, *arguments: object, timeout: float = PATIENCE) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_kill_inside_a_commit_leaves_nothing_of_it(directory: Path, storage: SqliteStorage) -> None:
    """And no lock: the kernel gives it up."""
    put(storage, a=b"1")
    program = """
        import sys
        from pathlib import Path
        from ikv_backends.sqlite import SqliteOptions, SqliteStorage
        storage = SqliteStorage(Path(sys.argv[1]), SqliteOptions())
        with storage._database.write() as connection:
            connection.execute("UPDATE entries SET value = x'32'")
            print("inside", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "inside\n"
        child.send_signal(signal.SIGKILL)
    assert get(storage, b"a") == b"1"
    put(storage, a=b"3")


def test_a_process_stopped_inside_a_commit_is_killed_for_it(
    directory: Path, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is stopped, and only then: one that merely takes long is waited for."""
    monkeypatch.setattr(_sqlite_database, "_PATIENCE", 1.0)
    monkeypatch.setattr("ikv_backends._writer_watch.WAIT", 0.2)
    put(storage, a=b"1")
    writer = SqliteStorage(directory, FAST)
    program = """
        import sys
        from pathlib import Path
        from ikv_backends.sqlite import SqliteOptions, SqliteStorage
        storage = SqliteStorage(Path(sys.argv[1]), SqliteOptions())
        with storage._database.write() as connection:
            print("inside", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "inside\n"
            with pytest.raises(StorageError, match="locked"):
                put(writer, a=b"2")
            assert child.poll() is None
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
            put(writer, a=b"3")
            assert child.wait(PATIENCE) == -signal.SIGKILL
        finally:
            child.kill()
    assert get(storage, b"a") == b"3"
    writer.close()


def test_a_log_without_its_index_is_read_anew(directory: Path, tmp_path: Path, storage: SqliteStorage) -> None:
    """As after a crash of the machine: what was committed is in the log alone."""
    put(storage, a=b"1")
    copy = tmp_path / "copy"
    copy.mkdir()
    # Of this process's own open files: but a copy's descriptors are of another file than those of the locks.
    run("import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)", directory, copy)
    (copy / "replica.sqlite-shm").unlink()
    other = SqliteStorage(copy, FAST)
    assert get(other, b"a") == b"1"
    other.close()
    shutil.rmtree(copy)


def test_a_forked_child_touches_nothing(directory: Path) -> None:
    """Every call raises ForkedError, the directory cannot be opened again there, and its exit leaves the parent's
    snapshot, scan and commits as they were."""
    program = """
        import os, sys
        from pathlib import Path
        from ikv_backends.sqlite import SqliteOptions, SqliteStorage
        from ikvcore.errors import ForkedError
        from ikvcore.models import WriteBatch
        directory = Path(sys.argv[1])
        storage = SqliteStorage(directory, SqliteOptions())
        def put(value):
            storage.commit(WriteBatch(puts={b"k%04d" % n: value for n in range(2000)}), expect={})
        put(b"old")
        held = storage.snapshot()
        scan = storage.scan(held, b"", None)
        next(scan)
        child = os.fork()
        if child == 0:
            for call in (storage.snapshot, lambda: put(b"child"), lambda: SqliteStorage(directory, SqliteOptions())):
                try:
                    call()
                except ForkedError:
                    continue
                os._exit(1)
            held.__exit__(None, None, None)
            storage.close()
            storage.close()
            sys.exit(7)  # the interpreter's own way out: destructors and all
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        for round in range(20):
            put(b"new%d" % round)
        assert all(held.get(b"k%04d" % n) == b"old" for n in range(2000)), "the held snapshot went wrong"
        assert len(list(scan)) == 1999
        with storage.snapshot() as snapshot:
            assert snapshot.get(b"k0000") == b"new19"
        held.__exit__(None, None, None)
        assert storage.verify() == []
        storage.close()
        child = os.fork()
        if child == 0:  # what was closed before the fork is opened as ever
            storage = SqliteStorage(directory, SqliteOptions())
            put(b"grandchild")
            storage.close()
            sys.exit(8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
        print("fine")
    """
    assert run(program, directory) == "fine\n"
