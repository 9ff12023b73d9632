"""examples/ikv-transport-redis, installed, passes its own tests on a real server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec

import pytest

pytestmark = [
    pytest.mark.requires_part(
        "redis", available=shutil.which("redis-server") is not None, how="apt-get install redis-server"
    ),
    pytest.mark.requires_part("redis-py", available=find_spec("redis") is not None, how="pip install redis"),
]


def test_conformance(run_example_tests: Callable[[str, str], None]) -> None:
    """Its log, and the durability that it declares; stores from end to end are left to a whole certification."""
    run_example_tests("ikv-transport-redis", "redis")
