"""The log of examples/ikv-transport-redis, without the stores over it."""

from typing import Any, ClassVar

import pytest
import redis

from ikvcore._registry import load_transport
from ikvcore.testing import TransportSuite

OPTIONS: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def _server(redis_port: int) -> None:
    OPTIONS.update(port=redis_port)


class TestLog(TransportSuite):
    """Put in the place of the example's test_conformance.py."""

    info = load_transport("redis").info
    options: ClassVar = OPTIONS
    carries_no_value = True

    def trim(self, log: Any, partition: int, before: int) -> None:
        stream = f"ikv:log:{log.describe().identity}:{partition}"
        with redis.Redis(port=OPTIONS["port"]) as client:
            client.xtrim(stream, minid=f"0-{before + 1}", approximate=False)
