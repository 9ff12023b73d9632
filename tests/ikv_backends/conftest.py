"""What tests of a backend's own ways share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As a mount gives a storage one: there, empty, and its own."""
    path = tmp_path / "gen-1"
    path.mkdir()
    return path
