"""What happens when pytest comes to a class that certifies a plugin."""

from __future__ import annotations

import pytest

from ikvcore.testing.conformance._classes import Conformance

__all__ = ["prepare"]


def prepare(config: pytest.Config, obj: type) -> None:
    """Give a subclass of Conformance that names its plugin the tests of its tiers; leave all else alone."""
    if issubclass(obj, Conformance) and hasattr(obj, "name"):
        obj.expand()
