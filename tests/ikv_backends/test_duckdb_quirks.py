"""What is DuckDB's own: columns that fields share, a file of one process, forks, crashes, damage, full disks."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikv_backends import _duckdb_database
from ikv_backends.duckdb import DuckdbOptions, DuckdbStorage, decode_rest
from ikvcore.errors import InvalidOptionError, ReplicaDamagedError, StorageError
from ikvcore.fields import FieldType
from ikvcore.models import DropFields, Projection, Upsert, storage_key
from ikvcore.testing._storage_base import (
    ALL,
    KEY_FIELD,
    Ingester,
    as_document,
    bits,
    contents,
    delete_fields,
    drop,
    read,
    upsert,
)

PATIENCE = 60.0
FILE = "replica.duckdb"


@pytest.fixture
def storage(directory: Path) -> Iterator[DuckdbStorage]:
    storage = opened(directory)
    yield storage
    storage.close()


def opened(directory: Path, **options: Any) -> DuckdbStorage:
    return DuckdbStorage(directory, DuckdbOptions(**options))


def reopened(storage: DuckdbStorage, directory: Path) -> DuckdbStorage:
    storage.close()
    return opened(directory)


def columns(storage: DuckdbStorage) -> dict[str, str]:
    found = storage.query("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'documents'")
    return {each["column_name"]: each["data_type"] for each in found.to_pylist()}


def rest(storage: DuckdbStorage, key: bytes = b"a") -> dict[str, Any]:
    (packed,) = storage.query("SELECT _rest FROM documents WHERE _key = ?", [key])["_rest"].to_pylist()
    return decode_rest(packed)


def child(program: str, directory: Path, *arguments: object) -> subprocess.Popen[str]:
    prelude = """
        import os, sys
        from pathlib import Path
        from ikv_backends.duckdb import DuckdbOptions, DuckdbStorage
        from ikvcore.errors import *
        from ikvcore.testing._storage_base import ALL, Ingester, contents, read, upsert
        directory = Path(sys.argv[1])
        def say(text):
            print(text, flush=True)
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(program)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def run(program: str, directory: Path, *arguments: object) -> str:
    process = child(program, directory, *arguments)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return out


# -- columns -----------------------------------------------------------------------------------


def test_fields_are_real_columns_of_their_types(storage: DuckdbStorage) -> None:
    fields = {
        "i32": (FieldType.INT32, 1),
        "i64": 2,
        "f32": (FieldType.FLOAT32, 0.5),
        "f64": 0.25,
        "text": "é",
        "data": b"\x00",
        "flag": True,
        'odd "name", with a comma': 1,
    }
    Ingester(storage).apply(upsert(b"a", 3, **fields))
    assert columns(storage) == {
        KEY_FIELD: "BLOB",
        "i32": "INTEGER",
        "i64": "BIGINT",
        "f32": "FLOAT",
        "f64": "DOUBLE",
        "text": "VARCHAR",
        "data": "BLOB",
        "flag": "BOOLEAN",
        'odd "name", with a comma': "BIGINT",
        "_partition": "USMALLINT",
        "_key": "BLOB",
        "_rest": "BLOB",
    }
    (row,) = storage.query("SELECT * FROM documents").to_pylist()
    assert row == {
        "id": b"a",
        "i32": 1,
        "i64": 2,
        "f32": 0.5,
        "f64": 0.25,
        "text": "é",
        "data": b"\x00",
        "flag": True,
        'odd "name", with a comma': 1,
        "_partition": 3,
        "_key": b"a",
        "_rest": None,
    }


