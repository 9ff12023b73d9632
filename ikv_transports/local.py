"""The durable log on this machine: an LMDB environment per store under IKV_HOME, for any number of processes.

Concurrent writers, threads and processes, append to one log. Threads of a process share commits, so that many small
writes cost few syncs. A commit wakes the followers of all processes within microseconds. Nothing is trimmed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ikv_transports._local_check import verify_log
from ikv_transports._local_entries import encode
from ikv_transports._local_followers import SLOW_POLL, Doorbell
from ikv_transports._local_home import LocalHome, LocalProvisioning
from ikv_transports._local_log import LocalLog
from ikv_transports._local_table import close_log, open_log
from ikvcore._names import check_name
from ikvcore.errors import InvalidOptionError, TransportError
from ikvcore.hookspecs import hookimpl
from ikvcore.models import (
    API_VERSION,
    Bounds,
    Durability,
    Message,
    Polled,
    Start,
    StoreDescription,
    TransportContext,
    TransportInfo,
)
from ikvcore.plainlog import check_messages, check_partitions
from ikvcore.protocols import Provisioning, Transport
from ikvcore.tokens import Token
from ikvcore.witness import check_start

__all__ = ["LocalSubscription", "LocalTransport", "LocalTransportOptions"]

_DURABILITIES: Final = (Durability.POWER_LOSS.word, Durability.PROCESS_CRASH.word)


@dataclass(frozen=True, kw_only=True)
class LocalTransportOptions:
    """Options of the local transport."""

    home: str | None = None
    """Directory of accounts and stores; by default $IKV_HOME, else the platform's user data directory for ikvcore."""
    durability: str = _DURABILITIES[0]
    """What an acknowledged write survives.

    "power-loss": every commit is synced to the disk before it is acknowledged.

    "process-crash": commits are handed to the operating system and synced whenever it likes. They survive the death of
    any process, but when the machine stops, the last ones may be gone, and the whole log may be damaged beyond repair:
    the system writes pages in any order. For logs that can be made again. Use one word in all processes of a log, for
    the weaker one decides; within a process it is enforced.
    """

    def __post_init__(self) -> None:
        if self.home is not None and (not isinstance(self.home, str) or not self.home or "\0" in self.home):
            raise InvalidOptionError("home", self.home, "use the path of a directory")
        if self.durability not in _DURABILITIES:
            raise InvalidOptionError("durability", self.durability, f"use {' or '.join(_DURABILITIES)}")


class LocalTransport:
    """A client of one store's log; all clients of the log in this process share one environment."""

    def __init__(self, description: StoreDescription, log: LocalLog) -> None:
        self._description = description
        self._log = log
        self._lock = threading.Lock()
        self._closed = False
        self._subscriptions: set[LocalSubscription] = set()

    def describe(self) -> StoreDescription:
        self.check()
        return self._description

    def publish(self, messages: Sequence[Message]) -> Token:
        self.check()
        messages = list(messages)
        # All that can be wrong with these messages is found here: once queued, they share their commit with others'.
        check_messages(messages, self._description)
        entries = [encode(message) for message in messages]
        if not entries:
            return Token()
        return Token(self._description.identity, self._log.append(entries))

    def subscribe(self, start: Mapping[int, Start]) -> LocalSubscription:
        self.check()
        self._log.check_in_place()
        check_partitions(start, self._description)
        bounds = self._log.bounds(self._description.partitions)
        for partition, place in start.items():
            check_start(
                partition,
                place,
                identity=self._description.identity,
                bounds=bounds[partition],
                read=self._log.message_at,
            )
        subscription = LocalSubscription(self, self._log, {number: place.position for number, place in start.items()})
        with self._lock:
            if not self._closed:
                self._subscriptions.add(subscription)
                return subscription
        subscription.close()
        raise self._closed_error()

    def bounds(self) -> Mapping[int, Bounds]:
        self.check()
        self._log.check_in_place()
        return self._log.bounds(self._description.partitions)

    def size(self) -> int | None:
        self.check()
        return self._log.size()

    def close(self) -> None:
        if self._log.is_forked():
            return
        with self._lock:
            closing, self._closed = not self._closed, True
            subscriptions, self._subscriptions = self._subscriptions, set()
        if closing:
            for subscription in subscriptions:
                subscription.close()
            close_log(self._log)

    def check(self) -> None:
        """Raise unless the log can be used through this client."""
        self._log.check()
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> TransportError:
        return TransportError(
            f"the log of store {self._description.store_name!r} was closed by this client; open it again"
        )

    def forget(self, subscription: LocalSubscription) -> None:
        """Called by a subscription that was closed."""
        with self._lock:
            self._subscriptions.discard(subscription)


