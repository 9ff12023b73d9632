"""What a run did to the files of a directory, as strace saw it: writes, lengths, names and syncs, one step each.

It knows the calls that are traced (TRACED). Memory that a file is mapped into is not seen: what engines keep that way
(LMDB's lock.mdb, SQLite's -shm) they make anew where nobody has it open.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["TRACED", "Acknowledged", "Cut", "Named", "Step", "Synced", "SyncedNames", "Trace", "Written", "read_trace"]

TRACED: Final = (
    "openat,lseek,pwrite64,pwritev,writev,write,ftruncate,fallocate,fdatasync,fsync,sync_file_range,mkdir,mkdirat,rename,"
    "renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,truncate,copy_file_range,sendfile,creat"
)
"""What strace has to trace. Some machines lack a few of them."""
_UNKNOWN: Final = ("link", "linkat", "symlink", "symlinkat", "truncate", "copy_file_range", "sendfile", "creat")
"""Calls that change files and are not played back: a run that makes one of them in the directory is refused."""
_KEEP_SIZE: Final = "FALLOC_FL_KEEP_SIZE"
_CALL: Final = re.compile(r"^(\d+) +(\w+)\((.*)$", re.DOTALL)
_DIED: Final = re.compile(r"\) += \?$")
"""The end of a call in which its process ended: whether it was carried out is not known."""
_RESUMED: Final = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_FILE: Final = re.compile(r"^(\d+)<([^>]*)>(\(deleted\))?")
_PLACE: Final = re.compile(r"^(?:AT_FDCWD|\d+)<([^>]*)>")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_NUMBERS: Final = re.compile(r", (\d+)(?=[,)])")


class Written(NamedTuple):
    """Bytes that were handed to the system."""

    file: int
    offset: int
    data: bytes
    through: bool = False
    """Whether they were on the disk when the call returned."""


class Cut(NamedTuple):
    """A file got this length: what was beyond is gone, what lacked is zeros."""

    file: int
    length: int


class Synced(NamedTuple):
    """What was done to a file before step `begun` is on the disk; its name need not be."""

    file: int
    begun: int


class Named(NamedTuple):
    """A name came to be (before: None), was changed, or went (after: None)."""

    before: str | None
    after: str | None
    file: int | None
    """None for a directory."""


class SyncedNames(NamedTuple):
    """The names in a directory, as they were before step `begun`, are on the disk; and those changed before them."""

    directory: str
    begun: int


class Acknowledged(NamedTuple):
    """The program said something about what had returned."""

    text: str


Step = Written | Cut | Synced | Named | SyncedNames | Acknowledged


@dataclass(frozen=True)
class Trace:
    """A run, as far as it concerns one directory. Files have numbers, since their names change."""

    names: Mapping[str, int | None]
    """The names that there were when the run began, relative to the directory; None for directories."""
    contents: Mapping[int, bytes]
    """The contents that these files had; all of it on the disk."""
    steps: Sequence[Step]
    unfinished: frozenset[str] = frozenset()
    """Names that calls speak of which were under way when the program ended: nobody knows whether they took effect."""


@dataclass
class _Reading:
    """The state in which a trace is read."""

    root: Path
    said: Path
    names: dict[str, int | None]
    next_file: int
    steps: list[Step] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """Where the next write through a descriptor goes."""
    modes: dict[str, str] = field(default_factory=dict)
    """The flags that a descriptor was opened with."""
    unfinished: set[str] = field(default_factory=set)

    def name(self, path: str) -> str | None:
        """A path as a name in the directory; None for paths elsewhere. The directory itself is "."."""
        relative = os.path.relpath(path, self.root)
        return None if relative.startswith("..") else relative


def read_trace(trace: Path, directory: Path, said: Path, before: Mapping[str, bytes | None]) -> Trace:
    """What was done in `directory`, and what was written to `said`, in what strace -f -y -xx -e TRACED wrote.

    before: what was in the directory when the run began, None for directories.
    """
    files = {name: number for number, (name, content) in enumerate(before.items()) if content is not None}
    contents = {number: before[name] or b"" for name, number in files.items()}
    names = {name: files.get(name) for name in before}
    reading = _Reading(directory, said, dict(names), len(before))
    reading.sizes = {number: len(content) for number, content in contents.items()}
    for name, rest, begun in _calls(trace, reading):
        if name in _UNKNOWN and str(directory) in _plain(rest):
            raise RuntimeError(f"a power loss in {name} is not played back: {rest[:200]}")
        read = _READERS.get(name)
        if read is not None and not re.search(r"\) += -1 ", rest):
            read(reading, rest, begun)
    return Trace(names, contents, reading.steps, frozenset(reading.unfinished))


def _calls(trace: Path, reading: _Reading) -> Iterator[tuple[str, str, int]]:
    """Each call that ended: its name, arguments and result, and how many steps there were when it began."""
    begun: dict[str, tuple[str, int]] = {}
    for line in trace.read_text().splitlines():
        resumed = _RESUMED.match(line)
        call = _CALL.match(line)
        if resumed:
            said, step = begun.pop(resumed[1], ("", len(reading.steps)))
            whole = said.rstrip() + resumed[3] if resumed[3].startswith(")") else said + resumed[3]
            if _DIED.search(resumed[3]):
                begun[resumed[1]] = whole, step
            else:
                yield resumed[2], whole, step
        elif call and (call[3].endswith("<unfinished ...>") or _DIED.search(call[3])):
            begun[call[1]] = call[3].removesuffix("<unfinished ...>"), len(reading.steps)
        elif call:
            yield call[2], call[3], len(reading.steps)
    for said, _ in begun.values():
        paths = [*_TEXT.findall(said), *re.findall(r"<([^>]*)>", said)]
        reading.unfinished.update(filter(None, (reading.name(_plain(path)) for path in paths if "\\x2f" in path)))


# -- calls on descriptors ----------------------------------------------------------------------


def _opened(reading: _Reading, rest: str, begun: int) -> None:
    found = re.search(r"= (\d+)<([^>]*)>$", rest)
    if not found:
        return
    descriptor, name = found[1], reading.name(_plain(found[2]))
    reading.places[descriptor], reading.modes[descriptor] = 0, rest
    if name is None or "O_DIRECTORY" in rest:
        return
    if name not in reading.names and "O_CREAT" in rest:
        reading.names[name] = reading.next_file
        reading.sizes[reading.next_file] = 0
        reading.steps.append(Named(None, name, reading.next_file))
        reading.next_file += 1
    elif "O_TRUNC" in rest:
        file = reading.names[name]
        assert file is not None
        _cut(reading, file, 0)


def _target(reading: _Reading, rest: str) -> tuple[str, str | None]:
    """The descriptor of a call, and its name in the directory, unless it has none any more."""
    found = _FILE.match(rest)
    assert found is not None, rest[:200]
    if found[3] or "(deleted)" in _plain(found[2]):
        return found[1], None
    return found[1], reading.name(_plain(found[2]))


def _file(reading: _Reading, rest: str) -> tuple[str, int | None]:
    descriptor, name = _target(reading, rest)
    return descriptor, None if name is None else reading.names.get(name)


def _sought(reading: _Reading, rest: str, begun: int) -> None:
    descriptor, _ = _file(reading, rest)
    reading.places[descriptor] = int(rest.rpartition("= ")[2])


def _wrote(reading: _Reading, rest: str, begun: int) -> None:
    """write and writev."""
    descriptor, file = _file(reading, rest)
    data = b"".join(_bytes(rest))[: _result(rest)]
    if file is None:
        found = _FILE.match(rest)
        if found and _plain(found[2]) == str(reading.said):
            reading.steps.append(Acknowledged(data.decode().strip()))
        return
    at = reading.sizes[file] if "O_APPEND" in reading.modes.get(descriptor, "") else reading.places[descriptor]
    reading.places[descriptor] = at + len(data)
    _write(reading, descriptor, file, at, data)


def _wrote_at(reading: _Reading, rest: str, begun: int) -> None:
    """pwrite64 and pwritev."""
    descriptor, file = _file(reading, rest)
    if file is not None:
        offset = int(rest.rpartition(")")[0].rpartition(", ")[2])
        _write(reading, descriptor, file, offset, b"".join(_bytes(rest))[: _result(rest)])


def _write(reading: _Reading, descriptor: str, file: int, offset: int, data: bytes) -> None:
    through = re.search(r"O_D?SYNC", reading.modes.get(descriptor, "")) is not None
    reading.sizes[file] = max(reading.sizes[file], offset + len(data))
    reading.steps.append(Written(file, offset, data, through))


def _truncated(reading: _Reading, rest: str, begun: int) -> None:
    _, file = _file(reading, rest)
    if file is not None:
        _cut(reading, file, int(_NUMBERS.findall(rest)[0]))


def _allocated(reading: _Reading, rest: str, begun: int) -> None:
    _, file = _file(reading, rest)
    if file is None or _KEEP_SIZE in rest:
        return
    offset, length = map(int, _NUMBERS.findall(rest)[-2:])
    if offset + length > reading.sizes[file]:
        _cut(reading, file, offset + length)


def _cut(reading: _Reading, file: int, length: int) -> None:
    reading.sizes[file] = length
    reading.steps.append(Cut(file, length))


def _synced(reading: _Reading, rest: str, begun: int) -> None:
    _, name = _target(reading, rest)
    if name is None:
        return
    file = reading.names.get(name)
    if file is not None:
        reading.steps.append(Synced(file, begun))
    else:
        reading.steps.append(SyncedNames(name, begun))


# -- calls on names ----------------------------------------------------------------------------


def _paths(reading: _Reading, rest: str) -> list[str | None]:
    """The names in the directory that a call's paths are."""
    found = []
    place = str(Path.cwd())
    for part in re.split(r", (?=\"|AT_FDCWD|\d+<)", rest.rpartition(")")[0]):
        at = _PLACE.match(part)
        if at:
            place = _plain(at[1])
        text = _TEXT.search(part)
        if text:
            found.append(reading.name(os.path.join(place, _plain(text[1]))))  # noqa: PTH118 - also where it is absolute
    return found


