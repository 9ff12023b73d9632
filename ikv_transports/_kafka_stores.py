"""Descriptions of stores, in a compacted topic that every client reads; no credential is in it, and no hash of one.

The topic has one partition. A record's key is a JSON list: [account, store, nonce] for a store, [account, nonce] for an
account; its value is JSON, and none once it was removed. Of several makers of one thing the one whose record is first
in the topic has made it: keys differ by their nonces, so that compaction keeps the first one too.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ikv_transports._kafka_cluster import KafkaCluster, Topic
from ikv_transports._kafka_reader import read_all
from ikv_transports._kafka_watch import gone
from ikv_transports._kafka_writer import KafkaWriter
from ikvcore.errors import InvalidOptionError, StoreAccessError, StoreExistsError, TransportError
from ikvcore.models import Message, StoreDescription, dump_json

__all__ = ["KafkaProvisioning", "StoreRecord", "find_store"]

_FORMAT: Final = 1
_TOPIC_MARGIN: Final = 128 * 1024
"""A key has up to 65,535 bytes, beside what Kafka adds."""
_RECORD_LIMIT: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class StoreRecord:
    """A store as it was made."""

    key: bytes
    topic: str
    adopted: bool
    """Whether the topic was there before the store, and stays after it."""
    description: StoreDescription

    def described(self, topic_id: str) -> StoreDescription:
        """The description of the log that this topic is."""
        return replace(self.description, identity=f"{self.description.identity}.{topic_id}")

    def value(self) -> bytes:
        """What is kept of it."""
        data = {"format": _FORMAT, "topic": self.topic, "adopted": self.adopted, "store": self.description.to_json()}
        return dump_json(data)

    @classmethod
    def parsed(cls, key: bytes, value: bytes) -> StoreRecord:
        """Raises TransportError where this release cannot read it."""
        try:
            data = json.loads(value)
            if data["format"] != _FORMAT:
                raise TransportError(f"the description {key!r} has format {data['format']!r}: upgrade ikvcore")
            return cls(
                key=key,
                topic=str(data["topic"]),
                adopted=bool(data["adopted"]),
                description=StoreDescription.from_json(data["store"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise TransportError(f"the description {key!r} cannot be read ({exc!r})") from exc


class _Records:
    """The live records, in the topic's order."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._topic = cluster.options.stores_topic
        live: dict[bytes, bytes] = {}
        for message in read_all(cluster, self._topic):
            live.pop(message.key, None)
            if message.value is not None:
                live[message.key] = message.value
        self._live = live

    def keys(self, *names: str) -> list[bytes]:
        """Keys of the account, or of the account and store, whose names these are."""
        return [key for key in self._live if (parts := _parts(key))[:-1] == list(names) and len(parts) > 1]

    def account_exists(self, account_id: str) -> bool:
        return bool(self.keys(account_id))

    def store(self, account_id: str, store_name: str) -> StoreRecord | None:
        keys = self.keys(account_id, store_name)
        return StoreRecord.parsed(keys[0], self._live[keys[0]]) if keys else None

    def stores(self, account_id: str) -> list[StoreRecord]:
        """By name."""
        names = {parts[1] for key in self._live if len(parts := _parts(key)) == 3 and parts[0] == account_id}
        found = [self.store(account_id, name) for name in sorted(names)]
        return [each for each in found if each is not None]

    def whose(self, topic: str) -> str | None:
        """The store, of whichever account, whose log this topic is; None where it is nobody's."""
        for key, value in self._live.items():
            parts = _parts(key)
            if len(parts) == 3 and _topic(value) == topic:
                return f"store {parts[1]!r} of account {parts[0]!r}"
        return None


def find_store(cluster: KafkaCluster, account_id: str, store_name: str) -> StoreRecord:
    """Raises StoreAccessError where there is none."""
    record = _Records(cluster).store(account_id, store_name)
    if record is None:
        raise StoreAccessError(store_name, account_id)
    return record


