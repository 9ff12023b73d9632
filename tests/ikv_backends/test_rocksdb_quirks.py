"""What is RocksDB's and rocksdict's own: who writes and who follows, states that would not stay, locks that would,
errors that end nothing or everything, forks."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikv_backends import _rocksdb_database
from ikv_backends.rocksdb import RocksdbOptions, RocksdbStorage
from ikvcore.errors import FencedError, InvalidOptionError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.models import WriteBatch

PATIENCE = 60.0
FAST = RocksdbOptions(durability="process-crash")


@pytest.fixture
def storage(directory: Path) -> Iterator[RocksdbStorage]:
    storage = RocksdbStorage(directory, FAST)
    yield storage
    storage.close()


@pytest.fixture
def follower(directory: Path, storage: RocksdbStorage) -> Iterator[RocksdbStorage]:
    put(storage, a=b"1")
    follower = RocksdbStorage(directory, FAST, follow=True)
    yield follower
    follower.close()


def put(storage: RocksdbStorage, **values: bytes) -> None:
    storage.commit(WriteBatch(puts={name.encode(): value for name, value in values.items()}), expect={})


def get(storage: RocksdbStorage, key: bytes) -> bytes | None:
    with storage.snapshot() as snapshot:
        return snapshot.get(key)


def contents(storage: RocksdbStorage) -> dict[bytes, bytes]:
    with storage.snapshot() as snapshot:
        return dict(storage.scan(snapshot, b"", None))


def by_key(storage: RocksdbStorage, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """What is found under `keys`: RocksDB looks for a key in other ways than it iterates."""
    asked = sorted(keys)
    with storage.snapshot() as snapshot:
        found = storage.get_many(snapshot, asked)
    return {key: value for key, value in zip(asked, found, strict=True) if value is not None}


def flush(storage: RocksdbStorage) -> None:
    """Have what is in memory become a table."""
    storage._database._current.db.flush()


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "synced"), [("power-loss", True), ("process-crash", False)])
def test_commits_are_synced_for_power_loss_alone(directory: Path, word: str, synced: bool) -> None:
    storage = RocksdbStorage(directory, RocksdbOptions(durability=word))
    assert storage._write_options.sync is synced
    storage.close()


@pytest.mark.parametrize(
    "bad",
    [
        {"durability": "none"},
        {"compression": "rar"},
        {"cache_bytes": -1},
        {"cache_bytes": True},
        {"cache_bytes": 1 << 70},
        {"buffer_bytes": 1},
        {"buffer_bytes": 1 << 62},
    ],
)
def test_impossible_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(bad))):
        RocksdbOptions(**bad)


@pytest.mark.parametrize("word", ["lz4", "zstd", "snappy", "none"])
def test_every_compression_is_there(directory: Path, word: str) -> None:
    storage = RocksdbStorage(directory, RocksdbOptions(durability="process-crash", compression=word))
    put(storage, a=b"1" * 10_000)
    flush(storage)
    assert get(storage, b"a") == b"1" * 10_000
    storage.close()


def test_nothing_is_unpickled(storage: RocksdbStorage) -> None:
    """rocksdict's default would run what it finds."""
    value = pickle.dumps(Trap())
    put(storage, a=value)
    flush(storage)
    assert contents(storage) == {b"a": value}
    with storage.snapshot() as snapshot:
        assert storage.get_many(snapshot, [b"a", b"a"]) == [value, value]


class Trap:
    """Ends the process of whoever unpickles it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int, int]]:
        return os.kill, (os.getpid(), signal.SIGKILL)


# -- states ------------------------------------------------------------------------------------


def test_a_snapshot_that_is_scanned_twice_beside_commits_and_tables(storage: RocksdbStorage) -> None:
    """rocksdict's own snapshots iterate over the last state."""
    put(storage, a=b"1", b=b"1")
    with storage.snapshot() as snapshot:
        put(storage, a=b"2", c=b"2")
        flush(storage)
        put(storage, a=b"3")
        first = list(storage.scan(snapshot, b"", None))
        assert first == list(storage.scan(snapshot, b"", None)) == [(b"a", b"1"), (b"b", b"1")]
        assert storage.get_many(snapshot, [b"a", b"c", b"b"]) == [b"1", None, b"1"]
    assert contents(storage) == {b"a": b"3", b"b": b"1", b"c": b"2"}


def test_the_id_moves_with_each_commit_and_not_else(storage: RocksdbStorage) -> None:
    put(storage, a=b"1")
    with storage.snapshot() as one, storage.snapshot() as two:
        put(storage, a=b"2")
        with storage.snapshot() as three:
            assert one.id() == two.id() != three.id()