def test_names_that_differ_in_case_alone_are_two_fields(storage: DuckdbStorage, directory: Path) -> None:
    ingester = Ingester(storage)
    ingester.apply(upsert(b"a", age=1, Age="one", É=1, é=2))
    ingester.apply(upsert(b"a", AGE=2.5), upsert(b"b", Age=3), upsert(b"c", age=4))
    expected = {
        (0, b"a"): as_document(age=1, Age="one", AGE=2.5, É=1, é=2),
        (0, b"b"): as_document(Age=3),
        (0, b"c"): as_document(age=4),
    }
    assert contents(storage) == expected
    assert list(columns(storage)) == [KEY_FIELD, "age", "É", "_partition", "_key", "_rest"]
    assert rest(storage) == as_document(Age="one", AGE=2.5, é=2)
    ingester.apply(drop("Age"), delete_fields(b"c", "AGE", "Age"))
    expected |= {(0, b"a"): as_document(age=1, AGE=2.5, É=1, é=2), (0, b"b"): {}}
    again = reopened(storage, directory)
    assert contents(again) == expected
    row = again.get(storage_key(0, b"a"), Projection(["AGE", "Age", "age"]))
    again.close()
    assert row == (("AGE", "Age", "age"), (FieldType.FLOAT64, None, FieldType.INT64), [2.5, None, 1])


def test_names_that_sql_cannot_have_are_fields_all_the_same(storage: DuckdbStorage) -> None:
    names = ["", "rowid", "ROWID", "_key", "_Rest", "_partition", "a\x00b", "line\nbreak", "n" * 251, "n" * 70_000]
    values = {name: number for number, name in enumerate(names)}
    Ingester(storage).apply(upsert(b"a", plain=1, **values))
    assert read(storage, b"a") == as_document(plain=1, **values)
    assert rest(storage) == as_document(**values)
    assert list(columns(storage)) == [KEY_FIELD, "plain", "_partition", "_key", "_rest"]
    Ingester(storage).apply(drop("rowid", "a\x00b", prefixes=("n", "line")))
    assert set(rest(storage)) == {"", "ROWID", "_key", "_Rest", "_partition"}


def test_a_type_that_changes_there_and_back(storage: DuckdbStorage) -> None:
    ingester = Ingester(storage)
    ingester.apply(upsert(b"a", x=1), upsert(b"b", x=1))
    ingester.apply(upsert(b"a", x="text"))
    assert (read(storage, b"a"), rest(storage)) == (as_document(x="text"), as_document(x="text"))
    assert storage.query("SELECT x FROM documents ORDER BY _key")["x"].to_pylist() == [None, 1]
    ingester.apply(upsert(b"a", x=(FieldType.INT32, 2)))
    assert (read(storage, b"a"), rest(storage)) == (as_document(x=(FieldType.INT32, 2)),) * 2
    ingester.apply(upsert(b"a", x=3))
    assert (read(storage, b"a"), rest(storage)) == (as_document(x=3), {})
    assert storage.query("SELECT x FROM documents ORDER BY _key")["x"].to_pylist() == [3, 1]
    assert columns(storage)["x"] == "BIGINT"


def test_the_number_of_columns_is_bounded(directory: Path) -> None:
    storage = opened(directory, max_columns=3)
    ingester = Ingester(storage)
    ingester.apply(upsert(b"a", one=1, two=2, three=3, four=4))
    assert list(columns(storage)) == [KEY_FIELD, "one", "two", "_partition", "_key", "_rest"]
    storage.close()
    storage = opened(directory, max_columns=4)
    Ingester(storage).apply(upsert(b"b", three=3, four=4), upsert(b"a", three=5))
    assert list(columns(storage)) == [KEY_FIELD, "one", "two", "three", "_partition", "_key", "_rest"]
    assert contents(storage) == {
        (0, b"a"): as_document(one=1, two=2, three=5, four=4),
        (0, b"b"): as_document(three=3, four=4),
    }
    storage.close()
    storage = opened(directory, max_columns=0)
    Ingester(storage).apply(upsert(b"c", one=1, five=5))
    assert read(storage, b"c") == as_document(one=1, five=5)
    storage.close()


