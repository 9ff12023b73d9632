"""kill -9 of writers, ingesters and readers: nothing acknowledged is lost, nothing is invented or applied twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ikvcore.testing.faults.arena import Aim, Arena, until
from ikvcore.testing.faults.checker import Violation
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import Process, Zygote

__all__ = ["LIVE", "ingesters", "readers", "writers"]

LIVE: Final = 10
"""A kill counts after so many events that were acknowledged to, or applied or seen by, the process since it began."""

_ROUND: Final = 50
"""Kills of one store; then it is checked, and another is made, with another number of partitions."""
_INSIDE: Final = 20
"""So many kills at least have to fall inside a commit, where there are enough kills for that."""
_PACE: Final = 0.001

_Round = Callable[[Arena, int, Aim], None]


def writers(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """Two writers of one log beside a reader that ingests."""
    return _campaign("kill -9 of a writer", _kill_writers, times, seed, directory, pair)


def ingesters(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """The process that ingests, which reads too, beside a writer; after each kill its files are looked at."""
    return _campaign("kill -9 of an ingester", _kill_ingesters, times, seed, directory, pair)


def readers(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """A reader that follows, beside a writer and an ingester."""
    fault = "kill -9 of a reader"
    return _campaign(fault, _kill_readers, times, seed, directory, pair, aim=Aim(seed, depth=0.0), keys=400)


def _campaign(
    fault: str,
    play: _Round,
    times: int,
    seed: int,
    directory: Path,
    pair: Pair,
    *,
    aim: Aim | None = None,
    keys: int = 40,
) -> Result:
    of = "a commit" if aim is None else "a read"
    violations: list[Violation] = []
    acknowledged, aim, done = 0, aim or Aim(seed), 0
    with Zygote(pair, directory) as zygote:
        for number in range(-(-times // _ROUND)):
            kills = min(_ROUND, times - done)
            # Every other store takes the faster durability, whose commits are as atomic under a kill.
            chosen = pair if number % 2 == 0 else pair.with_durability("process-crash")
            workload = Workload(seed=seed + number, keys=keys)
            arena = Arena(zygote, directory / f"round-{number}", chosen, workload, partitions=1 + number % 4)
            play(arena, kills, aim)
            arena.settle()
            found = arena.check()
            violations += found
            done += kills
            acknowledged += arena.acknowledged()
    few = [f"only {aim.fell['inside']} kills fell inside {of}"] if aim.fell["inside"] < min(_INSIDE, times // 8) else []
    counts = {check: sum(v.check == check for v in violations) for check in ("acknowledged", "invented", "applied")}
    happened = (
        f"of {of}: {aim.words}; {acknowledged:,} calls acknowledged; {counts['acknowledged']} lost, "
        f"{counts['invented']} invented, {counts['applied']} replicas with events not applied once"
    )
    row = Row(fault=fault, times=times, happened=happened, violations=len(violations), seed=seed)
    return Result(rows=[row], violations=[*map(str, violations), *few])


def _kill_writers(arena: Arena, kills: int, aim: Aim) -> None:
    with _alive(arena.reader("reader", reads=4, pace=0.005)):
        slots = [arena.writer(), arena.writer()]
        for number in range(kills):
            victim = slots[number % 2]
            _strike(victim, "acked", aim)
            slots[number % 2] = arena.writer()
        for process in slots:
            process.strike()


def _kill_ingesters(arena: Arena, kills: int, aim: Aim) -> None:
    with _alive(arena.writer(pace=_PACE)):
        for _ in range(kills):
            _strike(arena.reader("ingester", reads=4, pace=0.002, tokens=True), "applied", aim)
            arena.look()


def _kill_readers(arena: Arena, kills: int, aim: Aim) -> None:
    ingester = arena.reader("ingester")
    until(lambda: ingester.marks.get("commits") or ingester.ended or arena.target.mount().exists(), "a mount")
    with _alive(ingester), _alive(arena.writer(pace=_PACE)):
        until(lambda: ingester.marks.get("applied") >= LIVE or ingester.ended, "the ingester works")
        for _ in range(kills):
            victim = arena.reader("reader", reads=arena.workload.keys, tokens=True, aim_at_reads=True)
            _strike(victim, "seen", aim)


def _strike(victim: Process, counter: str, aim: Aim) -> None:
    """Kill a process that has done enough to count."""
    until(lambda: victim.marks.get(counter) >= LIVE or victim.ended, f"{victim.name} has done {LIVE} events")
    aim.wait(victim)
    victim.strike()
    aim.killed(victim)


@contextmanager
def _alive(process: Process) -> Iterator[None]:
    """Have a process work all the while; that it died by itself is an error."""
    try:
        yield
        if process.ended:
            raise RuntimeError(f"{process.name} ended with {process.code} by itself")
    finally:
        if not process.ended:
            process.kill()