def _made_directory(reading: _Reading, rest: str, begun: int) -> None:
    (name,) = _paths(reading, rest)
    if name not in (None, "."):
        assert name is not None
        reading.names[name] = None
        reading.steps.append(Named(None, name, None))


def _renamed(reading: _Reading, rest: str, begun: int) -> None:
    before, after = _paths(reading, rest)
    if before is None and after is None:
        return
    if before is None or after is None:
        raise RuntimeError(f"a file was moved into the directory, or out of it: {_plain(rest)[:300]}")
    file = reading.names.pop(before)
    reading.names[after] = file
    for name in [name for name in reading.names if name.startswith(f"{before}/")]:
        reading.names[after + name.removeprefix(before)] = reading.names.pop(name)
    reading.steps.append(Named(before, after, file))


def _removed(reading: _Reading, rest: str, begun: int) -> None:
    (name,) = _paths(reading, rest)
    if name is not None and name in reading.names:
        reading.steps.append(Named(name, None, reading.names.pop(name)))


_READERS: Final[Mapping[str, Callable[[_Reading, str, int], None]]] = {
    "openat": _opened,
    "lseek": _sought,
    "write": _wrote,
    "writev": _wrote,
    "pwrite64": _wrote_at,
    "pwritev": _wrote_at,
    "ftruncate": _truncated,
    "fallocate": _allocated,
    "fdatasync": _synced,
    "fsync": _synced,
    "mkdir": _made_directory,
    "mkdirat": _made_directory,
    "rename": _renamed,
    "renameat": _renamed,
    "renameat2": _renamed,
    "unlink": _removed,
    "unlinkat": _removed,
    "rmdir": _removed,
}


def _plain(path: str) -> str:
    """strace escapes paths as it does data."""
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode(), path)


def _bytes(rest: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(rest)]


def _result(rest: str) -> int:
    return int(rest.rpartition("= ")[2].split()[0])