def test_floats_that_duckdb_would_change_are_kept(storage: DuckdbStorage, directory: Path) -> None:
    """NaNs of whatever bits become one in a column that holds nothing else, once it is written to the file."""
    doubles = ["efbeadde0000f87f", "000000000000f8ff", "010000000000f07f", "000000000000f87f", "0000000000000080"]
    singles = ["efbeddff", "0100c0ff", "0000c07f", "00000080"]
    fields = [(f"x{each}", FieldType.FLOAT64, bytes.fromhex(each)) for each in doubles]
    fields += [(f"y{each}", FieldType.FLOAT32, bytes.fromhex(each)) for each in singles]
    stored = [
        Upsert(0, b"%d" % number, {KEY_FIELD: (FieldType.BYTES, b"%d" % number), name: (kind, data)}, None)
        for number, (name, kind, data) in enumerate(fields)
    ]
    Ingester(storage).apply(*stored)
    again = reopened(storage, directory)
    for number, (name, kind, data) in enumerate(fields):
        found = read(again, b"%d" % number)
        assert found is not None
        value = found[name][1]
        expected = struct.unpack("<d" if kind is FieldType.FLOAT64 else "<f", data)[0]
        assert bits(value) == bits(expected), data.hex()
    again.close()


def test_strings_with_nul_are_kept_in_the_file(storage: DuckdbStorage, directory: Path) -> None:
    texts = ["\x00", "a\x00", "a", "a\x00b", "", "\x00" * 20, "\ufffe", "x" * 5_000 + "\x00"] * 3
    Ingester(storage).apply(*(upsert(b"%d" % number, x=text) for number, text in enumerate(texts)))
    again = reopened(storage, directory)
    assert contents(again) == {(0, b"%d" % number): as_document(x=text) for number, text in enumerate(texts)}
    again.close()


