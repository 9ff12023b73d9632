"""What the corruption campaign damages, and what is done with it afterwards, in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ikvcore._damage import Damage
from ikvcore.admin import list_stores
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import LogMessage
from ikvcore.testing.faults.recorder import digest, row_fields
from ikvcore.testing.faults.target import ACCOUNT, PASSKEY, Pair, Target
from ikvcore.testing.faults.timeline import Log, Timeline
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp
from ikvcore.tokens import Token

__all__ = ["HOME", "documents_of", "events_of", "make", "read_log", "read_replica", "sign_in", "suspect", "wrong_reads"]

HOME: Final = "home"
_WORK: Final = Workload(seed=7, keys=300, payload=40)
_PATIENCE: Final = 60.0


def make(directory: str, calls: int, first: int = 0, pair: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A store, a mount that has followed it from half of its calls on, and everything closed. The target's JSON."""
    target = Target.make(Path(directory) / "victim", Pair(**pair or {}), partitions=2)
    _write(target, first, calls // 2)
    with create_new_reader(target.options()):
        _write(target, first + calls // 2, calls - calls // 2)
    with create_new_reader(target.options()):
        pass
    # Files that there are only sometimes; what they say is of a generation before.
    Damage(generation="gen-0", reason="of the campaign").write(target.mount())
    return target.to_json()


def sign_in(target: Mapping[str, Any]) -> int:
    """Verify the passkey, which takes long on purpose, and is remembered by those who are forked afterwards."""
    pair = Target.from_json(target).pair
    return len(list_stores(account_id=ACCOUNT, account_passkey=PASSKEY, transport=pair.transport))


def _write(target: Target, first: int, calls: int) -> Token:
    clock, token = Clock.take_over(), Token()
    with create_new_writer(target.options()) as writer:
        for number in range(first, first + calls):
            clock.now = stamp(0, number)
            token |= perform(writer, _WORK.call(0, number), target.description)
    return token


def suspect(directory: Path) -> None:
    """As after a power loss: what lies in the directory was being written in a boot that is over."""
    (directory / "opened.json").write_text(json.dumps({"boot": "an earlier one", "clean": False}))


def read_replica(target: Mapping[str, Any], expected: Mapping[str, str], more: int) -> dict[str, Any]:
    """Read all of the store in every way; then write `more` calls and compare with the whole log.

    expected: what each key that has a document shows.
    """
    victim = Target.from_json(target)
    wrong: list[str] = []
    with create_new_reader(victim.options()) as reader:
        wrong += wrong_reads(reader, expected, _WORK)
        if more:
            token = _write(victim, 1_000_000, more)
            after = documents_of(_log(victim), _WORK)
            reader.wait_for(token, timeout=_PATIENCE)
            wrong += wrong_reads(reader, after, _WORK)
    return {"wrong": wrong, "generation": (victim.mount() / "CURRENT").read_text().strip()}


def wrong_reads(reader: Any, expected: Mapping[str, str], work: Workload) -> Iterator[str]:
    """What a reader shows, in each of its ways, that is not as expected: key -> digest of the document."""
    keys = work.all_keys()
    for key, row in zip(keys, reader.get_rows(keys), strict=True):
        if digest(row_fields(row)) != expected.get(key):
            yield f"get_rows shows another {key}"
    for key in keys:
        if reader.get_value(key, "id") != (key if key in expected else None):
            yield f"get_value shows another {key}"
    scanned = sorted(key for key, _ in reader.scan())
    if scanned != sorted(expected):
        yield f"scan shows {len(scanned)} documents of {len(expected)}"
    if reader.count() != len(expected):
        yield f"count is {reader.count()}, not {len(expected)}"


def read_log(target: Mapping[str, Any], more: int = 0) -> dict[str, Any]:
    """The log's events as hexadecimal text; also after `more` calls, which are not among them."""
    victim = Target.from_json(target)
    before = events_of(_log(victim))
    if more:
        _write(victim, 1_000_000, more)
        after = events_of(_log(victim))
        kept = all(after[partition][: len(events)] == events for partition, events in before.items())
        if not kept or sum(map(len, after.values())) < sum(map(len, before.values())) + more // 2:
            raise AssertionError("what was in the log changed when more was written")
    return {"events": before, "documents": documents_of(_log(victim), _WORK) if not more else {}}


def _log(victim: Target) -> Log:
    transport = victim.open_log()
    try:
        return Log.read(transport)
    finally:
        transport.close()


def events_of(log: Log) -> dict[str, list[str]]:
    """The log's events as text, by partition."""
    return {str(partition): [_text(message) for message in found] for partition, found in log.messages.items()}


def _text(message: LogMessage) -> str:
    value = b"" if message.value is None else message.value
    return f"{message.position} {message.timestamp} {message.key.hex()} {value.hex()}"


def documents_of(log: Log, work: Workload) -> dict[str, str]:
    """key -> digest, of what there is at the log's end."""
    timeline = Timeline(log)
    found = {}
    for partition, bounds in log.bounds.items():
        for key in work.all_keys():
            if timeline.partition(key) == partition:
                shown = timeline.version(partition, key, bounds.end)
                if shown is not None:
                    found[key] = shown
    return found
