"""What is declared is what the server does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import ikv_transport_redis
import pytest
import redis

from ikvcore.errors import TransportError
from ikvcore.models import Secret, StoreDescription, TransportContext


@pytest.fixture
def setting(redis_port: int) -> Iterator[redis.Redis]:
    """A client that may change the server's settings, which are as they were afterwards."""
    with redis.Redis(port=redis_port) as client:
        before: Any = client.config_get("appendonly", "appendfsync")
        yield client
        client.config_set("appendonly", before["appendonly"], "appendfsync", before["appendfsync"])


def provisioning(port: int, durability: str) -> ikv_transport_redis.RedisProvisioning:
    options = ikv_transport_redis.RedisTransportOptions(port=port, durability=durability)
    context = TransportContext(store_name=None, account_id="demo", passkey=Secret("secret"), options=options)
    return ikv_transport_redis.ikv_provisioning(context)


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "taken"),
    [
        ("yes", "always", {"power-loss", "process-crash", "none"}),
        ("yes", "no", {"process-crash", "none"}),
        ("yes", "everysec", {"none"}),
        ("no", "always", {"none"}),
    ],
)
def test_a_server_that_loses_more_is_refused(
    setting: redis.Redis, redis_port: int, appendonly: str, appendfsync: str, taken: set[str]
) -> None:
    """By the words of the option; the error says what to set."""
    setting.config_set("appendonly", appendonly, "appendfsync", appendfsync)
    for word in ("power-loss", "process-crash", "none"):
        store = StoreDescription(
            store_name="store", account_id="demo", identity=uuid.uuid4().hex, primary_key="id", partitions=1
        )
        if word not in taken:
            with pytest.raises(TransportError, match="appendfsync"):
                provisioning(redis_port, word)
        else:
            maker = provisioning(redis_port, word)
            maker.create_store(store)
            maker.delete_store("store")
