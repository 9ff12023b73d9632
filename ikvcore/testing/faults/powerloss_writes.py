"""The writes of a run, as strace saw them, and the files that a power loss may leave of them.

A write that was not followed by a sync may be on the disk, or not, or in part, sector by sector, whatever came before
or after it. A write through a descriptor that was opened with O_DSYNC is on the disk when the call has returned.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Acknowledged", "Synced", "Trace", "Written", "left_behind", "read_trace"]

_SECTORS: Final = (512, 4096)
_CALL: Final = re.compile(r"^(\d+) +(\w+)\((.*)$", re.DOTALL)
_RESUMED: Final = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_FILE: Final = re.compile(r"^(\d+)<([^>]*)>")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Written(NamedTuple):
    """Bytes that were handed to the system."""

    offset: int
    data: bytes
    through: bool
    """Whether they were on the disk when the call returned."""


class Synced(NamedTuple):
    """All that was written before is on the disk."""


class Acknowledged(NamedTuple):
    """The program said that so many of its calls had returned."""

    calls: int


Step = Written | Synced | Acknowledged


@dataclass(frozen=True)
class Trace:
    """A run, as far as it concerns one file."""

    before: bytes
    """The file's content when the run began, all of it on the disk."""
    steps: Sequence[Step]


def read_trace(trace: Path, file: Path, acknowledgements: Path, before: bytes) -> Trace:
    """The writes to `file`, and what was written to `acknowledgements`, in what strace -f -y -xx wrote."""
    steps: list[Step] = []
    through: set[str] = set()
    places: dict[str, int] = {}
    begun: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        resumed = _RESUMED.match(line)
        call = _CALL.match(line)
        if resumed:
            name, rest = resumed[2], begun.pop(resumed[1], "") + resumed[3]
        elif call and call[3].endswith("<unfinished ...>"):
            begun[call[1]] = call[3].removesuffix("<unfinished ...>")
            continue
        elif call:
            name, rest = call[2], call[3]
        else:
            continue
        if name == "openat":
            opened = re.search(r"= (\d+)<([^>]*)>$", rest)
            if opened and _plain(opened[2]) == str(file):
                (through.add if re.search(r"O_D?SYNC", rest) else through.discard)(opened[1])
            continue
        target = _FILE.match(rest)
        if target is None or " = -1 " in rest:
            continue
        descriptor, path = target[1], _plain(target[2])
        if path == str(acknowledgements) and name == "write":
            steps.append(Acknowledged(int(_bytes(rest)[-1].split()[-1])))
        elif path == str(file):
            if name == "lseek":
                places[descriptor] = int(rest.rpartition("= ")[2])
            elif name == "pwrite64":
                offset = int(rest.rpartition(")")[0].rpartition(", ")[2])
                steps.append(Written(offset, _bytes(rest)[0], descriptor in through))
            elif name in ("writev", "pwritev"):
                at = places[descriptor]
                if name == "pwritev":
                    at = int(rest.rpartition(")")[0].rpartition(", ")[2])
                data = b"".join(_bytes(rest))
                places[descriptor] = at + len(data)
                steps.append(Written(at, data, descriptor in through))
            elif name in ("fdatasync", "fsync"):
                steps.append(Synced())
    return Trace(before, steps)


def _plain(path: str) -> str:
    """strace escapes paths as it does data."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path)


def _bytes(rest: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(rest)]


def left_behind(trace: Trace, cut: int, seed: object, variants: int) -> Iterator[bytes]:
    """Contents that the file may have after a power loss before step `cut`: the extremes, and `variants` others."""
    durable = bytearray(trace.before)
    pending: list[Written] = []
    steps = trace.steps[:cut]
    for number, step in enumerate(steps):
        if isinstance(step, Synced):
            for written in pending:
                _put(durable, written)
            pending.clear()
        elif isinstance(step, Written):
            # One that is the last may still be under way.
            if step.through and number + 1 < len(steps):
                _put(durable, step)
            else:
                pending.append(step)
    yield bytes(durable)
    if not pending:
        return
    yield _with(durable, pending)
    yield _with(durable, pending[-1:])
    dice = random.Random(f"{seed}/{cut}")
    for _ in range(variants):
        sector = dice.choice(_SECTORS)
        likely = dice.random()
        yield _with(
            durable, [part for written in pending for part in _sectors(written, sector) if dice.random() < likely]
        )


class _Part(NamedTuple):
    offset: int
    data: bytes


def _sectors(written: Written, size: int) -> Iterator[_Part]:
    at = written.offset
    end = at + len(written.data)
    while at < end:
        stop = min(end, at - at % size + size)
        yield _Part(at, written.data[at - written.offset : stop - written.offset])
        at = stop


def _with(durable: bytes | bytearray, parts: Sequence[Written | _Part]) -> bytes:
    data = bytearray(durable)
    for part in parts:
        _put(data, part)
    return bytes(data)


def _put(data: bytearray, part: Written | _Part) -> None:
    end = part.offset + len(part.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[part.offset : end] = part.data
