"""Campaigns on other backends than the default one, a few times each; `make faults BACKEND=...` does all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ikvcore.testing.faults import syscalls
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.target import Pair

TRACED = ("system-calls", "power-losses")


@pytest.mark.parametrize(
    ("backend", "name", "how_often"),
    [
        ("duckdb", "killed-ingesters", {"times": 2}),
        ("duckdb", "bad-events", {"times": 1}),
        ("rocksdb", "killed-ingesters", {"times": 3}),
        ("rocksdb", "takeover", {"times": 1, "slack": 3.0, "only": "ingester killed"}),
        ("rocksdb", "bad-events", {"times": 1}),
        ("rocksdb", "damaged-replicas", {"flips": 1, "cuts": 1}),
        ("rocksdb", "system-calls", {"times": 1}),
        ("sqlite", "killed-ingesters", {"times": 3}),
        ("sqlite", "bad-events", {"times": 1}),
        ("sqlite", "damaged-replicas", {"flips": 1, "cuts": 1}),
        ("sqlite", "power-losses", {"variants": 0, "cuts": 1}),
    ],
)
def test_a_fault_costs_another_backend_nothing(
    backend: str, name: str, how_often: dict[str, Any], tmp_path: Path, requires_part: Callable[..., None]
) -> None:
    if name in TRACED:
        requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    campaign, pair = CAMPAIGNS[name], Pair(backend=backend)
    assert not campaign.why_not(pair)
    result = campaign.load()(directory=tmp_path / name, seed=1, pair=pair, **how_often)
    result.require()
    assert result.rows
