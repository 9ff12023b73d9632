"""Disks that fill up, under the log and under the replica: a small tmpfs, and a limit on the size of files.

Nothing acknowledged is lost, every refusal is a StorageFullError, other processes open and read what is there, work
goes on by itself when there is space again, and no process ends by a signal.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ikvcore.testing.faults.corruption_apart import Apart, Ended
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair

__all__ = ["TMPFS_HOW", "run", "tmpfs_command"]

TMPFS_HOW: Final = "run as root, or where users may make namespaces (unshare -Urm)"
_VICTIM: Final = "ikvcore.testing.faults.diskfull_victim"
_SIZE: Final = 8 << 20
_LITTLE: Final = 500_000
"""Bytes that are enough for a store or a replica."""
_MOUNTED: Final = 'mount -t tmpfs -o size="$1",mode=700 tmpfs "$2" && shift 2 && exec "$@"'


def tmpfs_command(place: Path, size: int) -> list[str] | None:
    """What to put before a command to run it with a tmpfs at `place` that it alone sees; None where that cannot be."""
    for way in (["unshare", "-m"], ["unshare", "-Urm"]):
        command = [*way, "sh", "-c", _MOUNTED, "sh", str(size), str(place)]
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=30).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            pass
    return None


def run(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """`times` disks filled under each of log and replica, in each of the two ways."""
    directory.mkdir(parents=True, exist_ok=True)
    rows, violations, not_run = [], [], []
    for way in ("tmpfs", "limit"):
        with tempfile.TemporaryDirectory(dir=directory) as place, _apart(way, Path(place), directory, pair) as apart:
            if apart is None:
                not_run.append(f"a small tmpfs: {TMPFS_HOW}")
                continue
            # What writers and provisioning do on a full disk concerns the log alone.
            for what in ("log", "replica") if pair.is_default else ("replica",):
                wrong, words = _fill(apart, pair, what, way, Path(place), directory, times, seed)
                violations += wrong
                fault = f"no space for the {what}: {'a full tmpfs' if way == 'tmpfs' else 'a limit on file sizes'}"
                rows.append(Row(fault=fault, times=times, happened=words, violations=len(wrong), seed=seed))
            if way == "tmpfs":
                wrong, words = _make_on_little(apart, pair, Path(place), directory, 4 * times)
                violations += wrong
                fault = f"a {'store or ' * pair.is_default}replica made where there is hardly space for it"
                rows.append(
                    Row(
                        fault=fault,
                        times=(8 if pair.is_default else 4) * times,
                        happened=words,
                        violations=len(wrong),
                        seed=seed,
                    )
                )
    return Result(rows=rows, violations=violations, not_run=not_run)


@contextmanager
def _apart(way: str, place: Path, directory: Path, pair: Pair) -> Iterator[Apart | None]:
    command = tmpfs_command(place, _SIZE) if way == "tmpfs" else []
    if command is None:
        yield None
        return
    with Apart(directory, pair, command) as apart:
        yield apart


def _fill(
    apart: Apart, pair: Pair, what: str, way: str, place: Path, outside: Path, times: int, seed: int
) -> tuple[list[str], str]:
    wrong: list[str] = []
    figures: Counter[str] = Counter()
    for number in range(times):
        dice = random.Random(f"{seed}/{what}/{way}/{number}")
        home, target = (place if what == "log" else outside) / f"{way}-{number}-home", place / f"{what}-{number}"
        arguments: dict[str, Any] = {"home": home}
        try:
            made = _value(apart.run(f"{_VICTIM}:make", **arguments, directory=str(target), pair=pair.to_json()))
            ended = apart.run(
                f"{_VICTIM}:fill_{what}",
                **arguments,
                target=made,
                place=str(place) if way == "tmpfs" else None,
                leave=dice.randrange(40_000, 400_000),
                seed=dice.randrange(1 << 30),
                rounds=2,
            )
            value = _value(ended)
            wrong += value["wrong"]
            figures.update({"acknowledged": value["acknowledged"], "refused": value["refused"]})
            if way == "tmpfs":
                # Now full to the last page: who opens it reads it, or says why not.
                _value(apart.run(f"{_VICTIM}:fill", place=str(place), leave=0))
                look = apart.run(f"{_VICTIM}:look_at_{what}", **arguments, target=made)
                figures["opened when full" if look.value is not None else "not opened when full"] += 1
                if look.value is None and not look.is_a("StorageFullError"):
                    wrong.append(f"opening a full disk: {look}\n{look.trace}")
                if look.value is not None and look.value != value["acknowledged"]:
                    wrong.append(f"a full disk shows {look.value} of {value['acknowledged']}")
        except _EndedError as exc:
            wrong.append(f"{what}, {way}, case {number}: {exc}")
        finally:
            apart.run(f"{_VICTIM}:empty", place=str(place))
    return wrong, ", ".join(f"{count:,} {name}" for name, count in figures.items())


def _make_on_little(apart: Apart, pair: Pair, place: Path, outside: Path, times: int) -> tuple[list[str], str]:
    """Make a mount, and a store, with room for a few pages only: each comes to be, or says what it lacks."""
    wrong: list[str] = []
    figures: Counter[str] = Counter()
    home = outside / "little-home"
    store = _value(apart.run(f"{_VICTIM}:make", home=home, directory=str(outside / "little"), pair=pair.to_json()))
    for number in range(times):
        leave = _LITTLE * number // times
        mount = {**store, "directory": str(place / f"little-{number}")}
        in_mount: dict[str, Any] = {"home": home, "target": mount}
        in_home: dict[str, Any] = {"home": place / "home", "directory": str(place / "made")}
        made = [("replica", "look_at_replica", in_mount), ("store", "make", in_home)]
        for what, function, arguments in made if pair.is_default else made[:1]:
            _value(apart.run(f"{_VICTIM}:fill", place=str(place), leave=leave))
            ended = apart.run(f"{_VICTIM}:{function}", **arguments)
            apart.run(f"{_VICTIM}:empty", place=str(place))
            figures["made" if ended.value is not None else "refused"] += 1
            if not ended.typed and ended.value is None and not ended.is_a("OSError"):
                wrong.append(f"a {what} with {leave} bytes left: {ended}\n{ended.trace}")
    return wrong, ", ".join(f"{count:,} {name}" for name, count in figures.items())


class _EndedError(Exception):
    """A process that should have returned did not."""


def _value(ended: Ended) -> Any:
    if ended.error or ended.signal:
        raise _EndedError(f"{ended}\n{ended.trace}")
    return ended.value