def test_a_commit_may_come_while_a_snapshot_begins(storage: RocksdbStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit between a snapshot's entry and its thread's next step pins the snapshot, which shows what was before."""
    put(storage, a=b"1")
    database = storage._database
    enter = database.enter

    def overtaken(snapshot: Any) -> Any:
        entered = enter(snapshot)
        monkeypatch.undo()
        put(storage, a=b"2")
        return entered

    monkeypatch.setattr(database, "enter", overtaken)
    with storage.snapshot() as snapshot:
        assert snapshot.get(b"a") == b"1"
        assert dict(storage.scan(snapshot, b"", None)) == {b"a": b"1"}
    assert get(storage, b"a") == b"2"


# -- locks -------------------------------------------------------------------------------------


def test_one_instance_writes(directory: Path, storage: RocksdbStorage) -> None:
    with pytest.raises(StorageError, match="lock"):
        RocksdbStorage(directory, FAST)


def test_an_iterator_that_is_left_over_locks_nothing(directory: Path) -> None:
    """RocksDB gives its lock up when the last iterator is gone, and an exception's traceback keeps one for long."""
    storage = RocksdbStorage(directory, FAST)
    storage.commit(WriteBatch(puts={b"%06d" % n: b"" for n in range(1000)}), expect={})
    with storage.snapshot() as snapshot:
        left = storage.scan(snapshot, b"", None)
        next(left)
    storage.close()
    other = RocksdbStorage(directory, FAST)
    with pytest.raises(StorageError):
        list(left)
    other.close()


def test_closing_waits_for_reads_a_while_and_no_longer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rocksdb_database, "_LEAVING_SECONDS", 0.05)
    storage = RocksdbStorage(directory, FAST)
    put(storage, a=b"1")
    snapshot = storage.snapshot()
    storage.close()
    assert snapshot.get(b"a") == b"1"
    with pytest.raises(StorageError, match="closed"):
        storage.snapshot()
    snapshot.__exit__(None, None, None)
    RocksdbStorage(directory, FAST).close()


# -- followers ---------------------------------------------------------------------------------


def test_a_follower_writes_nothing(storage: RocksdbStorage, follower: RocksdbStorage) -> None:
    with pytest.raises(StorageError, match="another process"):
        put(follower, a=b"2")
    assert get(storage, b"a") == b"1"


def test_what_became_a_table_is_not_hidden_by_what_was_in_memory(
    storage: RocksdbStorage, follower: RocksdbStorage
) -> None:
    """To catch up in place would show the old value until the next write, beside new ones of other keys."""
    put(storage, a=b"2", b=b"2")
    flush(storage)
    follower.catch_up()
    assert by_key(follower, {b"a", b"b"}) == contents(follower) == {b"a": b"2", b"b": b"2"}


def test_a_reader_keeps_its_state_while_others_see_the_next(storage: RocksdbStorage, follower: RocksdbStorage) -> None:
    """RocksDB's own snapshots of a follower move when it catches up."""
    with follower.snapshot() as old:
        put(storage, a=b"2")
        follower.catch_up()
        with follower.snapshot() as new:
            assert (old.get(b"a"), new.get(b"a")) == (b"1", b"2")
            assert old.id() != new.id()


def test_nothing_is_done_where_nothing_was_written(storage: RocksdbStorage, follower: RocksdbStorage) -> None:
    follower.catch_up()
    instance = follower._database._current
    before = instance.catch_ups
    for _ in range(10):
        follower.catch_up()
    assert (follower._database._current, instance.catch_ups) == (instance, before)
    put(storage, a=b"2")
    follower.catch_up()
    assert instance.catch_ups == before + 1


def test_a_follower_leaves_nothing_behind(directory: Path, storage: RocksdbStorage, tmp_path: Path) -> None:
    put(storage, a=b"1")
    program = """
        import os, signal, sys, tempfile
        from pathlib import Path
        from ikv_backends.rocksdb import RocksdbOptions, RocksdbStorage
        follower = RocksdbStorage(Path(sys.argv[1]), RocksdbOptions(), follow=True)
        with follower.snapshot() as snapshot:
            print(snapshot.get(b"a"), os.listdir(tempfile.gettempdir()))
    """
    empty = tmp_path / "tmp"
    empty.mkdir()
    assert run(program, directory, TMPDIR=str(empty)) == "b'1' []\n"


