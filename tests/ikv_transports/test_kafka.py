"""What is Kafka's own: brokers that are not there, topics that change under their readers, shared producers."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from ikv_transports import _kafka_cluster, _kafka_producers, _kafka_watch
from ikv_transports import kafka as kafka_transport
from ikv_transports._kafka_options import KafkaTransportOptions
from ikv_transports._kafka_writer import _Batch
from ikvcore.errors import (
    EventTooLargeError,
    InvalidOptionError,
    LogDivergedError,
    LogTrimmedError,
    LogUnavailableError,
    OutcomeUnknownError,
    PartialPublishError,
    StoreAccessError,
    StoreExistsError,
    TransportError,
)
from ikvcore.models import LogMessage, Message, Secret, Start, StoreDescription, TransportContext
from ikvcore.testing._transport_base import begin, drain, everything, message, publish, witness_of


class Stores:
    """Stores of an account of the test's own, on the broker that all tests share."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self.account_id = f"account-{uuid.uuid4().hex[:12]}"
        self.admin = AdminClient({"bootstrap.servers": servers})
        self._opened: list[Any] = []

    def context(self, store_name: str | None, **options: Any) -> TransportContext:
        chosen = KafkaTransportOptions(**{"bootstrap_servers": self.servers, **options})
        return TransportContext(
            store_name=store_name, account_id=self.account_id, passkey=Secret("unmistakable-pass"), options=chosen
        )

    def provisioning(self, **options: Any) -> Any:
        return kafka_transport.ikv_provisioning(context=self.context(None, **options))

    def create(self, name: str = "store", *, partitions: int = 1, options: dict[str, Any] | None = None) -> Any:
        description = StoreDescription(
            store_name=name, account_id=self.account_id, identity="log", primary_key="id", partitions=partitions
        )
        return self.provisioning(**(options or {})).create_store(description)

    def open(self, name: str = "store", **options: Any) -> Any:
        log = kafka_transport.ikv_open_transport(context=self.context(name, **options))
        self._opened.append(log)
        return log

    def make_topic(self, name: str, **settings: str) -> None:
        for made in self.admin.create_topics([NewTopic(name, 1, 1, config=settings)]).values():
            made.result(30)
        # The controller has made it. The broker does so later, and has the one before under this name until then.
        deadline = time.monotonic() + 30
        while not self._is_empty(name):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _is_empty(self, topic: str) -> bool:
        (end,) = self.admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()}).values()
        try:
            return bool(end.result(30).offset == 0)
        except KafkaException:  # not there yet
            return False

    def remove_topic(self, name: str) -> None:
        for removed in self.admin.delete_topics([name]).values():
            removed.result(30)

    def cut(self, log: Any, before: int) -> None:
        for cut in self.admin.delete_records([TopicPartition(log.topic, 0, before)]).values():
            cut.result(30)

    def close(self) -> None:
        for log in self._opened:
            log.close()
        try:
            for description in self.provisioning().list_stores():
                self.provisioning().delete_store(description.store_name)
        except StoreAccessError:
            pass  # the test made none


@pytest.fixture
def stores(kafka: str) -> Iterator[Stores]:
    stores = Stores(kafka)
    yield stores
    stores.close()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of this machine where nothing listens, and nothing else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics are looked at all the time."""
    monkeypatch.setattr(_kafka_watch, "_EVERY", 0.05)


def poll(subscription: Any, timeout: float = 10) -> list[LogMessage]:
    return list(subscription.poll(max_messages=100, max_bytes=1 << 20, timeout=timeout).messages)


def raised_by_polls(subscription: Any, expected: type[Exception], patience: float = 30) -> Exception:
    """What a poll raises in the end; those before it bring nothing."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            assert poll(subscription, 0.2) == []
        except expected as exc:
            return exc
    raise AssertionError(f"no {expected.__name__} within {patience} s")


# -- brokers that are not there ----------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "list", "create"])
def test_without_a_broker_every_call_ends_within_the_timeout_and_says_where_it_looked(nobody: str, call: str) -> None:
    stores = Stores(nobody)
    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: stores.open(timeout=1),
        "list": lambda: stores.provisioning(timeout=1).list_stores(),
        "create": lambda: stores.create(options={"timeout": 1}),
    }
    began = time.monotonic()
    with pytest.raises(TransportError, match=f"no broker of {nobody} answered within 1 s .*refused"):
        calls[call]()
    assert time.monotonic() - began < 20


