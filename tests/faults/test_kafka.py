"""Faults of a Kafka broker: whatever it does, every acknowledged write is in every replica, once, and nothing else.

IKV_TEST_KAFKA_FAULTS=20 does each as many times.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore.errors import LogTrimmedError, OutcomeUnknownError, TransportError
from ikvcore.testing._live import LiveStore, document

TIMES = int(os.environ.get("IKV_TEST_KAFKA_FAULTS", "2"))
KEYS = 50


@pytest.fixture(scope="module")
def broker(kafka_brokers: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    broker = kafka_brokers(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def stores(broker: Any, tmp_path: Path) -> Iterator[Callable[..., LiveStore]]:
    made: list[LiveStore] = []

    def make(backend: str = "lmdb", **fixed: Any) -> LiveStore:
        options = {"bootstrap_servers": broker.address, "timeout": 20.0}
        directory = tmp_path / f"{backend}-{len(made)}"
        made.append(
            LiveStore(backend=backend, transport="kafka", directory=directory, transport_options=options, **fixed)
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


class Writing:
    """A thread that writes, and the model of what it wrote. What has no known outcome is written again, as users do."""

    def __init__(self, store: LiveStore, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self.model: dict[str, dict[str, int]] = {}
        self.written = 0
        self.unknown = 0
        self.worst: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self, more: int) -> None:
        """Until so many more writes are acknowledged."""
        wanted = self.written + more
        deadline = time.monotonic() + 90
        while self.written < wanted:
            assert time.monotonic() < deadline, f"{self.written} of {wanted} writes were acknowledged; {self.worst!r}"
            assert self._thread.is_alive(), repr(self.worst)
            time.sleep(0.01)

    def end(self) -> dict[str, dict[str, int]]:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive()
        if self.worst is not None:
            raise self.worst
        return self.model

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._write()
        except BaseException as exc:
            self.worst = exc

    def _write(self) -> None:
        numbers = [self._random.randrange(KEYS) for _ in range(self._random.randrange(1, 6))]
        fields = {f"f{self._random.randrange(4)}": self._random.randrange(10**6)}
        documents = [document(id=f"k{number}", **fields) for number in numbers]
        delete = self._random.random() < 0.1
        call = self._store.writer.delete_document_batch if delete else self._store.writer.upsert_fields_batch
        while True:
            try:
                call(documents)
                break
            except (OutcomeUnknownError, TransportError):
                self.unknown += 1
        for number in numbers:
            key = f"k{number}"
            if delete:
                self.model.pop(key, None)
            else:
                self.model.setdefault(key, {}).update(fields)
        self.written += len(numbers)


def contents(reader: Any) -> dict[str, dict[str, int]]:
    return {key: {name: value for name, value in fields.items() if name != "id"} for key, fields in reader.scan()}


def caught_up(reader: Any, store: LiveStore, patience: float = 60) -> None:
    """Until the reader shows all that is in the log."""
    deadline = time.monotonic() + patience
    while True:
        try:
            stats = reader.stats()
        except TransportError:
            stats = None
        if stats is not None and all(each.lag_events == 0 for each in stats.partitions.values()):
            return
        assert time.monotonic() < deadline, (reader.health(), stats)
        time.sleep(0.05)


def test_a_broker_killed_during_writes_and_reads_loses_and_doubles_nothing(
    broker: Any, stores: Callable[..., LiveStore]
) -> None:
    store = stores(partitions=4)
    readers = [store.reader, store.new_reader(store.builder("second"))]
    writing = Writing(store, 1)
    for _ in range(TIMES):
        writing.wait(100)
        broker.kill()
        assert len(contents(readers[0])) > 0  # reads go on
        broker.start()
    writing.wait(100)
    model = writing.end()
    for reader in readers:
        caught_up(reader, store)
        assert contents(reader) == model
        assert reader.health().state == "ready"


def test_a_frozen_broker_is_told_by_health_and_forgiven(broker: Any, stores: Callable[..., LiveStore]) -> None:
    store = stores(partitions=2)
    reader = store.reader
    writing = Writing(store, 2)
    for _ in range(max(1, TIMES // 4)):
        writing.wait(50)
        broker.freeze()
        try:
            frozen = time.monotonic()
            while reader.health().state == "ready" and time.monotonic() < frozen + 60:
                time.sleep(0.1)
            assert reader.health().state != "ready"
            assert len(contents(reader)) > 0
        finally:
            broker.thaw()
    writing.wait(50)
    model = writing.end()
    caught_up(reader, store)
    assert contents(reader) == model


def test_a_reader_that_was_away_for_longer_than_retention_is_told_so(stores: Callable[..., LiveStore]) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    store = stores()
    writing = Writing(store, 3)
    reader = store.reader
    writing.wait(20)
    reader.shutdown()
    writing.wait(50)
    writing.end()
    log: Any = store.log
    cut = log.bounds()[0].end - 1
    admin = AdminClient({"bootstrap.servers": store.transport_options["bootstrap_servers"]})
    for each in admin.delete_records([TopicPartition(log.topic, 0, cut)]).values():
        each.result(30)
    with pytest.raises(LogTrimmedError):
        reader.startup(timeout=30)


@pytest.mark.parametrize("backends", [["lmdb", "rocksdb", "duckdb", "sqlite"]], ids=["all"])
def test_replicas_of_all_backends_end_equal(stores: Callable[..., LiveStore], backends: list[str]) -> None:
    store = stores(partitions=4)
    readers = [store.reader, *(store.new_reader(store.builder(name).with_backend(name)) for name in backends)]
    writing = Writing(store, 4)
    writing.wait(300)
    store.writer.drop_fields_by_name(["f1"])
    model = writing.end()
    for reader in readers:
        caught_up(reader, store)
    expected = contents(readers[0])
    assert expected.keys() == model.keys()
    for reader in readers[1:]:
        assert contents(reader) == expected
