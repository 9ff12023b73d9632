"""Readers far slower than the writer: what they have not applied waits at the brokers, not in their memory."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ikvcore.testing.faults.arena import Arena
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.zygote import Process, Zygote
from kafka_faults.brokers import a_broker, pair_on
from kafka_faults.scene import wait_until, workload

__all__ = ["run"]

_READERS = 4
_CALLS = 2_400
_BYTES = 100_000
_BOUND = 160.0
"""Megabytes that a reader may have at the most, beside what it has anyway: twice librdkafka's queue of 32, since one is
filled while the other is read, the answer of up to 50 that it has asked the broker for, and a batch. A reader that took
all that it may, 4,000 messages, would have more."""
_SLOWLY = f"{Path(__file__).with_name('slowness.py')}:slowly"


def run(*, times: int, seed: int, directory: Path, pair: Pair, broker: Any = None, fault: str = _SLOWLY) -> Result:
    """Up to four readers of a log at once, each with a mount of its own."""
    seen: list[_Seen] = []
    wrong: list[str] = []
    with a_broker(directory, broker) as broker, Zygote(pair_on(pair, broker.address), directory / "zygote") as zygote:
        chosen = pair_on(pair, broker.address)
        for first in range(0, times, _READERS):
            calls = workload(seed + first, payload=_BYTES, upserts_only=True)
            arena = Arena(zygote, directory / f"log-{first}", chosen, calls, partitions=4, fault=fault)
            mounts = [f"slow-{number}" for number in range(min(_READERS, times - first))]
            seen += _follow(arena, mounts)
            arena.settle(*mounts, rebuild=False)
            wrong += map(str, arena.check())
    most, behind = max(each.grown for each in seen), min(each.behind for each in seen)
    wrong += [f"a reader took {each.grown:.0f} MB more" for each in seen if each.grown > _BOUND]
    wrong += [f"a reader was behind by {each.behind} events only" for each in seen if each.behind < _CALLS // 2]
    words = (
        f"{behind:,} events or more behind a writer of {_CALLS * _BYTES / 1e6:.0f} MB; their memory grew by "
        f"{most:.0f} MB at the most"
    )
    what = "a reader far slower than the writer"
    row = Row(fault=what, times=times, happened=words, violations=len(wrong), seed=seed)
    return Result(rows=[row], violations=wrong)


class _Seen(NamedTuple):
    """One reader."""

    grown: float
    """Megabytes of memory of its own, at the most, beside what it had before the writer began."""
    behind: int
    """Events that it had not applied when the writer was done."""


def _follow(arena: Arena, mounts: Sequence[str]) -> list[_Seen]:
    """Have readers follow a log that is written meanwhile, to its end."""
    readers = [arena.reader(mount, mount=mount) for mount in mounts]
    wait_until(lambda: all((arena.target.mount(each) / "status.json").exists() for each in mounts), "they follow")
    began = most = [_memory(each) for each in readers]
    writer, behind = arena.writer(calls=_CALLS), [_CALLS] * len(readers)
    hurried = False
    while any(each.marks.get("applied") < _CALLS for each in readers):
        if not writer.ended:
            behind = [_CALLS - each.marks.get("applied") for each in readers]
        elif not hurried:  # what was to be seen has been seen
            hurried = True
            for each in readers:
                each.signal(signal.SIGRTMIN)
        if writer.code or any(each.ended for each in readers):
            raise RuntimeError(f"somebody ended too early; see {arena.zygote.said}:\n{arena.zygote.tail()}")
        most = [max(pair) for pair in zip(most, map(_memory, readers), strict=True)]
        time.sleep(0.05)
    for each in readers:
        each.kill()
    return [_Seen(after - before, left) for before, after, left in zip(began, most, behind, strict=True)]


def _memory(process: Process) -> float:
    """Megabytes that are its own: pages of files, such as LMDB's, do not count."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1000
