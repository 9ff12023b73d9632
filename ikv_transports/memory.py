"""A log in the memory of one process: the reference transport, for tests and for programs that need no durability.

A store lives in a process-wide table, by account and name, from create_store to delete_store, whether a client is open
or not. A forked child starts with an empty table: a copy of the parent's logs would take writes that nobody else sees.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ikv_transports._memory_table import MemoryAccount, MemoryLog, MemoryPartition, MemoryTable
from ikvcore._names import check_name
from ikvcore.errors import (
    ForkedError,
    InvalidArgumentError,
    LogTrimmedError,
    StoreExistsError,
    TransportError,
)
from ikvcore.hookspecs import hookimpl
from ikvcore.models import (
    API_VERSION,
    Bounds,
    Durability,
    LogMessage,
    Message,
    Polled,
    Secret,
    Start,
    StoreDescription,
    TransportContext,
    TransportInfo,
)
from ikvcore.plainlog import check_messages, check_partitions
from ikvcore.protocols import Provisioning, Transport
from ikvcore.tokens import Token
from ikvcore.witness import check_start

__all__ = ["MemoryProvisioning", "MemorySubscription", "MemoryTransport", "MemoryTransportOptions"]


_table = MemoryTable()


def _start_empty() -> None:
    global _table
    _table = MemoryTable()


os.register_at_fork(after_in_child=_start_empty)


@dataclass(frozen=True, kw_only=True)
class MemoryTransportOptions:
    """The memory transport has no options."""


class MemoryTransport:
    """A client of one log in the table."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._table = _table
        self._closed = False

    def describe(self) -> StoreDescription:
        self.check()
        return self._log.description

    def publish(self, messages: Sequence[Message]) -> Token:
        self.check()
        messages = list(messages)
        check_messages(messages, self._log.description)
        reached: dict[int, int] = {}
        with self._log.changed:
            self.check()
            for message in messages:
                partition = self._log.partitions[message.partition]
                position = partition.bounds.end
                partition.messages.append(
                    LogMessage(message.partition, position, message.key, message.value, message.timestamp)
                )
                reached[message.partition] = position + 1
            self._log.changed.notify_all()
        return Token(self._log.description.identity, reached)

    def subscribe(self, start: Mapping[int, Start]) -> MemorySubscription:
        self.check()
        check_partitions(start, self._log.description)
        with self._log.changed:
            for partition, place in start.items():
                check_start(
                    partition,
                    place,
                    identity=self._log.description.identity,
                    bounds=self._log.partitions[partition].bounds,
                    read=lambda partition, position: self._log.partitions[partition].at(position),
                )
        return MemorySubscription(self, self._log, {partition: place.position for partition, place in start.items()})

    def bounds(self) -> Mapping[int, Bounds]:
        self.check()
        with self._log.changed:
            return {number: partition.bounds for number, partition in enumerate(self._log.partitions)}

    def size(self) -> int | None:
        """Bytes of keys and values."""
        self.check()
        with self._log.changed:
            return sum(_size(message) for partition in self._log.partitions for message in partition.messages)

    def trim(self, partition: int, first: int) -> None:
        """Cut the messages before position `first` off, as a log with retention does."""
        self.check()
        check_partitions([partition], self._log.description)
        with self._log.changed:
            log = self._log.partitions[partition]
            if not log.first <= first <= log.bounds.end:
                raise InvalidArgumentError(f"partition {partition} holds {log.bounds}; it cannot be cut at {first}")
            del log.messages[: first - log.first]
            log.first = first

    def close(self) -> None:
        self._closed = True
        if self._table is _table:
            with self._log.changed:
                self._log.changed.notify_all()

    def check(self) -> None:
        """Raise unless the log can be used through this client."""
        self.check_process()
        name = self._log.description.store_name
        if self._closed:
            raise TransportError(f"the log of store {name!r} was closed by this client; open it again")
        if self._log.deleted:
            raise TransportError(f"store {name!r} was deleted, and its log with it")

    def check_process(self) -> None:
        """Raise ForkedError in a child of the process that opened the log."""
        if self._table is not _table:
            raise ForkedError("log")


