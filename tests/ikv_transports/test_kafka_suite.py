"""The Kafka transport keeps the contracts of a log, on a real broker."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ikv_transports import kafka as kafka_transport
from ikvcore.models import Position
from ikvcore.protocols import Transport
from ikvcore.testing.transport import TransportSuite

OPTIONS: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def _broker(kafka: str) -> None:
    OPTIONS.update(bootstrap_servers=kafka)


class TestKafkaTransport(TransportSuite):
    """Topics of a broker that all tests share."""

    info = kafka_transport.ikv_transport_info()
    options: ClassVar[dict[str, Any]] = OPTIONS
    carries_no_value = True

    def trim(self, log: Transport, partition: int, before: Position) -> None:
        assert isinstance(log, kafka_transport.KafkaTransport)
        admin = AdminClient({"bootstrap.servers": OPTIONS["bootstrap_servers"]})
        for cut in admin.delete_records([TopicPartition(log.topic, partition, before)]).values():
            cut.result(30)
