"""examples/ikv-transport-redis, installed, is certified by its own tests on a real server."""

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


def test_certified(run_example_tests: Callable[[str], str]) -> None:
    """In its core tier; and what is the engine's own holds."""
    assert "verdict: core" in run_example_tests("ikv-transport-redis")
