"""examples/ikv-backend-plyvel, installed, passes its own tests."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest


@pytest.mark.requires_part(
    "plyvel", available=find_spec("plyvel") is not None, how="pip install plyvel (it has wheels up to Python 3.12)"
)
def test_conformance(run_example_tests: Callable[[str, str], None]) -> None:
    """Its engine and its quirks; the documents over it, and stores, are left to a whole certification."""
    run_example_tests("ikv-backend-plyvel", "plyvel")
