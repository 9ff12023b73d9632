"""The quarantine of a replica: listed, and dropped from beside the process that ingests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore._progress import COMMIT_KEY, QuarantinedEvent, quarantine_key
from ikvcore._quarantine import drop_events
from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import FencedError, InvalidArgumentError, MountError, StorageError
from ikvcore.factory import create_new_reader
from ikvcore.inspection import drop_quarantined_events, quarantined_events
from ikvcore.testing._live import LiveStore, document

PATIENCE = 60.0
FAST = {"durability": "process-crash"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LiveStore]:
    with LiveStore(
        backend="lmdb", transport="local", directory=tmp_path, backend_options=FAST, transport_options=FAST
    ) as store:
        yield store


@pytest.fixture
def options(store: LiveStore) -> ClientOptions:
    return store.builder().with_on_bad_event("quarantine").build()


def bad(store: LiveStore, *values: bytes) -> Any:
    return store.publish(*[b"\xff" + value for value in values])


def ingested(options: ClientOptions, token: Any) -> Any:
    """The figures of a reader that shows what the token stands for, and is gone then."""
    with create_new_reader(options) as reader:
        reader.wait_for(token, timeout=PATIENCE)
        return reader.stats()


def test_events_are_listed_with_their_sequence_numbers(store: LiveStore, options: ClientOptions) -> None:
    store.publish(b"")
    ingested(options, bad(store, b"one", b"two"))
    kept = quarantined_events(options)
    assert list(kept) == [0, 1]
    event = kept[1]
    assert isinstance(event, QuarantinedEvent)
    assert (event.partition, event.position, event.value, event.size) == (0, 2, b"\xfftwo", 4)
    assert "wire format" in event.reason


def test_events_are_dropped_one_by_one_or_all(store: LiveStore, options: ClientOptions) -> None:
    """What counts them counts on, and later ones get numbers of their own."""
    assert ingested(options, bad(store, b"0", b"1", b"2", b"3")).bad_events == 4
    assert drop_quarantined_events(options, [1, 3, 1]) == 2
    assert list(quarantined_events(options)) == [0, 2]
    assert drop_quarantined_events(options, []) == 0
    stats = ingested(options, bad(store, b"4"))
    assert (stats.bad_events, stats.events_applied) == (5, 5)
    assert {number: event.value for number, event in quarantined_events(options).items()} == {
        0: b"\xff0",
        2: b"\xff2",
        4: b"\xff4",
    }
    assert drop_quarantined_events(options) == 3
    assert quarantined_events(options) == {}
    assert drop_quarantined_events(options) == 0
    assert ingested(options, bad(store)).bad_events == 5


def test_an_unknown_number_is_refused_and_nothing_is_dropped(store: LiveStore, options: ClientOptions) -> None:
    ingested(options, bad(store, b"0", b"1"))
    with pytest.raises(InvalidArgumentError, match="no event 7;"):
        drop_quarantined_events(options, [0, 7])
    with pytest.raises(InvalidArgumentError, match="list of sequence numbers"):
        drop_quarantined_events(options, "01")  # type: ignore[arg-type]
    assert list(quarantined_events(options)) == [0, 1]


def test_where_there_is_no_replica_nothing_is_dropped(options: ClientOptions) -> None:
    with pytest.raises(MountError, match="no replica"):
        drop_quarantined_events(options)
    assert options.mount_directory is not None
    assert not options.mount_directory.exists()


def test_events_are_dropped_beside_a_service_that_ingests(
    store: LiveStore, options: ClientOptions, start_service: Callable[..., Any]
) -> None:
    """Under constant writes; the service goes on, and loses nothing."""
    service = start_service(options)
    service.documents(bad(store, b"0", b"1", b"2"))
    stop, written = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            n = len(written)
            written.append(store.writer.upsert_fields(document(id=f"k{n}", n=n)))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for number in range(3):
            assert drop_quarantined_events(options, [number]) == 1
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert quarantined_events(options) == {}
    token = written[-1] | bad(store, b"3")
    assert service.documents(token) == len(written)
    assert list(quarantined_events(options)) == [3]
    service.end()
    stats = ingested(options, token)
    assert (stats.bad_events, stats.events_applied, stats.documents) == (4, len(written) + 4, len(written))


def test_events_are_dropped_beside_a_reader_of_this_process(store: LiveStore, options: ClientOptions) -> None:
    with create_new_reader(options) as reader:
        reader.wait_for(bad(store, b"0"), timeout=PATIENCE)
        assert drop_quarantined_events(options) == 1
        token = store.writer.upsert_fields(document(id="a"))
        reader.wait_for(token, timeout=PATIENCE)
        assert reader.count() == 1


class Contested:
    """A storage whose ingester commits before each of the first `losses` commits of ours."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.commit = 7
        self.kept = dict.fromkeys(map(quarantine_key, range(2)), _STORED)
        self.tries = 0

    def read_meta(self, keys: Any) -> list[bytes | None]:
        assert list(keys) == [COMMIT_KEY]
        return [b"%d" % self.commit]

    def scan_meta(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return sorted(self.kept.items())

    def apply(self, mutations: Any, *, meta: Any, expect: Any) -> None:
        self.tries += 1
        if self.losses:
            self.losses -= 1
            self.commit += 1
        if expect != {COMMIT_KEY: b"%d" % self.commit}:
            raise FencedError(expect, self.commit)
        assert (list(mutations), meta.pop(COMMIT_KEY)) == ([], b"%d" % (self.commit + 1))
        self.commit += 1
        for key, value in meta.items():
            assert value is None
            del self.kept[key]


_STORED = QuarantinedEvent(partition=0, position=1, reason="bad", key=b"", value=b"v", size=1, timestamp=None).stored()


def test_a_drop_that_was_fenced_is_planned_anew() -> None:
    storage: Any = Contested(losses=5)
    assert drop_events(storage, [1]) == 1
    assert (storage.tries, storage.commit) == (6, 7 + 6)
    assert list(storage.kept) == [quarantine_key(0)]


def test_a_drop_gives_up_in_the_end() -> None:
    storage: Any = Contested(losses=1_000_000)
    with pytest.raises(FencedError):
        drop_events(storage, None)
    assert storage.tries < 1_000
    assert len(storage.kept) == 2


def test_an_event_that_cannot_be_read_is_damage() -> None:
    storage: Any = Contested(losses=0)
    storage.kept[quarantine_key(0)] = b'{"partition": 0}'
    with pytest.raises(StorageError, match="quarantine"):
        drop_events(storage, None)
