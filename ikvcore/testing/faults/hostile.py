"""Mutated events, records, log entries, tokens and files: what cannot be taken is refused as declared, in bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ikvcore.testing.faults.corruption_apart import Apart
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair

__all__ = ["run"]

_VICTIM: Final = "ikvcore.testing.faults.hostile_victim"
_MEMORY: Final = 1 << 30
_SHARES: Final = {
    "events": 0.4,
    "records": 0.2,
    "log entries": 0.15,
    "tokens": 0.15,
    "positions": 0.05,
    "manifests": 0.05,
}
_PORTION: Final = 20_000
"""Inputs of one process: a signal or a lack of memory is laid at the door of so many."""


def run(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """`times` inputs in all."""
    rows, violations = [], []
    home = directory / "home"
    home.mkdir(parents=True)
    with Apart(directory, pair) as apart:
        for kind, share in _SHARES.items():
            taken = refused = wrong = 0
            inputs = round(times * share)
            for first in range(0, inputs, _PORTION):
                ended = apart.run(
                    f"{_VICTIM}:feed",
                    home=home,
                    limits={"RLIMIT_AS": _MEMORY},
                    kind=kind,
                    seed=seed * 1_000_003 + first,
                    inputs=min(_PORTION, inputs - first),
                )
                if ended.value is None:
                    wrong += 1
                    violations.append(f"{kind}, from input {first}: {ended}\n{ended.trace}")
                    continue
                taken += ended.value["taken"]
                refused += ended.value["refused"]
                wrong += ended.value["wrong"]
                violations += ended.value["shown"]
            happened = f"{taken:,} taken, {refused:,} refused with the declared error"
            rows.append(
                Row(fault=f"hostile bytes: {kind}", times=inputs, happened=happened, violations=wrong, seed=seed)
            )
    return Result(rows=rows, violations=violations)
