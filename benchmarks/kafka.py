"""Writes and reads through Kafka beside the bare libraries, in one run:

    python benchmarks/kafka.py HOST:PORT [documents]

Publishing: batches of 1,000 documents of 3 fields through IKVWriter, and beside it protobuf encoding and a bare
confluent-kafka producer with delivery callbacks and the same guarantees. Consuming: a new LMDB replica of all that was
published, and beside it a bare consumer, protobuf decoding, and one get and put of as many bytes into bare LMDB.
Freshness: single writes at random moments until another process sees them. Both sides of a comparison take turns.
Quote the ratios, not the times. `python tests/services/kafka_broker.py run DIRECTORY` runs a broker.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lmdb
from confluent_kafka import Consumer, Producer, TopicPartition

from ikvcore import admin
from ikvcore._keys import message_key, partition_of
from ikvcore._proto import IKVDataEvent
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.fields import FieldType
from ikvcore.models import StoreDescription

BATCH = 1_000
ROUNDS = 5
WRITES = 200
PARTITIONS = 4
RECORD = 60
"""Bytes of the replica's record of such a document, key included."""


class Store:
    """A store made for the run."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.name = f"benchmark-{uuid.uuid4().hex[:8]}"
        self._access: dict[str, Any] = {
            "account_id": "benchmark",
            "account_passkey": "any",
            "transport": "kafka",
            "transport_options": {"bootstrap_servers": servers},
        }
        self.description: StoreDescription = admin.create_store(
            self.name, primary_key="id", partitions=PARTITIONS, **self._access
        )

    def options(self, mount: Path) -> Any:
        builder = ClientOptionsBuilder().with_store_name(self.name).with_account_id("benchmark")
        builder = builder.with_account_passkey("any").with_mount_directory(str(mount)).with_console_logging("ERROR")
        return builder.with_transport("kafka", bootstrap_servers=self.servers).build()

    def topic(self, writer: Any) -> str:
        return str(writer._transport.topic)

    def remove(self) -> None:
        admin.delete_store(self.name, **self._access)


def document(number: int) -> IKVDocument:
    """A key and two more fields."""
    builder = IKVDocumentBuilder().put_string_field("id", f"user{number:07d}")
    return builder.put_int64_field("count", number).put_float64_field("score", number / 7).build()


def bare_publish(store: Store, topic: str) -> Callable[[list[IKVDocument]], None]:
    producer = Producer({"bootstrap.servers": store.servers, "enable.idempotence": True, "acks": "all", "linger.ms": 0})

    def publish(documents: list[IKVDocument]) -> None:
        acknowledged = 0

        def report(error: Any, message: Any) -> None:
            nonlocal acknowledged
            assert error is None
            acknowledged += 1

        for each in documents:
            event = IKVDataEvent()
            event.eventHeader.sourceTimestamp.FromNanoseconds(time.time_ns())
            target = event.upsertDocumentFieldsEvent.document.document
            for name, (field_type, data) in each.fields.items():
                value = target[name]
                value.fieldType, value.value = field_type, data
            key = message_key(FieldType.STRING, each.fields["id"][1])
            partition = partition_of(key, store.description)
            producer.produce(topic, event.SerializeToString(), key, partition, on_delivery=report)
            producer.poll(0)
        while acknowledged < len(documents):
            producer.poll(0.1)

    publish([document(0)])  # the producer gets its id
    return publish


def publishing(store: Store, writer: Any, documents: int) -> None:
    bare = bare_publish(store, store.topic(writer))
    ratios, ours, theirs = [], [], []
    for turn in range(ROUNDS):
        share = documents // ROUNDS
        batches = [[document(turn * share + start + n) for n in range(BATCH)] for start in range(0, share, BATCH)]
        ours.append(seconds(lambda batches=batches: [writer.upsert_fields_batch(batch) for batch in batches]))
        theirs.append(seconds(lambda batches=batches: [bare(batch) for batch in batches]))
        ratios.append(theirs[-1] / ours[-1])
    each = documents // ROUNDS
    print(
        f"publishing: {each / statistics.median(ours):,.0f}/s; bare {each / statistics.median(theirs):,.0f}/s; "
        f"{statistics.median(ratios):.2f} of bare ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def bare_consume(store: Store, topic: str, directory: Path, ends: dict[int, int]) -> None:
    environment = lmdb.open(str(directory), map_size=1 << 32, sync=False)
    consumer = Consumer(
        {
            "bootstrap.servers": store.servers,
            "group.id": "bare",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 32 * 1024,
            "fetch.queue.backoff.ms": 10,  # else it sleeps for a second where its queue was full for a moment
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    left = sum(ends.values())
    while left:
        messages = consumer.consume(min(left, 4_000), 0.05)
        with environment.begin(write=True) as txn:
            for message in messages:
                event = IKVDataEvent.FromString(message.value())
                fields = event.upsertDocumentFieldsEvent.document.document
                found = {name: (fields[name].fieldType, fields[name].value) for name in fields}
                key = found["id"][1]
                txn.get(key)
                txn.put(key, bytes(RECORD - len(key)))
        left -= len(messages)
    consumer.close()
    environment.close()


def consuming(store: Store, writer: Any, directory: Path) -> None:
    ends = {partition: bounds.end for partition, bounds in writer._transport.bounds().items()}
    topic, total = store.topic(writer), sum(ends.values())
    ratios, ours, theirs = [], [], []
    for turn in range(3):
        reader = create_new_reader(store.options(directory / f"replica-{turn}"))
        ours.append(seconds(reader.startup))
        reader.shutdown()
        theirs.append(seconds(lambda turn=turn: bare_consume(store, topic, directory / f"bare-{turn}", ends)))
        ratios.append(theirs[-1] / ours[-1])
    print(
        f"consuming into LMDB: {total / statistics.median(ours):,.0f}/s; bare "
        f"{total / statistics.median(theirs):,.0f}/s; {statistics.median(ratios):.2f} of bare "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def watch(servers: str, name: str, mount: Path, pipe: Connection) -> None:
    """In another process: for each number, when a reader first shows it."""
    store = object.__new__(Store)
    store.servers, store.name = servers, name
    with create_new_reader(store.options(mount)) as reader:
        pipe.send("ready")
        while (wanted := pipe.recv()) is not None:
            deadline = time.monotonic() + 10
            while reader.get_int64_value("fresh", "count") != wanted and time.monotonic() < deadline:
                time.sleep(0.0001)
            pipe.send(time.time())


def freshness(store: Store, writer: Any, directory: Path) -> None:
    mine, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=watch, args=(store.servers, store.name, directory / "other", theirs))
    other.start()
    assert mine.poll(60), "the other process did not start"
    mine.recv()
    taken = []
    for number in range(WRITES):
        mine.send(number)
        time.sleep(random.uniform(0.05, 0.5))
        began = time.time()
        builder = IKVDocumentBuilder().put_string_field("id", "fresh")
        writer.upsert_fields(builder.put_int64_field("count", number).build())
        assert mine.poll(30), "the other process ended"
        taken.append(1_000 * (mine.recv() - began))
    mine.send(None)
    other.join()
    taken.sort()
    print(
        f"one write to visible in another process: p50 {taken[WRITES // 2]:.1f} ms, p99 "
        f"{taken[WRITES * 99 // 100]:.1f} ms, worst {taken[-1]:.1f} ms, {WRITES} writes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("documents", nargs="?", type=int, default=100_000)
    arguments = parser.parse_args()
    store = Store(arguments.servers)
    try:
        with tempfile.TemporaryDirectory() as directory:
            writer = create_new_writer(store.options(Path(directory) / "writer"))
            writer.startup()
            writer.upsert_fields(document(0))
            publishing(store, writer, arguments.documents)
            consuming(store, writer, Path(directory))
            freshness(store, writer, Path(directory))
            writer.shutdown()
    finally:
        store.remove()


if __name__ == "__main__":
    main()
