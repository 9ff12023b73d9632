"""An acknowledgement that is lost on the way: the broker has carried the write out, and its answer never comes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ikv_transports import kafka as kafka_transport
from ikv_transports._kafka_options import KafkaTransportOptions
from ikvcore.errors import OutcomeUnknownError
from ikvcore.models import Message, Secret, StoreDescription, TransportContext
from ikvcore.testing._transport_base import everything, message

PRODUCE = 0
"""The api key of a Produce request: https://kafka.apache.org/protocol#protocol_api_keys"""
PATIENCE = 60.0


class LossyProxy:
    """Carries what clients and a broker say to each other; answers to Produce requests are lost while `losing`."""

    def __init__(self) -> None:
        self.losing = threading.Event()
        self.lost = threading.Event()
        self.sent_again = threading.Event()
        """A Produce request came that had come before: the same but for the number that its answer has."""
        self._requested: set[bytes] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._server]
        self._broker = ("127.0.0.1", 0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def start(self, broker: str) -> None:
        host, port = broker.split(":")
        self._broker = (host, int(port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            end(each)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._broker)
            except OSError:  # it has ended before its clients
                client.close()
                continue
            self._open += [client, broker]
            produced: set[int] = set()
            for carry, source, target in ((self._requests, client, broker), (self._answers, broker, client)):
                threading.Thread(target=quietly, args=(carry, source, target, produced), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket, produced: set[int]) -> None:
        for frame in frames(client, broker):
            api_key, _, correlation = struct.unpack_from(">hhi", frame)
            if api_key == PRODUCE:
                produced.add(correlation)
                if frame[8:] in self._requested:
                    self.sent_again.set()
                self._requested.add(frame[8:])
            send(broker, frame)

    def _answers(self, broker: socket.socket, client: socket.socket, produced: set[int]) -> None:
        for frame in frames(broker, client):
            (correlation,) = struct.unpack_from(">i", frame)
            if correlation in produced and self.losing.is_set():
                self.lost.set()
                continue
            send(client, frame)


def frames(source: socket.socket, other: socket.socket) -> Iterator[bytes]:
    """Each begins with its size, of 4 bytes. When one side ends, so does the other."""
    with source, other:
        try:
            while True:
                (size,) = struct.unpack(">i", exactly(source, 4))
                yield exactly(source, size)
        except OSError:
            end(source)
            end(other)


def quietly(carry: Callable[..., None], *between: Any) -> None:
    """Until one side ends, also in the middle of what is sent to it."""
    with contextlib.suppress(OSError):
        carry(*between)


def end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


def exactly(source: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = source.recv(size - len(found))
        if not part:
            raise ConnectionError("the other side has ended")
        found += part
    return bytes(found)


def send(target: socket.socket, frame: bytes) -> None:
    target.sendall(struct.pack(">i", len(frame)) + frame)


@pytest.fixture(scope="module")
def proxy(kafka_brokers: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LossyProxy]:
    """Before a broker that sends all its clients to it."""
    proxy = LossyProxy()
    directory = tmp_path_factory.mktemp("broker")
    broker = kafka_brokers(directory, **{"advertised.listeners": f"CLIENTS://{proxy.address}"})
    broker.start()
    proxy.start(broker.address)
    yield proxy
    proxy.losing.clear()
    broker.kill()
    proxy.close()


@pytest.fixture
def opened(proxy: LossyProxy) -> Iterator[Callable[..., Any]]:
    """`opened(timeout)`: a log of three partitions; `opened(timeout, config={...})` another instance of the same."""
    account = f"account-{uuid.uuid4().hex[:12]}"
    logs: list[Any] = []

    def context(store_name: str | None, timeout: float, **more: Any) -> TransportContext:
        options = KafkaTransportOptions(bootstrap_servers=proxy.address, timeout=timeout, **more)
        return TransportContext(store_name=store_name, account_id=account, passkey=Secret("p"), options=options)

    def open_log(timeout: float, **more: Any) -> Any:
        logs.append(kafka_transport.ikv_open_transport(context=context("store", timeout, **more)))
        return logs[-1]

    kafka_transport.ikv_provisioning(context=context(None, 30)).create_store(
        StoreDescription(store_name="store", account_id=account, identity="log", primary_key="id", partitions=3)
    )
    yield open_log
    proxy.losing.clear()
    for log in logs:
        log.close()


def batch(text: bytes) -> list[Message]:
    return [message(partition, b"%s-%d" % (text, number)) for partition in (0, 2) for number in range(5)]


def values(log: Any) -> dict[int, list[bytes | None]]:
    return {partition: [each.value for each in got] for partition, got in everything(log).items()}


def wanted(*texts: bytes) -> dict[int, list[bytes]]:
    once = [b"%s-%d" % (text, number) for text in texts for number in range(5)]
    return {0: once, 1: [], 2: once}


def test_answers_that_never_come_leave_an_outcome_unknown_that_names_the_partitions(
    proxy: LossyProxy, opened: Callable[..., Any]
) -> None:
    """The write is in the log once. What is written again is in it again, as upserts may be."""
    log = opened(3.0, config={"socket.timeout.ms": 1_000})
    log.publish(batch(b"before"))
    proxy.losing.set()
    with pytest.raises(OutcomeUnknownError, match=r"partitions \[0, 2\] may or may not have taken .*again is safe"):
        log.publish(batch(b"lost"))
    assert proxy.lost.is_set()
    proxy.losing.clear()
    assert values(log) == wanted(b"before", b"lost")
    assert log.publish(batch(b"after")).positions == {0: 15, 2: 15}
    assert values(log) == wanted(b"before", b"lost", b"after")


def test_answers_that_come_again_in_time_acknowledge_one_copy(proxy: LossyProxy, opened: Callable[..., Any]) -> None:
    """The producer sends again what it has no answer to; the broker knows the batches by their numbers."""
    log = opened(60.0, config={"socket.timeout.ms": 1_000})
    log.publish(batch(b"before"))
    proxy.sent_again.clear()
    proxy.losing.set()
    ended: list[Any] = []
    writing = threading.Thread(target=lambda: ended.append(log.publish(batch(b"lost"))))
    writing.start()
    assert proxy.sent_again.wait(PATIENCE)
    assert writing.is_alive()
    proxy.losing.clear()
    writing.join(PATIENCE)
    assert [each.positions for each in ended] == [{0: 10, 2: 10}]
    assert values(log) == wanted(b"before", b"lost")
