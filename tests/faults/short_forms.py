"""The campaigns on other backends than the default one, a few times each; `make faults BACKEND=...` does all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ikvcore.testing.faults import diskfull, syscalls
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.target import Pair

__all__ = ["HOW_OFTEN", "LONG", "run", "those_of"]

TRACED = ("system-calls", "power-losses")

HOW_OFTEN: dict[str, dict[str, Any]] = {
    "killed-writers": {"times": 2},
    "killed-ingesters": {"times": 2},
    "killed-readers": {"times": 2},
    "takeover": {"times": 1, "slack": 3.0, "only": "ingester killed"},
    "pinned-pages": {"times": 4},
    "threads": {"seconds": 1.5},
    "damaged-replicas": {"flips": 1, "cuts": 1},
    "damaged-manifests": {"flips": 1, "cuts": 1},
    "bad-events": {"times": 1},
    "changed-logs": {"times": 1},
    "full-disks": {"times": 1},
    "system-calls": {"times": 1},
    "power-losses": {"variants": 0, "cuts": 1},
}
LONG = {"children": "a minute of new interpreters", "leaks": "a leak shows after many rounds alone"}
"""Campaigns that have no form short enough to be run on each backend in every run."""


def those_of(backend: str) -> list[str]:
    """The campaigns that are run on a backend."""
    return [name for name in HOW_OFTEN if not CAMPAIGNS[name].why_not(Pair(backend=backend))]


def run(backend: str, name: str, directory: Path, requires_part: Callable[..., None]) -> None:
    """Run one; it has to find nothing, and to have done something."""
    if name in TRACED:
        requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    result = CAMPAIGNS[name].load()(directory=directory, seed=1, pair=Pair(backend=backend), **HOW_OFTEN[name])
    result.require()
    if result.not_run:  # what was done without a small file system has held
        requires_part("tmpfs", available=False, how=diskfull.TMPFS_HOW)
    assert result.rows
