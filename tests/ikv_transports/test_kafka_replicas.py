"""Replicas of every engine follow one topic of four partitions, and hold what the log itself says, field by field."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from ikvcore._events import decode_event
from ikvcore.client import IKVReader
from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.fields import FieldType, encode
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, LogMessage, Mutation, Upsert
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing.model import StoreModel
from ikvcore.tokens import Token

BACKENDS = ("lmdb", "lmdb", "rocksdb", "duckdb", "sqlite")
PARTITIONS = 4
KEYS = [f"k{number}" for number in range(60)]
NAMES = ("count", "count_of_all", "name", "rate", "seen")
PATIENCE = 120.0


@pytest.fixture
def store(kafka: str, tmp_path: Path) -> Iterator[LiveStore]:
    store = LiveStore(
        backend="lmdb",
        transport="kafka",
        directory=tmp_path,
        transport_options={"bootstrap_servers": kafka},
        partitions=PARTITIONS,
    )
    yield store
    store.close()


def any_document(dice: random.Random, key: str) -> IKVDocument:
    """Whatever type a field had before, it may have another now."""
    builder = IKVDocumentBuilder().put_string_field("id", key)
    for name in dice.sample(NAMES, dice.randrange(1, len(NAMES))):
        number = dice.randrange(-1000, 1000)
        put: Any = dice.choice(
            [
                lambda name, n: builder.put_int32_field(name, n),
                lambda name, n: builder.put_int64_field(name, n << 40),
                lambda name, n: builder.put_float32_field(name, n / 4),
                lambda name, n: builder.put_float64_field(name, n / 3),
                lambda name, n: builder.put_string_field(name, "" if n % 5 == 0 else f"ünlü {n}"),
                lambda name, n: builder.put_bytes_field(name, b"\0\xff" * (n % 7)),
                lambda name, n: builder.put_bool_field(name, n > 0),
            ]
        )
        put(name, number)
    return builder.build()


def change(dice: random.Random, writer: Any) -> Token:
    """A call of the writer, of any kind but one: after a drop of everything what came before is not seen."""
    some = [document(id=key) for key in dice.sample(KEYS, 5)]
    names = dice.sample(NAMES, 2)
    token: Token = dice.choices(
        [
            lambda: writer.upsert_fields_batch([any_document(dice, dice.choice(KEYS)) for _ in range(20)]),
            lambda: writer.delete_fields_batch(some, names),
            lambda: writer.delete_document_batch(some),
            lambda: writer.drop_fields_by_name([*names, "id"]),
            lambda: writer.drop_fields_by_name_prefix([names[0]]),
        ],
        weights=[30, 5, 5, 2, 2],
    )[0]()
    return token


def messages_of(store: LiveStore, end: Token) -> list[LogMessage]:
    """What the topic holds, read by the library alone."""
    log: Any = store.log
    consumer = Consumer(
        {
            "bootstrap.servers": store.transport_options["bootstrap_servers"],
            "group.id": "none",
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(log.topic, partition, 0) for partition in range(PARTITIONS)])
    found: list[LogMessage] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < sum(end.positions.values()):
        assert time.monotonic() < deadline, (len(found), end)
        for each in consumer.consume(1_000, 0.2):
            assert each.error() is None
            found.append(LogMessage(each.partition(), each.offset(), each.key() or b"", each.value(), None))
    consumer.close()
    return found


def type_changes(mutations: list[Mutation]) -> int:
    """How often a field of a document was set to another type than before."""
    last: dict[tuple[bytes, str], FieldType] = {}
    changes = 0
    for each in mutations:
        if isinstance(each, Upsert):
            for name, (kind, _) in each.fields.items():
                changes += last.setdefault((each.key, name), kind) is not kind
                last[each.key, name] = kind
    return changes


def contents(reader: IKVReader) -> dict[str | bytes, dict[str, Any]]:
    """Every document: name -> (type, bytes as they are on the wire)."""
    found = {}
    for key, (names, types, values) in reader.scan_rows():
        fields = zip(names, types, values, strict=True)
        found[key] = {name: (kind, encode(name, kind, value)) for name, kind, value in fields}  # type: ignore[arg-type]
    return found


def test_replicas_of_every_engine_hold_what_the_log_says_field_by_field(store: LiveStore) -> None:
    """While they follow, and after one of each engine was away; drops and changes of type included."""
    dice = random.Random(6)
    readers = [
        store.new_reader(store.builder(f"mount-{number}").with_backend(backend))
        for number, backend in enumerate(BACKENDS)
    ]
    end = Token()
    for step in range(120):
        if step == 20:
            end |= store.writer.drop_all_fields()
        if step == 40:
            for reader in readers[1:]:
                reader.shutdown()
        if step == 80:
            for reader in readers[1:]:
                reader.startup(timeout=PATIENCE)
        end |= change(dice, store.writer)
    assert end.positions.keys() == set(range(PARTITIONS))
    messages = messages_of(store, end)
    description = store.log.describe()
    mutations = [found for each in messages if (found := decode_event(each, description)) is not None]
    assert {type(each) for each in mutations} == {Upsert, DeleteFields, DeleteDocument, DropFields, Clear}
    assert type_changes(mutations) > 100
    model = StoreModel(["id"])
    model.apply(mutations)
    expected = {key.decode(): fields for _, key, fields in model.documents()}
    assert len(expected) > 20
    for reader in readers:
        reader.wait_for(end, PATIENCE)
        found = contents(reader)
        assert {key: fields for key, fields in found.items() if fields != expected.get(str(key))} == {}
        assert found.keys() == expected.keys()
        assert reader.stats().events_applied == len(messages)
        assert [each is not None for each in reader.get_rows(KEYS)] == [key in expected for key in KEYS]
