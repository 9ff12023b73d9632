"""Retention that cuts off what a stopped reader has not read: it says so, and never goes on behind the gap."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ikvcore._status import Status
from ikvcore.errors import IKVError, LogTrimmedError
from ikvcore.factory import create_new_reader
from ikvcore.testing.faults.arena import Arena
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.timeline import Timeline
from ikvcore.testing.faults.worker import inspect
from ikvcore.testing.faults.zygote import Zygote
from kafka_faults.brokers import Topic, a_broker, pair_on
from kafka_faults.scene import PATIENCE, finished, in_lanes, in_words, read_log, wait_until, workload

__all__ = ["run"]

_FIRST, _UNREAD, _LAST = 60, 120, 20
_TOLD = 20.0
_SEGMENT = 30
"""Milliseconds of the events' times, so about as many calls, after which the broker begins another file."""


def run(
    *,
    times: int,
    seed: int,
    directory: Path,
    pair: Pair,
    lanes: int = 1,
    broker: Any = None,
    fault: str | None = None,
) -> Result:
    """A log whose beginning is cut while one reader is stopped and another is closed; `lanes` of them at once."""
    with a_broker(directory, broker) as broker, Zygote(pair_on(pair, broker.address), directory / "zygote") as zygote:
        chosen = pair_on(pair, broker.address)

        def play(number: int, told: Counter[str]) -> Iterator[str]:
            arena = Arena(zygote, directory / f"log-{number}", chosen, workload(seed + number), fault=fault)
            return _CutLog(arena, told).play(by_size=number % 2 == 1)

        told, wrong = in_lanes(times, lanes, play)
    what, words = "retention cuts off a stopped reader", in_words(told)
    row = Row(fault=what, times=times, happened=words, violations=len(wrong), seed=seed)
    return Result(rows=[row], violations=wrong)


class _CutLog:
    """One store. Mounts: "mount" has followed to the end, "behind" was closed before, "stopped" is held meanwhile."""

    def __init__(self, arena: Arena, told: Counter[str]) -> None:
        self._arena = arena
        self._target = arena.target
        self._topic = Topic(arena.target)
        self._told = told

    def play(self, *, by_size: bool) -> Iterator[str]:
        self._topic.configure(segment_ms=_SEGMENT)
        self._write(_FIRST)
        stopped = self._arena.reader("stopped", mount="stopped", outages=True)
        for mount in ("behind", "mount"):
            self._follow(mount)
        wait_until(lambda: stopped.marks.get("applied") >= self._events(), "the reader has all")
        stopped.stop()
        self._write(_UNREAD)
        self._follow("mount")
        whole = read_log(self._arena)
        self._cut(by_size=by_size)
        self._write(_LAST)
        stopped.signal(signal.SIGCONT)
        log = read_log(self._arena).after(whole)
        yield from self._halts("stopped", "stopped while it was cut")
        stopped.kill()
        yield from self._refuses("behind", "closed while it was cut")
        yield from self._refuses("fresh", "new")
        yield from self._partial()
        self._arena.settle("mount", rebuild=False)
        for mount in ("stopped", "behind"):
            self._arena.look(mount)
        yield from map(str, self._arena.check(log=log))

    # -- the log -------------------------------------------------------------------------------

    def _write(self, calls: int) -> None:
        finished(self._arena, self._arena.writer(calls=calls))

    def _follow(self, mount: str) -> None:
        with create_new_reader(self._target.options(mount)) as reader:
            reader.count()

    def _events(self) -> int:
        transport = self._target.open_log()
        try:
            return sum(end - first for first, end, _ in transport.bounds().values())
        finally:
            transport.close()

    def _cut(self, *, by_size: bool) -> None:
        """Have the broker delete files, until what the stopped ones need next is gone in every partition."""
        needed = inspect(self._target, "behind").positions
        self._topic.configure(**({"retention_bytes": 1_000} if by_size else {"retention_ms": 1}))
        transport = self._target.open_log()
        try:
            wait_until(
                lambda: all(first > needed.get(p, 0) for p, (first, _, _) in transport.bounds().items()),
                "the broker cuts the log",
            )
        finally:
            transport.close()
        self._topic.configure(retention_bytes=-1, retention_ms=-1)

    # -- what its readers say ------------------------------------------------------------------

    def _halts(self, mount: str, what: str) -> Iterator[str]:
        """The process that ingests says by itself what happened."""

        def failure() -> tuple[str, str] | None:
            status = Status.read(self._target.mount(mount))
            return None if status is None else status.failure

        try:
            name, text = wait_until(failure, "it is told", _TOLD)
        except TimeoutError:
            yield f"{what}: nothing was told"
            return
        self._told[f"{what}: {name}"] += 1
        if name != LogTrimmedError.__name__:
            yield f"{what}: {name}: {text}"

    def _refuses(self, mount: str, what: str) -> Iterator[str]:
        reader = create_new_reader(self._target.options(mount))
        try:
            reader.startup(timeout=PATIENCE)
            yield f"{what}: it started, as if nothing were missing"
        except IKVError as exc:
            self._told[f"{what}: {type(exc).__name__}"] += 1
            if not isinstance(exc, LogTrimmedError):
                yield f"{what}: {type(exc).__name__}: {exc}"
        finally:
            reader.shutdown()

    def _partial(self) -> Iterator[str]:
        """Who asks for what is left gets that: the model of the cut log."""
        with create_new_reader(self._target.options("partial", history="partial")) as reader:
            reader.count()
        left, found = Timeline(read_log(self._arena)), inspect(self._target, "partial")
        for partition, (_, end, _) in left.log.bounds.items():
            if found.documents.get(partition, {}) != left.documents(partition, end):
                yield f"opened for what is left: partition {partition} is not what the log comes to"
        self._told["opened for what is left: has it"] += 1
