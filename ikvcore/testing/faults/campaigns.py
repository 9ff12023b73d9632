"""All campaigns by name. Each is `run(times=..., seed=..., directory=..., pair=...) -> Result`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

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

    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Backends that it cannot be run on, each with the reason; "*" stands for all but the default one."""

    def why_not(self, pair: Pair) -> str:
        """Why it is not run on this pair; "" where it is."""
        if pair.backend == Pair().backend:
            return ""
        return self.elsewhere.get(pair.backend) or self.elsewhere.get("*", "")

    def load(self) -> Callable[..., Result]:
        """The function itself."""
        module, _, name = self.function.partition(":")
        loaded: Callable[..., Result] = getattr(importlib.import_module(module), name)
        return loaded


_HERE: Final = "ikvcore.testing.faults"
_NO_REPLICA: Final = {"*": "nothing of a replica's engine is harmed by it: it is run once, on the default backend"}
_LMDB_FILE: Final = {"*": "it is written for LMDB's one file of pages"}

CAMPAIGNS: Final[dict[str, Campaign]] = {
    "killed-writers": Campaign(function=f"{_HERE}.kills:writers", short={"times": 12}, full={"times": 500}),
    "killed-ingesters": Campaign(function=f"{_HERE}.kills:ingesters", short={"times": 12}, full={"times": 500}),
    "killed-readers": Campaign(function=f"{_HERE}.kills:readers", short={"times": 12}, full={"times": 500}),
    "takeover": Campaign(function=f"{_HERE}.takeover:run", short={"times": 1, "slack": 3.0}, full={"times": 50}),
    "pinned-pages": Campaign(function=f"{_HERE}.pinned:run", short={"times": 20}, full={"times": 1000}),
    "threads": Campaign(function=f"{_HERE}.threads:run", short={"seconds": 4.0}, full={"seconds": 120.0}),
    "children": Campaign(function=f"{_HERE}.children:run", short={"times": 1}, full={"times": 10}),
    "leaks": Campaign(
        function=f"{_HERE}.leaks:run",
        short={"rounds": 60, "seconds": 5.0},
        full={"rounds": 2000, "seconds": 600.0},
        elsewhere={"rocksdb": "its memory and its open files move with its tables, by more than a leak shows"},
    ),
    "damaged-replicas": Campaign(
        function=f"{_HERE}.corruption:replicas", short={"flips": 6, "cuts": 3}, full={"flips": 300, "cuts": 100}
    ),
    "damaged-logs": Campaign(
        function=f"{_HERE}.corruption:logs",
        short={"flips": 6, "cuts": 3},
        full={"flips": 300, "cuts": 100},
        elsewhere=_NO_REPLICA,
    ),
    "damaged-manifests": Campaign(
        function=f"{_HERE}.corruption:manifests",
        short={"flips": 8, "cuts": 4},
        full={"flips": 300, "cuts": 100},
        elsewhere=_NO_REPLICA,
    ),
    "bad-events": Campaign(function=f"{_HERE}.bad_events:run", short={"times": 3}, full={"times": 200}),
    "changed-logs": Campaign(function=f"{_HERE}.changed_logs:run", short={"times": 1}, full={"times": 30}),
    "full-disks": Campaign(function=f"{_HERE}.diskfull:run", short={"times": 1}, full={"times": 10}),
    "system-calls": Campaign(function=f"{_HERE}.syscalls:run", short={"times": 2}, full={"times": None}),
    "power-losses": Campaign(
        function=f"{_HERE}.powerloss:run",
        short={"variants": 1, "every": 60},
        full={"variants": 4, "every": 1},
        elsewhere=_LMDB_FILE,
    ),
    "hostile-bytes": Campaign(
        function=f"{_HERE}.hostile:run", short={"times": 10_000}, full={"times": 1_000_000}, elsewhere=_NO_REPLICA
    ),
}
"""By the name that `--only` takes, in the order in which they are run and shown."""
