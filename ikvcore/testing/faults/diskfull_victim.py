"""What the disk-full campaigns do in processes of their own, on a file system or under a limit that runs out."""

from __future__ import annotations

import os
import random
import resource
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from ikvcore.client import IKVReader, IKVWriter
from ikvcore.document import IKVDocument
from ikvcore.errors import IKVError, StorageFullError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.timeline import Log
from ikvcore.tokens import Token

__all__ = ["empty", "fill", "fill_log", "fill_replica", "look_at_log", "look_at_replica", "make"]

_PATIENCE: Final = 60.0
_REFUSALS: Final = 10
_AFTERWARDS: Final = 30
_MANY: Final = 20_000
"""More than would fit."""
_PORTIONS: Final = 6
_PORTION: Final = 100_000
"""Bytes of documents that are written before it is looked whether the disk is full; not much more than fits."""


class _Space(Protocol):
    def take(self) -> None:
        """Leave less than is needed soon."""

    def give(self) -> None:
        """Leave enough again."""


class _Filler:
    """A file that takes what is left of a small file system, but for `leave` bytes."""

    def __init__(self, place: Path, leave: int) -> None:
        self._file, self._place, self._leave = place / "filler", place, leave

    def take(self) -> None:
        space = os.statvfs(self._place)
        size = space.f_bavail * space.f_frsize - self._leave
        fd = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, max(size, 1))
        finally:
            os.close(fd)

    def give(self) -> None:
        self._file.unlink()


