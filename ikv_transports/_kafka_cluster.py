"""What is asked of the brokers themselves: topics, their ids and settings, and where their partitions begin and end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from ikv_transports._kafka_errors import code_of, is_refusal, text_of
from ikv_transports._kafka_options import KafkaTransportOptions, Properties
from ikvcore.errors import ForkedError, IKVError, InvalidOptionError, StoreAccessError, TransportError
from ikvcore.forks import after_fork_in_child, leak
from ikvcore.models import Secret

__all__ = ["DRIVER_LOG", "KafkaCluster", "Topic"]

_log = logging.getLogger("ikv_transports.kafka")
DRIVER_LOG: Final = logging.getLogger("ikv_transports.kafka.driver")
"""What librdkafka itself has to say."""
_LOOK: Final = 0.1
_LOOK_AGAIN: Final = 0.01
_RESERVE: Final = 64 * 1024 * 1024
_T = TypeVar("_T")


class Topic(NamedTuple):
    """A topic as it is now."""

    id: str
    """Random; that of a topic made again under the same name differs."""
    partitions: int


class KafkaCluster:
    """One client's way to the brokers. Every call ends within the options' timeout, with TransportError at the latest.

    Thread-safe. There is nothing to close: it goes with its last reference.
    """

    def __init__(
        self, options: KafkaTransportOptions, *, account_id: str, passkey: Secret, store_name: str | None
    ) -> None:
        self.options = options
        self.account_id = account_id
        self._store_name = store_name
        self._properties = options.properties(account_id, passkey)
        self._complaint: KafkaError | None = None
        self.forked_away = False
        self._admin = self.client(AdminClient, {})
        after_fork_in_child(self)

    def forked(self) -> None:
        """See ikvcore.forks."""
        self.forked_away = True
        leak(self._admin)

    # -- clients -------------------------------------------------------------------------------

    def properties(self, own: Properties) -> Properties:
        """Those of the options, and `own` above them."""
        return self._properties | own

    def client(self, kind: Callable[..., _T], own: Properties) -> _T:
        """An AdminClient, Consumer or Producer. Raises InvalidOptionError for properties that librdkafka refuses."""
        try:
            return kind({"error_cb": self._complain, **_harmless(self.properties(own))}, logger=DRIVER_LOG)
        except (KafkaException, ValueError, TypeError) as exc:
            # The text of a refused value may hold the value, which can be a secret.
            error = exc.args[0] if isinstance(exc, KafkaException) else None
            told = error.str() if isinstance(error, KafkaError) else ""
            why = told if told.startswith("No such configuration property") else type(exc).__name__
            raise InvalidOptionError("config", Secret(""), f"librdkafka refuses one of its properties: {why}") from None

    def consumer(self, *, largest: int) -> Consumer:
        """A consumer that is assigned partitions and positions, and belongs to no group."""
        at_once = max(50 * 1024 * 1024, largest)
        return self.client(
            Consumer,
            {
                "group.id": "ikv-unused",  # the library wants one; it is never sent
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # "earliest" silently replays and "latest" silently skips
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.max.bytes": at_once,
                "receive.message.max.bytes": at_once + _RESERVE,
                # The default lets a reader that was slow for a moment sleep for a second.
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": 32 * 1024,
                "reconnect.backoff.max.ms": 1_000,
            },
        )

    def _complain(self, error: KafkaError) -> None:
        self._complaint = error

    # -- topics --------------------------------------------------------------------------------

    def ask(self, names: Iterable[str], *, timeout: float) -> Mapping[str, Future[Any]]:
        """Begin to describe topics; `found` reads an answer."""
        self.check_process()
        futures: Mapping[str, Future[Any]] = self._admin.describe_topics(
            TopicCollection(list(names)), request_timeout=timeout
        )
        return futures

    @staticmethod
    def found(answer: Future[Any]) -> Topic | None:
        """The topic of an answer that is there; None where there is no such topic. Raises KafkaException."""
        try:
            described = answer.result(0)
        except KafkaException as exc:
            if code_of(exc) in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                return None
            raise
        # As Java writes it: a token's identity takes no "+" and no "/".
        return Topic(str(described.topic_id).replace("+", "-").replace("/", "_"), len(described.partitions))

    def topics(self, names: Iterable[str]) -> dict[str, Topic | None]:
        """The topics of these names, None for those that are not there."""
        names = list(dict.fromkeys(names))
        if not names:
            return {}
        futures = self.ask(names, timeout=self.options.timeout)
        for future in futures.values():
            self._wait(future)
        return {name: self._call("describing a topic", self.found, future) for name, future in futures.items()}

    def topic(self, name: str) -> Topic | None:
        """The topic of this name, None if there is none."""
        return self.topics([name])[name]

    def create_topic(self, name: str, *, partitions: int, config: Mapping[str, str]) -> bool:
        """Make a topic and wait until it is there; False if there was one of this name."""
        replicas = self.options.replication_factor
        new = NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=-1 if replicas is None else replicas,
            config=dict(config),
        )
        self.check_process()
        (future,) = self._admin.create_topics([new], request_timeout=self.options.timeout).values()
        try:
            self._wait(future)
            future.result(0)
        except KafkaException as exc:
            if code_of(exc) == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            self._raise("making a topic", exc)
        self._until_there(name)
        return True

    def _until_there(self, name: str) -> None:
        # The controller acknowledges before every broker has heard of it.
        deadline = time.monotonic() + self.options.timeout
        while self.topic(name) is None or not self._has_leaders(name):
            if time.monotonic() > deadline:
                raise TransportError(f"topic {name!r} was made, but its partitions are not there yet; try again")
            time.sleep(_LOOK_AGAIN)

    def _has_leaders(self, name: str) -> bool:
        try:
            self.bounds(name, self._partitions(name))
        except TransportError:
            return False
        return True

    def _partitions(self, name: str) -> range:
        topic = self.topic(name)
        return range(0 if topic is None else topic.partitions)

    def delete_topic(self, name: str) -> None:
        """Remove a topic and all that it holds; nothing where there is none."""
        self.check_process()
        (future,) = self._admin.delete_topics([name], request_timeout=self.options.timeout).values()
        try:
            self._wait(future)
            future.result(0)
        except KafkaException as exc:
            if code_of(exc) not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                self._raise("deleting a topic", exc)

    def settings(self, name: str) -> Mapping[str, str | None]:
        """A topic's settings; none where we may not read them."""
        self.check_process()
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        (future,) = self._admin.describe_configs([resource], request_timeout=self.options.timeout).values()
        try:
            self._wait(future)
            return {entry.name: entry.value for entry in future.result(0).values()}
        except KafkaException as exc:
            if is_refusal(code_of(exc)):
                return {}
            self._raise("reading a topic's settings", exc)

    def bounds(self, name: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """First and end position of each partition: the end is that of the last transaction that is complete."""
        places = [TopicPartition(name, partition) for partition in partitions]
        # In this order: what is cut in between is not beyond the end.
        ends = self._offsets(places, OffsetSpec.latest())
        firsts = self._offsets(places, OffsetSpec.earliest())
        return {partition: (min(first, ends[partition]), ends[partition]) for partition, first in firsts.items()}

    def _offsets(self, places: list[TopicPartition], which: Any) -> dict[int, int]:
        self.check_process()
        if not places:
            return {}
        futures = self._admin.list_offsets(
            dict.fromkeys(places, which),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self.options.timeout,
        )
        for future in futures.values():
            self._wait(future)
        return {
            place.partition: self._call("asking for a partition's offsets", lambda each: int(each.result(0).offset), f)
            for place, f in futures.items()
        }

    # -- waiting -------------------------------------------------------------------------------

    def check_process(self) -> None:
        """Raise ForkedError in a child of the process that made this."""
        if self.forked_away:
            raise ForkedError("log")

    def _wait(self, future: Future[Any]) -> None:
        """Until there is an answer, or until it is known that there will be none."""
        deadline = time.monotonic() + self.options.timeout
        while True:
            try:
                future.exception(_LOOK)
                return
            except TimeoutError:
                self._admin.poll(0)  # has _complain called
            complaint = self._complaint
            if complaint is not None and is_refusal(complaint.code()):
                self._complaint = None
                raise StoreAccessError(self._store_name or "*", self.account_id) from KafkaException(complaint)
            if time.monotonic() > deadline + 1:
                raise self.unreachable()

    def _call(self, doing: str, function: Callable[[Future[Any]], _T], future: Future[Any]) -> _T:
        try:
            return function(future)
        except KafkaException as exc:
            self._raise(doing, exc)

    def _raise(self, doing: str, exc: KafkaException) -> NoReturn:
        raise self.translated(doing, exc) from exc

    def translated(self, doing: str, exc: KafkaException, *, waited: float | None = None) -> IKVError:
        """What to raise instead: StoreAccessError where the brokers refuse us, else TransportError."""
        self._admin.poll(0)
        if is_refusal(code_of(exc)):
            return StoreAccessError(self._store_name or "*", self.account_id)
        if code_of(exc) in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            return self.unreachable(waited)
        return TransportError(f"{doing} failed: {text_of(exc)}")

    def unreachable(self, waited: float | None = None) -> TransportError:
        """That no broker answers, with what is known of why; `waited` seconds, by default those of the options."""
        seconds = self.options.timeout if waited is None else waited
        why = f" ({text_of(self._complaint)})" if self._complaint is not None else ""
        return TransportError(
            f"no broker of {self.options.bootstrap_servers} answered within {seconds:g} s{why}; look "
            "whether they run and can be reached from here, and whether security_protocol is theirs"
        )


def _harmless(properties: Properties) -> Properties:
    """The same, whose callbacks raise nothing: an exception comes out of whatever call librdkafka runs one in, closing
    too. That of `oauth_cb` is an answer, and stays."""
    return {
        name: _caught(name, value) if callable(value) and name != "oauth_cb" else value
        for name, value in properties.items()
    }


def _caught(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except Exception:
            _log.exception("the callback %s of the Kafka client's properties raised", name)
            return None

    return call
