"""The files that a power loss may leave of a run.

A write that no sync followed may be on the disk, or not, or in part, sector by sector, whatever came before or after
it. A write through a descriptor that was opened with O_DSYNC is there when the call has returned. A file's length is
journaled, as file systems do it: where one change of it is missing, so is all that came later in that file. Names are
journaled too: they are on the disk up to some change of them, at least up to the last that a sync of its directory
followed. The sync of a file keeps its content, not its name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ikvcore.testing.faults.powerloss_writes import (
    Cut,
    Named,
    Step,
    Synced,
    SyncedNames,
    Trace,
    Written,
)

__all__ = ["Left", "left_behind", "put", "whole"]

_SECTORS: Final = (512, 4096)

Left = Mapping[str, "bytes | None"]
"""What is found after a power loss: contents by name, None for directories."""


class _Pending(NamedTuple):
    number: int
    """Of the step."""
    change: Written | Cut
    sure: bool = False
    """It is on the disk. It waits all the same for what may come before it."""


_Chosen = Mapping[int, Sequence["Written | Cut"]]
"""The changes of each file that are on the disk."""


@dataclass
class _Disk:
    """What is on the disk for sure, and what may be."""

    names: dict[str, int | None]
    contents: dict[int, bytearray]
    changes: dict[int, list[_Pending]] = field(default_factory=dict)
    namings: list[tuple[int, Named]] = field(default_factory=list)

    def take(self, number: int, step: Step, *, last: bool) -> None:
        """One more step has been done; the last one may still be under way."""
        if isinstance(step, Written | Cut):
            through = isinstance(step, Written) and step.through and not last
            waiting = self.changes.setdefault(step.file, [])
            if through:  # and the lengths that it depends on
                waiting[:] = [each._replace(sure=each.sure or isinstance(each.change, Cut)) for each in waiting]
            waiting.append(_Pending(number, step, through))
        elif isinstance(step, Named):
            self.namings.append((number, step))
        elif isinstance(step, Synced):
            self.sync(step.file, step.begun)
        elif isinstance(step, SyncedNames):
            done = [at for at, (n, naming) in enumerate(self.namings) if n < step.begun and _is_in(naming, step)]
            for _, naming in self.namings[: done[-1] + 1 if done else 0]:
                _name(self.names, naming)
            del self.namings[: done[-1] + 1 if done else 0]

    def sync(self, file: int, begun: int) -> None:
        """Bring what was done to a file before a step to the disk."""
        waiting = self.changes.pop(file, [])
        content = self.contents.setdefault(file, bytearray())
        for pending in waiting:
            if pending.number < begun:
                _change(content, pending.change)
        later = [pending for pending in waiting if pending.number >= begun]
        if later:
            self.changes[file] = later

    def sure(self) -> _Chosen:
        """What is on the disk, whatever became of the rest."""
        return {file: [each.change for each in waiting if each.sure] for file, waiting in self.changes.items()}

    def with_last(self, number: int) -> _Chosen:
        """The same and one step, with the lengths that it depends on."""
        chosen = dict(self.sure())
        for file, waiting in self.changes.items():
            if waiting[-1].number == number:
                lengths = [each.change for each in waiting if each.sure or isinstance(each.change, Cut)]
                chosen[file] = lengths if isinstance(waiting[-1].change, Cut) else [*lengths, waiting[-1].change]
        return chosen

    def everything(self) -> _Chosen:
        """All that was done."""
        return {file: [each.change for each in waiting] for file, waiting in self.changes.items()}

    def left(self, namings: int, chosen: _Chosen) -> Left:
        """With so many more names, and these changes of files."""
        names = dict(self.names)
        for _, naming in self.namings[:namings]:
            _name(names, naming)
        found: dict[str, bytes | None] = {}
        for name, file in names.items():
            if file is None:
                found[name] = None
                continue
            content = bytearray(self.contents.get(file, b""))
            for change in chosen.get(file, ()):
                _change(content, change)
            found[name] = bytes(content)
        return found


def left_behind(trace: Trace, cut: int, seed: object, variants: int) -> Iterator[Left]:
    """What a power loss before step `cut` may leave: the extremes, and `variants` others."""
    disk = _Disk(dict(trace.names), {file: bytearray(content) for file, content in trace.contents.items()})
    for number, step in enumerate(trace.steps[:cut]):
        disk.take(number, step, last=number + 1 == cut)
    names = len(disk.namings)
    unsure = [each.number for waiting in disk.changes.values() for each in waiting if not each.sure]
    yield disk.left(0, disk.sure())
    if not unsure and not names:
        return
    yield disk.left(names, disk.everything())
    if unsure:
        yield disk.left(names, disk.with_last(max(unsure)))
    if names:
        yield disk.left(names, disk.sure())
    dice = random.Random(f"{seed}/{cut}")
    for _ in range(variants):
        sector, likely = dice.choice(_SECTORS), dice.random()
        torn = {file: list(_torn(waiting, sector, likely, dice)) for file, waiting in disk.changes.items()}
        yield disk.left(dice.randint(0, names), torn)


def whole(trace: Trace) -> Left:
    """All that was done, as the files show it that were not harmed."""
    last = len(trace.steps)
    disk = _Disk(dict(trace.names), {file: bytearray(content) for file, content in trace.contents.items()})
    for number, step in enumerate(trace.steps):
        disk.take(number, step, last=number + 1 == last)
    return disk.left(len(disk.namings), disk.everything())


def put(directory: Path, left: Left) -> None:
    """Make the files in a directory that is empty. A name whose directory is not there is gone with it."""
    for name, content in sorted(left.items()):
        path = directory / name
        if not path.parent.is_dir():
            continue
        if content is None:
            path.mkdir(mode=0o700)
        else:
            path.write_bytes(content)
            path.chmod(0o600)


def _torn(waiting: Sequence[_Pending], sector: int, likely: float, dice: random.Random) -> Iterator[Written | Cut]:
    """Some of the changes, the sure ones among them."""
    for _, change, sure in waiting:
        if sure:
            yield change
        elif isinstance(change, Written):
            yield from (part for part in _sectors(change, sector) if dice.random() < likely)
        elif dice.random() < likely:
            yield change
        else:
            return  # nothing sure comes after it: that would have made it sure


def _sectors(written: Written, size: int) -> Iterator[Written]:
    at = written.offset
    end = at + len(written.data)
    while at < end:
        stop = min(end, at - at % size + size)
        yield Written(written.file, at, written.data[at - written.offset : stop - written.offset])
        at = stop


def _change(content: bytearray, change: Written | Cut) -> None:
    if isinstance(change, Cut):
        del content[change.length :]
        content.extend(bytes(change.length - len(content)))
        return
    end = change.offset + len(change.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[change.offset : end] = change.data


def _name(names: dict[str, int | None], naming: Named) -> None:
    if naming.before is not None:
        names.pop(naming.before, None)
        inside = [name for name in names if name.startswith(f"{naming.before}/")]
        for name in inside:
            file = names.pop(name)
            if naming.after is not None:
                names[naming.after + name.removeprefix(naming.before)] = file
    if naming.after is not None:
        names[naming.after] = naming.file


def _is_in(naming: Named, synced: SyncedNames) -> bool:
    return any(
        (name.rpartition("/")[0] or ".") == synced.directory
        for name in (naming.before, naming.after)
        if name is not None
    )
