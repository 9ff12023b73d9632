"""A key goes where the Java producer and librdkafka would send it: they share topics with this project."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from ikvcore._keys import message_key, partition_of
from ikvcore.fields import FieldType
from ikvcore.models import StoreDescription

PARTITIONS = 7
# No line ends and no separator in them, for the Java producer reads lines: so not 10 or 13 bytes long either.
TEXTS = [f"{word}{'x' * more}" for word in ("a", "zehn", "Zürich", "鍵", "k-123") for more in (0, 1, 2, 3, 41)]
KEYS = [key for text in TEXTS if not set(key := message_key(FieldType.STRING, text.encode())) & set(b"\n\r|")]


def ours(key: bytes, partitioner: str) -> int:
    store = StoreDescription(
        store_name="s", account_id="a", identity="i", primary_key="id", partitions=PARTITIONS, partitioner=partitioner
    )
    return partition_of(key, store)


@pytest.fixture
def topic(kafka: str) -> Any:
    admin, topic = AdminClient({"bootstrap.servers": kafka}), f"partitioners-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    yield topic
    admin.delete_topics([topic])[topic].result(30)


@pytest.mark.parametrize(("theirs", "partitioner"), [(None, "crc32"), ("murmur2_random", "murmur2")])
def test_librdkafka_sends_a_key_to_the_same_partition(
    kafka: str, topic: str, theirs: str | None, partitioner: str
) -> None:
    """None is its default."""
    found: dict[bytes, int] = {}

    def report(error: Any, message: Message) -> None:
        assert error is None
        found[message.key() or b""] = message.partition() or 0

    producer = Producer({"bootstrap.servers": kafka} | ({} if theirs is None else {"partitioner": theirs}))
    for key in KEYS:
        producer.produce(topic, b"v", key, on_delivery=report)
    assert producer.flush(30) == 0
    assert found == {key: ours(key, partitioner) for key in KEYS}
    assert len(set(found.values())) > 3


def test_the_java_producer_sends_a_key_to_the_same_partition(
    kafka: str, topic: str, kafka_brokers: Callable[..., Any], tmp_path: Path
) -> None:
    from confluent_kafka import Consumer, TopicPartition

    lines = b"".join(key + b"|v\n" for key in KEYS)
    options = ["--bootstrap-server", kafka, "--topic", topic]
    options += ["--property", "parse.key=true", "--property", "key.separator=|"]
    done = kafka_brokers(tmp_path).tool("org.apache.kafka.tools.ConsoleProducer", *options, stdin=lines)
    assert done.returncode == 0, done.stderr
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "unused", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    messages = consumer.consume(len(KEYS), 30)
    consumer.close()
    found = {message.key() or b"": message.partition() for message in messages}
    assert found == {key: ours(key, "murmur2") for key in KEYS}
