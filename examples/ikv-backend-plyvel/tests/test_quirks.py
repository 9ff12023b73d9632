"""What LevelDB and plyvel do that the contract does not allow."""

import random
from pathlib import Path

import ikv_backend_plyvel
import plyvel
import pytest

from ikvcore.errors import ReplicaDamagedError, StorageError
from ikvcore.models import BackendContext, WriteBatch


def opened(directory: Path) -> ikv_backend_plyvel.PlyvelStorage:
    return ikv_backend_plyvel.ikv_open_backend(BackendContext(directory=directory, options=None))


def filled(directory: Path) -> ikv_backend_plyvel.PlyvelStorage:
    """A storage whose entries lie in a table, not in the log."""
    storage = opened(directory)
    noise = random.Random(1)
    storage.commit(WriteBatch(puts={b"%06d" % n: noise.randbytes(500) for n in range(2_000)}), expect={})
    storage.close()
    with plyvel.DB(str(directory)) as db:
        db.compact_range()
    return opened(directory)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_damaged_block_is_an_error(tmp_path: Path, share: float) -> None:
    """Wherever it lies in the table."""
    filled(tmp_path).close()
    [table] = tmp_path.glob("*.ldb")
    data = bytearray(table.read_bytes())
    data[int(share * len(data))] ^= 0xFF
    table.write_bytes(data)
    storage = opened(tmp_path)
    with storage.snapshot() as snapshot, pytest.raises(ReplicaDamagedError):
        list(storage.scan(snapshot, b"", None))


def test_a_scan_that_ends_early_is_an_error(tmp_path: Path) -> None:
    """plyvel's iterators end at an unreadable last block as at the last key: what comes last was not seen."""
    storage = filled(tmp_path)
    storage._db.delete(b"\xff" * 65_542)
    with storage.snapshot() as snapshot, pytest.raises(ReplicaDamagedError):
        list(storage.scan(snapshot, b"", None))


def test_lost_tables_are_told_from_a_new_directory(tmp_path: Path) -> None:
    """Entries without the last one are no new database."""
    with plyvel.DB(str(tmp_path), create_if_missing=True) as db:
        db.put(b"a", b"1")
    with pytest.raises(ReplicaDamagedError):
        opened(tmp_path)


def test_after_a_failed_write_the_database_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit works, and nothing of the failed one is there."""
    storage = filled(tmp_path)
    before = storage._db

    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(before, name)

        def write_batch(self) -> object:
            batch = before.write_batch()

            class FailingBatch:
                put, delete = batch.put, batch.delete

                def write(self) -> None:
                    raise plyvel.IOError("IO error: seeded")

            return FailingBatch()

    monkeypatch.setattr(storage, "_db", Failing())
    with pytest.raises(StorageError, match="seeded"):
        storage.commit(WriteBatch(puts={b"lost": b"1"}), expect={})
    storage.commit(WriteBatch(puts={b"kept": b"1"}), expect={b"lost": None})
    assert before.closed
    with storage.snapshot() as snapshot:
        assert (snapshot.get(b"lost"), snapshot.get(b"kept")) == (None, b"1")
    storage.close()