class LocalSubscription:
    """Positions in a log, and the FIFO that says when to look again."""

    def __init__(self, transport: LocalTransport, log: LocalLog, positions: dict[int, int]) -> None:
        self._transport = transport
        self._log = log
        self._positions = positions
        # Whoever was served goes to the end, so that a busy partition starves no other.
        self._turns = deque(positions)
        self._read_to: int | None = None
        self._woken = False
        self._closed = False
        self._polling = threading.Lock()
        self._bell = Doorbell(log.followers)

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> Polled:
        self._log.check()
        deadline = time.monotonic() + timeout
        with self._polling:
            while True:
                self._check_open()
                # In this order: a commit after the read rings again, and a wake-up is never lost.
                self._bell.drain()
                polled = self._take(max_messages, max_bytes)
                if not polled.messages:
                    self._log.check_in_place()
                remaining = deadline - time.monotonic()
                if polled.messages or self._woken or remaining <= 0:
                    self._woken = False
                    return polled
                self._bell.wait(min(remaining, SLOW_POLL))

    def wake(self) -> None:
        self._log.check()
        self._woken = True
        self._bell.ring()

    def close(self) -> None:
        if self._log.is_forked():
            return
        self._closed = True
        self._bell.ring()
        with self._polling:  # a poll that waits ends first: it uses the FIFO
            self._bell.close()
        self._transport.forget(self)

    def _check_open(self) -> None:
        self._transport.check()
        if self._closed:
            raise TransportError("this subscription was closed; subscribe again")

    def _take(self, max_messages: int, max_bytes: int) -> Polled:
        positions = {partition: self._positions[partition] for partition in self._turns}
        messages, reached, self._read_to = self._log.take(
            positions, max_messages=max_messages, max_bytes=max_bytes, unless=self._read_to
        )
        self._positions.update(reached)
        for partition in reached:
            self._turns.remove(partition)
            self._turns.append(partition)
        return Polled(messages, reached)


@hookimpl
def ikv_transport_info() -> TransportInfo:
    return TransportInfo(
        name="local",
        api_version=API_VERSION,
        summary="a durable log on this machine, shared by its processes",
        options=LocalTransportOptions,
        durability=Durability.POWER_LOSS,
        process_shared=True,
        capabilities=frozenset({"Provisioning", "VerifyLog"}),
    )


@hookimpl
def ikv_open_transport(context: TransportContext) -> Transport:
    account_id = check_name("account id", context.account_id)
    store_name = check_name("store name", context.store_name)
    home = LocalHome(context.options.home)
    description = home.describe(account_id, context.passkey, store_name)
    directory = home.store(account_id, store_name) / "log"
    log = open_log(directory, description.identity, Durability.parse(context.options.durability))
    return LocalTransport(description, log)


@hookimpl
def ikv_provisioning(context: TransportContext) -> Provisioning:
    account_id = check_name("account id", context.account_id)
    return LocalProvisioning(LocalHome(context.options.home), account_id, context.passkey)


@hookimpl
def ikv_verify_log(context: TransportContext) -> list[str]:
    account_id = check_name("account id", context.account_id)
    store_name = check_name("store name", context.store_name)
    home = LocalHome(context.options.home)
    description = home.describe(account_id, context.passkey, store_name)
    return verify_log(home.store(account_id, store_name) / "log", description.identity)