def test_drops_reach_every_page_of_what_has_no_column(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikv_backends._duckdb_batch._PAGE", 10)
    storage = opened(directory, max_columns=1)
    ingester = Ingester(storage)
    ingester.apply(*(upsert(b"%02d" % i, p, x=i, y1=i, y2=i) for i in range(35) for p in (0, 1)))
    ingester.apply(drop("x", prefixes=("y2",)))
    for partition, fields in ((0, {"y1"}), (1, {"x", "y1", "y2"})):
        rows = [storage.get(storage_key(partition, b"%02d" % i), ALL) for i in range(35)]
        assert all(row is not None and set(row[0]) - {KEY_FIELD} == fields for row in rows)
    ingester.apply(DropFields(1, frozenset(), ("",), frozenset({KEY_FIELD, "x"}), None))
    assert read(storage, b"07", 1) == as_document(x=7)
    assert storage.query("SELECT count(*) AS n FROM documents WHERE _rest IS NULL")["n"].to_pylist() == [0]
    assert storage.verify() == []
    storage.close()


# -- batches -----------------------------------------------------------------------------------


def test_a_batch_of_thousands_is_read_and_rewritten(storage: DuckdbStorage) -> None:
    """More documents than are named in a statement, in one commit, and more keys than one statement reads."""
    ingester = Ingester(storage)
    ingester.apply(*(upsert(b"%d" % i, x=i, Y=i, y=i) for i in range(3_000)))
    ingester.apply(*(upsert(b"%d" % i, x=-i) for i in range(0, 3_000, 2)), delete_fields(b"1", "x", "y"))
    expected = {
        (0, b"%d" % i): as_document(x=i if i % 2 else -i, Y=i, y=i) if i != 1 else as_document(Y=1)
        for i in range(3_000)
    }
    assert contents(storage, 1_000) == expected
    keys = [storage_key(0, b"%d" % i) for i in range(3_001)]
    rows = storage.get_many(keys, Projection(["x"]))
    assert [row and row[2][0] for row in rows[:-1]] == [i if i % 2 else -i for i in range(1)] + [None] + [
        i if i % 2 else -i for i in range(2, 3_000)
    ]
    assert rows[-1] is None
    assert storage.verify() == []


def test_keys_that_share_a_hash_are_two(storage: DuckdbStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikv_backends._duckdb_document.key_hash", lambda key: 7)
    monkeypatch.setattr("ikv_backends.duckdb.key_hash", lambda key: 7)
    ingester = Ingester(storage)
    ingester.apply(upsert(b"a", x=1), upsert(b"b", x=2), upsert(b"a", 1, x=3))
    ingester.apply(upsert(b"a", y=1))
    assert contents(storage) == {
        (0, b"a"): as_document(x=1, y=1),
        (0, b"b"): as_document(x=2),
        (1, b"a"): as_document(x=3),
    }
    assert read(storage, b"b") == as_document(x=2)
    rows = storage.get_many([storage_key(0, b"b"), storage_key(0, b"a"), storage_key(0, b"c")], Projection(["x"]))
    assert [row and row[2] for row in rows] == [[2], [1], None]


def test_space_of_rewritten_rows_is_given_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are rewritten again and again; DuckDB would keep the old ones as long as anybody reads."""
    monkeypatch.setattr("ikv_backends.duckdb._SPARE_ROWS", 2_000)
    storage = opened(directory)
    ingester = Ingester(storage)
    for turn in range(16):
        ingester.apply(*(upsert(b"%d" % i, x=turn) for i in range(1_000)))
    with storage._database.reading() as cursor:
        cursor.execute("SELECT sum(count) FROM pragma_storage_info('ikv.rows') WHERE column_name = 'born'")
        (found,) = cursor.fetchone() or (0,)
    assert found < 2 * 5_000, f"{found} rows for 1,000 documents"  # values, and whether they are there
    assert storage.count() == 1_000
    storage.close()


def test_memory_of_commits_is_given_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By opening the file anew, which ends nobody's query."""
    monkeypatch.setattr("ikv_backends.duckdb._MOST_COMMITS", 5)
    monkeypatch.setattr("ikv_backends.duckdb._BETWEEN_TRIES", 4)
    storage = opened(directory)
    ingester, roots = Ingester(storage), set[int]()
    kept = []  # or another root may get the id of one that is gone
    for turn in range(12):
        ingester.apply(upsert(b"a", x=turn, **{f"f{turn}": turn}))
        assert read(storage, b"a") == as_document(x=turn, **{f"f{n}": n for n in range(turn + 1)})
        kept.append(storage._database._root)
        roots.add(id(storage._database._root))
    assert len(roots) == 3
    root = storage._database._root
    with storage._database.querying() as cursor:
        for turn in range(12):
            ingester.apply(upsert(b"a", x=turn))
        assert storage._database._root is root
        assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    renewed = []
    for turn in range(4):  # readers are not kept waiting at every commit
        ingester.apply(upsert(b"a", x=turn))
        renewed.append(storage._database._root is not root)
    assert renewed == [False, False, True, True]
    assert storage.verify() == []
    storage.close()


def test_a_file_that_cannot_be_opened_anew_is_opened_by_a_later_call(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost meanwhile; and what was closed stays closed."""
    monkeypatch.setattr("ikv_backends.duckdb._MOST_COMMITS", 3)
    storage = opened(directory)
    ingester, connect = Ingester(storage), _duckdb_database.DuckdbDatabase._connect

    def failing(self: _duckdb_database.DuckdbDatabase, path: Path) -> object:
        raise StorageError("too many open files")

    ingester.apply(upsert(b"a", x=1))
    ingester.apply(upsert(b"a", x=2))
    monkeypatch.setattr(_duckdb_database.DuckdbDatabase, "_connect", failing)
    ingester.apply(upsert(b"a", x=3))  # which is committed
    for attempt in (storage.count, lambda: ingester.apply(upsert(b"a", x=4)), lambda: storage.query("SELECT 1")):
        with pytest.raises(StorageError, match="too many open files"):
            attempt()
    monkeypatch.setattr(_duckdb_database.DuckdbDatabase, "_connect", connect)
    assert read(storage, b"a") == as_document(x=3)
    Ingester(storage).apply(upsert(b"a", x=4))
    assert read(storage, b"a") == as_document(x=4)
    storage._database._suspect = True
    storage.close()
    with pytest.raises(StorageError, match="is closed"):
        storage.count()


# -- the file and its processes ----------------------------------------------------------------


def test_another_process_is_told_who_has_the_file(storage: DuckdbStorage, directory: Path) -> None:
    Ingester(storage).apply(upsert(b"a", x=1))
    program = """
        try:
            DuckdbStorage(directory, DuckdbOptions())
        except MountBusyError as exc:
            say(exc)
    """
    assert f"process {os.getpid()} holds it" in run(program, directory)
    assert read(storage, b"a") == as_document(x=1)


def test_the_file_is_opened_once_in_a_process(storage: DuckdbStorage, directory: Path) -> None:
    with pytest.raises(StorageError, match="open in this process already"):
        opened(directory)
    storage.close()
    opened(directory).close()


def test_a_forked_child_is_refused_and_harms_nothing(directory: Path) -> None:
    program = """
        storage = DuckdbStorage(directory, DuckdbOptions())
        Ingester(storage).apply(upsert(b"a", x=1))
        read(storage, b"a")
        child = os.fork()
        if not child:
            for call in (
                lambda: read(storage, b"a"),
                lambda: storage.apply([upsert(b"lost", x=1)], meta={}, expect={}),
                lambda: storage.query("SELECT 1"),
                lambda: DuckdbStorage(directory, DuckdbOptions()),
            ):
                try:
                    call()
                    say("not refused")
                except ForkedError:
                    pass
            storage.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        Ingester(storage).apply(upsert(b"b", x=2))
        storage.close()
        storage = DuckdbStorage(directory, DuckdbOptions())
        say(sorted(key for _, key in contents(storage)))
        storage.close()
    """
    assert run(program, directory) == "[b'a', b'b']\n"


def test_a_crash_while_the_file_is_made_leaves_nothing_in_the_way(directory: Path) -> None:
    program = """
        from ikv_backends import duckdb
        def crash(root):
            root.execute("CREATE TABLE half (x INTEGER)")
            os.kill(os.getpid(), 9)
        duckdb._create = crash
        DuckdbStorage(directory, DuckdbOptions())
    """
    process = child(program, directory)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert any(directory.iterdir()), "the crash came too early to leave anything"
    (directory / "fresh.duckdb").write_bytes(b"half of a header")
    storage = opened(directory)
    Ingester(storage).apply(upsert(b"a", x=1))
    assert contents(storage) == {(0, b"a"): as_document(x=1)}
    assert sorted(path.name for path in directory.iterdir()) == [FILE, f"{FILE}.wal"]
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600
    storage.close()


@pytest.mark.parametrize("checkpoints", [False, True])
def test_kill_9_leaves_the_state_of_a_commit(directory: Path, checkpoints: bool) -> None:
    """Columns are added, rows rewritten and dropped; the state is that of the commit number that stands there."""
    program = """
        storage = DuckdbStorage(directory, DuckdbOptions())
        ingester = Ingester(storage)
        number = int(storage.read_meta([b"commit"])[0] or 0)
        while True:
            number += 1
            ingester.apply(*(upsert(b"%d" % i, 0, n=number, **{f"f{number % 50}": i, f"F{number % 3}": "x"})
                             for i in range(20)))
            if sys.argv[2] == "True" and number % 5 == 0:
                storage._database.checkpoint()
            say(number)
    """
    acknowledged = 0
    for turn in range(2):
        process = child(program, directory, checkpoints)
        assert process.stdout is not None
        for _ in range(6 + turn):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        left = process.communicate(timeout=PATIENCE)[0].split()
        acknowledged = int(left[-1]) if left else acknowledged
        storage = opened(directory)
        (found,) = storage.read_meta([b"commit"])
        assert int(found or 0) in (acknowledged, acknowledged + 1)
        commits = int(found or 0)
        expected = as_document(**{f"f{n % 50}": 0 for n in range(1, commits + 1)}, n=commits)
        expected |= as_document(**{f"F{n % 3}": "x" for n in range(1, commits + 1)})
        for i in range(20):
            document = read(storage, b"%d" % i)
            assert document is not None
            assert document.keys() == expected.keys()
            assert document["n"][1] == commits
        assert (storage.count(), storage.verify()) == (20, [])
        storage.close()


def test_a_commit_that_finds_no_space_changes_nothing_and_work_goes_on(directory: Path) -> None:
    """By a limit on the size of files: the engine gives up, is opened anew, and there is space again."""
    program = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        storage = DuckdbStorage(directory, DuckdbOptions())
        ingester = Ingester(storage)
        ingester.apply(upsert(b"a", x=1))
        size = max(path.stat().st_size for path in directory.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, resource.RLIM_INFINITY))
        for _ in range(2):
            try:
                for number in range(200):
                    ingester.apply(upsert(b"big%d" % number, x=os.urandom(20_000)))
                say("there was space")
            except StorageFullError as exc:
                count = storage.count()
                assert (count > 1, read(storage, b"a"), storage.verify()) == (True, read(storage, b"a"), []), count
        assert int(storage.read_meta([b"commit"])[0]) >= storage.count()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ingester.apply(upsert(b"a", x=2))
        say(read(storage, b"a")["x"][1])
        storage.close()
    """
    assert run(program, directory) == "2\n"


def test_after_a_fatal_error_the_file_is_opened_anew(
    storage: DuckdbStorage, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides go on: whether the commit took effect, the file says."""
    import duckdb

    Ingester(storage).apply(upsert(b"a", x=1))
    commit = _duckdb_database.DuckdbDatabase._keep_wal

    def fail(database: _duckdb_database.DuckdbDatabase) -> None:
        monkeypatch.setattr(_duckdb_database.DuckdbDatabase, "_keep_wal", commit)
        raise duckdb.FatalException("FATAL Error: it was invalidated")

    monkeypatch.setattr(_duckdb_database.DuckdbDatabase, "_keep_wal", fail)
    root = storage._database._root
    with pytest.raises(StorageError, match="invalidated"):
        Ingester(storage).apply(upsert(b"a", x=2))
    assert read(storage, b"a") == as_document(x=2)
    assert storage._database._root is not root
    Ingester(storage).apply(upsert(b"a", x=3))
    assert read(storage, b"a") == as_document(x=3)


def test_a_thread_may_close_what_it_is_reading(storage: DuckdbStorage) -> None:
    """As a signal handler does that shuts its reader down."""
    Ingester(storage).apply(upsert(b"a", x=1))
    with pytest.raises(StorageError, match="closed"), storage._database.reading() as cursor:  # noqa: PT012 - its end
        cursor.execute("SELECT * FROM documents")
        storage.close()
        cursor.fetchall()


def test_what_needs_more_memory_says_so(directory: Path) -> None:
    storage = opened(directory, memory_limit="64MB")
    with pytest.raises(StorageError, match="memory_limit"):
        Ingester(storage).apply(upsert(b"a", x=bytes(100 << 20)))
    Ingester(storage).apply(upsert(b"a", x=1))
    assert contents(storage) == {(0, b"a"): as_document(x=1)}
    storage.close()


# -- damage ------------------------------------------------------------------------------------


def spoiled(directory: Path, name: str, change: Callable[[bytearray], bytearray]) -> None:
    path = directory / name
    path.write_bytes(change(bytearray(path.read_bytes())))


def flipped(place: float) -> Callable[[bytearray], bytearray]:
    def change(data: bytearray) -> bytearray:
        data[int(place * len(data))] ^= 0x10
        return data

    return change


def filled(directory: Path) -> None:
    storage = opened(directory)
    ingester = Ingester(storage)
    ingester.apply(*(upsert(b"%d" % i, x=i, data=os.urandom(2_000)) for i in range(1_000)))
    storage.close()


@pytest.mark.parametrize("place", [0.001, 0.3, 0.5, 0.7])
def test_a_flipped_bit_is_found(directory: Path, place: float) -> None:
    filled(directory)
    spoiled(directory, FILE, flipped(place))
    with pytest.raises(ReplicaDamagedError):  # noqa: PT012 - it may be found as early as at open
        storage = opened(directory)
        try:
            wrong = storage.verify()
            if wrong:
                raise ReplicaDamagedError(wrong[0])
            contents(storage, 1_000)
        finally:
            storage.close()


def test_a_truncated_file_is_found(directory: Path) -> None:
    filled(directory)
    spoiled(directory, FILE, lambda data: data[: len(data) * 2 // 3])
    with pytest.raises(ReplicaDamagedError):  # noqa: PT012 - as above
        storage = opened(directory)
        try:
            assert storage.verify() != []
            raise ReplicaDamagedError("found by verify")
        finally:
            storage.close()


@pytest.mark.parametrize("content", [b"", b"something else" * 1_000])
def test_a_file_of_something_else_is_found(directory: Path, content: bytes) -> None:
    filled(directory)
    (directory / FILE).write_bytes(content)
    with pytest.raises(ReplicaDamagedError):
        opened(directory).close()


@pytest.mark.parametrize("hole", [(100, 512), (512, 100_000)])
def test_a_commit_that_a_power_loss_has_torn_costs_no_other(directory: Path, hole: tuple[int, int]) -> None:
    """DuckDB alone refuses a log with a hole, and all the commits that it holds."""
    program = """
        storage = DuckdbStorage(directory, DuckdbOptions())
        ingester = Ingester(storage)
        for number in range(1, 4):
            ingester.apply(*(upsert(b"%d" % i, 0, n=number, data=bytes(300)) for i in range(20)))
            say((directory / "replica.duckdb.wal").stat().st_size)
        os._exit(0)
    """
    _, before, after = map(int, run(program, directory).split())
    start, length = before + hole[0], min(hole[1], after - before - hole[0])
    spoiled(
        directory,
        f"{FILE}.wal",
        lambda data: data[:start] + bytes(length) + data[start + length :],
    )
    storage = opened(directory)
    assert storage.read_meta([b"commit"]) == [b"2"]
    assert (storage.count(), storage.verify()) == (20, [])
    assert {document["n"][1] for document in contents(storage).values()} == {2}
    storage.close()


def test_the_name_of_a_new_log_file_is_synced(
    storage: DuckdbStorage, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB syncs what it writes into it, and not that it is there."""
    synced: list[Path] = []
    monkeypatch.setattr(_duckdb_database, "_sync_directory", synced.append)
    ingester = Ingester(storage)
    ingester.apply(upsert(b"a", x=1))
    ingester.apply(upsert(b"a", x=2))
    assert synced == [directory]
    assert storage._database.checkpoint()
    ingester.apply(upsert(b"a", x=3))
    assert synced == [directory] * 2


def test_documents_that_vanish_or_come_twice_are_found(storage: DuckdbStorage) -> None:
    Ingester(storage).apply(*(upsert(b"%d" % i, x=i) for i in range(10)))
    assert storage.verify() == []
    with storage._database.transaction() as cursor:
        cursor.execute("DELETE FROM ikv.rows WHERE k = '3'")
        cursor.execute("INSERT INTO ikv.rows SELECT * FROM ikv.rows WHERE k = '4'")
        storage._database.commit(cursor)
    wrong = storage.verify()
    assert len(wrong) == 2
    assert "partition 0 holds 10 documents" in wrong[0]
    assert "key b'4' 2 times" in wrong[1]


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_columns", -1), ("max_columns", 1_001), ("max_columns", "9"), ("memory_limit", "much"), ("threads", 0)],
)
def test_options_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(InvalidOptionError, match=name):
        DuckdbOptions(**{name: value})  # type: ignore[arg-type]


def test_files_lie_in_the_storages_own_directory(storage: DuckdbStorage, directory: Path) -> None:
    found = storage.query("SELECT name, value FROM duckdb_settings() WHERE name IN ('temp_directory', 'memory_limit')")
    settings = {each["name"]: each["value"] for each in found.to_pylist()}
    assert settings == {"temp_directory": str(directory / "spill"), "memory_limit": "953.6 MiB"}
