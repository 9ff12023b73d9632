"""Appending to a topic: acknowledged by delivery reports, and by nothing else (C4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from ikv_transports._kafka_cluster import KafkaCluster
from ikv_transports._kafka_errors import NOT_TAKEN, Doing, is_refusal, text_of
from ikv_transports._kafka_producers import SharedProducer, obtain_producer
from ikvcore.errors import (
    EventTooLargeError,
    OutcomeUnknownError,
    PartialPublishError,
    TransportError,
)
from ikvcore.models import Message
from ikvcore.tokens import Token

__all__ = ["RECORD_OVERHEAD", "KafkaWriter"]

RECORD_OVERHEAD: Final = 512
"""Bytes that Kafka may add to a message's key and value; a batch's header and the lengths come to less than 100."""
_BATCH_BYTES: Final = 1_000_000
_QUEUE_FULL_PAUSE: Final = 0.01
_CLOSING: Final = 5.0


class KafkaWriter:
    """Publishes to one topic. Thread-safe."""

    def __init__(self, cluster: KafkaCluster, topic: str, *, identity: str, limit: int) -> None:
        """`limit`: the topic's max.message.bytes."""
        self._cluster = cluster
        self._topic = topic
        self._identity = identity
        self._limit = limit
        self._lock = threading.Lock()
        self._shared: SharedProducer | None = None
        self._waiting: set[_Batch] = set()
        self._closed = False

    def publish(self, messages: Sequence[Message]) -> Token:
        """Return when every message is acknowledged. See Transport.publish."""
        for message in messages:
            size = len(message.value or b"") + len(message.key)
            if size > self._limit - RECORD_OVERHEAD:
                raise EventTooLargeError(size, self._limit - RECORD_OVERHEAD)
        shared = self._producer()
        batch = _Batch(len(messages))
        with self._lock:
            self._waiting.add(batch)
        try:
            self._produce(shared, messages, batch)
            batch.done.wait(self._cluster.options.timeout + _CLOSING)
        finally:
            with self._lock:
                self._waiting.discard(batch)
        return self._outcome(batch, shared.broken)

    def close(self) -> None:
        """Wait a while for what is being published; what is not acknowledged then has an unknown outcome."""
        with self._lock:
            self._closed = True
            shared, self._shared = self._shared, None
            waiting = list(self._waiting)
        deadline = time.monotonic() + _CLOSING
        for batch in waiting:
            batch.done.wait(max(0.0, deadline - time.monotonic()))
            batch.done.set()
        if shared is not None:
            shared.release()

    def _producer(self) -> SharedProducer:
        with self._lock:
            if self._closed:
                raise TransportError("the log was closed by this client; open it again")
            if self._shared is not None and self._shared.broken is not None:
                self._shared.release()
                self._shared = None
            if self._shared is None:
                self._shared = obtain_producer(
                    self._cluster,
                    {
                        "acks": "all",
                        "enable.idempotence": True,
                        "message.timeout.ms": int(self._cluster.options.timeout * 1000),
                        # One message may be as large as the topic takes, which is checked here; batches stay below.
                        "message.max.bytes": 1_000_000_000,
                        "batch.size": min(_BATCH_BYTES, self._limit),
                        "linger.ms": 0,
                        "reconnect.backoff.max.ms": 1_000,
                    },
                )
            return self._shared

    def _produce(self, shared: SharedProducer, messages: Sequence[Message], batch: _Batch) -> None:
        produce, topic, report = shared.producer.produce, self._topic, batch.report
        for number, (partition, key, value, timestamp) in enumerate(messages):
            while True:
                try:
                    produce(
                        topic,
                        value,
                        key,
                        partition,
                        on_delivery=report,
                        timestamp=timestamp // 1_000_000,
                    )
                    break
                except BufferError:  # the queue is full: others' messages and ours go out of it
                    if batch.done.wait(_QUEUE_FULL_PAUSE):
                        return
                except KafkaException as exc:
                    batch.give_up(messages[number:], exc.args[0], number)
                    return

    def _outcome(self, batch: _Batch, broken: KafkaError | None) -> Token:
        """`broken`: why the producer gave up what it had, if it did."""
        if not batch.errors and batch.complete:
            return Token(self._identity, batch.reached)
        if not batch.complete:
            raise OutcomeUnknownError(
                f"the acknowledgement of {batch.expected - batch.reported} of {batch.expected} events did not come: "
                "they may or may not be in the log. Writing them again is safe"
            )
        taken = Token(self._identity, {p: end for p, end in batch.reached.items() if p not in batch.errors})
        cause = self._why(next(iter(batch.errors.values())), broken)
        nothing = [p for p in sorted(batch.errors) if p not in batch.reached and p not in batch.unknown]
        if len(nothing) < len(batch.errors):
            unclear = sorted(set(batch.errors) - set(nothing))
            raise OutcomeUnknownError(
                f"partitions {unclear} may or may not have taken all of their events ({cause}); "
                + (f"partitions {nothing} took nothing; " if nothing else "")
                + (f"durable so far: {taken}. " if taken else "")
                + "Writing them again is safe"
            )
        if taken:
            raise PartialPublishError(taken, nothing, cause)
        raise TransportError(f"nothing was published: {cause}")

    def _why(self, error: KafkaError, broken: KafkaError | None) -> str:
        if broken is not None and error.code() in (KafkaError._FATAL, KafkaError._PURGE_QUEUE):
            error = broken
        if is_refusal(error.code()):
            return self._cluster.why_refused(error, Doing("writing to", self._topic, "Write"))
        return text_of(error)


class _Batch:
    """What is known of the messages of one call. `report` is called by the producer's thread alone."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.reported = 0
        self.reached: dict[int, int] = {}
        """The position after the last message acknowledged, by partition."""
        self.errors: dict[int, KafkaError] = {}
        self.unknown: set[int] = set()
        """Partitions with a message that may or may not be in the log."""
        self.done = threading.Event()

    @property
    def complete(self) -> bool:
        return self.reported >= self.expected

    def report(self, error: KafkaError | None, message: Any) -> None:
        """A delivery report: one for each message, in order within a partition. Raises nothing."""
        partition = message.partition()
        if error is None:
            self.reached[partition] = message.offset() + 1
        else:
            self._failed(partition, error)
        self.reported += 1
        if self.reported >= self.expected:
            self.done.set()

    def give_up(self, rest: Sequence[Message], error: KafkaError, produced: int) -> None:
        """`rest` was not even queued; there are reports of the `produced` before it."""
        for message in rest:
            self.errors.setdefault(message.partition, error)
        self.expected = produced
        if self.reported >= produced:
            self.done.set()

    def _failed(self, partition: int, error: KafkaError) -> None:
        self.errors.setdefault(partition, error)
        if error.code() not in NOT_TAKEN:
            self.unknown.add(partition)
