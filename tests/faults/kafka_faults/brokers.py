"""Brokers that are harmed, the pair of plugins that meets them, and what no client of a store asks of them."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.worker import load_file

__all__ = ["Topic", "a_broker", "a_cluster", "jars", "pair_on"]

service = load_file(Path(__file__).parents[2] / "services" / "kafka_broker.py")
_PATIENCE = 60.0


@functools.cache
def jars() -> Path:
    """Where the brokers' programs are. Raises service.NoBroker."""
    found: Path = service.fetch(service.cache())
    return found


@contextmanager
def a_broker(directory: Path, given: Any = None) -> Iterator[Any]:
    """`given`, which runs and goes on to run; or one of our own for the time."""
    if given is not None:
        yield given
        return
    broker = service.Broker(jars(), directory / "broker")
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@contextmanager
def a_cluster(directory: Path) -> Iterator[Any]:
    """Three brokers for the time."""
    cluster = service.Cluster(jars(), directory / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def pair_on(pair: Pair, address: str, **options: Any) -> Pair:
    """The same backend on the brokers at `address`, with a list of stores that nobody else has."""
    given = {"bootstrap_servers": address, "stores_topic": f"ikv-stores-{uuid.uuid4().hex[:12]}", **options}
    return replace(pair.with_durability("process-crash"), transport="kafka", transport_options=given)


class Topic:
    """The topic of a store, as those see it who look after the brokers."""

    def __init__(self, target: Target) -> None:
        log: Any = target.open_log()
        self.name: str = log.topic
        log.close()
        self._partitions = target.description.partitions
        self._admin = AdminClient({"bootstrap.servers": target.pair.transport_options["bootstrap_servers"]})

    def configure(self, **settings: object) -> None:
        """Set some of its settings; an underscore stands for a dot."""
        entries = [
            ConfigEntry(name.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.name, incremental_configs=entries)
        for each in self._admin.incremental_alter_configs([resource]).values():
            each.result(_PATIENCE)

    def leaders(self) -> Mapping[int, int]:
        """partition -> id of the broker that leads it, of those that have a leader."""
        return {each.id: each.leader for each in self._seen() if each.leader > 0}

    def in_sync(self) -> int:
        """On how many brokers every partition is whole."""
        return min((len(each.isrs) for each in self._seen()), default=0)

    def _seen(self) -> list[Any]:
        """The partitions, as a broker that answers sees them."""
        return list(self._admin.list_topics(self.name, timeout=_PATIENCE).topics[self.name].partitions.values())

    def make_again(self) -> None:
        """Delete it, and make another one under its name at once."""
        (future,) = self._admin.delete_topics([self.name]).values()
        future.result(_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        while not self._made():
            if time.monotonic() > deadline:
                raise TimeoutError(f"topic {self.name} could not be made again")
        # The controller has done it. Its brokers do it later, and take events into the old topic until then.
        while not self._is_empty():
            if time.monotonic() > deadline:
                raise TimeoutError(f"topic {self.name} was made again, and no broker has begun it")
            time.sleep(0.01)

    def _is_empty(self) -> bool:
        places = [TopicPartition(self.name, partition) for partition in range(self._partitions)]
        found = self._admin.list_offsets(dict.fromkeys(places, OffsetSpec.latest()), request_timeout=_PATIENCE)
        try:
            return all(each.result(_PATIENCE).offset == 0 for each in found.values())
        except KafkaException:  # not there yet
            return False

    def _made(self) -> bool:
        (future,) = self._admin.create_topics([NewTopic(self.name, num_partitions=self._partitions)]).values()
        try:
            future.result(_PATIENCE)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True