WRITER = """
    import random, sys
    from pathlib import Path
    from ikv_backends.rocksdb import RocksdbOptions, RocksdbStorage
    sys.path.insert(0, sys.argv[2])
    from test_rocksdb_quirks import step
    # A table comes to be many times a second.
    storage = RocksdbStorage(Path(sys.argv[1]), RocksdbOptions(durability="process-crash", buffer_bytes=1 << 18))
    dice, state = random.Random(1), {}
    for number in range(10**9):
        storage.commit(step(number, state, dice), expect={})
        if number % 20 == 0:
            print(number, flush=True)
            sys.stdin.readline()
"""


def step(number: int, state: dict[bytes, bytes], dice: random.Random) -> WriteBatch:
    """The next batch of a history, the same for all who throw the same dice; `state` is what it comes to."""
    batch = WriteBatch()
    if dice.random() < 0.05:
        start = dice.randrange(60)
        batch.ranges.append((b"k%03d" % start, b"k%03d" % (start + 20)))
    for key in (b"k%03d" % n for n in dice.sample(range(60), dice.randrange(1, 12))):
        if dice.random() < 0.15:
            batch.deletes.add(key)
        else:
            batch.puts[key] = b"%d:" % number + b"x" * dice.randrange(2000)
    batch.puts[b"number"] = b"%d" % number
    for key in [key for key in state if any(start <= key < stop for start, stop in batch.ranges)]:
        del state[key]
    for key in batch.deletes:
        state.pop(key, None)
    state.update(batch.puts)
    return batch


