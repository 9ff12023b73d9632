"""What is asked of the brokers themselves: topics, their ids and settings, and where their partitions begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
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

from ikv_transports._kafka_clients import consumer_properties, new_client
from ikv_transports._kafka_errors import Doing, code_of, is_refusal, is_untrusted, text_of, why_refused
from ikv_transports._kafka_options import KafkaTransportOptions, Properties
from ikvcore.errors import (
    ForkedError,
    IKVError,
    InvalidOptionError,
    LogUnavailableError,
    StoreAccessError,
    TransportError,
)
from ikvcore.forks import after_fork_in_child, leak
from ikvcore.models import Secret

__all__ = ["KafkaCluster", "Topic"]

_LOOK: Final = 0.1
_LOOK_AGAIN: Final = 0.01
_OTHERS: Final = 1.0
_SILENCE: Final = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})
_NO_LEADER: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError._NOENT,
    }
)
"""What is answered while a partition's leader changes: the broker was, will be, or does not know its end yet; or
librdkafka itself has heard of none."""
_LATE: Final = 0.5
_LATE_NEWS: Final = 3.0
_REFRESHING: Final = 0.3
_REFRESH_EVERY: Final = 1.0
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
        self._refreshed = 0.0
        self.forked_away = False
        self._admin = self.client(AdminClient, {})
        after_fork_in_child(self)

    def forked(self) -> None:
        """See ikvcore.forks."""
        self.forked_away = True
        leak(self._admin)

    # -- clients -------------------------------------------------------------------------------

    def properties(self, own: Properties) -> Properties:
        """`own`, and those of the options above them: these cannot name what the contract of a log rests on."""
        return own | self._properties

    def client(self, kind: Callable[..., _T], own: Properties) -> _T:
        """An AdminClient, Consumer or Producer. Raises InvalidOptionError for properties that librdkafka refuses."""
        always = {
            "error_cb": self._complain,
            "allow.auto.create.topics": False,  # else whoever asks for a topic that was deleted makes it again
        }
        made = new_client(kind, always | dict(self.properties(own)), self.options)
        if isinstance(made, InvalidOptionError):
            raise made
        return made

    def consumer(self, *, largest: int) -> Consumer:
        """A consumer that is assigned partitions and positions, and belongs to no group."""
        return self.client(Consumer, consumer_properties(largest=largest))

    def _complain(self, error: KafkaError) -> None:
        if self._complaint is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # which says less than the others
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
        return {
            name: self._call(Doing("describing", name, "Describe"), self.found, future)
            for name, future in futures.items()
        }

    def topic(self, name: str) -> Topic | None:
        """The topic of this name, None if there is none."""
        return self.topics([name])[name]

    def topic_soon(self, name: str) -> Topic | None:
        """The topic of this name, which is meant to be there: a broker may hear of it later than the one before."""
        deadline = time.monotonic() + min(_LATE_NEWS, self.options.timeout)
        while (found := self.topic(name)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
        return found

    def create_topic(self, name: str, *, partitions: int, config: Mapping[str, str]) -> Topic | None:
        """Make a topic and wait until it is there; None if there was one of this name."""
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
                return None
            self._raise(Doing("making", name, "Create"), exc)
        return self._once_there(name)

    def _once_there(self, name: str) -> Topic:
        # The controller acknowledges before every broker has heard of it.
        deadline = time.monotonic() + self.options.timeout
        while (found := self.topic(name)) is None or not self._has_leaders(name):
            if time.monotonic() > deadline:
                raise TransportError(f"topic {name!r} was made, but its partitions are not there yet; try again")
            time.sleep(_LOOK_AGAIN)
        return found

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
                self._raise(Doing("deleting", name, "Delete"), exc)

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
            self._raise(Doing("asking for the settings of", name, "DescribeConfigs"), exc)

    def bounds(self, name: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """First and end position of each partition: the end is that of the last transaction that is complete."""
        places = [TopicPartition(name, partition) for partition in partitions]
        # In this order: what is cut in between is not beyond the end.
        ends = self._offsets(places, OffsetSpec.latest())
        firsts = self._offsets(places, OffsetSpec.earliest())
        return {partition: (min(first, ends[partition]), ends[partition]) for partition, first in firsts.items()}

    def _offsets(self, places: list[TopicPartition], which: Any) -> dict[int, int]:
        """Where a partition's leader is just changing, it is asked for again."""
        deadline = time.monotonic() + self.options.timeout
        found: dict[int, int] = {}
        left = places
        while left:
            found |= self._offsets_now(left, which)
            left = [place for place in left if place.partition not in found]
            if left:
                partition, topic = left[0].partition, left[0].topic
                is_gone = self.topic(topic) is None
                if is_gone or time.monotonic() > deadline:
                    error = TransportError if is_gone else LogUnavailableError  # a leader may yet be found
                    raise error(
                        f"partition {partition} of topic {topic!r} is gone, or has no leader that answers; try again"
                    )
                time.sleep(_LOOK_AGAIN)
                self._refresh(topic)
        return found

    def _offsets_now(self, places: list[TopicPartition], which: Any) -> dict[int, int]:
        """Of the partitions that have a leader."""
        self.check_process()
        futures = self._admin.list_offsets(
            dict.fromkeys(places, which),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self.options.timeout,
        )
        for future in futures.values():
            self._wait(future)
        doing = Doing("asking for the ends of", places[0].topic, "Describe")
        found = {place.partition: self._call(doing, _offset, future) for place, future in futures.items()}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    # -- waiting -------------------------------------------------------------------------------

    def check_process(self) -> None:
        """Raise ForkedError in a child of the process that made this."""
        if self.forked_away:
            raise ForkedError("log")

    def hasten(self, asked: float) -> None:
        """Call while an answer is awaited since `asked`: it may need brokers to be looked for.

        What librdkafka asks the controller it asks the broker that it took for that one, and where this has died it
        waits for it, trying to connect thousands of times a second, though others are there. New metadata ends that.
        """
        now = time.monotonic()
        if now < max(asked + _LATE, self._refreshed + _REFRESH_EVERY):
            return
        self._refreshed = now
        self._refresh(self.options.stores_topic)

    def _refresh(self, topic: str) -> None:
        """Have librdkafka ask who leads what, and who is there."""
        with suppress(KafkaException):
            self._admin.list_topics(topic, timeout=_REFRESHING)

    def _wait(self, future: Future[Any]) -> None:
        """Until there is an answer, or until it is known that there will be none."""
        began = time.monotonic()
        while True:
            try:
                future.exception(_LOOK)
                if code_of(future.exception(0)) not in _SILENCE:
                    self._complaint = None
                return
            except TimeoutError:
                self._admin.poll(0)  # has _complain called
                self.hasten(began)
            complaint = self._complaint
            if complaint is not None and is_refusal(complaint.code()):
                self._complaint = None
                raise self._refused(complaint, None) from KafkaException(complaint)
            waited = time.monotonic() - began
            # Another broker may have a better certificate, but the same one does not get better.
            if waited > self.options.timeout + 1 or (waited > _OTHERS and is_untrusted(complaint)):
                raise self.unreachable()

    def _call(self, doing: Doing, function: Callable[[Future[Any]], _T], future: Future[Any]) -> _T:
        try:
            return function(future)
        except KafkaException as exc:
            self._raise(doing, exc)

    def _raise(self, doing: Doing, exc: KafkaException) -> NoReturn:
        raise self.translated(doing, exc) from exc

    def translated(self, doing: Doing, exc: KafkaException, *, waited: float | None = None) -> IKVError:
        """What to raise instead: StoreAccessError where the brokers refuse us, else TransportError."""
        self._admin.poll(0)
        if is_refusal(code_of(exc)):
            return self._refused(exc.args[0], doing)
        if code_of(exc) in _SILENCE:
            return self.unreachable(waited)
        return TransportError(f"{doing} failed: {text_of(exc)}")

    def _refused(self, error: KafkaError, doing: Doing | None) -> StoreAccessError:
        return StoreAccessError(self._store_name or "*", self.account_id, told=self.why_refused(error, doing))

    def why_refused(self, error: KafkaError, doing: Doing | None) -> str:
        """What the brokers refuse, and the way out."""
        user = self._properties.get("sasl.username")
        return why_refused(error, doing, user=user, mechanism=self.options.sasl_mechanism)

    def unreachable(self, waited: float | None = None) -> TransportError:
        """That no broker answers, with what is known of why; `waited` seconds, by default those of the options."""
        seconds, servers = self.options.timeout if waited is None else waited, self.options.bootstrap_servers
        why = f" ({text_of(self._complaint)})" if self._complaint is not None else ""
        if is_untrusted(self._complaint):  # that does not pass by itself
            return TransportError(
                f"the certificate of the brokers {servers} cannot be verified{why}; give as ssl_ca_location the file "
                "of the certificates that sign it, and in bootstrap_servers the names that it was made for"
            )
        return LogUnavailableError(
            f"no broker of {servers} answered within {seconds:g} s{why}; look "
            "whether they run and can be reached from here, and whether security_protocol is theirs"
        )


def _offset(answer: Future[Any]) -> int | None:
    """None where the partition has no leader; librdkafka may say so by an offset below zero, without an error."""
    try:
        offset = int(answer.result(0).offset)
    except KafkaException as exc:
        if code_of(exc) not in _NO_LEADER:
            raise
        return None
    return offset if offset >= 0 else None
