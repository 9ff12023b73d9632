"""Bad events between good ones, under both policies: one replica halts before each, another passes it over.

Both are followed while the log is written. What halts shows exactly what stood before the bad event, partition by
partition, and says so; when it is opened with the other policy, it goes on and comes to what the model comes to.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ikvcore.errors import IngestHaltedError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.inspection import quarantined_events
from ikvcore.models import Message
from ikvcore.testing._raw_events import INT32, STRING, UNKNOWN, raw_delete_document, raw_upsert
from ikvcore.testing.faults.corruption_apart import Apart
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.timeline import Log, Timeline
from ikvcore.testing.faults.worker import inspect
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp
from ikvcore.tokens import Token

__all__ = ["play", "run"]

_PARTITIONS: Final = 3
_CALLS: Final = 60
_PATIENCE: Final = 60.0
_BAD: Final = (
    b"\xff\xff\xff\xff",
    raw_upsert({"id": (STRING, b"bad"), "x": (STRING, b"text")})[:-1],
    raw_upsert({"x": (STRING, b"1")}),
    raw_upsert({"id": (STRING, b"")}),
    raw_upsert({"id": (UNKNOWN, b"bad")}),
    raw_upsert({"id": (STRING, b"k" * 65_536)}),
    raw_upsert({"id": (STRING, b"\xff")}),
    raw_upsert({"id": (STRING, b"key-1"), "w": (INT32, b"123")}),
    raw_upsert({"id": (STRING, b"key-1"), "f1": (STRING, b"\xed\xa0\x80")}),
    raw_delete_document({"x": (STRING, b"1")}),
)


def run(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """`times` logs."""
    violations: list[str] = []
    bad = 0
    with Apart(directory, pair) as apart:
        for number in range(times):
            place = directory / f"log-{number}"
            arguments: dict[str, Any] = {"directory": str(place), "seed": seed + number, "pair": pair.to_json()}
            ended = apart.run(f"{__name__}:play", home=place.with_suffix(".home"), **arguments)
            wrong = [f"{ended}\n{ended.trace}"] if ended.value is None else ended.value["wrong"]
            bad += 0 if ended.value is None else ended.value["bad"]
            violations += [f"log {number}: {each}" for each in wrong]
    happened = f"{bad:,} bad events, each halted before under one policy and passed over under the other"
    row = Row(
        fault="bad events between good ones", times=times, happened=happened, violations=len(violations), seed=seed
    )
    return Result(rows=[row], violations=violations)


def play(directory: str, seed: int, pair: dict[str, Any]) -> dict[str, Any]:
    """One log, and what was wrong with its replicas."""
    target = Target.make(Path(directory), Pair(**pair).with_durability("process-crash"), partitions=_PARTITIONS)
    halting, passing = target.options("halting"), target.options("passing", on_bad_event="quarantine")
    dice = random.Random(f"bad/{seed}")
    with create_new_reader(halting) as reader, create_new_reader(passing) as other:
        bad, end = _write(target, Workload(seed=seed, keys=20), dice)
        log = _read(target)
        first = {p: min((at for at in bad if at[0] == p), default=(p, log.bounds[p].end))[1] for p in log.bounds}
        wrong = [f"halting: {each}" for each in _halted(reader, end, first)]
        other.wait_for(end, timeout=_PATIENCE)
    wrong += [f"halted: {each}" for each in _differs(target, "halting", log, first)]
    wrong += [f"opened again: {each}" for each in _refused(halting)]
    with create_new_reader(target.options("halting", on_bad_event="quarantine")) as reader:
        if reader.health().state != "ready" or reader.stats().bad_events != len(bad):
            wrong.append(f"after the change of policy: {reader.health()}, {reader.stats().bad_events} bad events")
    ends = {partition: bounds.end for partition, bounds in log.bounds.items()}
    for mount, options in (("halting", halting), ("passing", passing)):
        wrong += [f"{mount}, at the end: {each}" for each in _differs(target, mount, log, ends)]
        kept = {(entry.partition, entry.position) for entry in quarantined_events(options).values()}
        if kept != bad:
            wrong.append(f"{mount}: the quarantine holds {sorted(kept)}, the bad events are {sorted(bad)}")
    return {"wrong": wrong, "bad": len(bad)}


def _write(target: Target, workload: Workload, dice: random.Random) -> tuple[set[tuple[int, int]], Token]:
    """Calls of a writer with bad events between them; where these stand, and the log's end."""
    clock, bad, end = Clock.take_over(), set(), Token()
    harmed = dice.sample(range(_PARTITIONS), dice.randrange(1, _PARTITIONS + 1))
    log = target.open_log()
    with create_new_writer(target.options()) as writer:
        for number in range(_CALLS):
            clock.now = stamp(0, number)
            end |= perform(writer, workload.call(0, number), target.description)
            if dice.random() < 0.15:
                token = log.publish([Message(dice.choice(harmed), b"", dice.choice(_BAD), clock.now)])
                bad |= {(partition, position - 1) for partition, position in token.positions.items()}
                end |= token
    log.close()
    return bad, end


def _halted(reader: Any, end: Token, first: dict[int, int]) -> Iterator[str]:
    """What is wrong with a reader that halts before the first bad event of each partition that has one."""
    for partition, position in first.items():
        reader.wait_for(Token(end.identity, {partition: position}), timeout=_PATIENCE)
    halted = {partition for partition, position in first.items() if position < end.positions.get(partition, 0)}
    for partition in halted:
        try:
            reader.wait_for(Token(end.identity, {partition: first[partition] + 1}), timeout=_PATIENCE)
            yield f"wait_for passed a bad event of partition {partition}"
        except IngestHaltedError as exc:
            if partition not in exc.halts:
                yield f"partition {partition} is not among the halts: {exc}"
    if halted and reader.health().state != "halted":
        yield f"health is {reader.health()}"


def _refused(options: Any) -> Iterator[str]:
    reader = create_new_reader(options)
    try:
        reader.startup(timeout=_PATIENCE)
        yield "startup says nothing of a halt"
    except IngestHaltedError:
        pass
    finally:
        reader.shutdown()


def _differs(target: Target, mount: str, log: Log, positions: dict[int, int]) -> Iterator[str]:
    """How a replica's files differ from the model at these positions."""
    found, timeline = inspect(target, mount), Timeline(log)
    for partition, position in positions.items():
        reached = found.positions.get(partition, 0)
        if reached != position:
            yield f"partition {partition} is at {reached}, not at {position}"
        if found.documents.get(partition, {}) != timeline.documents(partition, position):
            yield f"the documents of partition {partition} are not those of position {position}"
        if found.applied.get(partition, 0) != timeline.messages_before(partition, position):
            yield f"{found.applied.get(partition, 0)} events of partition {partition} count as applied"
    yield from found.findings


def _read(target: Target) -> Log:
    transport = target.open_log()
    try:
        return Log.read(transport)
    finally:
        transport.close()
