"""What the parts of TransportSuite share: stores made and removed for each test, and short ways to publish and read."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ikvcore.errors import StoreAccessError
from ikvcore.models import LogMessage, Message, Position, Start, StoreDescription, TransportInfo, Witness
from ikvcore.protocols import Provisioning, Subscription, Transport
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._plugins import open_provisioning, open_transport
from ikvcore.witness import message_checksum

__all__ = ["Stores", "TransportBase", "begin", "contents", "drain", "everything", "message", "publish", "witness_of"]

PASSKEY = "pass-Key_1"


class TransportBase:
    """Stores of one account, made for each test and removed after it.

    The account is the class's, since verifying a new passkey is slow on purpose.
    """

    info: ClassVar[TransportInfo]
    """The transport under test."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options that it is opened with, here and in child processes."""
    carries_no_value: ClassVar[bool] = False
    """Whether a Message whose value is None can be published: logs shared with other producers may hold such."""

    def open_provisioning(self, account_id: str, passkey: str) -> Provisioning:
        """The way to make stores for an account."""
        return open_provisioning(self.info.name, account_id, passkey, self.options)

    def open_log(self, store_name: str, account_id: str, passkey: str) -> Transport:
        """A new instance for an existing store."""
        return open_transport(self.info.name, store_name, account_id, passkey, self.options)

    def trim(self, log: Transport, partition: int, before: Position) -> None:
        """Cut a partition's messages below `before`; override it where the transport can be made to do that."""
        pytest.skip("the suite is given no way to trim this transport's log")

    @pytest.fixture(autouse=True)
    def home(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
        """IKV_HOME of this class's tests."""
        home = tmp_path_factory.getbasetemp() / f"home-{type(self).__name__}"
        monkeypatch.setenv("IKV_HOME", str(home))
        return home

    @pytest.fixture
    def stores(self, home: Path) -> Iterator[Stores]:
        """Makes and opens stores of the class's account."""
        stores = Stores(self, f"account-{type(self).__name__}-{os.getpid()}")
        yield stores
        stores.close()

    @pytest.fixture
    def fresh(self, home: Path) -> Iterator[Stores]:
        """Makes and opens stores of an account that does not exist yet."""
        fresh = Stores(self, f"account-{uuid.uuid4().hex[:12]}")
        yield fresh
        fresh.close()

    @pytest.fixture
    def log(self, stores: Stores) -> Transport:
        """The log of a new store with three partitions."""
        stores.create("store", partitions=3)
        return stores.open("store")


class Stores:
    """The stores of one account, and the instances opened for them; all are given up by `close`."""

    def __init__(self, suite: TransportBase, account_id: str, passkey: str = PASSKEY) -> None:
        self._suite = suite
        self._opened: list[Transport] = []
        self.account_id = account_id
        self.passkey = passkey

    @property
    def provisioning(self) -> Provisioning:
        """Opened anew each time, with the passkey as it is now."""
        return self._suite.open_provisioning(self.account_id, self.passkey)

    def create(self, store_name: str, *, partitions: int = 1, **fixed: Any) -> StoreDescription:
        """Make a store; what it is described as."""
        description = StoreDescription(
            store_name=store_name,
            account_id=self.account_id,
            identity=uuid.uuid4().hex,
            primary_key="id",
            partitions=partitions,
            **fixed,
        )
        return self.provisioning.create_store(description)

    def open(self, store_name: str) -> Transport:
        """A new instance."""
        log = self._suite.open_log(store_name, self.account_id, self.passkey)
        self._opened.append(log)
        return log

    def close(self) -> None:
        """Close every instance and remove every store."""
        for log in self._opened:
            log.close()
        with suppress(StoreAccessError):  # no store was ever made
            for description in self.provisioning.list_stores():
                self.provisioning.delete_store(description.store_name)


# -- messages ----------------------------------------------------------------------------------


def message(partition: int, value: bytes, key: bytes = b"key") -> Message:
    """A message of now."""
    return Message(partition, key, value, time.time_ns())


def publish(log: Transport, *values: bytes, partition: int = 0) -> Mapping[int, Position]:
    """Publish values to one partition in one call; the token's positions."""
    return log.publish([message(partition, value) for value in values]).positions


def begin(log: Transport, partitions: Iterable[int] | None = None) -> dict[int, Start]:
    """Starts at the first position of the partitions, of all by default."""
    bounds = log.bounds()
    return {p: Start(bounds[p].first, None) for p in (bounds if partitions is None else partitions)}


def drain(
    subscription: Subscription,
    until: Mapping[int, Position],
    *,
    max_messages: int = 1_000,
    max_bytes: int = 1 << 20,
) -> list[LogMessage]:
    """Poll until the positions reach `until`, and check what every poll must keep to."""
    messages: list[LogMessage] = []
    reached: dict[int, Position] = {}
    deadline = time.monotonic() + PATIENCE
    while any(reached.get(partition, -1) < position for partition, position in until.items()):
        assert time.monotonic() < deadline, f"got to {reached} of {until} within {PATIENCE} s"
        polled = subscription.poll(max_messages=max_messages, max_bytes=max_bytes, timeout=5)
        assert len(polled.messages) <= max_messages
        if len(polled.messages) > 1:
            assert sum(len(m.key) + len(m.value or b"") for m in polled.messages) <= max_bytes
        for partition, position in polled.positions.items():
            assert position > reached.get(partition, -1), "positions lists partitions that moved"
            assert all(m.position < position for m in polled.messages if m.partition == partition)
        for got in polled.messages:
            assert got.position >= reached.get(got.partition, 0), f"{got} came again, or out of order"
            assert got.partition in polled.positions, f"no position for partition {got.partition}, which moved"
            reached[got.partition] = got.position + 1
        reached.update(polled.positions)
        messages.extend(polled.messages)
    return messages


def everything(log: Transport, partitions: Sequence[int] | None = None, **limits: int) -> dict[int, list[LogMessage]]:
    """All that the log holds now, by partition, read through a subscription of its own."""
    bounds = log.bounds()
    held = list(bounds) if partitions is None else partitions
    subscription = log.subscribe({p: Start(bounds[p].first, None) for p in held})
    try:
        until = {p: bounds[p].end for p in held if bounds[p].end > bounds[p].first}
        messages = drain(subscription, until, **limits)
    finally:
        subscription.close()
    return {p: [m for m in messages if m.partition == p] for p in held}


def contents(log: Transport, partition: int = 0) -> list[bytes | None]:
    """The values that a partition holds now."""
    return [m.value for m in everything(log, [partition])[partition]]


def witness_of(log: Transport, got: LogMessage) -> Witness:
    """What a replica remembers after it applied `got`."""
    return Witness(log.describe().identity, got.position, message_checksum(got.key, got.value))
