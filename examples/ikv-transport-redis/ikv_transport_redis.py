"""Transport `redis` for ikvcore: a Redis stream for each partition. Redis 7.0 or newer, one server, not a cluster.

The entry of position p has the id 0-(p+1): positions are dense until somebody deletes entries. A call of publish is one
MULTI, so it is taken whole or not at all.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ikvcore import errors, models
from ikvcore.forks import after_fork_in_child
from ikvcore.hookspecs import hookimpl
from ikvcore.tokens import Token
from ikvcore.witness import check_start

_LARGEST_EVENT: Final = 64 << 20
_SLICE: Final = 1.0  # seconds of one blocking read, well under the socket's timeout
_BOUNDS: Final = """
local found = {}
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 0 then return {} end
  local info, fields = redis.call('XINFO', 'STREAM', key), {}
  for j = 1, #info, 2 do fields[info[j]] = info[j + 1] end
  local first = fields['first-entry']
  found[i] = {fields['length'], fields['last-generated-id'], first and first[1] or ''}
end
return found"""
"""Length, last id and first id of each stream, without the entries that XINFO shows."""
_PERSISTENCE: Final = {"power-loss": ("always",), "process-crash": ("always", "no"), "none": None}
"""Values of appendfsync. With everysec a server can acknowledge what it has not even written for up to 2 seconds."""


@dataclass(frozen=True, kw_only=True)
class RedisTransportOptions:
    """Options of the redis transport."""

    host: str = "127.0.0.1"
    port: int = 6379
    authenticate: bool = False
    """Log in to the server with the account id and its passkey; else nobody checks them."""
    durability: str = "power-loss"
    """What the server must be set to survive: it is asked, and refused where it would lose more."""

    def __post_init__(self) -> None:
        if self.durability not in _PERSISTENCE:
            raise errors.InvalidOptionError("durability", self.durability, f"use one of {', '.join(_PERSISTENCE)}")


class _Server:
    """Connections to the server, and what its errors become."""

    def __init__(self, context: models.TransportContext) -> None:
        given = context.options
        login = {"username": context.account_id, "password": context.passkey.reveal()} if given.authenticate else {}
        # redis-py tries again by itself: a publish whose answer was lost would be in the log twice.
        once = Retry(NoBackoff(), 0)
        self.client: Any = redis.Redis(given.host, given.port, socket_timeout=10, retry=once, **login)
        self.account, self.wanted = context.account_id, given.durability
        self.stores, self.accounts = f"ikv:stores:{context.account_id}", "ikv:accounts"

    def check_durability(self) -> None:
        modes = _PERSISTENCE[self.wanted]
        with self.errors():
            found = {} if modes is None else self.client.config_get("appendonly", "appendfsync")
        if modes is not None and (found.get("appendonly") != "yes" or found.get("appendfsync") not in modes):
            raise errors.TransportError(
                f"durability {self.wanted!r} needs a Redis server with appendonly yes and appendfsync {modes[0]}; it "
                f"says {found}. Set it so, or give the transport's option durability='none'"
            )

    def find(self, store_name: str) -> models.StoreDescription:
        with self.errors():
            text = self.client.hget(self.stores, store_name)
        if text is None:
            raise errors.StoreAccessError(store_name, self.account)
        return models.StoreDescription.from_json(json.loads(text))

    @contextmanager
    def errors(self, *, publishing: bool = False) -> Iterator[None]:
        try:
            yield
        except redis.OutOfMemoryError as exc:
            raise errors.StorageFullError("the Redis server", exc) from exc
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            sent = publishing and not isinstance(exc.__context__, ConnectionRefusedError)
            kind = errors.OutcomeUnknownError if sent else errors.LogUnavailableError
            raise kind(f"the Redis server could not be reached: {exc}") from exc
        except redis.RedisError as exc:
            raise errors.TransportError(f"the Redis server refused: {exc}") from exc


def _streams(store: models.StoreDescription) -> list[str]:
    return [f"ikv:log:{store.identity}:{partition}" for partition in range(store.partitions)]


def _position(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[2]) - 1


class RedisTransport:
    """One store's log."""

    def __init__(self, server: _Server, store: models.StoreDescription) -> None:
        self.server, self.store, self.streams = server, store, _streams(store)
        self.closed = self.is_forked = False
        self._subscriptions: set[RedisSubscription] = set()
        after_fork_in_child(self)

    def describe(self) -> models.StoreDescription:
        self.check()
        return self.store

    def publish(self, messages: Sequence[models.Message]) -> Token:
        self.check()
        messages = list(messages)
        self._check_partitions({message.partition for message in messages})
        for message in messages:
            if len(message.value or b"") > self.store.max_event_bytes:
                raise errors.EventTooLargeError(len(message.value), self.store.max_event_bytes)
        with self.server.errors(publishing=True), self.server.client.pipeline() as pipe:
            for each in messages:
                value = {} if each.value is None else {"v": each.value}
                entry = {"k": each.key, "t": each.timestamp, **value}
                pipe.xadd(self.streams[each.partition], entry, id="0-*", nomkstream=True)
            ids = pipe.execute()
        if None in ids:
            raise self._deleted()
        reached = {each.partition: _position(entry) + 1 for each, entry in zip(messages, ids, strict=True)}
        return Token(self.store.identity, reached)

    def subscribe(self, start: Mapping[int, models.Start]) -> RedisSubscription:
        self._check_partitions(start)
        bounds = self.bounds()
        for partition, place in start.items():
            check_start(partition, place, identity=self.store.identity, bounds=bounds[partition], read=self._read)
        subscription = RedisSubscription(self, {partition: place.position for partition, place in start.items()})
        self._subscriptions.add(subscription)
        return subscription

    def bounds(self) -> Mapping[int, models.Bounds]:
        self.check()
        with self.server.errors():
            found = self.server.client.eval(_BOUNDS, len(self.streams), *self.streams)
        if not found:
            raise self._deleted()
        ends = [(length, _position(last) + 1, first) for length, last, first in found]
        return {
            partition: models.Bounds(_position(first) if first else end, end, complete=length == end)
            for partition, (length, end, first) in enumerate(ends)
        }

    def size(self) -> int | None:
        return None

    def close(self) -> None:
        if not self.is_forked:
            self.closed = True
            for subscription in list(self._subscriptions):
                subscription.close()
            self.server.client.close()

    def forked(self) -> None:
        self.is_forked = True

    def check(self) -> None:
        if self.is_forked:
            raise errors.ForkedError("log")
        if self.closed:
            raise errors.TransportError(f"the log of store {self.store.store_name!r} was closed by this client")

    def forget(self, subscription: RedisSubscription) -> None:
        self._subscriptions.discard(subscription)

    def _check_partitions(self, partitions: Any) -> None:
        for partition in partitions:
            if not 0 <= partition < self.store.partitions:
                raise errors.InvalidArgumentError(f"store {self.store.store_name!r} has no partition {partition!r}")

    def _read(self, partition: int, position: int) -> models.LogMessage | None:
        entry = f"0-{position + 1}"
        with self.server.errors():
            found = self.server.client.xrange(self.streams[partition], entry, entry)
        return _message(partition, *found[0]) if found else None

    def _deleted(self) -> errors.TransportError:
        return errors.TransportError(f"store {self.store.store_name!r} was deleted, and its log with it")


