"""What is LMDB's own: one environment a directory and process, a map that grows, reader slots, forks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from ikv_backends import _lmdb_environment
from ikv_backends._lmdb_environment import CommitFailedError, LmdbEnvironment
from ikv_backends._lmdb_table import close_environment, open_environment
from ikv_backends.lmdb import LmdbOptions, LmdbStorage
from ikvcore.errors import (
    FencedError,
    InvalidOptionError,
    MountError,
    StorageError,
    StorageFullError,
    TransportError,
)
from ikvcore.models import WriteBatch

PATIENCE = 60.0


@pytest.fixture
def storage(directory: Path) -> Iterator[LmdbStorage]:
    storage = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
    yield storage
    storage.close()


def put(storage: LmdbStorage, **values: bytes) -> None:
    storage.commit(WriteBatch(puts={name.encode(): value for name, value in values.items()}), expect={})


def get(storage: LmdbStorage, key: bytes) -> bytes | None:
    with storage.snapshot() as snapshot:
        return snapshot.get(key)


def run(program: str, *arguments: object, timeout: float = PATIENCE) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# -- one environment ---------------------------------------------------------------------------


def test_one_environment_for_a_directory_however_it_is_named(directory: Path, storage: LmdbStorage) -> None:
    """Opening a path twice in a process would break LMDB's locks: the second opening shares the first."""
    link = directory.parent / "link"
    link.symlink_to(directory)
    other = LmdbStorage(link, LmdbOptions(durability="process-crash"))
    assert other._environment is storage._environment
    put(other, a=b"1")
    assert get(storage, b"a") == b"1"
    other.close()
    assert get(storage, b"a") == b"1"


def test_the_last_one_closes(directory: Path) -> None:
    """Uses are counted, closing twice counts once, and the directory can be opened anew."""
    options = LmdbOptions(durability="process-crash")
    first, second = LmdbStorage(directory, options), LmdbStorage(directory, options)
    environment = first._environment
    first.close()
    first.close()
    put(second, a=b"1")
    second.close()
    third = LmdbStorage(directory, options)
    assert third._environment is not environment
    assert get(third, b"a") == b"1"
    third.close()


def test_one_durability_for_a_directory(directory: Path, storage: LmdbStorage) -> None:
    """Another one is refused, naming both, and the environment in use is as it was."""
    with pytest.raises(InvalidOptionError, match=r"power-loss.*process-crash"):
        LmdbStorage(directory, LmdbOptions(durability="power-loss"))
    put(storage, a=b"1")
    storage.close()
    LmdbStorage(directory, LmdbOptions(durability="power-loss")).close()


@pytest.mark.parametrize(("word", "synced"), [("power-loss", True), ("process-crash", False)])
def test_commits_are_synced_for_power_loss_alone(directory: Path, word: str, synced: bool) -> None:
    """C4: what "power-loss" declares is LMDB's own doing, data and meta pages both; no test here can cut the power."""
    storage = LmdbStorage(directory, LmdbOptions(durability=word))
    assert storage._environment is not None
    assert storage._environment._env is not None
    flags = storage._environment._env.flags()
    assert (flags["sync"], flags["metasync"]) == (synced, synced)
    storage.close()


@pytest.mark.parametrize("word", ["none", "sometimes", ""])
def test_other_durabilities_are_refused(word: str) -> None:
    with pytest.raises(InvalidOptionError, match="durability"):
        LmdbOptions(durability=word)


def test_threads_that_open_and_close_at_once(directory: Path, storage: LmdbStorage) -> None:
    """Each finds a usable environment, and none closes another's."""
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(30):
                own = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
                put(own, **{f"k{number}": b"%d" % count})
                assert get(own, b"k%d" % number) == b"%d" % count
                own.close()
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert wrong == []


def test_closed_means_closed(directory: Path) -> None:
    """Every call is a StorageError that names the directory, also a snapshot's where another use is left open."""
    storage = LmdbStorage(directory, LmdbOptions())
    put(storage, a=b"1")
    storage.close()
    for call in (storage.snapshot, lambda: put(storage, a=b"2")):
        with pytest.raises(StorageError, match="closed") as caught:
            call()
        assert str(directory) in str(caught.value)


def test_a_closed_environment_refuses(directory: Path) -> None:
    environment = open_environment(directory, sync=False)
    close_environment(environment)
    for call in (
        environment.begin,
        environment.begin_read,
        lambda: environment.write(lambda txn: None),
        environment.begin,
    ):
        with pytest.raises(StorageError, match="closed"):
            call()


# -- errors ------------------------------------------------------------------------------------


