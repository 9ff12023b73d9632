"""Faults cost replicas on rocksdb nothing, in the short form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from short_forms import run, those_of


@pytest.mark.parametrize("name", those_of("rocksdb"))
def test_a_fault_costs_nothing(name: str, tmp_path: Path, requires_part: Callable[..., None]) -> None:
    run("rocksdb", name, tmp_path / name, requires_part)