def test_a_server_that_is_no_broker_is_told_of(nobody: str) -> None:
    with pytest.raises(TransportError, match=r"no broker of no-such-host\.invalid:9092"):
        Stores("no-such-host.invalid:9092").open(timeout=1)


# -- topics that change ------------------------------------------------------------------------


def test_a_topic_made_again_under_its_name_is_another_log(stores: Stores, watchful: None) -> None:
    topic = f"mine-{uuid.uuid4().hex[:8]}"
    stores.create(options={"topic": topic})
    log = stores.open()
    publish(log, b"a", b"b")
    seen = everything(log)[0]
    subscription = log.subscribe({0: Start(2, witness_of(log, seen[1]))})
    stores.remove_topic(topic)
    time.sleep(0.5)  # until the name can be had again
    stores.make_topic(topic)
    assert "made again" in str(raised_by_polls(subscription, LogDivergedError))
    with pytest.raises(LogDivergedError):
        publish(log, b"c")
    with pytest.raises(LogDivergedError):
        log.bounds()
    again = stores.open()
    assert again.describe().identity != log.describe().identity
    publish(again, b"a", b"b", b"c")
    with pytest.raises(LogDivergedError):
        again.subscribe({0: Start(2, witness_of(log, seen[1]))})


def test_nothing_of_a_topic_made_again_is_read_at_a_position_of_the_old_one(stores: Stores) -> None:
    """librdkafka goes on in the new one where it is as long, and the watch asks every five seconds."""
    topic = f"mine-{uuid.uuid4().hex[:8]}"
    stores.create(options={"topic": topic})
    log = stores.open()
    publish(log, b"a", b"b")
    subscription = log.subscribe({0: Start(2, witness_of(log, everything(log)[0][1]))})
    stores.remove_topic(topic)
    time.sleep(0.5)  # until the name can be had again
    stores.make_topic(topic)
    publish(stores.open(), b"c", b"d", b"e", b"f")
    assert "made again" in str(raised_by_polls(subscription, LogDivergedError))


def test_a_topic_that_is_gone_is_an_error_that_names_it(stores: Stores, watchful: None) -> None:
    stores.create()
    log = stores.open()
    subscription = log.subscribe(begin(log))
    stores.remove_topic(log.topic)
    assert log.topic in str(raised_by_polls(subscription, TransportError))
    with pytest.raises(TransportError, match=f"topic '{log.topic}'.* does not exist"):
        stores.open()


def test_a_topic_with_other_partitions_than_its_store_is_refused(stores: Stores, watchful: None) -> None:
    stores.create(partitions=2)
    log = stores.open()
    subscription = log.subscribe(begin(log))
    for grown in stores.admin.create_partitions([NewPartitions(log.topic, 3)]).values():
        grown.result(30)
    assert "has 3 partitions, but the store was made with 2" in str(raised_by_polls(subscription, TransportError))
    with pytest.raises(TransportError, match="has 3 partitions"):
        stores.open()


def test_a_reader_that_retention_overtakes_is_told_so(stores: Stores) -> None:
    stores.create()
    log = stores.open()
    subscription = log.subscribe(begin(log))
    publish(log, *(b"%d" % n for n in range(10)))
    stores.cut(log, 7)
    late = log.subscribe({0: Start(log.bounds()[0].end, None)})
    late._positions[0], late._lost = 3, True  # as if it had not fetched that much when the log was cut
    assert "needs position 3 next, but its log now begins at 7" in str(raised_by_polls(late, LogTrimmedError))
    subscription.close()
    assert not log.bounds()[0].complete
    with pytest.raises(LogTrimmedError):
        log.subscribe({0: Start(0, None)})


