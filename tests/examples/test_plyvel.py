"""examples/ikv-backend-plyvel, installed, is certified by its own tests."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest


@pytest.mark.requires_part(
    "plyvel", available=find_spec("plyvel") is not None, how="pip install plyvel (it has wheels up to Python 3.12)"
)
def test_certified(run_example_tests: Callable[[str], str]) -> None:
    """In its core tier; and what is the engine's own holds."""
    assert "verdict: core" in run_example_tests("ikv-backend-plyvel")
