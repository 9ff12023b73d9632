"""Whether a topic is still the one that was opened: clients of Kafka don't tell when one is made again under its name.

Nothing waits for the answers, and there is no thread: whoever uses the log asks now and then, and looks at what came.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException

from ikv_transports._kafka_cluster import KafkaCluster, Topic
from ikv_transports._kafka_errors import Doing
from ikvcore.errors import IKVError, LogDivergedError, TransportError, restore

__all__ = ["TopicWatch"]

_EVERY: Final = 5.0
_EVERY_IN_TROUBLE: Final = 0.5
_PATIENCE: Final = 5.0


class TopicWatch:
    """Asks for a topic's id and number of partitions every few seconds, as long as `check` is called. Thread-safe."""

    def __init__(self, cluster: KafkaCluster, name: str, opened: Topic) -> None:
        self._cluster = cluster
        self._name = name
        self._opened = opened
        self._lock = threading.Lock()
        self._asked: Future[Any] | None = None
        self._next = time.monotonic() + _EVERY
        self._wrong: IKVError | None = None
        self._silent: IKVError | None = None

    def check(self, *, silence: bool) -> None:
        """Raise LogDivergedError where the topic is another one, TransportError where it is gone or has other
        partitions; where `silence`, also while no broker answers.
        """
        if self._lock.acquire(blocking=False):  # one asks for all
            try:
                self._look()
            finally:
                self._lock.release()
        error = self._wrong or (self._silent if silence else None)
        if error is not None:
            raise restore(type(error), error.args, vars(error))

    def suspect(self) -> None:
        """Ask at the next occasion: something went wrong."""
        self._next = min(self._next, time.monotonic())

    def _look(self) -> None:
        asked = self._asked
        if asked is not None and asked.done():
            self._asked = None
            self._judge(asked)
        now = time.monotonic()
        if self._asked is None and now >= self._next:
            self._next = now + _EVERY
            self._asked = self._cluster.ask([self._name], timeout=_PATIENCE)[self._name]

    def _judge(self, answer: Future[Any]) -> None:
        try:
            topic = self._cluster.found(answer)
        except KafkaException as exc:
            doing = Doing("describing", self._name, "Describe")
            self._silent = self._cluster.translated(doing, exc, waited=_PATIENCE)
            self._next = time.monotonic() + _EVERY_IN_TROUBLE
            return
        self._silent = None
        self._wrong = self._verdict(topic)
        if self._wrong is not None:
            self._next = time.monotonic() + _EVERY_IN_TROUBLE

    def _verdict(self, topic: Topic | None) -> IKVError | None:
        if topic is None:
            return gone(self._name)
        if topic.id != self._opened.id:
            return LogDivergedError(
                None,
                f"topic {self._name!r} was deleted and made again: its id is {topic.id}, and was {self._opened.id}",
            )
        if topic.partitions != self._opened.partitions:
            return other_partitions(self._name, topic.partitions, self._opened.partitions)
        return None


def gone(name: str) -> TransportError:
    """The topic of a store is not there."""
    return TransportError(
        f"topic {name!r}, which holds the store's log, does not exist; if it was deleted, delete the store too and "
        "make it again"
    )


def other_partitions(name: str, found: int, described: int) -> TransportError:
    """Keys would be looked for in other partitions than they were written to."""
    return TransportError(
        f"topic {name!r} has {found} partitions, but the store was made with {described}, which decides where each key "
        "is; make a new store with as many partitions as you need, and load it again"
    )
