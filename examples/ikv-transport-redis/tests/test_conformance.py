"""The transport keeps its contracts, on a real server."""

from typing import Any, ClassVar

import pytest
import redis

from ikvcore.testing.conformance import TransportConformance

OPTIONS: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def _server(redis_port: int) -> None:
    OPTIONS.update(port=redis_port)


class TestRedis(TransportConformance):
    name = "redis"
    options: ClassVar = OPTIONS
    backend_options: ClassVar = {"durability": "process-crash"}
    carries_no_value = True

    @classmethod
    def trim(cls, log: Any, partition: int, before: int) -> None:
        stream = f"ikv:log:{log.describe().identity}:{partition}"
        with redis.Redis(port=OPTIONS["port"]) as client:
            client.xtrim(stream, minid=f"0-{before + 1}", approximate=False)