def test_a_compacted_topic_is_not_complete(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    topic = f"compacted-{uuid.uuid4().hex[:8]}"
    stores.make_topic(topic, **{"cleanup.policy": "compact"})
    stores.create(options={"topic": topic})
    with caplog.at_level(logging.WARNING, logger="ikv_transports.kafka"):  # clients have set a level of their own
        assert not stores.open().bounds()[0].complete
    assert f"topic {topic} is compacted" in caplog.text


def test_a_topic_that_was_there_is_taken_as_it_is_and_stays(stores: Stores) -> None:
    topic = f"theirs-{uuid.uuid4().hex[:8]}"
    stores.make_topic(topic)
    producer = Producer({"bootstrap.servers": stores.servers})
    producer.produce(topic, b"theirs", b"key")
    assert producer.flush(30) == 0
    with pytest.raises(InvalidOptionError, match="has 1"):
        stores.create(partitions=2, options={"topic": topic})
    stores.create(options={"topic": topic})
    assert [m.value for m in everything(stores.open())[0]] == [b"theirs"]
    stores.provisioning().delete_store("store")
    stores.create("second", options={"topic": topic})
    assert [m.value for m in everything(stores.open("second"))[0]] == [b"theirs"]
    stores.provisioning().delete_store("second")
    stores.remove_topic(topic)


def test_a_topic_that_is_the_log_of_one_store_does_not_become_that_of_another(stores: Stores) -> None:
    """Each would read the other's documents, and deleting the first would take the topic from the second."""
    topic = f"theirs-{uuid.uuid4().hex[:8]}"
    stores.make_topic(topic)
    stores.create("adopter", options={"topic": topic})
    stores.create("maker")
    for owner, its in (("adopter", topic), ("maker", stores.open("maker").topic)):
        for other in (stores, Stores(stores.servers)):
            told = f"topic cannot be '{its}': it is the log of store '{owner}' of account '{stores.account_id}'"
            with pytest.raises(InvalidOptionError, match=told):
                other.create("second", options={"topic": its})
    assert [each.store_name for each in stores.provisioning().list_stores()] == ["adopter", "maker"]
    stores.provisioning().delete_store("adopter")
    stores.remove_topic(topic)


class Leaderless:
    """An AdminClient whose partitions have no leader for so many answers."""

    def __init__(self, admin: AdminClient, *answers: int | KafkaException) -> None:
        self._admin = admin
        self._answers = [*answers]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._admin, name)

    def list_offsets(self, places: Any, **more: Any) -> Any:
        if not self._answers:
            return self._admin.list_offsets(places, **more)
        answer: Future[Any] = Future()
        told = self._answers.pop()
        if isinstance(told, int):
            answer.set_result(SimpleNamespace(offset=told))
        else:
            answer.set_exception(told)
        return dict.fromkeys(places, answer)


