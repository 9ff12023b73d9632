"""Readers killed in the middle of a read: what their snapshots held on to is given back, and the files stay small."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from ikvcore.testing.faults.arena import Aim, Arena, until
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import Process, Zygote

__all__ = ["run"]

_KEYS: Final = 150
_PAYLOAD: Final = 2_000
_WARM: Final = 600
"""Events after which the size without a kill is taken: every document was overwritten a few times."""
_BOUND: Final = 8.0
"""How many times that size the files may reach. A reader that is never cleared away keeps every page from then on."""


def run(*, times: int, seed: int, directory: Path, pair: Pair, fault: str | None = None) -> Result:
    """Kill so many readers, each inside a read, while documents are overwritten at a steady pace."""
    workload = Workload(seed=seed, keys=_KEYS, payload=_PAYLOAD, upserts_only=True)
    aim = Aim(seed, longest=0.003, depth=0.0002)
    with Zygote(pair, directory) as zygote:
        chosen = pair.with_durability("process-crash")
        arena = Arena(zygote, directory / "target", chosen, workload, partitions=1, fault=fault)
        ingester, writer = arena.reader("ingester"), arena.writer(pace=0.001)
        until(lambda: ingester.marks.get("applied") >= _WARM or ingester.ended, "documents are overwritten")
        if ingester.ended:
            raise RuntimeError(f"the ingester died: {zygote.tail()}")
        before = largest = _size(arena)
        inside = 0
        while inside < times:
            reader = arena.reader("reader", reads=_KEYS, aim_at_reads=True)
            until(partial(_reads, reader), f"{reader.name} reads")
            aim.inside(reader)
            reader.strike()
            aim.killed(reader)
            inside = aim.fell["inside"]
            largest = max(largest, _size(arena))
        applied = ingester.marks.get("applied")
        for process in (writer, ingester):
            process.strike()
        arena.settle(rebuild=False)
        violations = [str(violation) for violation in arena.check()]
    if largest > _BOUND * before:
        violations.append(f"the files grew from {before:,} to {largest:,} bytes")
    happened = (
        f"{applied:,} events overwrote {_KEYS} documents meanwhile; files of {before / 1e6:.1f} MB reached "
        f"{largest / 1e6:.1f} MB"
    )
    row = Row(
        fault="kill -9 of a reader inside a read",
        times=inside,
        happened=happened,
        violations=len(violations),
        seed=seed,
    )
    return Result(rows=[row], violations=violations)


def _reads(reader: Process) -> bool:
    return reader.marks.get("reads") >= 2 or reader.ended


def _size(arena: Arena) -> int:
    """Bytes of the replica's files, by stat: opening them by other means could harm an engine's locks."""
    mount = arena.target.mount()
    return sum(path.stat().st_size for path in mount.glob("gen-*/*") if path.is_file())