class _Limit:
    """A limit on the size of files: `leave` bytes more than a file has."""

    def __init__(self, file: Callable[[], Path], leave: int) -> None:
        self._file, self._leave = file, leave

    def take(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._file().stat().st_size + self._leave, hard))

    def give(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def make(directory: str, pair: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A store, as the JSON of its target."""
    return Target.make(Path(directory), Pair(**pair or {}), partitions=2).to_json()


def fill_log(target: dict[str, Any], place: str | None, leave: int, seed: int, rounds: int) -> dict[str, Any]:
    """Write until there is no space, some times over; what went wrong."""
    victim, refused = Target.from_json(target), 0
    wrong: list[str] = []
    acknowledged: dict[str, Token] = {}
    space: _Space = _Limit(lambda: _data_file("accounts/*/stores/*/log"), leave)
    if place is not None:
        space = _Filler(Path(place), leave)
    dice = random.Random(seed)
    with create_new_writer(victim.options()) as writer:
        for round_number in range(rounds):
            space.take()
            after = 0
            while after < _REFUSALS:
                key = f"{round_number}/{len(acknowledged)}/{refused}"
                try:
                    acknowledged[key] = _write(writer, dice, key)
                except StorageFullError:
                    refused, after = refused + 1, after + 1
                except IKVError as exc:
                    wrong.append(f"a full disk was told as {type(exc).__name__}: {exc}")
                    after += 1
                if len(acknowledged) > _MANY:
                    raise AssertionError("the disk was never full")
            wrong += _compare(victim, acknowledged)
            space.give()
            for number in range(_AFTERWARDS):
                key = f"{round_number}/again/{number}"
                acknowledged[key] = _write(writer, dice, key)
            wrong += _compare(victim, acknowledged)
    return {"wrong": wrong, "acknowledged": len(acknowledged), "refused": refused}


def fill_replica(target: dict[str, Any], place: str | None, leave: int, seed: int, rounds: int) -> dict[str, Any]:
    """Follow a log until there is no space for it, some times over; what went wrong."""
    victim, full = Target.from_json(target), 0
    wrong: list[str] = []
    space: _Space = _Limit(lambda: victim.replica_files()[0], leave)
    if place is not None:
        space = _Filler(Path(place), leave)
    log = _Writer(victim, random.Random(seed))  # a limit is not its own
    with create_new_reader(victim.options()) as reader:
        reader.wait_for(log.write("first"), timeout=_PATIENCE)
        for round_number in range(rounds):
            space.take()
            for number in range(_PORTIONS):
                before = sum(map(len, log.written.values()))
                while sum(map(len, log.written.values())) < before + leave // 2 + _PORTION:
                    token = log.write(f"{round_number}/{number}/{len(log.written)}")
                try:
                    reader.wait_for(token, timeout=_PATIENCE)
                except IKVError:  # which one is looked at below
                    full += 1
                    break
            error = reader.stats().last_error or "nothing"
            if not error.startswith("no space left"):
                wrong.append(f"a full disk was told as {error!r}")
            if reader.get_value("first", "payload") != log.written["first"]:
                wrong.append("what was there before the disk was full is read wrong")
            space.give()
            if not _wait(lambda: reader.health().state != "halted"):
                wrong.append("ingest did not go on by itself when there was space again")
            reader.wait_for(log.write(f"{round_number}/last"), timeout=_PATIENCE)
            wrong += _compare_reads(reader, log.written)
    log.end()
    return {"wrong": wrong, "acknowledged": len(log.written), "refused": full}


class _Writer:
    """A forked process that writes a document whenever it is told to."""

    def __init__(self, victim: Target, dice: random.Random) -> None:
        """Forks, so nothing may be open yet."""
        self.written: dict[str, bytes] = {}
        self._dice = dice
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            try:
                self._serve(victim, theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._pipe = ours.makefile("rw")
        ours.close()

    def _serve(self, victim: Target, theirs: socket.socket) -> None:
        pipe = theirs.makefile("rw")
        with create_new_writer(victim.options()) as writer:
            for line in pipe:
                token = writer.upsert_fields(_document(self._dice, line.strip(), self.written))
                pipe.write(f"{token}\n")
                pipe.flush()

    def write(self, key: str) -> Token:
        """A document of its own size under this key; returns when that is acknowledged."""
        _document(self._dice, key, self.written)
        self._pipe.write(f"{key}\n")
        self._pipe.flush()
        return Token.parse(self._pipe.readline().strip())

    def end(self) -> None:
        """Have it end."""
        self._pipe.close()
        os.waitpid(self._pid, 0)


def look_at_log(target: dict[str, Any]) -> int:
    """Open the log in another process, and read all of it."""
    return sum(len(found) for found in _read(Target.from_json(target)).messages.values())


def look_at_replica(target: dict[str, Any]) -> int:
    """Open the mount in another process, and read all of it."""
    reader = create_new_reader(Target.from_json(target).options())
    reader.startup(timeout=_PATIENCE, allow_stale=True)
    try:
        return sum(1 for _ in reader.scan())
    finally:
        reader.shutdown()


def fill(place: str, leave: int) -> None:
    """Leave so little."""
    _Filler(Path(place), leave).take()


def empty(place: str) -> None:
    """Remove everything."""
    for each in Path(place).iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()


def _write(writer: IKVWriter, dice: random.Random, key: str) -> Token:
    return writer.upsert_fields(_document(dice, key, {}))


def _document(dice: random.Random, key: str, written: dict[str, bytes]) -> IKVDocument:
    written[key] = dice.randbytes(dice.choice([10, 700, 5_000]))
    return IKVDocument.from_dict({"id": key, "payload": written[key]})


def _read(victim: Target) -> Log:
    transport = victim.open_log()
    try:
        return Log.read(transport)
    finally:
        transport.close()


def _compare(victim: Target, acknowledged: dict[str, Token]) -> list[str]:
    log = _read(victim)
    found = sum(len(messages) for messages in log.messages.values())
    ends = {partition: bounds.end for partition, bounds in log.bounds.items()}
    lost = [key for key, token in acknowledged.items() if any(ends[p] < end for p, end in token.positions.items())]
    if lost or found != len(acknowledged):
        return [f"{len(acknowledged)} writes were acknowledged, the log has {found}; lost {lost[:3]}"]
    return []


def _compare_reads(reader: IKVReader, written: dict[str, bytes]) -> list[str]:
    wrong = [key for key, payload in written.items() if reader.get_value(key, "payload") != payload]
    if wrong or reader.count() != len(written):
        return [f"{len(wrong)} documents are read wrong, {wrong[:3]}; count {reader.count()} of {len(written)}"]
    return []


def _wait(condition: Callable[[], bool], patience: float = _PATIENCE) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _data_file(pattern: str) -> Path:
    (found,) = Path(os.environ["IKV_HOME"]).glob(f"{pattern}/data.mdb")
    return found