def _message(partition: int, entry_id: bytes, entry: Mapping[bytes, bytes]) -> models.LogMessage:
    return models.LogMessage(partition, _position(entry_id), entry[b"k"], entry.get(b"v"), int(entry[b"t"]))


class RedisSubscription:
    """Places in the streams, and a connection of its own that may block."""

    def __init__(self, transport: RedisTransport, positions: dict[int, int]) -> None:
        self._transport, self._positions = transport, positions
        self._woken = self._blocking = self._closed = False
        self._client_id = 0
        self._entry_bytes = 1 << 16  # what an entry takes, guessed until some were read
        self._polling = threading.Lock()
        pool = transport.server.client.connection_pool
        self._client: Any = redis.Redis.from_pool(type(pool)(max_connections=1, **pool.connection_kwargs))

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> models.Polled:
        self._transport.check()
        deadline = time.monotonic() + timeout
        with self._polling:
            while True:
                self._check()
                remaining = deadline - time.monotonic()
                polled = self._take(max_messages, max_bytes, remaining)
                if polled.messages or self._woken or remaining <= 0:
                    self._woken = False
                    return polled

    def wake(self) -> None:
        self._transport_alive()
        self._woken = True
        # A poll that has not seen it is about to block, or does: until the server has ended that, or it has left.
        while self._blocking and not self._transport.server.client.client_unblock(self._client_id):
            time.sleep(0.001)

    def close(self) -> None:
        if self._transport.is_forked or self._closed:
            return
        self._closed = True
        self.wake()
        with self._polling:
            self._client.close()
        self._transport.forget(self)

    def _transport_alive(self) -> None:
        if self._transport.is_forked:
            raise errors.ForkedError("log")

    def _check(self) -> None:
        self._transport.check()
        if self._closed:
            raise errors.TransportError("this subscription was closed; subscribe again")

    def _take(self, max_messages: int, max_bytes: int, remaining: float) -> models.Polled:
        count = max(1, min(max_messages, max_bytes // self._entry_bytes) // max(1, len(self._positions)))
        taken: list[models.LogMessage] = []
        moved: dict[int, int] = {}
        room = max_bytes
        for partition, entries in self._entries(count, remaining):
            for entry_id, entry in entries:
                message = _message(partition, entry_id, entry)
                size = len(message.key) + len(message.value or b"")
                if taken and (size > room or len(taken) == max_messages):
                    break
                if message.position > self._positions[partition] and partition not in moved:
                    self._check_places()
                taken.append(message)
                room -= size
                moved[partition] = message.position + 1
        for partition, position in moved.items():
            del self._positions[partition]  # whoever was served goes to the end
            self._positions[partition] = position
        if taken:
            self._entry_bytes = max(1, (max_bytes - room) // len(taken))
        else:
            self._check_places()
        return models.Polled(taken, moved)

    def _entries(self, count: int, remaining: float) -> list[tuple[int, Any]]:
        names = {self._transport.streams[partition].encode(): partition for partition in self._positions}
        places = {name: f"0-{self._positions[partition]}" for name, partition in names.items()}
        if not places:
            time.sleep(min(max(remaining, 0), 0.01))
            return []
        with self._transport.server.errors():
            if remaining > 0:
                self._client_id = self._client.client_id()
            self._blocking = remaining > 0
            try:
                block = None if self._woken or remaining <= 0 else max(1, int(min(remaining, _SLICE) * 1_000))
                found = dict(self._client.xread(places, count=count, block=block))
            finally:
                self._blocking = False
        return [(partition, found[name]) for name, partition in names.items() if name in found]

    def _check_places(self) -> None:
        """The log can be cut, or go back where its server lost something: XREAD says nothing of either."""
        bounds = self._transport.bounds()
        for partition, position in self._positions.items():
            start = models.Start(position, None)
            check_start(partition, start, identity="", bounds=bounds[partition], read=lambda *_: None)


class RedisProvisioning:
    """Accounts are a set, the stores of each a hash."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    def create_account(self) -> None:
        with self._server.errors():
            made = self._server.client.sadd(self._server.accounts, self._server.account)
        if not made:
            raise errors.StoreExistsError("account", self._server.account)

    def rotate_passkey(self, new_passkey: str) -> None:
        raise errors.InvalidOptionError("passkey", models.Secret(new_passkey), "Redis keeps its own: use ACL SETUSER")

    def create_store(self, description: models.StoreDescription) -> models.StoreDescription:
        self._server.check_durability()
        made = replace(description, max_event_bytes=min(description.max_event_bytes, _LARGEST_EVENT))

        def make(pipe: Any) -> None:
            if pipe.hexists(self._server.stores, made.store_name):
                raise errors.StoreExistsError("store", made.store_name)
            pipe.multi()
            pipe.sadd(self._server.accounts, self._server.account)
            pipe.hset(self._server.stores, made.store_name, json.dumps(made.to_json()))
            for stream in _streams(made):  # the only way to an empty stream
                pipe.xgroup_create(stream, "ikv", mkstream=True)
                pipe.xgroup_destroy(stream, "ikv")

        with self._server.errors():
            self._server.client.transaction(make, self._server.stores)
        return made

    def list_stores(self) -> list[models.StoreDescription]:
        with self._server.errors():
            known = self._server.client.sismember(self._server.accounts, self._server.account)
            texts = self._server.client.hvals(self._server.stores)
        if not known:
            raise errors.StoreAccessError("*", self._server.account)
        found = [models.StoreDescription.from_json(json.loads(text)) for text in texts]
        return sorted(found, key=lambda store: store.store_name)

    def delete_store(self, store_name: str) -> None:
        def remove(pipe: Any) -> None:
            store = self._server.find(store_name)
            pipe.multi()
            pipe.hdel(self._server.stores, store_name)
            pipe.delete(*_streams(store))

        with self._server.errors():
            self._server.client.transaction(remove, self._server.stores)


@hookimpl
def ikv_transport_info() -> models.TransportInfo:
    return models.TransportInfo(
        name="redis",
        api_version=models.API_VERSION,
        summary="a Redis stream for each partition; for any number of machines",
        options=RedisTransportOptions,
        durability=models.Durability.POWER_LOSS,  # with default options, which refuse a server that gives less
        process_shared=True,
        capabilities=frozenset({"Provisioning"}),
        keeps_passkeys=False,
    )


@hookimpl
def ikv_open_transport(context: models.TransportContext) -> RedisTransport:
    server = _Server(context)
    server.check_durability()
    assert context.store_name is not None
    return RedisTransport(server, server.find(context.store_name))


@hookimpl
def ikv_provisioning(context: models.TransportContext) -> RedisProvisioning:
    return RedisProvisioning(_Server(context))