class KafkaProvisioning:
    """Makes and removes topics and their descriptions. Whether the account may is for the brokers to say."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._options = cluster.options
        self._account_id = cluster.account_id

    def create_account(self) -> None:
        self._make_stores_topic()
        if _Records(self._cluster).account_exists(self._account_id):
            raise StoreExistsError("account", self._account_id)
        self._claim("account", self._account_id)

    def rotate_passkey(self, new_passkey: str) -> None:
        """Refused."""
        raise InvalidOptionError(
            "transport", "kafka", "it keeps no passkeys; with SASL they are the brokers', see kafka-configs --alter"
        )

    def create_store(self, description: StoreDescription) -> StoreDescription:
        self._make_stores_topic()
        name = description.store_name
        records = _Records(self._cluster)
        if records.store(self._account_id, name) is not None:
            raise StoreExistsError("store", name)
        wanted = self._options.topic
        if wanted is not None and (owner := records.whose(wanted)) is not None:
            raise InvalidOptionError("topic", wanted, f"it is the log of {owner} already; use another")
        if not records.account_exists(self._account_id):
            self._claim_account()
        description = replace(
            description, max_event_bytes=min(description.max_event_bytes, self._options.max_event_bytes)
        )
        record, topic = self._make_topic(description)
        try:
            self._claim("store", self._account_id, name, record=record)
        except StoreExistsError:
            self._drop_topic(record)
            raise
        return record.described(topic.id)  # not asked for again: another broker may not have heard of it

    def list_stores(self) -> list[StoreDescription]:
        records = _Records(self._cluster)
        if not records.account_exists(self._account_id):
            raise StoreAccessError("*", self._account_id)
        found = records.stores(self._account_id)
        topics = self._cluster.topics(each.topic for each in found)
        return [
            each.description if (topic := topics[each.topic]) is None else each.described(topic.id) for each in found
        ]

    def delete_store(self, store_name: str) -> None:
        records = _Records(self._cluster)
        record = records.store(self._account_id, store_name)
        if record is None:
            raise StoreAccessError(store_name, self._account_id)
        # In this order: where it is cut short, it can be done again.
        self._drop_topic(record)
        self._append([(key, None) for key in records.keys(self._account_id, store_name)])

    # -- topics --------------------------------------------------------------------------------

    def _make_stores_topic(self) -> None:
        name = self._options.stores_topic
        if self._cluster.topic(name) is None:
            self._cluster.create_topic(name, partitions=1, config={"cleanup.policy": "compact"} | self._replicas())

    def _make_topic(self, description: StoreDescription) -> tuple[StoreRecord, Topic]:
        wanted = self._options.topic
        names = [re.sub(r"[._]", "-", each)[:40] for each in (description.account_id, description.store_name)]
        topic = wanted or f"ikv-{names[0]}-{names[1]}-{uuid.uuid4().hex[:12]}"
        made = self._cluster.create_topic(
            topic,
            partitions=description.partitions,
            config={
                "cleanup.policy": "delete",
                "retention.ms": str(self._options.retention_ms),
                "retention.bytes": "-1",
                "max.message.bytes": str(description.max_event_bytes + _TOPIC_MARGIN),
            }
            | self._replicas(),
        )
        found = made or self._adopted(topic, description)
        key = dump_json([description.account_id, description.store_name, uuid.uuid4().hex])
        return StoreRecord(key=key, topic=topic, adopted=made is None, description=description), found

    def _adopted(self, name: str, description: StoreDescription) -> Topic:
        topic = self._cluster.topic_soon(name)
        if topic is None:
            raise gone(name)
        if topic.partitions != description.partitions:
            raise InvalidOptionError(
                "partitions", description.partitions, f"topic {name!r} is there already, and has {topic.partitions}"
            )
        return topic

    def _replicas(self) -> dict[str, str]:
        least = self._options.min_insync_replicas
        return {} if least is None else {"min.insync.replicas": str(least)}

    def _drop_topic(self, record: StoreRecord) -> None:
        if not record.adopted:
            self._cluster.delete_topic(record.topic)

    # -- records -------------------------------------------------------------------------------

    def _claim_account(self) -> None:
        try:
            self._claim("account", self._account_id)
        except StoreExistsError:  # somebody else makes a store of it at this moment
            return

    def _claim(self, what: str, *names: str, record: StoreRecord | None = None) -> None:
        """Append a record, and see whether it is the first of its names; take it back if not."""
        key = dump_json([*names, uuid.uuid4().hex]) if record is None else record.key
        self._append([(key, dump_json({"format": _FORMAT}) if record is None else record.value())])
        if _Records(self._cluster).keys(*names)[:1] != [key]:
            self._append([(key, None)])
            raise StoreExistsError(what, names[-1])

    def _append(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        writer = KafkaWriter(self._cluster, self._options.stores_topic, identity="stores", limit=_RECORD_LIMIT)
        try:
            # Timestamp 0 is "now" to Kafka; a value of None, which removes a record, is what compaction waits for.
            messages: list[Any] = [Message(0, key, value, 0) for key, value in records]  # type: ignore[arg-type]
            writer.publish(messages)
        finally:
            writer.close()


def _parts(key: bytes) -> list[str]:
    """The names in a key; none where it is not of ours, whoever has put it there."""
    try:
        parts = json.loads(key)
    except (ValueError, RecursionError):
        return []
    return parts if isinstance(parts, list) and all(isinstance(part, str) for part in parts) else []


def _topic(description: bytes) -> object:
    """The topic that a description of any format names; None where it cannot be read, whoever has put it there."""
    try:
        data = json.loads(description)
    except (ValueError, RecursionError):
        return None
    return data.get("topic") if isinstance(data, dict) else None
