"""Bad messages between good ones, sent by a program that is none of ours.

One replica halts right before the first of each partition, another passes them over; in the end both come to the
model's documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import Producer

from ikvcore._status import Status
from ikvcore.inspection import quarantined_events
from ikvcore.testing._raw_events import STRING, raw_upsert
from ikvcore.testing.faults.arena import Arena
from ikvcore.testing.faults.recorder import Inspection
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.timeline import Log
from ikvcore.testing.faults.worker import inspect
from ikvcore.testing.faults.zygote import Process, Zygote
from kafka_faults.brokers import Topic, a_broker, pair_on
from kafka_faults.scene import PATIENCE, in_lanes, in_words, read_log, wait_until, workload

__all__ = ["run"]

_PARTITIONS = 3
_MOST = 6
_BETWEEN = 15
"""Calls of the writer between two bad messages."""
_BAD = (
    b"\xff\xff\xff\xff",
    raw_upsert({"x": (STRING, b"no key")}),
    raw_upsert({"id": (STRING, b"\xff")}),
    raw_upsert({"id": (STRING, b"key-1"), "x": (STRING, b"text")})[:-1],
)

Places = set[tuple[int, int]]


def run(
    *, times: int, seed: int, directory: Path, pair: Pair, lanes: int = 1, broker: Any = None, fault: str | None = None
) -> Result:
    """`times` logs with one to six bad messages each."""
    with a_broker(directory, broker) as broker, Zygote(pair_on(pair, broker.address), directory / "zygote") as zygote:
        chosen = pair_on(pair, broker.address)

        def play(number: int, told: Counter[str]) -> Iterator[str]:
            place, calls = directory / f"log-{number}", workload(seed + number)
            arena = Arena(zygote, place, chosen, calls, partitions=_PARTITIONS, fault=fault)
            return _Poisoned(arena, Random(f"poison/{seed + number}"), told).play()

        told, wrong = in_lanes(times, lanes, play)
    what, words = "bad messages between good ones", in_words(told)
    row = Row(fault=what, times=times, happened=words, violations=len(wrong), seed=seed)
    return Result(rows=[row], violations=wrong)


class _Poisoned:
    """One store. Mounts: "halting" stops before bad messages, "passing" keeps them in its quarantine."""

    def __init__(self, arena: Arena, dice: Random, told: Counter[str]) -> None:
        self._arena = arena
        self._dice = dice
        self._told = told
        self._topic = Topic(arena.target)

    def play(self) -> Iterator[str]:
        writer = self._arena.writer(pace=0.003)
        halting = self._arena.reader("halting", mount="halting", reads=8, pace=0.01, outages=True)
        more = {"tokens": True, "on_bad_event": "quarantine"}
        passing = self._arena.reader("passing", mount="passing", reads=8, pace=0.01, **more)
        bad = {place for _ in range(self._dice.randint(1, _MOST)) for place in self._poison(writer)}
        self._wait_for(writer)
        writer.kill()
        log = read_log(self._arena)
        wait_until(lambda: passing.marks.get("applied") >= _length(log) or passing.ended, "all is passed")
        yield from self._halted(bad, log)
        for each in (halting, passing):
            yield from [f"{each.name} ended with {each.code} by itself"] if each.ended else []
            each.kill()
        self._arena.look("halting")
        yield from self._stands_before(bad, inspect(self._arena.target, "halting"), log)
        self._arena.settle("halting", "passing", on_bad_event="quarantine")
        yield from self._quarantine(bad)
        yield from map(str, self._arena.check(foreign=bad))
        self._told["bad messages, each halted before and each passed over"] += len(bad)

    def _wait_for(self, writer: Process) -> None:
        wanted = writer.marks.get("acked") + _BETWEEN
        wait_until(lambda: writer.marks.get("acked") >= wanted or writer.ended, "calls")

    def _poison(self, writer: Process) -> Places:
        """Send a bad message after some good ones; where it stands."""
        self._wait_for(writer)
        servers = self._arena.target.pair.transport_options["bootstrap_servers"]
        producer, found = Producer({"bootstrap.servers": servers}), []
        producer.produce(
            self._topic.name,
            self._dice.choice(_BAD),
            b"key-1",
            self._dice.randrange(_PARTITIONS),
            on_delivery=lambda error, message: found.append((error, message)),
        )
        producer.flush(PATIENCE)
        ((error, message),) = found
        if error is not None:
            raise RuntimeError(f"the bad message was not taken: {error}")
        return {(message.partition(), message.offset())}

    # -- what is looked at ---------------------------------------------------------------------

    def _halted(self, bad: Places, log: Log) -> Iterator[str]:
        """The process says which partitions have halted: those with a bad message, and no other."""
        harmed = {partition for partition, _ in bad}

        def halts() -> set[int]:
            status = Status.read(self._arena.target.mount("halting"))
            return set() if status is None else set(status.halts)

        try:
            wait_until(lambda: halts() == harmed, "the halts")
        except TimeoutError:
            yield f"halted are {halts()}, bad messages are in {harmed}"
        others = set(log.bounds) - harmed

        def rest() -> bool:
            found = inspect(self._arena.target, "halting").positions
            return all(found.get(p, log.bounds[p].first) == log.bounds[p].end for p in others)

        wait_until(rest, "partitions without bad messages go on")

    def _stands_before(self, bad: Places, found: Inspection, log: Log) -> Iterator[str]:
        for partition, bounds in log.bounds.items():
            first = min((position for p, position in bad if p == partition), default=bounds.end)
            reached = found.positions.get(partition, bounds.first)
            if reached != first:
                yield f"halting: partition {partition} is at {reached}, its first bad message at {first}"

    def _quarantine(self, bad: Places) -> Iterator[str]:
        for mount in ("halting", "passing"):
            options = self._arena.target.options(mount, on_bad_event="quarantine")
            kept = {(each.partition, each.position) for each in quarantined_events(options).values()}
            if kept != bad:
                yield f"{mount}: the quarantine holds {sorted(kept)}, the bad messages are {sorted(bad)}"


def _length(log: Log) -> int:
    return sum(len(messages) for messages in log.messages.values())
