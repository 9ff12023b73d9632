"""The programs whose writes are recorded, and what is done with what a power loss left of them.

python -m ikvcore.testing.faults.powerloss_victim ROLE TARGET-AS-JSON ACKNOWLEDGEMENTS
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ikvcore import _ingest
from ikvcore.errors import IKVError, TransportError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.corruption_victim import documents_of, events_of, suspect, wrong_reads
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.timeline import Log
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp
from ikvcore.testing.faults.workload import expected as expected_of

__all__ = ["CALLS", "count_events", "expected", "make", "open_logs", "open_replicas", "write_ahead"]

CALLS: Final = 24
_BEFORE: Final = 60
_WORK: Final = Workload(seed=11, keys=120, payload=30)


def _write(target: Target, first: int, calls: int, acknowledgements: int | None) -> None:
    clock = Clock.take_over()
    writer = create_new_writer(target.options())
    writer.startup()
    for number in range(first, first + calls):
        clock.now = stamp(0, number)
        perform(writer, _WORK.call(0, number), target.description)
        if acknowledgements is not None:
            os.write(acknowledgements, b"%d\n" % (number - first + 1))
    if acknowledgements is None:
        writer.shutdown()


def make(directory: str, durability: str) -> dict[str, Any]:
    """A store with some events, a mount that holds them, everything closed; for an ingester, twice as many events."""
    target = Target.make(Path(directory) / "victim", Pair().with_durability(durability), partitions=2)
    _write(target, 0, _BEFORE, None)
    with create_new_reader(target.options()):
        pass
    return target.to_json()


def write_ahead(target: dict[str, Any]) -> None:
    """Events that an ingester will find."""
    _write(Target.from_json(target), _BEFORE, _BEFORE, None)


def count_events(target: dict[str, Any], calls: int) -> int:
    """How many events so many calls of the writer's run make."""
    store = Target.from_json(target).description
    made = [expected_of(_WORK.call(0, _BEFORE + number), store) for number in range(calls)]
    return sum(len(events) for call in made for events in call.values())


def expected(target: dict[str, Any]) -> dict[str, Any]:
    """The whole log: its events, and the documents at its end."""
    log = _read(Target.from_json(target))
    return {"events": events_of(log), "documents": documents_of(log, _WORK)}


def _read(target: Target) -> Log:
    transport = target.open_log()
    try:
        return Log.read(transport)
    finally:
        transport.close()


def open_logs(
    target: dict[str, Any], files: Sequence[str], events: dict[str, list[str]], least: int, check: bool
) -> list[str]:
    """What became of each of some contents of the log's file: "kept", "lost N", "refused", or what is wrong.

    events: the whole log, by partition. least: how many events have to be there. check: whether the log is marked as it
    is where it is written without syncs.
    """
    victim = Target.from_json(target)
    (log,) = Path(os.environ["IKV_HOME"]).glob("accounts/*/stores/*/log")
    words = []
    for file in files:
        (log / "data.mdb").write_bytes(Path(file).read_bytes())
        if check:
            suspect(log.parent)
        else:
            (log.parent / "opened.json").unlink(missing_ok=True)
        try:
            found = events_of(_read(victim))
        except TransportError as exc:
            words.append("refused" if check and "restore it from a copy" in str(exc) else f"wrong: {exc}")
            continue
        if any(events[partition][: len(ours)] != ours for partition, ours in found.items()):
            words.append("wrong: events that were not written")
            continue
        there = sum(map(len, found.values()))
        if there < least:
            words.append(f"lost {least - there}")
            continue
        try:
            _write(victim, 1_000_000, 1, None)
            words.append("kept")
        except IKVError as exc:
            words.append(f"wrong: nothing can be written any more: {exc}")
    return words


def open_replicas(target: dict[str, Any], files: Sequence[str], documents: dict[str, str]) -> list[str]:
    """What became of each of some contents of a replica's file: "kept", "rebuilt", or what is wrong."""
    victim = Target.from_json(target)
    words = []
    for file in files:
        mount = victim.mount()
        for left in mount.glob("gen-[2-9]"):
            for each in left.iterdir():
                each.unlink()
            left.rmdir()
        (mount / "CURRENT").write_text("gen-1\n")
        (mount / "damage.json").unlink(missing_ok=True)
        (mount / "gen-1" / "data.mdb").write_bytes(Path(file).read_bytes())
        suspect(mount)
        try:
            with create_new_reader(victim.options()) as reader:
                wrong = list(wrong_reads(reader, documents, _WORK))
        except IKVError as exc:
            words.append(f"wrong: {exc}")
            continue
        current = (mount / "CURRENT").read_text().strip()
        words.append(f"wrong: {wrong[:3]}" if wrong else "kept" if current == "gen-1" else "rebuilt")
    return words


def _main(role: str, target: Target, acknowledgements: str) -> None:
    random.seed(0)
    if role == "write":
        _write(target, _BEFORE, CALLS, os.open(acknowledgements, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    else:
        _ingest._MAX_MESSAGES = 6  # type: ignore[misc]  # several commits, where one would do
        reader = create_new_reader(target.options())
        reader.startup(timeout=60.0)
    os._exit(0)  # nothing is closed in good order


if __name__ == "__main__":
    _main(sys.argv[1], Target.from_json(json.loads(sys.argv[2])), sys.argv[3])
