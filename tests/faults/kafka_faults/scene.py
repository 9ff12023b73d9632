"""A store that is written and read while its brokers are away: who works on it, and what has to go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ikvcore.testing.faults.arena import Arena, until
from ikvcore.testing.faults.timeline import Log
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import Process

__all__ = ["MOUNTS", "PATIENCE", "Scene", "finished", "in_lanes", "in_words", "read_log", "wait_until", "workload"]

PATIENCE = 120.0
"""Seconds for what a broker's return takes at the most, on a slow machine."""
MOUNTS = ("mount", "other")
_PACE = 0.002
_MORE = 20
_AGO = 20 * 3600 * 1000


def workload(seed: int, **more: Any) -> Workload:
    """Calls of up to 70 writers whose times are of the last 20 hours.

    Of older ones a broker that comes back after a kill forgets who wrote them (producer.id.expiration.ms, a day), and
    would take what is sent again for new.
    """
    return Workload(seed=seed, epoch=int(time.time() * 1000) - _AGO, **more)


class Scene:
    """Two writers, and readers of two mounts: one waits for the log's end now and then, one only reads what it has."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.writers = [arena.writer(pace=_PACE) for _ in range(2)]
        self.waiting = arena.reader("waiting", mount=MOUNTS[0], reads=8, pace=0.01, tokens=True, outages=True)
        self.looking = arena.reader("looking", mount=MOUNTS[1], reads=8, pace=0.01, outages=True)

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [*self.writers, self.waiting, self.looking]

    def wait_for_writes(self) -> None:
        """Until each writer has had some more calls acknowledged, and each replica has applied some more."""
        acked = [(each, each.marks.get("acked") + _MORE) for each in self.writers]
        applied = [(each, each.marks.get("applied") + _MORE) for each in (self.waiting, self.looking)]
        self._wait(lambda: all(each.marks.get("acked") >= wanted for each, wanted in acked), "writes go on")
        self._wait(lambda: all(each.marks.get("applied") >= wanted for each, wanted in applied), "ingest goes on")

    def wait_for_reads(self) -> None:
        """Until the reader that asks the log for nothing has read some more."""
        wanted = self.looking.marks.get("reads") + _MORE
        self._wait(lambda: self.looking.marks.get("reads") >= wanted, "reads go on")

    def _wait(self, true: Any, what: str) -> None:
        wait_until(lambda: true() or any(each.ended for each in self.processes), what)
        dead = [f"{each.name} ended with {each.code}" for each in self.processes if each.ended]
        if dead:
            raise RuntimeError(f"{', '.join(dead)}; see {self.arena.zygote.said}:\n{self.arena.zygote.tail()}")

    def end(self) -> None:
        """Kill what is left."""
        for each in self.processes:
            if not each.ended:
                each.kill()

    def violations(self) -> list[str]:
        """After its end: let every replica catch up, and compare."""
        self.arena.settle(*MOUNTS)
        return [str(violation) for violation in self.arena.check()]


def wait_until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """See `until`; several of these wait at a time, so each looks less often."""
    return until(true, what, patience, look=0.01)


def in_lanes(
    times: int, lanes: int, play: Callable[[int, Counter[str]], Iterable[str]]
) -> tuple[Counter[str], list[str]]:
    """`play` so many times, in so many threads, since most of it is waiting; what it told, and what was wrong.

    It is called with its number and with what it is to tell in.
    """

    def played(number: int) -> tuple[Counter[str], list[str]]:
        told: Counter[str] = Counter()
        return told, [f"number {number}: {wrong}" for wrong in play(number, told)]

    told: Counter[str] = Counter()
    wrong: list[str] = []
    with ThreadPoolExecutor(lanes) as pool:
        for some, more in pool.map(played, range(times)):
            told += some
            wrong += more
    return told, wrong


def in_words(told: Counter[str]) -> str:
    """How often each was told."""
    return ", ".join(f"{count:,} {word}" for word, count in sorted(told.items()))


def finished(arena: Arena, *writers: Process) -> None:
    """Wait for writers that end by themselves. Raises RuntimeError where one failed."""
    for each in writers:
        wait_until(each.gone, f"{each.name} ends")
        if each.code:
            raise RuntimeError(f"{each.name} failed; see {arena.zygote.said}:\n{arena.zygote.tail()}")


def read_log(arena: Arena) -> Log:
    """All that the log has now."""
    transport = arena.target.open_log()
    try:
        return Log.read(transport)
    finally:
        transport.close()
