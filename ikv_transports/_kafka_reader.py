"""Reading a topic from stored positions, without consumer groups (C5, C7)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, TopicPartition

from ikv_transports._kafka_cluster import KafkaCluster
from ikv_transports._kafka_errors import OF_GROUPS, Doing, is_refusal, text_of
from ikv_transports._kafka_watch import Confirmation, TopicWatch
from ikvcore.errors import LogDivergedError, LogTrimmedError, TransportError
from ikvcore.forks import after_fork_in_child, leak
from ikvcore.models import Bounds, LogMessage, Polled, Position, Start
from ikvcore.witness import check_start

__all__ = ["KafkaSubscription", "read_all"]

_SLICE: Final = 0.05
"""A consumer that waits cannot be woken; so it waits no longer at a time."""
_HARMLESS: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError._WAIT_COORD,
    }
)
"""Errors after which librdkafka goes on by itself; the watch tells where that takes long."""


class KafkaSubscription:
    """An assigned consumer, and how far it was read."""

    def __init__(
        self,
        cluster: KafkaCluster,
        topic: str,
        watch: TopicWatch,
        start: Mapping[int, Start],
        *,
        identity: str,
        bounds: Mapping[int, Bounds],
        largest: int,
        check: Callable[[], None],
        forget: Callable[[KafkaSubscription], None],
    ) -> None:
        """`check` raises unless the log can be used; `forget` is told of the end."""
        self._cluster = cluster
        self._topic = topic
        self._watch = watch
        self._confirmation = Confirmation(watch)
        self._taken: Polled | None = None
        """What was read, and may be of another topic of this name for all that is known yet."""
        self._check = check
        self._forget = forget
        self._positions = {partition: place.position for partition, place in start.items()}
        self._ahead: deque[Any] = deque()
        self._woken = False
        self._closed = False
        self._lost = False
        self._polling = threading.Lock()
        self._consumer: Consumer | None = cluster.consumer(largest=largest)
        after_fork_in_child(self)
        try:
            self._begin(start, identity, bounds)
        except BaseException:
            self._opened().close()
            raise

    def forked(self) -> None:
        """See ikvcore.forks."""
        leak(self._consumer)

    # -- where it begins -----------------------------------------------------------------------

    def _begin(self, start: Mapping[int, Start], identity: str, bounds: Mapping[int, Bounds]) -> None:
        """Compare the log with the starts, and begin to read.

        What the witnesses saw is read first, on the way: a second assignment would wait for the first one's fetches.
        """
        for partition, place in start.items():
            check_start(partition, place, identity=identity, bounds=bounds[partition], read=lambda *_: None)
        seen = {
            partition: place.witness.position
            for partition, place in start.items()
            if place.witness is not None and bounds[partition].first <= place.witness.position < place.position
        }
        self._assign(self._positions | seen)
        found = self._first_messages(seen)
        for partition in seen:
            check_start(
                partition,
                start[partition],
                identity=identity,
                bounds=bounds[partition],
                read=lambda partition, position: found.get((partition, position)),
            )

    def _first_messages(self, seen: Mapping[int, Position]) -> dict[tuple[int, Position], LogMessage]:
        """The first message at or after each of these positions; what else comes is kept for `poll`."""
        found: dict[tuple[int, Position], LogMessage] = {}
        left = set(seen)
        deadline = time.monotonic() + self._cluster.options.timeout
        while left:
            message: Any = self._opened().poll(_SLICE)
            if message is None:
                self._check()
                if time.monotonic() > deadline:
                    raise self._cluster.unreachable()
                continue
            error, partition = message.error(), message.partition()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._fail(error, partition)
                continue
            if error is None and partition in left:
                got = _log_message(message)
                found[partition, got.position] = got
            left.discard(partition)
            self._ahead.append(message)
        return found

    def _assign(self, positions: Mapping[int, Position]) -> None:
        self._ahead.clear()
        self._opened().assign([TopicPartition(self._topic, p, position) for p, position in positions.items()])
        self._lost = False

    # -- reading -------------------------------------------------------------------------------

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> Polled:
        self._cluster.check_process()
        deadline = time.monotonic() + timeout
        with self._polling:
            while True:
                self._check_open()
                remaining = deadline - time.monotonic()
                wait = max(0.0, min(_SLICE, remaining))
                if self._taken is None:
                    self._read(max_messages, max_bytes, wait)
                if self._taken is not None and self._confirmation.came(wait):
                    polled, self._taken = self._taken, None
                    return polled
                self._watch.check(silence=True)
                if self._woken or remaining <= 0:
                    self._woken = False
                    return Polled([], {})

    def wake(self) -> None:
        self._cluster.check_process()
        self._woken = True

    def close(self) -> None:
        if self._cluster.forked_away:
            return
        self._closed = True
        with self._polling:  # a poll that waits ends first
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                consumer.close()
        self._forget(self)

    def _check_open(self) -> None:
        self._check()
        self._opened()

    def _opened(self) -> Consumer:
        consumer = self._consumer
        if consumer is None or self._closed:
            raise TransportError("this subscription was closed; subscribe again")
        return consumer

    def _read(self, max_messages: int, max_bytes: int, wait: float) -> None:
        """Take what is there, and ask whether the topic is still the one that was opened."""
        self._confirmation.space()
        polled = self._take(max_messages, max_bytes, wait)
        if polled.messages or polled.positions:
            self._taken = polled
            self._confirmation.begin()

    def _take(self, max_messages: int, max_bytes: int, wait: float) -> Polled:
        if self._lost:
            self._assign(self._positions)
        taken: list[LogMessage] = []
        moved: dict[int, Position] = {}
        positions, room = self._positions, max_bytes
        # From the end, so that each is freed as its LogMessage is made: thousands at once would keep Python's garbage
        # collector busy (measured: a fifth of a replica's filling).
        arrived = self._arrived(max(max_messages, 1), wait)
        arrived.reverse()
        while arrived:
            message = arrived.pop()
            error, partition = message.error(), message.partition()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._move(partition, message.offset(), moved)
                else:
                    self._fail(error, partition, moved=moved)
                continue
            got = _log_message(message)
            if got.position < positions[partition]:
                continue
            room -= len(got.key) + len(got.value or b"")
            if room < 0 and taken:
                arrived.append(message)
                break
            taken.append(got)
            positions[partition] = moved[partition] = got.position + 1
        self._ahead.extendleft(arrived)
        return Polled(taken, moved)

    def _move(self, partition: int, position: Position, moved: dict[int, Position]) -> None:
        if position > self._positions[partition]:
            self._positions[partition] = moved[partition] = position

    def _arrived(self, wanted: int, wait: float) -> list[Any]:
        """Up to `wanted` messages and events: what is there already, else what comes first within `wait`.

        No more is taken from librdkafka while some is left: it bounds what waits in its queue by bytes.
        """
        if self._ahead:
            return [self._ahead.popleft() for _ in range(min(wanted, len(self._ahead)))]
        try:
            return _next(self._opened(), wanted, wait)
        except KafkaException as exc:
            raise self._cluster.translated(Doing("reading", self._topic, "Read"), exc) from exc

    # -- errors --------------------------------------------------------------------------------

    def _fail(self, error: KafkaError, partition: int, *, moved: Iterable[int] = ()) -> None:
        """Raise what an error event means, unless librdkafka goes on by itself.

        It may have stopped to fetch the partition, so all are assigned anew, from where they were read to.
        """
        code = error.code()
        if code in OF_GROUPS:
            return
        self._watch.suspect()
        if code in _HARMLESS:
            return
        self._lost = True
        if moved:  # what came before it is given first; the error comes again
            return
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._out_of_range(partition)
        if is_refusal(code):
            raise self._cluster.translated(Doing("reading", self._topic, "Read"), KafkaException(error))
        if code == KafkaError._LOG_TRUNCATION:
            raise LogDivergedError(partition, f"its end was cut off below what was read of it ({text_of(error)})")
        raise TransportError(f"partition {partition} cannot be read: {text_of(error)}")

    def _out_of_range(self, partition: int) -> None:
        position = self._positions[partition]
        first, end = self._cluster.bounds(self._topic, [partition])[partition]
        if position < first:
            raise LogTrimmedError(partition, position, first)
        if position > end:
            raise LogDivergedError(partition, f"it ends at {end}, before the replica's position {position}")


def _log_message(message: Any) -> LogMessage:
    kind, milliseconds = message.timestamp()
    return LogMessage(
        message.partition(),
        message.offset(),
        message.key() or b"",
        message.value(),
        None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds * 1_000_000,
    )


def _next(consumer: Consumer, wanted: int, wait: float) -> list[Any]:
    """Up to `wanted` messages and events: as soon as there is one, since `consume` alone waits until there are all."""
    first: Any = consumer.poll(wait)
    if first is None:
        return []
    return [first, *(consumer.consume(wanted - 1, 0) if wanted > 1 else ())]


def read_all(cluster: KafkaCluster, topic: str) -> list[LogMessage]:
    """All that a topic's only partition holds now; nothing where there is no such topic."""
    if cluster.topic(topic) is None:
        return []
    first, end = cluster.bounds(topic, [0])[0]
    found: list[LogMessage] = []
    if first == end:
        return found
    consumer = cluster.consumer(largest=0)
    try:
        consumer.assign([TopicPartition(topic, 0, first)])
        deadline = time.monotonic() + cluster.options.timeout
        position = first
        while position < end:
            if time.monotonic() > deadline:
                raise cluster.unreachable()
            for message in _next(consumer, 1_000, _SLICE):
                error, offset = message.error(), message.offset()
                if error is None:
                    found.append(_log_message(message))
                    position = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    position = max(position, offset)
                elif error.code() not in _HARMLESS | OF_GROUPS:
                    raise cluster.translated(Doing("reading", topic, "Read"), KafkaException(error))
    finally:
        consumer.close()
    return found