def test_a_directory_that_is_no_environment_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no LMDB at all" * 1_000)
    with pytest.raises(StorageError) as caught:
        LmdbStorage(tmp_path, LmdbOptions())
    assert str(tmp_path) in str(caught.value)


def test_errors_are_of_the_callers_class(tmp_path: Path) -> None:
    """The log shares this module, and speaks of the log."""
    (tmp_path / "data.mdb").write_bytes(b"no LMDB at all" * 1_000)
    with pytest.raises(TransportError, match="log"):
        LmdbEnvironment(tmp_path, sync=True, create=False, what="log", error=TransportError)


@pytest.mark.parametrize(("code", "error"), [(errno.EIO, TransportError), (errno.ENOSPC, StorageFullError)])
def test_a_directory_that_cannot_be_made_is_an_error_of_the_callers_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    """LMDB's binding makes the directory itself, and raises a plain OSError where that fails."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_lmdb_environment.lmdb, "open", failing)
    with pytest.raises(error):
        LmdbEnvironment(tmp_path, sync=True, create=True, what="log", error=TransportError)


def test_every_driver_error_is_translated(storage: LmdbStorage) -> None:
    """Whatever py-lmdb can raise becomes one of ours."""
    import lmdb

    environment = storage._environment
    assert environment is not None
    classes = [cls for cls in vars(lmdb).values() if isinstance(cls, type) and issubclass(cls, lmdb.Error)]
    assert len(classes) > 15
    for cls in classes:
        translated = environment.failure("read", cls("what"))
        assert isinstance(translated, StorageError)
        assert not isinstance(translated, FencedError | MountError)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_scan_that_cannot_go_on_raises(storage: LmdbStorage, taken: int) -> None:
    """It never ends early: a scan cut short would be taken for all that there is."""
    put(storage, a=b"1", b=b"2", c=b"3")
    snapshot = storage.snapshot()
    scan = storage.scan(snapshot, b"", None)
    assert [next(scan)[0] for _ in range(taken)] == [b"a", b"b"][:taken]
    snapshot.abort()
    with pytest.raises(StorageError):
        list(scan)


def test_after_a_failed_commit_the_next_one_works(storage: LmdbStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB fails every call after an I/O error until the environment is opened anew."""
    import lmdb

    put(storage, a=b"1")
    environment = storage._environment
    assert environment is not None

    def fail(change: object) -> None:
        environment._suspect = True
        raise CommitFailedError from lmdb.DiskError("mdb_txn_commit: Input/output error")

    before = environment._env
    with monkeypatch.context() as patched:
        patched.setattr(environment, "write", fail)
        with pytest.raises(StorageFullError):
            put(storage, a=b"2")
    assert get(storage, b"a") == b"1"
    put(storage, a=b"3")
    assert get(storage, b"a") == b"3"
    assert environment._env is not before


