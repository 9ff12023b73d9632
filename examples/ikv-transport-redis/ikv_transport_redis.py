"""Transport `redis` for ikvcore: a Redis stream for each partition. Redis 7.0 or newer, one server, not a cluster.

The entry of position p has the id 0-(p+1): positions are dense until somebody deletes entries. A call of publish is one
MULTI, so it is taken whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import redis

from ikvcore import errors, models
from ikvcore.hookspecs import hookimpl
from ikvcore.plainlog import PlainTransport

_BOUNDS: Final = """
local found = {}
for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 0 then return {} end
  local info, fields = redis.call('XINFO', 'STREAM', key), {}
  for j = 1, #info, 2 do fields[info[j]] = info[j + 1] end
  found[i] = {fields['length'], fields['last-generated-id'], (fields['first-entry'] or {''})[1]}
end
return found"""
"""Length, last id and first id of each stream, without the entries that XINFO shows."""
_PERSISTENCE: Final = {"power-loss": ("always",), "process-crash": ("always", "no"), "none": ()}
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
        models.Durability.parse(self.durability)


class RedisProvisioning:
    """An account is a hash: its stores' descriptions by name, and an entry without name, which makes it exist."""

    def __init__(self, context: models.TransportContext) -> None:
        given, self._account = context.options, context.account_id
        login = {"username": self._account, "password": context.passkey.reveal()} if given.authenticate else {}
        # By itself redis-py tries again: a publish whose answer was lost would be in the log twice.
        self.client: Any = redis.Redis(given.host, given.port, socket_timeout=10, retry=None, **login)
        self._stores, modes = f"ikv:stores:{self._account}", _PERSISTENCE[given.durability]
        with _translated():
            found = self.client.config_get("appendonly", "appendfsync") if modes else {}
        if modes and (found["appendonly"] != "yes" or found["appendfsync"] not in modes):
            raise errors.TransportError(
                f"durability {given.durability!r} needs a Redis server with appendonly yes and appendfsync {modes[0]}; "
                f"it says {found}. Set it so, or give the transport's option durability='none'"
            )

    def create_account(self) -> None:
        with _translated():
            if not self.client.hsetnx(self._stores, "", ""):
                raise errors.StoreExistsError("account", self._account)

    def rotate_passkey(self, new_passkey: str) -> None:
        raise errors.InvalidOptionError("passkey", models.Secret(new_passkey), "Redis keeps its own: use ACL SETUSER")

    def create_store(self, description: models.StoreDescription) -> models.StoreDescription:
        made = replace(description, max_event_bytes=min(description.max_event_bytes, 64 << 20))
        with _translated(), self.client.pipeline() as pipe:
            for stream in _streams(made):  # the only way to an empty stream
                pipe.xgroup_create(stream, "ikv", mkstream=True)
                pipe.xgroup_destroy(stream, "ikv")
            pipe.hsetnx(self._stores, "", "")
            pipe.hsetnx(self._stores, made.store_name, json.dumps(made.to_json()))
            if not pipe.execute()[-1]:
                self.client.delete(*_streams(made))
                raise errors.StoreExistsError("store", made.store_name)
        return made

    def list_stores(self) -> list[models.StoreDescription]:
        with _translated():
            found = self.client.hgetall(self._stores)
        if found.pop(b"", None) is None:
            raise errors.StoreAccessError("*", self._account)
        return [models.StoreDescription.from_json(json.loads(found[name])) for name in sorted(found)]

    def delete_store(self, store_name: str) -> None:
        def remove(pipe: Any) -> None:
            store = self.find(store_name)
            pipe.multi()
            pipe.hdel(self._stores, store_name)
            pipe.delete(*_streams(store))

        with _translated():
            self.client.transaction(remove, self._stores)

    def find(self, store_name: str) -> models.StoreDescription:
        with _translated():
            text = self.client.hget(self._stores, store_name)
        if text is None:
            raise errors.StoreAccessError(store_name, self._account)
        return models.StoreDescription.from_json(json.loads(text))


class RedisLog:
    """Implements PlainLog."""

    def __init__(self, client: Any, store: models.StoreDescription) -> None:
        self._client, self._streams = client, _streams(store)

    def append(self, messages: Sequence[models.Message]) -> Mapping[int, models.Position]:
        with _translated(publishing=True), self._client.pipeline() as pipe:
            for each in messages:
                entry = {"k": each.key, "t": each.timestamp} | ({} if each.value is None else {"v": each.value})
                pipe.xadd(self._streams[each.partition], entry, id="0-*", nomkstream=True)
            ids = pipe.execute()
        if None in ids:
            return {}
        return {each.partition: _position(entry) + 1 for each, entry in zip(messages, ids, strict=True)}

    def read(self, places: Mapping[int, int], *, limit: int, wait: float) -> Iterator[models.LogMessage]:
        partitions = {self._streams[partition].encode(): partition for partition in places}
        after = {stream: f"0-{places[partition]}" for stream, partition in partitions.items()}
        with _translated():
            block = max(1, int(wait * 1_000)) if wait else None
            found = self._client.xread(after, count=max(1, limit // len(places)), block=block)
        for stream, entries in dict(found).items():
            for entry, fields in entries:
                timestamp = int(fields[b"t"])
                yield models.LogMessage(partitions[stream], _position(entry), fields[b"k"], fields.get(b"v"), timestamp)

    def bounds(self) -> Mapping[int, models.Bounds]:
        with _translated():
            found = self._client.eval(_BOUNDS, len(self._streams), *self._streams)
        ends = [(length, _position(last) + 1, first) for length, last, first in found]
        return {
            partition: models.Bounds(_position(first) if first else end, end, complete=length == end)
            for partition, (length, end, first) in enumerate(ends)
        }

    def close(self) -> None:
        self._client.close()


def _streams(store: models.StoreDescription) -> list[str]:
    return [f"ikv:log:{store.identity}:{partition}" for partition in range(store.partitions)]


def _position(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[2]) - 1


@contextmanager
def _translated(*, publishing: bool = False) -> Iterator[None]:
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
def ikv_open_transport(context: models.TransportContext) -> PlainTransport:
    server = RedisProvisioning(context)
    assert context.store_name is not None
    store = server.find(context.store_name)
    return PlainTransport(store, RedisLog(server.client, store))


@hookimpl
def ikv_provisioning(context: models.TransportContext) -> RedisProvisioning:
    return RedisProvisioning(context)
