"""The programs whose writes are recorded, and what is done with what a power loss left of them.

python -m ikvcore.testing.faults.powerloss_victim ROLE TARGET-AS-JSON ACKNOWLEDGEMENTS
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ikvcore import _ingest, _replica
from ikvcore._progress import read_progress
from ikvcore._storage import as_storage
from ikvcore.errors import IKVError, TransportError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import BackendInfo
from ikvcore.protocols import OrderedKeyValue, Storage
from ikvcore.testing.faults.corruption_victim import documents_of, events_of, suspect, wrong_reads
from ikvcore.testing.faults.powerloss_left import Left, put
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.timeline import Log
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp
from ikvcore.testing.faults.workload import expected as expected_of

__all__ = ["CALLS", "count_events", "expected", "make", "open_logs", "open_replicas"]

CALLS: Final = 24
_BEFORE: Final = 60
_WORK: Final = Workload(seed=11, keys=120, payload=30)
_PATIENCE: Final = 60.0

Positions = dict[int, int]


# -- the run that is recorded ------------------------------------------------------------------


def make(directory: str, pair: Mapping[str, Any]) -> dict[str, Any]:
    """A store with some events, and nothing that has it open."""
    target = Target.make(Path(directory) / "victim", Pair(**pair), partitions=2)
    _write(target, 0, _BEFORE, None)
    return target.to_json()


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


def _ingest_twice(target: Target, acknowledgements: int) -> None:
    """Make a mount and fill it, in several commits; close it, open it again, and go on, to die in the end."""
    _ingest._MAX_MESSAGES = 6  # type: ignore[misc]  # several commits, where one would do

    def committed(storage: Storage) -> None:
        os.write(acknowledgements, json.dumps(_positions(storage, target)).encode() + b"\n")

    _watch(lambda storage: _tell_commits(storage, committed))
    with create_new_reader(target.options()):
        pass
    _write(target, _BEFORE, _BEFORE, None)
    create_new_reader(target.options()).startup(timeout=_PATIENCE)


def _watch(opened: Callable[[Storage], None]) -> None:
    """Have `opened` called with each storage that this process's replicas open."""

    def watched(engine: OrderedKeyValue | Storage, backend: BackendInfo) -> Storage:
        storage = as_storage(engine, backend)
        opened(storage)
        return storage

    vars(_replica)["as_storage"] = watched  # what a replica opens its storages with


def _tell_commits(storage: Any, committed: Callable[[Storage], None]) -> None:
    apply = storage.apply

    def told(*args: Any, **more: Any) -> None:
        apply(*args, **more)
        committed(storage)

    storage.apply = told


def _positions(storage: Storage, target: Target) -> Positions:
    partitions = read_progress(storage, range(target.description.partitions)).partitions
    return {partition: done.position for partition, done in partitions.items()}


# -- what should be there ------------------------------------------------------------------------


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


# -- what is there -------------------------------------------------------------------------------


def _made_in(directory: Path, file: str) -> list[Left]:
    """What a power loss may have left of a directory, as the campaign keeps it."""
    found: list[Left] = pickle.loads(Path(file).read_bytes())
    return found


def open_logs(target: dict[str, Any], file: str, events: dict[str, list[str]], least: int, check: bool) -> list[str]:
    """What became of each of some states of the log's directory: "kept", "lost N", "refused", or what is wrong.

    events: the whole log, by partition. least: how many events have to be there. check: whether the log is marked as it
    is where it is written without syncs.
    """
    victim = Target.from_json(target)
    (log,) = Path(os.environ["IKV_HOME"]).glob("accounts/*/stores/*/log")
    words = []
    for left in _made_in(log, file):
        _put(log, left)
        if check:
            suspect(log.parent)
        else:
            (log.parent / "opened.json").unlink(missing_ok=True)
        words.append(_open_log(victim, events, least, check=check))
    return words


def _put(directory: Path, left: Left) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    put(directory, left)


def _open_log(victim: Target, events: dict[str, list[str]], least: int, *, check: bool) -> str:
    try:
        found = events_of(_read(victim))
    except TransportError as exc:
        return "refused" if check and "restore it from a copy" in str(exc) else f"wrong: {exc}"
    if any(events[partition][: len(ours)] != ours for partition, ours in found.items()):
        return "wrong: events that were not written"
    there = sum(map(len, found.values()))
    if there < least:
        return f"lost {least - there}"
    try:
        _write(victim, 1_000_000, 1, None)
    except IKVError as exc:
        return f"wrong: nothing can be written any more: {exc}"
    return "kept"


def open_replicas(target: dict[str, Any], file: str, documents: dict[str, str], least: dict[str, int]) -> list[str]:
    """What became of each of some states of the mount: "kept", "behind", "rebuilt", or what is wrong.

    documents: what there is at the log's end. least: the positions of the last commit that had returned. "behind": it
    was at earlier ones, and caught up; "rebuilt": it was damaged, and that was found. As after a power loss: in another
    boot.
    """
    victim = Target.from_json(target)
    words = []
    for left in _made_in(victim.mount(), file):
        _put(victim.mount(), left)
        _put_into_another_boot(victim.mount() / "opened.json")
        words.append(_open_replica(victim, documents, {int(p): position for p, position in least.items()}))
    return words


def _put_into_another_boot(file: Path) -> None:
    try:
        marked = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return
    file.write_text(json.dumps({**marked, "boot": "an earlier one"}))


def _open_replica(victim: Target, documents: dict[str, str], least: Positions) -> str:
    found: list[Positions] = []
    _watch(lambda storage: found.append(_positions(storage, victim)))
    try:
        with create_new_reader(victim.options()) as reader:
            wrong = list(wrong_reads(reader, documents, _WORK))
    except IKVError as exc:
        return f"wrong: {type(exc).__name__}: {exc}"
    if wrong:
        return f"wrong: {wrong[:3]}"
    if (victim.mount() / "CURRENT").read_text().strip() != "gen-1":
        return "rebuilt"
    return "behind" if any(found[0].get(p, 0) < position for p, position in least.items()) else "kept"


def _main(role: str, target: Target, acknowledgements: str) -> None:
    random.seed(0)
    said = os.open(acknowledgements, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if role == "write":
        _write(target, _BEFORE, CALLS, said)
    else:
        _ingest_twice(target, said)
    os._exit(0)  # nothing is closed in good order


if __name__ == "__main__":
    _main(sys.argv[1], Target.from_json(json.loads(sys.argv[2])), sys.argv[3])
