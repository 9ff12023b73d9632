"""The log on Apache Kafka, or on what speaks its protocol: a topic for each store, through confluent-kafka.

Writes are idempotent and acknowledged by delivery reports (acks=all). Readers are assigned the positions that their
replicas have stored; there are no consumer groups. A log's identity holds its topic's id, so that a topic which was
made again under its old name is another log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from ikv_transports._kafka_cluster import KafkaCluster, Topic
from ikv_transports._kafka_options import KafkaTransportOptions
from ikv_transports._kafka_reader import KafkaSubscription
from ikv_transports._kafka_stores import KafkaProvisioning, StoreRecord, find_store
from ikv_transports._kafka_watch import TopicWatch, gone, other_partitions
from ikv_transports._kafka_writer import RECORD_OVERHEAD, KafkaWriter
from ikvcore._names import check_name
from ikvcore.errors import TransportError
from ikvcore.hookspecs import hookimpl
from ikvcore.models import (
    API_VERSION,
    Bounds,
    Durability,
    Message,
    Start,
    StoreDescription,
    TransportContext,
    TransportInfo,
)
from ikvcore.plainlog import check_messages, check_partitions
from ikvcore.protocols import Provisioning, Transport
from ikvcore.tokens import Token

__all__ = ["KafkaTransport", "KafkaTransportOptions"]

_log = logging.getLogger(__name__)

_ROOM: Final = 2 * RECORD_OVERHEAD
"""What an event needs beside its own bytes: Kafka's, and a key that is not long. The writer counts both exactly."""


class KafkaTransport:
    """A client of one store's topic."""

    def __init__(
        self, cluster: KafkaCluster, record: StoreRecord, topic: Topic, *, largest: int | None, compacted: bool
    ) -> None:
        """`largest`: the topic's max.message.bytes, None where we may not know it."""
        described = record.described(topic.id)
        limit = described.max_event_bytes + _ROOM if largest is None else largest
        self._cluster = cluster
        self._topic = record.topic
        self._largest = limit
        self._compacted = compacted
        self._description = replace(described, max_event_bytes=min(described.max_event_bytes, max(1, limit - _ROOM)))
        self._watch = TopicWatch(cluster, record.topic, topic)
        self._writer = KafkaWriter(cluster, record.topic, identity=self._description.identity, limit=limit)
        self._lock = threading.Lock()
        self._subscriptions: set[KafkaSubscription] = set()
        self._closed = False

    @property
    def topic(self) -> str:
        """The name of the store's topic."""
        return self._topic

    def describe(self) -> StoreDescription:
        self._check()
        return self._description

    def publish(self, messages: Sequence[Message]) -> Token:
        self._check()
        messages = list(messages)
        check_messages(messages, self._description)
        if not messages:
            return Token()
        self._watch.check(silence=False)
        return self._writer.publish(messages)

    def subscribe(self, start: Mapping[int, Start]) -> KafkaSubscription:
        self._check()
        check_partitions(start, self._description)
        self._watch.check(silence=False)
        subscription = KafkaSubscription(
            self._cluster,
            self._topic,
            self._watch,
            start,
            identity=self._description.identity,
            bounds=self._bounds(start),
            largest=self._largest,
            check=self._check,
            forget=self._forget,
        )
        with self._lock:
            if not self._closed:
                self._subscriptions.add(subscription)
                return subscription
        subscription.close()
        raise self._closed_error()

    def bounds(self) -> Mapping[int, Bounds]:
        self._check()
        self._watch.check(silence=True)  # whoever asks for figures need not wait for brokers known to be silent
        return self._bounds(range(self._description.partitions))

    def size(self) -> int | None:
        """None: brokers tell that only to administrators."""
        self._check()
        return None

    def close(self) -> None:
        if self._cluster.forked_away:
            return
        with self._lock:
            closing, self._closed = not self._closed, True
            subscriptions, self._subscriptions = self._subscriptions, set()
        if closing:
            for subscription in subscriptions:
                subscription.close()
            self._writer.close()

    def _bounds(self, partitions: Mapping[int, Start] | range) -> dict[int, Bounds]:
        found = self._cluster.bounds(self._topic, partitions)
        # Compaction cuts events out of the middle: upserts that set other fields than those after them.
        return {p: Bounds(first, end, first == 0 and not self._compacted) for p, (first, end) in found.items()}

    def _check(self) -> None:
        self._cluster.check_process()
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> TransportError:
        return TransportError(
            f"the log of store {self._description.store_name!r} was closed by this client; open it again"
        )

    def _forget(self, subscription: KafkaSubscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)


_warned: set[str] = set()


def _cluster(context: TransportContext, account_id: str, store_name: str | None) -> KafkaCluster:
    options: KafkaTransportOptions = context.options
    servers = options.bootstrap_servers
    if not options.sasl and servers not in _warned:
        _warned.add(servers)
        _log.warning("without SASL the brokers %s check neither account nor passkey: everybody is let in", servers)
    return KafkaCluster(options, account_id=account_id, passkey=context.passkey, store_name=store_name)


@hookimpl
def ikv_transport_info() -> TransportInfo:
    return TransportInfo(
        name="kafka",
        api_version=API_VERSION,
        summary="a topic of Apache Kafka, for many machines",
        options=KafkaTransportOptions,
        durability=Durability.PROCESS_CRASH,
        process_shared=True,
        capabilities=frozenset({"Provisioning"}),
        keeps_passkeys=False,
    )


@hookimpl
def ikv_open_transport(context: TransportContext) -> Transport:
    account_id = check_name("account id", context.account_id)
    store_name = check_name("store name", context.store_name)
    cluster = _cluster(context, account_id, store_name)
    record = find_store(cluster, account_id, store_name)
    topic = cluster.topic_soon(record.topic)
    if topic is None:
        raise gone(record.topic)
    if topic.partitions != record.description.partitions:
        raise other_partitions(record.topic, topic.partitions, record.description.partitions)
    settings = cluster.settings(record.topic)
    largest = settings.get("max.message.bytes")
    compacted = "compact" in (settings.get("cleanup.policy") or "")
    if compacted:
        _log.warning("topic %s is compacted: events are lost that new replicas need", record.topic)
    return KafkaTransport(
        cluster, record, topic, largest=None if largest is None else int(largest), compacted=compacted
    )


@hookimpl
def ikv_provisioning(context: TransportContext) -> Provisioning:
    account_id = check_name("account id", context.account_id)
    return KafkaProvisioning(_cluster(context, account_id, None))
