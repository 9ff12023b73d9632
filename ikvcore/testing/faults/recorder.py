"""What a process was promised and saw, one JSON line each, in a file that survives its kill.

Every line is one os.write on O_APPEND: a process that dies leaves whole lines, but for the last one at most.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from ikvcore.fields import FieldBytes, FieldType, encode
from ikvcore.models import Row

__all__ = ["History", "Inspection", "Recorder", "digest", "row_fields"]

_DIRECTORY: Final = "records"


def digest(fields: Mapping[str, FieldBytes] | None) -> str | None:
    """A document in 16 characters: equal for equal names, types and bits. None for no document."""
    if fields is None:
        return None
    text = repr(sorted((name, int(field_type), data) for name, (field_type, data) in fields.items()))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def row_fields(row: Row | None) -> dict[str, FieldBytes] | None:
    """A row as a document of the model."""
    if row is None:
        return None
    found: dict[str, FieldBytes] = {}
    for name, field_type, value in zip(*row, strict=True):
        if value is not None:
            assert isinstance(field_type, FieldType)
            found[name] = (field_type, encode(name, field_type, value))
    return found


class Inspection(NamedTuple):
    """A replica's files, looked at in one state."""

    mount: str
    positions: Mapping[int, int]
    applied: Mapping[int, int]
    """events_applied of each partition."""
    documents: Mapping[int, Mapping[str, str]]
    """partition -> key -> digest"""
    counted: int
    """What the storage says that it holds."""
    findings: tuple[str, ...] = ()
    """What the storage's own check found wrong."""
    commit: int = 0

    def to_json(self) -> dict[str, Any]:
        """A form that json can write."""
        return self._asdict()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Inspection:
        """The inverse of to_json."""
        return cls(
            data["mount"],
            {int(p): position for p, position in data["positions"].items()},
            {int(p): applied for p, applied in data["applied"].items()},
            {int(p): dict(documents) for p, documents in data["documents"].items()},
            data["counted"],
            tuple(data["findings"]),
            data["commit"],
        )


class Recorder:
    """One process's file. `client` is what later lives of the same client go on under."""

    def __init__(self, directory: Path, name: str, client: str | None = None) -> None:
        folder = directory / _DIRECTORY
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._write("began", client=client or name, pid=os.getpid(), at=time.monotonic())

    def call(self, writer: int, number: int) -> None:
        """About to publish."""
        self._write("call", w=writer, n=number)

    def acknowledged(self, writer: int, number: int, token: object) -> None:
        """The call returned."""
        self._write("acked", w=writer, n=number, token=str(token))

    def failed(self, writer: int, number: int, error: BaseException, *, refused: bool) -> None:
        """The call raised; `refused` where its error says that nothing was published."""
        self._write("failed", w=writer, n=number, error=f"{type(error).__name__}: {error}", refused=refused)

    def read(self, found: Iterable[tuple[str, str | None]]) -> None:
        """What one read saw: (key, digest or None) of one state."""
        self._write("read", found=list(found))

    def waited(self, token: object) -> None:
        """wait_for returned, so whatever is read from here on is not older."""
        self._write("waited", token=str(token))

    def applied(self, positions: Mapping[int, int]) -> None:
        """A commit of this process returned."""
        self._write("applied", positions=dict(positions))

    def looked(self, inspection: Inspection) -> None:
        """What the files of a replica held."""
        self._write("looked", **inspection.to_json())

    def note(self, what: str, **more: Any) -> None:
        """Anything else; `wrong` is counted as a violation by the checker."""
        self._write(what, **more)

    def _write(self, event: str, **more: Any) -> None:
        line = json.dumps({"e": event, **more}, separators=(",", ":")).encode() + b"\n"
        while line:  # a short write is possible on a full disk; then the next one raises
            line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Give up the file."""
        os.close(self._file)


class History:
    """All that the processes of a target wrote."""

    def __init__(self, lives: Mapping[str, list[dict[str, Any]]]) -> None:
        self.lives = lives
        """Name of the process -> its lines, in order."""

    @classmethod
    def read(cls, directory: Path) -> History:
        """Every record in a target's directory, oldest process first."""
        lives = {file.stem: list(_lines(file)) for file in (directory / _DIRECTORY).glob("*.jsonl")}
        return cls(dict(sorted(lives.items(), key=lambda item: item[1][0]["at"] if item[1] else 0.0)))

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The lines of these kinds, life by life."""
        for lines in self.lives.values():
            yield from (line for line in lines if line["e"] in kinds)

    def clients(self) -> dict[str, list[dict[str, Any]]]:
        """The lines of each client, its lives one after the other."""
        joined: dict[str, list[dict[str, Any]]] = {}
        for lines in self.lives.values():
            if lines:
                joined.setdefault(lines[0]["client"], []).extend(lines)
        return joined

    def inspections(self) -> list[Inspection]:
        """Every look into a replica."""
        return [Inspection.from_json(line) for line in self.events("looked")]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:  # the half line of a process that was killed in it; or the nothing after the last one
            return
