"""Whether a topic is still the one that was opened: clients of Kafka don't tell when one is made again under its name.

There is no thread: whoever uses the log asks now and then, and looks at what came. Readers ask each time after they
have read, before they believe it: librdkafka goes on in a topic that was made again, at a position of the old one.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaException

from ikv_transports._kafka_cluster import KafkaCluster, Topic
from ikv_transports._kafka_errors import Doing
from ikvcore.errors import IKVError, LogDivergedError, TransportError, restore

__all__ = ["Confirmation", "TopicWatch"]

_EVERY: Final = 5.0
_EVERY_IN_TROUBLE: Final = 0.5
_PATIENCE: Final = 5.0
_SPACING: Final = 0.005
"""Seconds between two questions of one reader: a dense stream is confirmed in batches."""


class TopicWatch:
    """Asks for a topic's id and number of partitions every few seconds, as long as `check` is called. Thread-safe."""

    def __init__(self, cluster: KafkaCluster, name: str, opened: Topic) -> None:
        self._cluster = cluster
        self._name = name
        self._opened = opened
        self._lock = threading.Lock()
        self._asked: Future[Any] | None = None
        self._asked_at = 0.0
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

    def ask(self) -> Future[Any]:
        """Ask now, for `judge`."""
        return self._cluster.ask([self._name], timeout=_PATIENCE)[self._name]

    def hasten(self, asked: float) -> None:
        """See KafkaCluster.hasten."""
        self._cluster.hasten(asked)

    def judge(self, answer: Future[Any]) -> bool:
        """Whether this answer, which has come, is that the topic is still the one; `check` tells what else it is."""
        with self._lock:
            return self._judge(answer)

    def _look(self) -> None:
        asked = self._asked
        if asked is not None and not asked.done():
            self.hasten(self._asked_at)
        elif asked is not None:
            self._asked = None
            self._judge(asked)
        now = time.monotonic()
        if self._asked is None and now >= self._next:
            self._next = now + _EVERY
            self._asked, self._asked_at = self.ask(), now

    def _judge(self, answer: Future[Any]) -> bool:
        try:
            topic = self._cluster.found(answer)
        except KafkaException as exc:
            doing = Doing("describing", self._name, "Describe")
            self._silent = self._cluster.translated(doing, exc, waited=_PATIENCE)
            self._next = time.monotonic() + _EVERY_IN_TROUBLE
            return False
        self._silent = None
        self._wrong = self._verdict(topic)
        self._next = time.monotonic() + (_EVERY if self._wrong is None else _EVERY_IN_TROUBLE)
        return self._wrong is None

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


class Confirmation:
    """That what a reader has read is of the topic that was opened: a question asked after it was read. One thread."""

    def __init__(self, watch: TopicWatch) -> None:
        self._watch = watch
        self._asked: Future[Any] | None = None
        self._last = 0.0

    def space(self) -> None:
        """Wait, before anything is read, until the next question may be asked."""
        time.sleep(max(0.0, min(_SPACING, self._last + _SPACING - time.monotonic())))

    def begin(self) -> None:
        """Ask: something was read."""
        self._last = time.monotonic()
        self._asked = self._watch.ask()

    def came(self, wait: float) -> bool:
        """Whether it is confirmed, within `wait` seconds. Where no broker answers, it is asked again."""
        assert self._asked is not None
        with suppress(TimeoutError):
            self._asked.exception(wait)
        if not self._asked.done():
            self._watch.hasten(self._last)
            return False
        confirmed = self._watch.judge(self._asked)
        if not confirmed:
            self.begin()
        return confirmed


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