def test_every_state_that_a_follower_shows_is_one_that_was(directory: Path) -> None:
    """Beside a writer whose memory becomes tables, and whose tables are merged, all the time; and after its death."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(directory), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdin is not None
            writer.stdout.readline()
            follower = RocksdbStorage(directory, FAST, follow=True)
            dice, state, number, looks = random.Random(1), dict[bytes, bytes](), -1, 0

            def look() -> None:
                nonlocal number, looks
                follower.catch_up()
                found = contents(follower)
                shown = int(found[b"number"])
                assert shown >= number
                for following in range(number + 1, shown + 1):
                    step(following, state, dice)
                number = shown
                looks += 1
                assert found == state
                assert by_key(follower, {b"number", *(b"k%03d" % n for n in range(60))}) == state

            for turn in range(60):
                writer.stdin.write("\n")
                writer.stdin.flush()
                if turn % 2:  # beside it, and after it
                    assert int(writer.stdout.readline()) == (turn + 1) * 20
                    look()
                    assert number == (turn + 1) * 20
                else:
                    look()
                    writer.stdout.readline()
        finally:
            writer.kill()
    look()
    successor = RocksdbStorage(directory, FAST)
    assert contents(successor) == contents(follower)
    put(successor, last=b"words")
    follower.catch_up()
    assert get(follower, b"last") == b"words"
    follower.close()
    successor.close()


# -- errors ------------------------------------------------------------------------------------


def test_a_refused_commit_changes_nothing(storage: RocksdbStorage) -> None:
    put(storage, a=b"1")
    with pytest.raises(FencedError):
        storage.commit(WriteBatch(puts={b"a": b"2"}), expect={b"a": b"other"})
    put(storage, b=b"1")
    assert contents(storage) == {b"a": b"1", b"b": b"1"}


def test_after_a_full_disk_work_goes_on_and_reads_never_stop(directory: Path) -> None:
    """RocksDB refuses every write until it is opened anew."""
    program = """
        import resource, signal, sys
        from pathlib import Path
        from ikv_backends.rocksdb import RocksdbOptions, RocksdbStorage
        from ikvcore.errors import StorageFullError
        from ikvcore.models import WriteBatch
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        storage = RocksdbStorage(Path(sys.argv[1]), RocksdbOptions())
        def put(key, value): storage.commit(WriteBatch(puts={key: value}), expect={})
        def get(key):
            with storage.snapshot() as snapshot:
                return snapshot.get(key)
        put(b"a", b"1")
        held = storage.snapshot()
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        for _ in range(3):
            try: put(b"b", bytes(400_000))
            except StorageFullError: print("full")
            assert get(b"a") == b"1" and get(b"b") is None
            if held is not None:
                assert held.get(b"a") == b"1"
                held = held.__exit__(None, None, None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        put(b"b", bytes(400_000))
        assert len(get(b"b")) == 400_000 and get(b"a") == b"1"
        storage.close()
        print("fine")
    """
    assert run(program, directory) == "full\n" * 3 + "fine\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("IO error: No space left on device: While appending to file", StorageFullError),
        ("IO error: While appending to file: /x/000004.log: File too large", StorageFullError),
        ("Corruption: block checksum mismatch", ReplicaDamagedError),
        ("IO error: While opening a file for random read", StorageError),
        ("Invalid argument: something else", StorageError),
    ],
)
def test_errors_are_translated_by_their_texts(storage: RocksdbStorage, text: str, error: type[StorageError]) -> None:
    assert type(storage._database.failure("read", Exception(text))) is error


@pytest.fixture
def damaged(directory: Path) -> Path:
    """A directory whose first table has a flipped byte."""
    storage = RocksdbStorage(directory, RocksdbOptions(compression="none"))
    storage.commit(WriteBatch(puts={b"%06d" % n: b"v" * 100 for n in range(2000)}), expect={})
    flush(storage)
    storage.close()
    table = min(directory.glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 0xFF
    table.write_bytes(content)
    return directory


@pytest.mark.parametrize("follow", [False, True])
def test_damage_ends_no_scan_in_silence(damaged: Path, follow: bool) -> None:
    """RocksDB's iterators end at it as they do at the last key."""
    storage = RocksdbStorage(damaged, FAST, follow=follow)
    with storage.snapshot() as snapshot, pytest.raises(ReplicaDamagedError, match="checksum"):
        list(storage.scan(snapshot, b"", None))
    with storage.snapshot() as snapshot, pytest.raises(ReplicaDamagedError, match="checksum"):
        storage.get_many(snapshot, [b"%06d" % n for n in range(2000)])
    storage.close()


@pytest.mark.parametrize("follow", [False, True])
def test_a_table_that_was_cut_short_is_damage(damaged: Path, follow: bool) -> None:
    table = min(damaged.glob("*.sst"))
    table.write_bytes(table.read_bytes()[:1000])
    with pytest.raises(ReplicaDamagedError):
        contents(RocksdbStorage(damaged, FAST, follow=follow))


@pytest.mark.parametrize("follow", [False, True])
def test_a_directory_that_has_lost_its_head_is_damage(damaged: Path, follow: bool) -> None:
    (damaged / "CURRENT").unlink()
    with pytest.raises(ReplicaDamagedError):
        RocksdbStorage(damaged, FAST, follow=follow)


@pytest.mark.parametrize("follow", [False, True])
def test_a_head_that_names_what_is_not_there_is_damage(damaged: Path, follow: bool) -> None:
    (damaged / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(ReplicaDamagedError):
        RocksdbStorage(damaged, FAST, follow=follow)


# -- processes ---------------------------------------------------------------------------------


def run(program: str, *arguments: object, **environment: str) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_leaves_without_a_crash(directory: Path) -> None:
    """RocksDB's threads are joined at the exit of a process, and those of a parent with threads cannot be."""
    program = """
        import os, signal, sys, threading
        from pathlib import Path
        from ikv_backends.rocksdb import RocksdbOptions, RocksdbStorage
        storage = RocksdbStorage(Path(sys.argv[1]), RocksdbOptions(durability="process-crash"))
        never = threading.Event()
        threading.Thread(target=never.wait, daemon=True).start()
        for status in (0, 3):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                print("the child's words")
                sys.exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
        storage.close()
    """
    assert run(program, directory) == "the child's words\n" * 2


def test_a_forked_child_touches_nothing(directory: Path) -> None:
    """Every call raises ForkedError; nothing of RocksDB can be opened there at all, since its threads are gone, nor
    does the child's exit wait for them; the parent's snapshot, scan and commits stay as they were."""
    program = """
        import os, signal, sys
        from pathlib import Path
        from ikv_backends.rocksdb import RocksdbOptions, RocksdbStorage
        from ikvcore.errors import ForkedError
        from ikvcore.models import WriteBatch
        directory = Path(sys.argv[1])
        other = directory.with_name("other")
        other.mkdir()
        storage = RocksdbStorage(directory, RocksdbOptions(durability="process-crash"))
        def put(value):
            storage.commit(WriteBatch(puts={b"k%04d" % n: value for n in range(2000)}), expect={})
        put(b"old")
        held = storage.snapshot()
        scan = storage.scan(held, b"", None)
        next(scan)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            for call in (storage.snapshot, lambda: put(b"child"), storage.catch_up,
                         lambda: RocksdbStorage(directory, RocksdbOptions()),
                         lambda: RocksdbStorage(other, RocksdbOptions())):
                try:
                    call()
                except ForkedError:
                    continue
                if call != storage.catch_up:  # nothing to do where it writes
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
        storage.close()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                RocksdbStorage(other, RocksdbOptions())
            except ForkedError:
                sys.exit(8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
        print("fine")
    """
    assert run(program, directory) == "fine\n"
