"""A topic that is deleted and made again under a live store: who followed it is told, and applies nothing of the new.

The new topic is written past the place where the readers were, so that their positions would fit it.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from ikvcore._status import Status
from ikvcore.errors import IKVError, LogDivergedError
from ikvcore.factory import create_new_reader
from ikvcore.testing._raw_events import STRING, raw_upsert
from ikvcore.testing.faults.arena import Arena
from ikvcore.testing.faults.checker import Checker
from ikvcore.testing.faults.marks import Stage
from ikvcore.testing.faults.recorder import History
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.timeline import Log
from ikvcore.testing.faults.workload import unstamp
from ikvcore.testing.faults.zygote import Process, Zygote
from kafka_faults.brokers import Topic, a_broker, pair_on
from kafka_faults.scene import PATIENCE, in_lanes, in_words, read_log, wait_until, workload

__all__ = ["run"]

_CALLS = 60
_LEARNS = 5.0
_TOLD = 30.0
_SLACK = 5.0
"""The machine's, where brokers and many processes share it."""
_OTHER = raw_upsert({"id": (STRING, b"key-1"), "x": (STRING, b"somebody else's")})


def run(
    *, times: int, seed: int, directory: Path, pair: Pair, lanes: int = 1, broker: Any = None, fault: str | None = None
) -> Result:
    """`lanes` topics at once. `fault` is put into readers and writers."""
    with a_broker(directory, broker) as broker, Zygote(pair_on(pair, broker.address), directory / "zygote") as zygote:
        chosen = pair_on(pair, broker.address)

        def play(number: int, told: Counter[str]) -> Iterator[str]:
            arena = Arena(zygote, directory / f"log-{number}", chosen, workload(seed + number), fault=fault)
            return _Recreated(arena, told).play()

        told, wrong = in_lanes(times, lanes, play)
    what, words = "a topic deleted and made again", in_words(told)
    row = Row(fault=what, times=times, happened=words, violations=len(wrong), seed=seed)
    return Result(rows=[row], violations=wrong)


class _Recreated:
    """One store, with a writer and two readers of mounts of their own; one of these is stopped meanwhile."""

    def __init__(self, arena: Arena, told: Counter[str]) -> None:
        self._arena = arena
        self._topic = Topic(arena.target)
        self._told = told

    def play(self) -> Iterator[str]:
        writer = self._arena.writer(pace=0.005)
        live = self._arena.reader("live", mount="live", reads=8, pace=0.01, outages=True)
        held = self._arena.reader("held", mount="held", outages=True)
        wait_until(lambda: writer.marks.get("acked") >= _CALLS, "calls")
        wait_until(lambda: min(each.marks.get("applied") for each in (live, held)) >= _CALLS, "they follow")
        held.stop()
        _stop_between_calls(writer)
        old = read_log(self._arena)
        self._topic.make_again()
        made = time.monotonic()
        self._fill(old)
        writer.signal(signal.SIGCONT)
        held.signal(signal.SIGCONT)
        yield from self._halts("live", "a reader that went on", made)
        yield from self._halts("held", "a reader that was stopped", made)
        yield from self._learns(writer, made)
        for each in (writer, live, held):
            yield from [f"{each.name} ended with {each.code} by itself"] if each.ended else []
            if not each.ended:
                each.kill()
        yield from self._refuses("live")
        yield from self._violations(old)

    # -- the logs ------------------------------------------------------------------------------

    def _fill(self, old: Log) -> None:
        """Somebody else writes to the new topic, past every place that the old one had."""
        servers = self._arena.target.pair.transport_options["bootstrap_servers"]
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
        for partition, bounds in old.bounds.items():
            for _ in range(bounds.end + 50):
                producer.produce(self._topic.name, _OTHER, b"key-1", partition)
        if producer.flush(PATIENCE):
            raise RuntimeError("the new topic could not be written")

    # -- what is said --------------------------------------------------------------------------

    def _halts(self, mount: str, what: str, made: float) -> Iterator[str]:
        def failure() -> tuple[str, str] | None:
            status = Status.read(self._arena.target.mount(mount))
            told = None if status is None else status.failure
            return told if told is not None and told[0] == LogDivergedError.__name__ else None

        try:
            wait_until(failure, "it is told", _TOLD)
        except TimeoutError:
            status = Status.read(self._arena.target.mount(mount))
            yield f"{what}: nothing was told but {status}"
            return
        self._told[f"{what}: LogDivergedError"] += 1
        if time.monotonic() - made > 2 * _LEARNS + _SLACK:
            yield f"{what}: it was told after {time.monotonic() - made:.1f} s"

    def _learns(self, writer: Process, made: float) -> Iterator[str]:
        """A writer is told within five seconds; from then on no call is acknowledged."""
        time.sleep(max(0.0, made + _LEARNS + _SLACK - time.monotonic()))
        acked = writer.marks.get("acked")
        time.sleep(0.5)
        if writer.marks.get("acked") != acked:
            yield f"calls of a writer are still acknowledged {_LEARNS + _SLACK:.0f} s later"
        history = History.read(self._arena.target.directory)
        last = [line for line in history.lives[writer.name] if line["e"] in ("acked", "failed")][-1]
        if last["e"] != "failed" or not last["error"].startswith(LogDivergedError.__name__):
            yield f"a writer was not told: {last}"
        self._told["a writer: LogDivergedError"] += 1

    def _refuses(self, mount: str) -> Iterator[str]:
        reader = create_new_reader(self._arena.target.options(mount))
        try:
            reader.startup(timeout=PATIENCE)
            yield "opened again: it started, as if it were the same log"
        except IKVError as exc:
            self._told[f"opened again: {type(exc).__name__}"] += 1
            if not isinstance(exc, LogDivergedError):
                yield f"opened again: {type(exc).__name__}: {exc}"
        finally:
            reader.shutdown()

    # -- the model -----------------------------------------------------------------------------

    def _violations(self, old: Log) -> Iterator[str]:
        """Replicas are the model of the old log; each acknowledged call is in the old one, or in the new one as long as
        its writer could not know."""
        for mount in ("live", "held"):
            self._arena.look(mount)
        new = read_log(self._arena)
        epoch = self._arena.workload.epoch
        others = {(p, m.position) for p, found in new.messages.items() for m in found if m.value == _OTHER}
        ours = [m for p, found in new.messages.items() for m in found if (p, m.position) not in others]
        late = {unstamp(message.timestamp or 0, epoch) for message in ours}
        lives = History.read(self._arena.target.directory).lives
        before = History({name: [x for x in lines if _call(x) not in late] for name, lines in lives.items()})
        after = History({name: [x for x in lines if _call(x) in late] for name, lines in lives.items()})
        yield from map(str, self._arena.check(log=old, history=before))
        checker = Checker(self._arena.target, self._arena.workload, log=new, history=after, foreign=others)
        yield from map(str, checker.events())
        self._told["calls acknowledged by the new topic meanwhile"] += len(late)


def _call(line: dict[str, Any]) -> tuple[int, int] | None:
    return (line["w"], line["n"]) if "w" in line else None


def _stop_between_calls(writer: Process) -> None:
    """SIGSTOP at a moment when nothing of it is under way."""
    while True:
        writer.stop()
        if writer.marks.stage is not Stage.INSIDE:
            return
        writer.signal(signal.SIGCONT)
        time.sleep(0.003)