def test_a_partition_without_a_leader_is_an_error_and_no_position(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka answers -1001, and no error."""
    stores.create()
    log = stores.open(timeout=0.1)
    monkeypatch.setattr(log._cluster, "_admin", Leaderless(log._cluster._admin, *[-1001] * 1_000))
    with pytest.raises(LogUnavailableError, match="has no leader"):
        log.bounds()


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError._NOENT,
    ],
)
def test_a_partition_whose_leader_changes_is_asked_for_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    stores.create()
    log = stores.open()
    publish(log, b"a")
    monkeypatch.setattr(
        log._cluster, "_admin", Leaderless(log._cluster._admin, -1001, KafkaException(KafkaError(code)))
    )
    assert log.bounds()[0].end == 1


def test_a_partition_of_a_topic_that_is_gone_is_not_waited_for(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.create()
    log = stores.open(timeout=3_600)
    stores.remove_topic(log.topic)
    monkeypatch.setattr(log._cluster, "_admin", Leaderless(log._cluster._admin, *[-1001] * 100_000))
    with pytest.raises(TransportError, match="is gone, or has no leader") as told:
        log._cluster.bounds(log.topic, [0])
    assert not isinstance(told.value, LogUnavailableError)


def test_no_client_has_brokers_make_a_topic_that_is_not_there(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default brokers do, for a producer or an AdminClient that only asks."""
    made: list[dict[str, Any]] = []
    new_client = _kafka_cluster.new_client

    def noted(kind: Any, properties: Any, options: Any) -> Any:
        made.append(properties)
        return new_client(kind, properties, options)

    monkeypatch.setattr(_kafka_cluster, "new_client", noted)
    stores.create()
    publish(stores.open(), b"a")
    assert made
    assert all(each["allow.auto.create.topics"] is False for each in made)


def test_positions_move_over_what_carries_no_message(stores: Stores) -> None:
    """Transaction markers: the end of the log is one, and an aborted transaction is a gap before it."""
    stores.create()
    log = stores.open()
    producer = Producer({"bootstrap.servers": stores.servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(60)
    for value, end in ((b"one", "commit"), (b"lost", "abort"), (b"two", "commit")):
        producer.begin_transaction()
        producer.produce(log.topic, value, b"key", 0)
        producer.flush(30)
        getattr(producer, f"{end}_transaction")(30)
    deadline = time.monotonic() + 30
    while log.bounds()[0].end < 6:
        assert time.monotonic() < deadline
    messages = drain(log.subscribe(begin(log)), {0: 6})
    assert [(m.position, m.value) for m in messages] == [(0, b"one"), (4, b"two")]
    after = log.subscribe({0: Start(5, witness_of(log, messages[1]))})
    assert drain(after, {0: 6}) == []


# -- writing -----------------------------------------------------------------------------------


def test_the_topics_limit_is_the_stores_and_is_checked_before_anything_is_sent(stores: Stores) -> None:
    topic = f"small-{uuid.uuid4().hex[:8]}"
    stores.make_topic(topic, **{"max.message.bytes": "10000"})
    stores.create(options={"topic": topic})
    log = stores.open()
    largest = log.describe().max_event_bytes
    assert 8_500 < largest < 10_000
    with pytest.raises(EventTooLargeError):
        publish(log, b"before", b"x" * (largest + 1))
    with pytest.raises(EventTooLargeError):
        log.publish([Message(0, b"k" * 5_000, b"x" * 5_000, 1)])
    assert log.bounds()[0].end == 0
    publish(log, *[b"x" * largest] * 3, *[b"y" * 100] * 1_000)
    assert log.bounds()[0].end == 1_003


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({0: [None], 1: [KafkaError.TOPIC_AUTHORIZATION_FAILED]}, PartialPublishError),
        ({0: [KafkaError.TOPIC_AUTHORIZATION_FAILED], 1: [KafkaError.MSG_SIZE_TOO_LARGE]}, TransportError),
        ({0: [None], 1: [KafkaError._MSG_TIMED_OUT]}, OutcomeUnknownError),
        ({0: [None, KafkaError.MSG_SIZE_TOO_LARGE], 1: [None]}, OutcomeUnknownError),
        ({0: [KafkaError._MSG_TIMED_OUT], 1: [KafkaError.MSG_SIZE_TOO_LARGE]}, OutcomeUnknownError),
        ({0: [KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND], 1: [None]}, OutcomeUnknownError),
        ({0: [None]}, OutcomeUnknownError),
    ],
    ids=["partly", "nothing", "timed out", "a part of a partition", "nothing or unknown", "appended", "no report"],
)
def test_what_the_reports_say_is_what_is_raised(
    stores: Stores, reports: dict[int, list[int | None]], expected: type[Exception]
) -> None:
    class Reported:
        def __init__(self, partition: int) -> None:
            self.partition = lambda: partition
            self.offset = lambda: 7

    stores.create(partitions=2)
    writer = stores.open()._writer
    batch = _Batch(2 if len(reports) == 1 else sum(map(len, reports.values())))
    for partition, codes in reports.items():
        for code in codes:
            batch.report(None if code is None else KafkaError(code), Reported(partition))
    with pytest.raises(expected) as raised:
        writer._outcome(batch, None)
    assert type(raised.value) is expected
    if isinstance(raised.value, PartialPublishError):
        assert raised.value.failed == (1,)
        assert raised.value.taken.positions == {0: 8}


def test_raising_callbacks_harm_neither_writes_nor_reads(
    stores: Stores, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kafka_producers, "_IDLE", 0.0)
    called = threading.Event()

    def raising(_: str) -> None:
        called.set()
        raise RuntimeError("a callback's own")

    caplog.set_level(logging.ERROR, logger="ikv_transports.kafka")
    stores.create()
    config = {"stats_cb": raising, "statistics.interval.ms": 20}
    log = stores.open(config=config)
    subscription = log.subscribe(begin(log))
    got: list[bytes | None] = []
    for n in range(10):
        publish(log, b"%d" % n)
        while len(got) <= n:
            got += [m.value for m in poll(subscription)]
    assert called.wait(30)
    publish(log, b"after")
    assert got == [b"%d" % n for n in range(10)]
    assert "the callback stats_cb of the Kafka" in caplog.text
    shared = log._writer._shared
    log.close()
    shared._thread.join(30)  # else it would go on to raise beside other tests


def test_what_is_not_acknowledged_at_close_has_an_unknown_outcome(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ikv_transports import _kafka_writer

    monkeypatch.setattr(_kafka_writer, "_CLOSING", 0.2)
    stores.create()
    log = stores.open()
    silent = SimpleNamespace(producer=SimpleNamespace(produce=lambda *_, **__: None), broken=None, release=lambda: None)
    log._writer._shared = silent
    outcome: list[BaseException] = []

    def write() -> None:
        try:
            publish(log, b"a")
        except TransportError as exc:
            outcome.append(exc)

    writing = threading.Thread(target=write)
    writing.start()
    while not log._writer._waiting:
        time.sleep(0.01)
    log.close()
    writing.join(30)
    assert [type(each) for each in outcome] == [OutcomeUnknownError]


def test_a_producer_that_is_broken_is_replaced(stores: Stores) -> None:
    stores.create()
    log = stores.open()
    publish(log, b"a")
    first = log._writer._shared
    first.broken = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    publish(log, b"b")
    assert log._writer._shared is not first
    assert [m.value for m in everything(log)[0]] == [b"a", b"b"]


def test_clients_of_one_process_share_a_producer_that_goes_when_it_is_idle(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kafka_producers, "_IDLE", 0.0)
    stores.create()
    config = {"client.id": uuid.uuid4().hex}
    log, other = stores.open(config=config), stores.open(config=config)
    publish(log, b"a")
    publish(other, b"b")
    shared = log._writer._shared
    assert other._writer._shared is shared
    log.close()
    publish(other, b"c")
    other.close()
    shared._thread.join(30)
    assert not shared._thread.is_alive()
    assert shared not in _kafka_producers._table.producers.values()


# -- provisioning and options ------------------------------------------------------------------


def test_the_first_of_two_descriptions_counts_and_the_second_maker_takes_its_topic_back(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either has written."""
    stores.provisioning().create_account()
    provisioning = stores.provisioning()
    make_topic = provisioning._make_topic
    made: list[Any] = []

    def make_after_another(description: StoreDescription) -> Any:
        stores.create()
        made.append(make_topic(description))
        return made[0]

    monkeypatch.setattr(provisioning, "_make_topic", make_after_another)
    first = StoreDescription(store_name="store", account_id=stores.account_id, identity="late", primary_key="id")
    with pytest.raises(StoreExistsError):
        provisioning.create_store(first)
    assert [each.identity.split(".")[0] for each in stores.provisioning().list_stores()] == ["log"]
    with pytest.raises(Exception, match="UNKNOWN_TOPIC"):
        next(iter(stores.admin.delete_topics([made[0][0].topic]).values())).result(30)


def test_no_passkey_is_in_any_topic_or_text(stores: Stores) -> None:
    stores.create()
    log = stores.open(sasl_password="unmistakable-pass", config={"ssl.key.pem": "unmistakable-pass"})
    publish(log, b"a")
    context = stores.context("store", sasl_password="unmistakable-pass", config={"sasl.password": "unmistakable-pass"})
    from ikv_transports._kafka_reader import read_all

    kept = read_all(log._cluster, "ikv-stores")
    assert kept
    for text in (repr(context), repr(log), repr(log._cluster), *(str(each) for each in kept)):
        assert "unmistakable-pass" not in text


def test_what_config_says_counts_above_what_the_transport_only_prefers(stores: Stores, monkeypatch: Any) -> None:
    """And never above what the contract rests on: those names are refused."""
    made: dict[Any, dict[str, Any]] = {}
    new_client = _kafka_cluster.new_client

    def noted(kind: Any, properties: Any, options: Any) -> Any:
        made[kind] = properties
        return new_client(kind, properties, options)

    monkeypatch.setattr(_kafka_cluster, "new_client", noted)
    stores.create()
    config = {"linger.ms": 7, "batch.size": 5_000, "reconnect.backoff.max.ms": 700, "fetch.queue.backoff.ms": 77}
    log = stores.open(config=config)
    publish(log, b"a")
    assert [m.value for m in everything(log)[0]] == [b"a"]
    for kind in (Producer, Consumer):
        assert {name: made[kind].get(name) for name in config} == config
    assert (made[Producer]["acks"], made[Producer]["enable.idempotence"]) == ("all", True)
    assert made[Consumer]["auto.offset.reset"] == "error"


def test_a_property_that_librdkafka_does_not_know_is_named_and_its_value_is_not() -> None:
    with pytest.raises(InvalidOptionError, match=r'"no\.such\.property"') as refused:
        Stores("localhost:9092").open(config={"no.such.property": "hidden-value"})
    assert "hidden-value" not in str(refused.value)


def test_messages_are_dated(stores: Stores) -> None:
    stores.create()
    log = stores.open()
    log.publish([message(0, b"a")._replace(timestamp=1_700_000_000_123_000_000)])
    assert everything(log)[0][0].timestamp == 1_700_000_000_123_000_000
