"""All campaigns by name. Each is `run(times=..., seed=..., directory=..., pair=...) -> Result`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ikvcore._registry import load_backend
from ikvcore.models import Sharing
from ikvcore.testing.faults.result import Result
from ikvcore.testing.faults.target import Pair

__all__ = ["CAMPAIGNS", "Campaign"]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Where a campaign's function is, and how often its fault is done in either form."""

    function: str
    """module:function, imported when it is run: called with directory, seed and pair, and one of the two below."""
    short: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)

    sharing: Sharing = Sharing.ONE_PROCESS
    """How far processes have to share a mount for it."""
    of_replicas: bool = True
    """Whether a replica has a part in it. If none has, it is run on the turn of the default backend alone."""

    def why_not(self, pair: Pair) -> str:
        """Why it is not run on this pair; "" where it is."""
        if not self.of_replicas:
            return "" if pair.is_default else "no replica has a part in it: it is run once, beside the default backend"
        info = load_backend(pair.backend).info
        if info.volatile:
            return "the backend keeps nothing in files, and nothing of it outlives its process"
        if info.sharing < self.sharing:
            return f"it needs several processes on a mount, and the backend's sharing is {info.sharing.word}"
        return ""

    def load(self) -> Callable[..., Result]:
        """The function itself."""
        module, _, name = self.function.partition(":")
        loaded: Callable[..., Result] = getattr(importlib.import_module(module), name)
        return loaded


_HERE: Final = "ikvcore.testing.faults"

CAMPAIGNS: Final[dict[str, Campaign]] = {
    "killed-writers": Campaign(function=f"{_HERE}.kills:writers", short={"times": 12}, full={"times": 500}),
    "killed-ingesters": Campaign(function=f"{_HERE}.kills:ingesters", short={"times": 12}, full={"times": 500}),
    "killed-readers": Campaign(
        function=f"{_HERE}.kills:readers", short={"times": 12}, full={"times": 500}, sharing=Sharing.FOLLOWERS
    ),
    "takeover": Campaign(
        function=f"{_HERE}.takeover:run",
        short={"times": 1, "slack": 3.0},
        full={"times": 50},
        sharing=Sharing.FOLLOWERS,
    ),
    "pinned-pages": Campaign(
        function=f"{_HERE}.pinned:run", short={"times": 20}, full={"times": 1000}, sharing=Sharing.FOLLOWERS
    ),
    "threads": Campaign(function=f"{_HERE}.threads:run", short={"seconds": 4.0}, full={"seconds": 120.0}),
    "children": Campaign(function=f"{_HERE}.children:run", short={"times": 1}, full={"times": 10}),
    "leaks": Campaign(
        function=f"{_HERE}.leaks:run",
        short={"rounds": 60, "seconds": 5.0},
        full={"rounds": 2000, "seconds": 600.0},
    ),
    "damaged-replicas": Campaign(
        function=f"{_HERE}.corruption:replicas", short={"flips": 6, "cuts": 3}, full={"flips": 300, "cuts": 100}
    ),
    "damaged-logs": Campaign(
        function=f"{_HERE}.corruption:logs",
        short={"flips": 6, "cuts": 3},
        full={"flips": 300, "cuts": 100},
        of_replicas=False,
    ),
    "damaged-manifests": Campaign(
        function=f"{_HERE}.corruption:manifests", short={"flips": 8, "cuts": 4}, full={"flips": 300, "cuts": 100}
    ),
    "bad-events": Campaign(function=f"{_HERE}.bad_events:run", short={"times": 3}, full={"times": 200}),
    "changed-logs": Campaign(function=f"{_HERE}.changed_logs:run", short={"times": 1}, full={"times": 30}),
    "full-disks": Campaign(function=f"{_HERE}.diskfull:run", short={"times": 1}, full={"times": 10}),
    "system-calls": Campaign(function=f"{_HERE}.syscalls:run", short={"times": 2}, full={"times": None}),
    "power-losses": Campaign(
        function=f"{_HERE}.powerloss:run",
        short={"variants": 1, "cuts": 2},
        full={"variants": 4, "cuts": 210},
    ),
    "hostile-bytes": Campaign(
        function=f"{_HERE}.hostile:run", short={"times": 10_000}, full={"times": 1_000_000}, of_replicas=False
    ),
}
"""By the name that `--only` takes, in the order in which they are run and shown."""