def test_reads_wait_for_an_environment_that_is_opened_anew(
    storage: LmdbStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk makes the ingester do that again and again, and what is there must be read all the same."""
    put(storage, a=b"1")
    environment = storage._environment
    assert environment is not None
    opening, open_now, really_open = threading.Event(), threading.Event(), environment._open

    def open_slowly(create: bool) -> object:
        opening.set()
        assert open_now.wait(PATIENCE)
        return really_open(create)

    monkeypatch.setattr(environment, "_open", open_slowly)
    environment._suspect = True
    with ThreadPoolExecutor(2) as pool:
        write = pool.submit(put, storage, b=b"2")
        try:
            assert opening.wait(PATIENCE)
            read = pool.submit(get, storage, b"a")
            assert not wait([read], timeout=0.1).done
        finally:
            open_now.set()
        assert read.result(PATIENCE) == b"1"
        write.result(PATIENCE)
    assert get(storage, b"b") == b"2"


def test_a_refused_commit_ends_beside_busy_readers(directory: Path) -> None:
    """py-lmdb's abort waits until no other call is inside the environment, with the write lock of all processes in its
    hand: threads that read without a pause must not keep a fenced ingester, and with it every writer, there for ever.
    """
    program = """
        import os, sys, threading
        from pathlib import Path
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage
        from ikvcore.errors import FencedError
        from ikvcore.models import WriteBatch
        storage = LmdbStorage(Path(sys.argv[1]), LmdbOptions(durability="process-crash"))
        storage.commit(WriteBatch(puts={b"a": b"1"}), expect={})
        def read():
            while True:
                with storage.snapshot() as snapshot:
                    snapshot.get(b"a")
        for _ in range(3):
            threading.Thread(target=read, daemon=True).start()
        for _ in range(20):
            storage.commit(WriteBatch(puts={b"b": b"1"}), expect={b"a": b"1"})
            try:
                storage.commit(WriteBatch(puts={b"b": b"2"}), expect={b"a": b"2"})
            except FencedError:
                continue
            os._exit(1)
        print("fine", flush=True)
        os._exit(0)
    """
    try:
        assert run(program, directory, timeout=10) == "fine\n"
    except subprocess.TimeoutExpired:
        pytest.fail("a refused commit did not end within 10 s beside three reading threads")


def test_an_error_in_a_change_changes_nothing(storage: LmdbStorage) -> None:
    put(storage, a=b"1")
    with pytest.raises(FencedError):
        storage.commit(WriteBatch(puts={b"a": b"2"}, deletes={b"b"}), expect={b"a": b"9"})
    with pytest.raises(StorageError):
        storage.commit(WriteBatch(puts={b"a": b"2", b"k" * 600: b""}), expect={})
    assert get(storage, b"a") == b"1"


# -- the map -----------------------------------------------------------------------------------


@pytest.fixture
def small_map(monkeypatch: pytest.MonkeyPatch) -> int:
    size = 1 << 20
    monkeypatch.setattr(_lmdb_environment, "_RESERVE", size)
    monkeypatch.setattr(_lmdb_environment, "_SMALLEST_RESERVE", size)
    return size


def test_a_full_map_grows(small_map: int, directory: Path) -> None:
    """The whole batch is repeated in a larger map, once or several times over; nothing is lost or half there."""
    storage = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
    environment = storage._environment
    assert environment is not None
    values = {f"k{number}": os.urandom(100_000) for number in range(60)}
    for name, value in list(values.items())[:30]:
        put(storage, **{name: value})
    put(storage, **dict(list(values.items())[30:]))  # three megabytes in one commit
    assert environment._env.info()["map_size"] >= 6 * small_map
    assert {name: get(storage, name.encode()) for name in values} == values
    storage.close()
    again = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
    assert {name: get(again, name.encode()) for name in values} == values
    put(again, more=b"1")
    again.close()


def test_a_commit_larger_than_the_map(small_map: int, directory: Path) -> None:
    """Growing is repeated until the batch fits, within one call."""
    storage = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
    try:
        put(storage, big=bytes(6 * small_map))
        assert len(get(storage, b"big") or b"") == 6 * small_map
    finally:
        storage.close()


def test_readers_live_through_growth(directory: Path) -> None:
    """A thread that reads while the map grows again and again under it sees every value, and no error.

    In a process of its own: what goes wrong here may end the process.
    """
    program = """
        import sys, threading
        from pathlib import Path
        from ikv_backends import _lmdb_environment
        _lmdb_environment._RESERVE = _lmdb_environment._SMALLEST_RESERVE = 1 << 20
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage
        from ikvcore._kvstorage import KeyValueStorage
        from ikvcore.fields import FieldType
        from ikvcore.models import Projection, Upsert
        engine = LmdbStorage(Path(sys.argv[1]), LmdbOptions(durability="process-crash"))
        storage = KeyValueStorage(engine, max_key_bytes=511)
        def put(key, size):
            storage.apply([Upsert(0, key, {"v": (FieldType.BYTES, b"v" * size)}, None)], meta={}, expect={})
        for n in range(100):
            put(b"k%03d" % n, 500)
        everything = Projection(["v"])
        keys = [bytes(2) + b"k%03d" % n for n in range(100)]
        stop, wrong = threading.Event(), []
        def read():
            try:
                while not stop.is_set():
                    values = [row[2][0] for row in storage.get_many(keys, everything)]
                    one = storage.get(keys[7], everything)[2][0]
                    if {*values, one} != {b"v" * 500}:
                        wrong.append(len(values))
            except BaseException as exc:
                wrong.append(repr(exc))
        threads = [threading.Thread(target=read, daemon=True) for _ in range(1)]
        for thread in threads: thread.start()
        for number in range(30):
            put(b"x%d" % number, 500_000)
        stop.set()
        for thread in threads: thread.join()
        assert not wrong, wrong[:3]
        print("fine")
    """
    assert run(program, directory, timeout=20) == "fine\n"


def test_a_map_grown_by_another_process_is_followed(small_map: int, directory: Path, storage: LmdbStorage) -> None:
    """Reads and commits here go on with the other's size."""
    put(storage, a=b"1")
    program = """
        import os, sys
        from pathlib import Path
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage
        from ikvcore.models import WriteBatch
        storage = LmdbStorage(Path(sys.argv[1]), LmdbOptions(durability="process-crash"))
        storage.commit(WriteBatch(puts={b"big": bytes(8 << 20), b"a": b"2"}), expect={})
        storage.close()
    """
    run(program, directory)
    assert get(storage, b"a") == b"2"
    assert len(get(storage, b"big") or b"") == 8 << 20
    put(storage, a=b"3")
    run(program, directory)
    put(storage, b=b"4")  # the first touch after the growth is a commit
    assert (get(storage, b"a"), get(storage, b"b")) == (b"2", b"4")


def test_a_limit_on_address_space_takes_a_smaller_map(directory: Path) -> None:
    """`ulimit -v` is common in containers: the reserve shrinks until it fits, and data outgrows the first map."""
    program = """
        import resource, sys
        from pathlib import Path
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage
        from ikvcore.models import WriteBatch
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        storage = LmdbStorage(Path(sys.argv[1]), LmdbOptions())
        storage.commit(WriteBatch(puts={b"a": b"1"}), expect={})
        with storage.snapshot() as snapshot:
            assert snapshot.get(b"a") == b"1"
        print(storage._environment._env.info()["map_size"] < 8 << 30)
    """
    assert run(program, directory) == "True\n"


# -- readers -----------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from ikv_backends.lmdb import LmdbOptions, LmdbStorage
storage = LmdbStorage(Path(sys.argv[1]), LmdbOptions(durability="process-crash"))
held = [storage.snapshot() for _ in range(int(sys.argv[2]))]
print("held", flush=True)
sys.stdin.readline()
"""


def holder(directory: Path, count: int) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=PATIENCE)


def test_a_killed_readers_slots_are_freed(directory: Path, storage: LmdbStorage) -> None:
    """On demand, and whenever the environment is opened; a live reader keeps its own."""
    put(storage, a=b"1")
    environment = storage._environment
    assert environment is not None
    dead, live = holder(directory, 3), holder(directory, 1)
    try:
        assert environment._usable().reader_check() == 0
        kill(dead)
        assert environment._usable().reader_check() == 3
        assert environment._usable().reader_check() == 0
    finally:
        kill(dead)
        kill(live)
    storage.close()
    again = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
    assert again._environment is not None
    assert again._environment._usable().reader_check() == 0, "opening has checked already"
    again.close()


def test_a_full_reader_table_is_cleared_of_the_dead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that finds no slot frees those of dead processes and goes on; where all live, it is a StorageError."""
    monkeypatch.setattr(_lmdb_environment, "_MAX_READERS", 126)
    storage = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
    put(storage, a=b"1")
    environment = storage._environment
    assert environment is not None
    slots = environment._env.info()["max_readers"]
    child = holder(directory, 1)
    try:
        held = [storage.snapshot() for _ in range(slots - 1)]
        with pytest.raises(StorageError, match="reader"):
            storage.snapshot()
        kill(child)
        assert get(storage, b"a") == b"1"
        del held
    finally:
        kill(child)
        storage.close()


# -- forks -------------------------------------------------------------------------------------


def test_a_forked_child_touches_nothing(directory: Path) -> None:
    """Every call raises ForkedError, the directory cannot be opened again there, and its exit leaves the parent's
    snapshot, slots and commits as they were.
    """
    program = """
        import os, sys
        from pathlib import Path
        from ikv_backends.lmdb import LmdbOptions, LmdbStorage
        from ikvcore.errors import ForkedError
        from ikvcore.models import WriteBatch
        directory = Path(sys.argv[1])
        storage = LmdbStorage(directory, LmdbOptions(durability="process-crash"))
        def put(value):
            storage.commit(WriteBatch(puts={b"k%04d" % n: value for n in range(2000)}), expect={})
        put(b"old")
        held = storage.snapshot()
        spare = [storage.snapshot() for _ in range(5)]
        for each in spare: each.abort()
        scan = storage.scan(held, b"", None)
        next(scan)
        child = os.fork()
        if child == 0:
            for call in (storage.snapshot, lambda: put(b"child"),
                         lambda: LmdbStorage(directory, LmdbOptions(durability="process-crash"))):
                try:
                    call()
                except ForkedError:
                    continue
                os._exit(1)
            storage.close()
            storage.close()
            sys.exit(7)  # the interpreter's own way out: destructors and all
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        for round in range(50):
            put(b"new%d" % round)
        assert all(held.get(b"k%04d" % n) == b"old" for n in range(2000)), "the held snapshot went wrong"
        assert len(list(scan)) == 1999
        with storage.snapshot() as snapshot:
            assert snapshot.get(b"k0000") == b"new49"
        del scan
        held.abort()
        storage.close()
        print("fine")
    """
    assert run(program, directory) == "fine\n"
