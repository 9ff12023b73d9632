"""The pages of an LMDB file are checked without trusting any of them."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ikvcore.errors import StorageError

PAGE = 4096
COMMIT = 16 + 24 + 96 + 8
"""Where a meta page keeps the number of its commit."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def opened(directory: Path, *, create: bool = True):  # type: ignore[no-untyped-def]
    from ikv_backends._lmdb_environment import LmdbEnvironment

    return LmdbEnvironment(directory, sync=False, create=create, what="replica", error=StorageError)


def churn(environment, commits: int, seed: int = 1) -> Iterator[int]:  # type: ignore[no-untyped-def]
    """Commits of puts and deletes, of entries of all sizes."""
    dice = random.Random(seed)

    def change(txn) -> None:  # type: ignore[no-untyped-def]
        for _ in range(dice.randrange(1, 120)):
            key = b"key %d" % dice.randrange(3_000)
            if dice.random() < 0.3:
                txn.delete(key)
            else:
                txn.put(key, dice.randbytes(dice.choice([0, 10, 100, 100, 100, 3_000, 9_000])))

    for number in range(commits):
        environment.write(change)
        yield number


@pytest.fixture
def file(directory: Path) -> Path:
    """A file of several levels, with free pages and entries that are longer than a page."""
    environment = opened(directory)
    for _ in churn(environment, 60):
        pass
    environment.close()
    return directory / "data.mdb"


def findings(file: Path) -> list[str]:
    from ikv_backends._lmdb_pages import check_pages

    return check_pages(file)


def change(file: Path, at: int, form: str, new: Callable[[int], int]) -> None:
    data = bytearray(file.read_bytes())
    (old,) = struct.unpack_from(form, data, at)
    struct.pack_into(form, data, at, new(old))
    file.write_bytes(data)


def newest(file: Path) -> int:
    """The number of the meta page that counts."""
    data = file.read_bytes()
    return max((0, 1), key=lambda number: struct.unpack_from("=Q", data, number * PAGE + COMMIT)[0])


def branch(file: Path) -> int:
    """The root of the table, which is a branch page here."""
    (root,) = struct.unpack_from("=Q", file.read_bytes(), newest(file) * PAGE + 16 + 24 + 48 + 40)
    return int(root)


def test_whatever_lmdb_writes_is_found_right(directory: Path) -> None:
    environment = opened(directory)
    for _ in churn(environment, 150):
        assert findings(directory / "data.mdb") == []
    environment.close()


def test_beside_a_writer_one_state_is_checked(directory: Path) -> None:
    """The pages of a state that is being read are not written again, however much is committed meanwhile."""
    from ikv_backends._lmdb_pages import check_pages

    environment, stop = opened(directory), threading.Event()
    commits = churn(environment, 100_000)
    next(commits)

    def write() -> None:
        while not stop.is_set():
            next(commits)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            assert check_pages(directory / "data.mdb", environment.read) == []
    finally:
        stop.set()
        writer.join()
        environment.close()


def test_a_file_may_end_before_a_free_page_but_not_before_one_in_use(directory: Path) -> None:
    """LMDB never writes a page that one commit both took and gave back; at the file's end it is then missing."""
    environment = opened(directory)
    environment.write(lambda txn: [txn.put(b"key %d" % number, bytes(9_000)) for number in range(100)])
    environment.write(lambda txn: [txn.delete(b"key %d" % number) for number in range(1, 100)])
    for number in range(10):  # until what is in use lies before what is free
        environment.write(lambda txn, number=number: txn.put(b"last", b"%d" % number))
    environment.close()
    file = directory / "data.mdb"
    os.truncate(file, file.stat().st_size - 2 * PAGE)
    assert findings(file) == []
    environment = opened(directory, create=False)
    with environment.read() as transaction:
        assert (transaction.get(b"key 0"), transaction.get(b"last")) == (bytes(9_000), b"9")
    environment.write(lambda txn: [txn.put(b"key %d" % number, bytes(9_000)) for number in range(200)])
    assert environment.check_pages() == []
    environment.close()
    os.truncate(file, file.stat().st_size - 2 * PAGE)
    assert "is missing" in findings(file)[0]
    with pytest.raises(StorageError, match="is missing"):
        opened(directory, create=False)


def test_a_meta_page_that_falls_back_by_two_is_found(file: Path) -> None:
    """Then the commit before the last one would be read, and the last one be lost in silence."""
    change(file, newest(file) * PAGE + COMMIT, "=Q", lambda commit: commit - 2)
    assert "leads to pages of commit" in findings(file)[0]


