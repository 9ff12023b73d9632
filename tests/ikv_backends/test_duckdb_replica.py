"""A duckdb replica under a reader: rebuilt when it is damaged, whole beside ingest."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikvcore.client import IKVReader
from ikvcore.errors import ReplicaDamagedError
from ikvcore.testing._live import LiveStore, document

PATIENCE = 60.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveStore]:
    monkeypatch.setenv("IKV_HOME", str(tmp_path / "home"))
    options = {"durability": "process-crash"}
    store = LiveStore(
        backend="duckdb", transport="local", directory=tmp_path / "mounts", transport_options=options, partitions=2
    )
    yield store
    store.close()


def fill(store: LiveStore) -> None:
    documents = [document(id=f"key-{n}", n=n, Text=str(n), text="t" * 2_000) for n in range(300)]
    store.reader.wait_for(store.writer.upsert_fields_batch(documents), PATIENCE)


def file_of(store: LiveStore) -> Path:
    assert store.directory is not None
    (path,) = (store.directory / "mount").glob("gen-*/replica.duckdb")
    return path


def is_whole(reader: IKVReader) -> bool:
    rows = reader.multiget_documents([f"key-{n}" for n in range(300)], ["n", "Text"])
    return [row and (row.get("n"), row.get("Text")) for row in rows] == [(n, str(n)) for n in range(300)]


@pytest.mark.parametrize("place", [100, 8_200, 600_000])
def test_a_damaged_file_is_rebuilt_from_the_log(store: LiveStore, place: int) -> None:
    """Whether it can no longer be opened, or a read meets it."""
    fill(store)
    store.restart_reader()
    path = file_of(store)
    data = bytearray(path.read_bytes())
    for at in range(place, len(data), 50_000 if place > 10_000 else len(data)):
        data[at] ^= 1
    path.write_bytes(data)
    reader = store.reader
    try:
        whole = is_whole(reader)
    except ReplicaDamagedError:
        whole = False
    if not whole:
        reader.wait_for(store.writer.upsert_fields(document(id="after", n=1)), PATIENCE)
        assert is_whole(reader)
    assert store.directory is not None
    assert (store.directory / "mount" / "CURRENT").read_text().strip() == "gen-2"


def test_after_a_power_loss_the_file_is_checked_before_it_is_read(store: LiveStore) -> None:
    fill(store)
    store.restart_reader()
    path = file_of(store)
    data = bytearray(path.read_bytes())
    data[-100_000] ^= 1
    path.write_bytes(data)
    (path.parent.parent / "opened.json").write_text(json.dumps({"boot": "an earlier one", "clean": False}))
    assert is_whole(store.reader)
    assert (path.parent.parent / "CURRENT").read_text().strip() == "gen-2"


def test_threads_that_read_beside_ingest_see_whole_documents(store: LiveStore) -> None:
    """Fields with and without a column, of one commit, while rows are rewritten and columns added."""
    fill(store)
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        while not done.is_set():
            rows = list(store.reader.multiget_documents(["key-1", "key-2"]))
            torn.extend(row for row in rows if row is None or str(row["n"]) != row["Text"])
            torn.extend(row for row in rows if row and "new_0" in row and f"new_{row['n']}" not in row)
            found = store.reader.query("SELECT id FROM documents WHERE n::VARCHAR = 'never'")
            torn.extend(found.to_pylist())

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(25):
            changed = [document(id=f"key-{k}", n=n, Text=str(n), **{f"new_{n}": n}) for k in (1, 2)]
            store.reader.wait_for(store.writer.upsert_fields_batch(changed), PATIENCE)
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert torn == []
