"""A producer that dies between publishing and the acknowledgement: its events are in the log once, or not at all."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from ikvcore.testing.faults.arena import Arena, until
from ikvcore.testing.faults.marks import Stage
from ikvcore.testing.faults.recorder import History
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.timeline import Log
from ikvcore.testing.faults.workload import expected, unstamp
from ikvcore.testing.faults.zygote import Process, Zygote
from kafka_faults.brokers import a_broker, pair_on
from kafka_faults.scene import read_log, wait_until, workload

__all__ = ["run"]

_LIVE = 10
_DEPTH = 0.003
"""Seconds into a publication that are aimed at; it takes a millisecond or two."""
_AHEAD = 4
"""Writers that are at work at a time, so that the next one is there when one has died."""


def run(*, times: int, seed: int, directory: Path, pair: Pair, broker: Any = None, fault: str | None = None) -> Result:
    """kill -9 of writers of one log inside a publication, beside a reader that ingests."""
    dice = Random(f"producers/{seed}")
    with a_broker(directory, broker) as broker:
        chosen = pair_on(pair, broker.address)
        with Zygote(chosen, directory / "zygote") as zygote:
            arena = Arena(zygote, directory / "store", chosen, workload(seed), partitions=3, fault=fault)
            reader = arena.reader("reader", reads=8, pace=0.01, tokens=True)
            writers = [arena.writer() for _ in range(min(_AHEAD, times))]
            inside = 0
            for number in range(times):
                victim = writers.pop(0)
                inside += _strike(victim, dice)
                if number + _AHEAD < times:
                    writers.append(arena.writer())
            if reader.ended:
                raise RuntimeError(f"the reader ended with {reader.code}; see {zygote.said}:\n{zygote.tail()}")
            reader.kill()
            arena.settle()
            wrong = [str(violation) for violation in arena.check()]
            outcomes = _outcomes(arena, read_log(arena))
    words = f"{inside} inside a publication, of which {outcomes}; {arena.acknowledged():,} calls acknowledged"
    name = "kill -9 of a producer between publishing and acknowledgement"
    row = Row(fault=name, times=times, happened=words, violations=len(wrong), seed=seed)
    return Result(rows=[row], violations=wrong)


def _strike(victim: Process, dice: Random) -> bool:
    """Kill a writer; whether it was inside a publication."""
    wait_until(lambda: victim.marks.get("acked") >= _LIVE or victim.ended, f"{victim.name} works")
    until(lambda: victim.marks.stage is Stage.INSIDE or victim.ended, f"{victim.name} publishes")
    time.sleep(dice.random() ** 2 * _DEPTH)
    victim.kill()
    return victim.marks.stage is Stage.INSIDE


def _outcomes(arena: Arena, log: Log) -> str:
    """What became of the calls that were under way: the last of each writer, if it was not acknowledged."""
    found: Counter[tuple[int, int]] = Counter()
    for messages in log.messages.values():
        found.update(unstamp(message.timestamp or 0, arena.workload.epoch) for message in messages)
    told: Counter[str] = Counter()
    for lines in History.read(arena.target.directory).lives.values():
        last = lines[-1]
        if last["e"] == "call":
            call = (last["w"], last["n"])
            asked = sum(len(events) for events in expected(arena.workload.call(*call), log.store).values())
            there = found[call]
            told["not in the log" if not there else "whole in the log" if there == asked else "in the log in part"] += 1
    return ", ".join(f"{count} {word}" for word, count in sorted(told.items())) or "none"