def test_a_key_of_a_branch_that_hides_records_is_found(file: Path) -> None:
    """A scan would show all records, and a search would miss some."""
    root = branch(file) * PAGE
    data = file.read_bytes()
    (node,) = struct.unpack_from("=H", data, root + 16 + 2)  # the second one; the first one's key is of no account
    (last,) = struct.unpack_from("=H", data, root + node + 6)
    change(file, root + node + 8 + last - 1, "=B", lambda byte: byte ^ 0x40)
    assert findings(file)


@pytest.mark.parametrize("at", [0, 10, 12, 14, 16])
def test_the_head_of_a_page_is_checked(file: Path, at: int) -> None:
    """Its number, flags, limits and first pointer."""
    change(file, branch(file) * PAGE + at, "=H", lambda value: value ^ 0x20)
    assert findings(file)


def test_a_page_that_is_free_and_in_use_is_found(file: Path) -> None:
    """The next commit would write over it."""
    data = bytearray(file.read_bytes())
    (free_root,) = struct.unpack_from("=Q", data, newest(file) * PAGE + 16 + 24 + 40)
    (pointer,) = struct.unpack_from("=H", data, free_root * PAGE + 16)
    at = free_root * PAGE + pointer + 16  # the node's head and its key; then come the count and the pages
    (count, *_) = struct.unpack_from("=Q", data, at)
    assert count
    struct.pack_into("=Q", data, at + 8, branch(file))
    file.write_bytes(data)
    assert findings(file)


def test_no_flipped_bit_makes_the_check_fail(file: Path) -> None:
    """A finding or none, in moderate time; no exception."""
    dice, whole = random.Random(4), file.read_bytes()
    for number in range(600):
        data = bytearray(whole)
        page, depth = (dice.randrange(len(whole) // PAGE), 80) if number % 2 else (dice.randrange(2), 160)
        data[page * PAGE + dice.randrange(depth)] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        assert len(findings(file)) <= 1
    for length in (0, 1, 100, PAGE, 2 * PAGE, 7 * PAGE + 1):
        os.truncate(file, length)
        file.write_bytes(whole[:length])
        assert findings(file)


def filled(directory: Path):  # type: ignore[no-untyped-def]
    """A replica's storage of several pages, its last key, and what opens it again."""
    from ikv_backends.lmdb import LmdbOptions, LmdbStorage
    from ikvcore._kvstorage import KeyValueStorage
    from ikvcore.fields import FieldType
    from ikvcore.models import Upsert

    def stored() -> KeyValueStorage:
        return KeyValueStorage(LmdbStorage(directory, LmdbOptions()), max_key_bytes=511)

    storage = stored()
    keys = [b"key %04d" % number for number in range(600)]
    storage.apply([Upsert(0, key, {"id": (FieldType.STRING, key)}, None) for key in keys], meta={}, expect={})
    storage.close()
    return stored, keys[-1]


def lead_astray(file: Path, first: int, page: int) -> None:
    """Have all nodes of the root, from the `first` on, lead to a page."""
    root = branch(file) * PAGE
    (lower,) = struct.unpack_from("=H", file.read_bytes(), root + 12)
    for index in range(first, (lower - 16) // 2):
        (node,) = struct.unpack_from("=H", file.read_bytes(), root + 16 + 2 * index)
        change(file, root + node, "=H", lambda _: page & 0xFFFF)
        change(file, root + node + 2, "=H", lambda _: page >> 16)


@pytest.mark.parametrize("leads_to", ["a page that is not there", "the page itself"])
def test_a_page_that_lmdb_cannot_follow_is_damage_of_the_replica(directory: Path, leads_to: str) -> None:
    """Then the replica is rebuilt; any other error of the engine would only be tried again."""
    from ikvcore.errors import ReplicaDamagedError
    from ikvcore.models import Projection, storage_key

    stored, key = filled(directory)
    file = directory / "data.mdb"
    lead_astray(file, 1, branch(file) if leads_to == "the page itself" else 0x7FFF_FFFF)  # 0 leads to the schema
    storage = stored()
    for read in (storage.get, lambda key, projection: storage.get_many([key], projection)):
        with pytest.raises(ReplicaDamagedError):
            read(storage_key(0, key), Projection(None))
    assert storage.verify()
    storage.close()


@pytest.mark.parametrize("leads_to", ["a page that is not there", "the page itself"])
def test_a_bookkeeping_that_lmdb_cannot_reach_is_damage_of_the_replica(directory: Path, leads_to: str) -> None:
    """It is read where a replica is opened: as any other error it would keep clients from starting for good."""
    from ikvcore._progress import COMMIT_KEY
    from ikvcore.errors import ReplicaDamagedError

    stored, _ = filled(directory)
    file = directory / "data.mdb"
    lead_astray(file, 0, branch(file) if leads_to == "the page itself" else 0x7FFF_FFFF)
    storage = stored()
    with pytest.raises(ReplicaDamagedError):
        storage.read_meta([COMMIT_KEY])
    storage.close()
