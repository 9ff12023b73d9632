"""An ingester that is killed, stopped or silent is replaced in time, and one that comes back late changes nothing.

Several mounts at once, each with two processes that read and may ingest, and a stream of writes: what happens to one
mount does not delay another, and most of a takeover is waiting.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ikvcore._registry import load_backend
from ikvcore.models import Sharing
from ikvcore.testing.faults.arena import Arena, until
from ikvcore.testing.faults.marks import Stage
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import Process, Zygote

__all__ = ["run"]

_PACE: Final = 0.01
_LIVE: Final = 10
_INSIDE: Final = (Stage.INSIDE, Stage.TRANSACTION)
_RESUMED: Final = 20.0


@dataclass
class _Tally:
    """What one kind of fault came to, over its mounts."""

    seconds: list[float] = field(default_factory=list)
    fenced: int = 0
    killed: int = 0
    kept: int = 0
    """Silent ones that could not be replaced: struck again."""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    fault: str
    strike: Callable[[_Mount, _Tally], None]
    limit: float
    """Seconds within which another process has committed: a tick, or the silence that is suffered and some. The five
    seconds for which a stopped process has to keep writes from beginning pass at the same time."""
    lanes: int
    """Mounts at once."""


class _Mount:
    """An arena with two readers and a writer, in one thread."""

    def __init__(self, arena: Arena, seed: int) -> None:
        self.arena = arena
        self.dice = random.Random(f"takeover/{seed}")
        self._lives = 0
        self.readers = [self.new_reader(), self.new_reader()]
        self.writer = arena.writer(pace=_PACE)

    def new_reader(self) -> Process:
        self._lives += 1
        return self.arena.reader(f"reader-{self._lives}")

    def ingester(self) -> Process:
        """The one reader that commits, once it has done so for a while and nobody else has."""
        began = {reader.name: reader.marks.get("commits") for reader in self.readers}

        def alone() -> Process | None:
            moved = [reader for reader in self.readers if reader.marks.get("commits") != began[reader.name]]
            if len(moved) > 1:  # the lock changes hands: look again from here
                began.update((reader.name, reader.marks.get("commits")) for reader in self.readers)
                return None
            done = [r for r in moved if r.marks.get("commits") >= began[r.name] + 3 and r.marks.get("applied") >= _LIVE]
            return done[0] if done else None

        found: Process = until(alone, "one process ingests")
        return found

    def replaced(self, victim: Process, since: float) -> float:
        """Wait until another process has committed; the seconds that took."""
        took = self.replaced_or(lambda: False, victim, since)
        assert took is not None
        return took

    def replaced_or(self, else_: Callable[[], bool], victim: Process, since: float) -> float | None:
        """The same; None where `else_` came about instead."""

        def committed() -> float:
            return max((r.marks.last_commit for r in self.readers if r is not victim), default=0.0)

        until(lambda: committed() > since or else_(), f"a successor of {victim.name} commits", 40.0)
        return committed() - since if committed() > since else None

    def replace(self, victim: Process) -> None:
        """A new reader instead of one that has died."""
        self.readers[self.readers.index(victim)] = self.new_reader()

    def resumed(self, victim: Process, commits: int, fenced: int, tally: _Tally) -> None:
        """The victim works again: its first commit is fenced."""
        until(lambda: victim.marks.get("fenced") > fenced or victim.ended, f"{victim.name} is fenced", _RESUMED)
        if victim.ended:
            tally.wrong.append(f"{victim.name} ended with {victim.code} though it was only silent")
            self.replace(victim)
        elif victim.marks.get("commits_at_fence") > commits:
            tally.wrong.append(f"{victim.name} committed after it had been replaced")
        else:
            tally.fenced += 1

    def end(self) -> None:
        """Kill what is left."""
        for process in (self.writer, *self.readers):
            if not process.ended:
                process.kill()


# -- the faults --------------------------------------------------------------------------------


def _kill(mount: _Mount, tally: _Tally) -> None:
    victim = mount.ingester()
    time.sleep(mount.dice.random() * 0.02)
    since = time.monotonic()
    victim.strike()
    tally.seconds.append(mount.replaced(victim, since))
    mount.replace(victim)


def _stop_outside(mount: _Mount, tally: _Tally) -> None:
    victim = mount.ingester()
    while True:
        time.sleep(mount.dice.random() * 0.02)
        victim.stop()
        if victim.marks.stage not in _INSIDE:
            break
        victim.signal(signal.SIGCONT)
    since, commits, fenced = time.monotonic(), victim.marks.get("commits"), victim.marks.get("fenced")
    tally.seconds.append(mount.replaced(victim, since))
    victim.signal(signal.SIGCONT)
    mount.resumed(victim, commits, fenced, tally)


def _stop_inside(mount: _Mount, tally: _Tally) -> None:
    victim = mount.ingester()
    while True:
        deadline = time.monotonic() + 5.0
        while victim.marks.stage is not Stage.TRANSACTION and time.monotonic() < deadline:
            pass  # a sleep would miss it
        victim.stop()
        if victim.marks.stage is Stage.TRANSACTION:
            break
        victim.signal(signal.SIGCONT)
        time.sleep(0.001)
    since, commits, fenced = time.monotonic(), victim.marks.get("commits"), victim.marks.get("fenced")
    tally.seconds.append(mount.replaced(victim, since))
    with suppress(TimeoutError):  # whoever was kept out goes on as the killed one falls, before it is quite gone
        until(victim.gone, "it was killed", 1.0)
    if victim.ended:
        tally.killed += 1
        mount.replace(victim)
    else:  # it had let the engine's lock go already, so it kept nobody out, and nobody had a right to kill it
        victim.signal(signal.SIGCONT)
        mount.resumed(victim, commits + 1, fenced, tally)  # that commit was made before it was stopped


def _hold_gil(mount: _Mount, tally: _Tally) -> None:
    _silence(mount, tally, signal.SIGUSR1)


def _hold_loop(mount: _Mount, tally: _Tally) -> None:
    _silence(mount, tally, signal.SIGUSR2)


def _silence(mount: _Mount, tally: _Tally, number: int) -> None:
    while not _silenced(mount, tally, number):
        tally.kept += 1


def _silenced(mount: _Mount, tally: _Tally, number: int) -> bool:
    """Whether it was replaced. One that fell silent in a write transaction keeps the engine's lock, and nobody may kill
    it, since it is not stopped: it goes on as if nothing had been."""
    victim = mount.ingester()
    stalls = victim.marks.get("stalls")
    victim.signal(number)
    until(lambda: victim.marks.get("stalls") > stalls, "it falls silent")
    since, fenced = time.monotonic(), victim.marks.get("fenced")
    time.sleep(0.05)  # a commit that had begun may end; what it counts, it counts when it can speak again
    inside = victim.marks.stage in _INSIDE
    commits = victim.marks.get("commits") + inside

    def went_on() -> bool:
        return inside and victim.marks.get("commits") > commits

    took = mount.replaced_or(went_on, victim, since)
    if took is None:
        return False
    tally.seconds.append(took)
    mount.resumed(victim, commits, fenced, tally)
    return True


_KINDS: Final = (
    _Kind(fault="ingester killed", strike=_kill, limit=1.0, lanes=1),
    _Kind(fault="ingester stopped (SIGSTOP) outside a commit", strike=_stop_outside, limit=6.0, lanes=2),
    _Kind(fault="ingester stopped (SIGSTOP) inside a commit", strike=_stop_inside, limit=6.0, lanes=2),
    _Kind(fault="ingester silent: one C call of 8 s holds the GIL", strike=_hold_gil, limit=6.0, lanes=2),
    _Kind(fault="ingester silent: its thread is held for 8 s before a commit", strike=_hold_loop, limit=6.0, lanes=2),
)


# -- the campaign ------------------------------------------------------------------------------


def run(
    *,
    times: int,
    seed: int,
    directory: Path,
    pair: Pair,
    slack: float = 1.0,
    only: str = "",
    fault: str | None = None,
) -> Result:
    """Each fault so many times. `slack` stretches the limits, where other work on the machine is not to count.

    only: the faults whose words begin so. fault: FILE.py:FUNCTION that breaks something in every process.
    """
    rows: list[Row] = []
    violations: list[str] = []
    # Where one process may write, nobody can take the place of one that lives.
    alone = load_backend(pair.backend).info.sharing is not Sharing.SHARED
    asked = [kind for kind in _KINDS if kind.fault.startswith(only)]
    kinds = [kind for kind in asked if not alone or kind.strike is _kill]
    chosen = pair.with_durability("process-crash")
    tallies: dict[str, _Tally] = {kind.fault: _Tally() for kind in kinds}
    with Zygote(chosen, directory) as zygote, ThreadPoolExecutor(sum(kind.lanes for kind in kinds)) as pool:
        lanes = [
            pool.submit(
                _lane, kind, share, seed + 100 * number + lane, zygote, directory / f"{number}-{lane}", chosen, fault
            )
            for number, kind in enumerate(kinds)
            for lane, share in enumerate(_shares(times, kind.lanes))
        ]
        for done in lanes:
            kind, tally = done.result()
            total = tallies[kind.fault]
            total.seconds += tally.seconds
            total.fenced += tally.fenced
            total.killed += tally.killed
            total.kept += tally.kept
            total.wrong += tally.wrong
    for kind in kinds:
        tally = tallies[kind.fault]
        limit = kind.limit * slack
        late = [took for took in tally.seconds if took > limit]
        tally.wrong += [f"replaced after {took:.2f} s, the limit is {limit:.0f} s" for took in late]
        rows.append(
            Row(fault=kind.fault, times=times, happened=_words(kind, tally), violations=len(tally.wrong), seed=seed)
        )
        violations += [f"{kind.fault}: {wrong}" for wrong in tally.wrong]
    left = [f"{kind.fault}: the engine lets one process write while it lives" for kind in asked if kind not in kinds]
    return Result(rows=rows, violations=violations, not_run=left)


def _words(kind: _Kind, tally: _Tally) -> str:
    parts = [f"replaced within {max(tally.seconds):.2f} s (median {statistics.median(tally.seconds):.2f} s)"]
    if kind.strike is _stop_inside:
        parts.append(f"{tally.killed} killed after no write could begin for 5 s")
    if kind.strike is not _kill:
        parts.append(f"{tally.fenced} went on later, each fenced at its first commit")
    if tally.kept:
        parts.append(f"{tally.kept} more fell silent with the engine's write lock, and went on")
    return "; ".join(parts)


def _shares(times: int, lanes: int) -> Sequence[int]:
    shares = [times // lanes + (lane < times % lanes) for lane in range(lanes)]
    return [share for share in shares if share]


def _lane(
    kind: _Kind, times: int, seed: int, zygote: Zygote, directory: Path, pair: Pair, fault: str | None
) -> tuple[_Kind, _Tally]:
    """One mount, its faults one after the other, and its check."""
    tally = _Tally()
    arena = Arena(zygote, directory, pair, Workload(seed=seed), partitions=1 + seed % 4, fault=fault)
    mount = _Mount(arena, seed)
    try:
        for _ in range(times):
            kind.strike(mount, tally)
    finally:
        mount.end()
    arena.settle()
    tally.wrong += [str(violation) for violation in arena.check()]
    return kind, tally