class MemorySubscription:
    """Positions in a log; waits on the log's condition."""

    def __init__(self, transport: MemoryTransport, log: MemoryLog, positions: dict[int, int]) -> None:
        self._transport = transport
        self._log = log
        self._positions = positions
        self._turns = list(positions)
        self._woken = False
        self._closed = False

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> Polled:
        self._transport.check()
        deadline = time.monotonic() + timeout
        with self._log.changed:
            while True:
                self._check()
                polled = self._take(max_messages, max_bytes)
                remaining = deadline - time.monotonic()
                if polled.messages or self._woken or remaining <= 0:
                    self._woken = False
                    return polled
                self._log.changed.wait(remaining)

    def wake(self) -> None:
        self._transport.check_process()
        with self._log.changed:
            self._woken = True
            self._log.changed.notify_all()

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        self._transport.check()
        if self._closed:
            raise TransportError("this subscription was closed")

    def _take(self, max_messages: int, max_bytes: int) -> Polled:
        for partition, position in self._positions.items():
            if position < (first := self._log.partitions[partition].first):
                raise LogTrimmedError(partition, position, first)
        taken: list[LogMessage] = []
        moved: dict[int, int] = {}
        room = max_bytes
        for partition in list(self._turns):
            log, position = self._log.partitions[partition], self._positions[partition]
            while len(taken) < max(max_messages, 1) and (message := log.at(position)) is not None:
                room -= _size(message)
                if taken and room < 0:
                    break
                taken.append(message)
                position += 1
            if position != self._positions[partition]:
                self._positions[partition] = moved[partition] = position
                # Whoever was served goes to the end of the queue, so that a busy partition starves no other.
                self._turns.remove(partition)
                self._turns.append(partition)
            if room < 0 or len(taken) >= max_messages:
                break
        return Polled(taken, moved)


class MemoryProvisioning:
    """Accounts and stores in the table. Passkeys stay the Secrets they came as: the process holds them anyway."""

    def __init__(self, context: TransportContext) -> None:
        self._context = context

    def create_account(self) -> None:
        with _table.lock:
            if self._context.account_id in _table.accounts:
                raise StoreExistsError("account", self._context.account_id)
            _table.accounts[self._context.account_id] = MemoryAccount(self._context.passkey)

    def rotate_passkey(self, new_passkey: str) -> None:
        with _table.lock:
            _table.account(self._context, "*").passkey = Secret(new_passkey)

    def create_store(self, description: StoreDescription) -> StoreDescription:
        with _table.lock:
            if self._context.account_id not in _table.accounts:
                _table.accounts[self._context.account_id] = MemoryAccount(self._context.passkey)
            account = _table.account(self._context, description.store_name)
            if description.store_name in account.logs:
                raise StoreExistsError("store", description.store_name)
            account.logs[description.store_name] = MemoryLog(description)
        return description

    def list_stores(self) -> list[StoreDescription]:
        with _table.lock:
            logs = _table.account(self._context, "*").logs
            return [logs[name].description for name in sorted(logs)]

    def delete_store(self, store_name: str) -> None:
        with _table.lock:
            log = _table.log(self._context, store_name)
            del _table.accounts[self._context.account_id].logs[store_name]
        with log.changed:
            log.deleted = True
            log.partitions = [MemoryPartition() for _ in log.partitions]
            log.changed.notify_all()


def _size(message: LogMessage) -> int:
    return len(message.key) + len(message.value or b"")


@hookimpl
def ikv_transport_info() -> TransportInfo:
    return TransportInfo(
        name="memory",
        api_version=API_VERSION,
        summary="a log in the memory of one process; for tests",
        options=MemoryTransportOptions,
        durability=Durability.NONE,
        process_shared=False,
        capabilities=frozenset({"Provisioning"}),
    )


@hookimpl
def ikv_open_transport(context: TransportContext) -> Transport:
    check_name("account id", context.account_id)
    store_name = check_name("store name", context.store_name)
    with _table.lock:
        return MemoryTransport(_table.log(context, store_name))


@hookimpl
def ikv_provisioning(context: TransportContext) -> Provisioning:
    check_name("account id", context.account_id)
    return MemoryProvisioning(context)
