"""Faults of the Kafka transport to test the campaigns with: each breaks something in the process that calls it.

Workers call them by `--fault FILE:FUNCTION`. SEEDED says which campaign each is put into, and what has to be found.
"""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple


class Seeded(NamedTuple):
    """A fault and what finds it."""

    fault: str
    campaign: str
    times: int
    finding: str
    """A text that one of the violations has."""
    words: str


SEEDED = (
    Seeded(
        "acknowledged_before_the_report",
        "killed-producers",
        4,
        "acknowledged: ",
        "a write returns before the brokers' report of its delivery",
    ),
    Seeded(
        "position_of_the_event_itself",
        "killed-producers",
        1,
        "acknowledged: ",
        "a token names the position of its event, not the one after",
    ),
    Seeded(
        "topic_taken_for_the_old_one",
        "topic-made-again",
        1,
        "documents: mount live",
        "what was read is taken for the old topic's without asking",
    ),
    Seeded(
        "trimmed_log_followed",
        "log-overtaken",
        1,
        "nothing was told",
        "a reader goes on at the first message that a cut log still has",
    ),
)


def acknowledged_before_the_report() -> None:
    from ikv_transports.kafka import KafkaTransport
    from ikvcore.tokens import Token

    publish = KafkaTransport.publish

    def hasty(self: Any, messages: Any) -> Token:
        messages = list(messages)
        reached = {partition: bounds.end for partition, bounds in self.bounds().items()}
        token = {}
        for message in messages:
            reached[message.partition] += 1
            token[message.partition] = reached[message.partition]

        def later() -> None:
            time.sleep(0.004)
            publish(self, messages)

        threading.Thread(target=later).start()
        return Token(self.describe().identity, token)

    KafkaTransport.publish = hasty  # type: ignore[method-assign]


def position_of_the_event_itself() -> None:
    from ikv_transports._kafka_writer import KafkaWriter
    from ikvcore.tokens import Token

    publish = KafkaWriter.publish

    def early(self: Any, messages: Any) -> Token:
        token = publish(self, messages)
        return Token(token.identity, {partition: end - 1 for partition, end in token.positions.items()})

    KafkaWriter.publish = early  # type: ignore[method-assign]


def topic_taken_for_the_old_one() -> None:
    from ikv_transports._kafka_watch import Confirmation

    Confirmation.came = lambda *_: True  # type: ignore[method-assign,assign,misc]


def trimmed_log_followed() -> None:
    from ikv_transports import _kafka_reader
    from ikv_transports._kafka_cluster import KafkaCluster

    client = KafkaCluster.client

    def lenient(self: Any, kind: Any, own: Any) -> Any:
        if "auto.offset.reset" in own:
            own = own | {"auto.offset.reset": "earliest"}
        return client(self, kind, own)

    KafkaCluster.client = lenient  # type: ignore[method-assign,assign]
    _kafka_reader.check_start = lambda *_, **__: None  # type: ignore[assign]
