"""Logs that were deleted, made again, restored from an old copy, or cut, behind the backs of those who follow them.

Whoever had followed the log is told, and goes on to show what it had; or what was taken away does not concern it, and
it shows all of the log. Never does it go on as if nothing were missing. This knows how the local log keeps its entries.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ikvcore.admin import create_store, delete_store
from ikvcore.client import IKVReader
from ikvcore.errors import (
    IKVError,
    IngestHaltedError,
    LogDivergedError,
    LogTrimmedError,
    StoreAccessError,
    TransportError,
)
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.corruption_apart import Apart
from ikvcore.testing.faults.recorder import digest, row_fields
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import ACCOUNT, PASSKEY, Pair, Target
from ikvcore.testing.faults.timeline import Log, Timeline
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp

__all__ = ["CHANGES", "play", "run"]

_KEYS: Final = 20
_PARTITIONS: Final = 2
_PATIENCE: Final = 60.0

Documents = dict[str, str | None]


def run(*, times: int, seed: int, directory: Path, pair: Pair) -> Result:
    """`times` logs for each change, and each way to have followed it."""
    rows, violations = [], []
    with Apart(directory, pair) as apart:
        for change in CHANGES:
            told: Counter[str] = Counter()
            wrong: list[str] = []
            for number in range(times):
                place = directory / f"{change.replace(' ', '-')}-{number}"
                arguments: dict[str, Any] = {"directory": str(place), "change": change, "seed": seed + number}
                ended = apart.run(f"{__name__}:play", home=place.with_suffix(".home"), **arguments, pair=pair.to_json())
                found = ended.value or {"told": [], "wrong": [f"{ended}\n{ended.trace}"]}
                told.update(found["told"])
                wrong += [f"a log that was {change}, number {number}: {each}" for each in found["wrong"]]
            happened = ", ".join(f"{count:,} {word}" for word, count in told.most_common())
            rows.append(
                Row(fault=f"a log {change}", times=told.total(), happened=happened, violations=len(wrong), seed=seed)
            )
            violations += wrong
    return Result(rows=rows, violations=violations)


class _Play:
    """A store whose log is changed: some calls are copied, all of them followed by one mount, some by another."""

    def __init__(self, directory: Path, seed: int, pair: Pair) -> None:
        self.target = Target.make(directory, pair.with_durability("process-crash"), partitions=_PARTITIONS)
        self.dice = random.Random(f"changed/{seed}")
        self._work = Workload(seed=seed, keys=_KEYS, upserts_only=True)
        self._clock = Clock.take_over()
        self._calls = 0
        self._whole: Timeline | None = None
        self.told: list[str] = []
        self.wrong: list[str] = []

    @property
    def log(self) -> Path:
        """The directory that holds the log's files."""
        (found,) = Path(self.target.directory).with_suffix(".home").glob("accounts/*/stores/*/log")
        return found

    def write(self, calls: int) -> None:
        with create_new_writer(self.target.options()) as writer:
            for _ in range(calls):
                self._clock.now = stamp(0, self._calls)
                perform(writer, self._work.call(0, self._calls), self.target.description)
                self._calls += 1

    def follow(self, mount: str) -> Documents:
        """Have a mount follow the log to its end; what it shows then."""
        with create_new_reader(self.target.options(mount)) as reader:
            return self.shown(reader)

    def shown(self, reader: IKVReader) -> Documents:
        keys = self._work.all_keys()
        found = {key: digest(row_fields(row)) for key, row in zip(keys, reader.get_rows(keys), strict=True)}
        return {key: value for key, value in found.items() if value is not None}

    def expected(self) -> Documents:
        """What the log comes to."""
        timeline = Timeline(self._read())
        return {
            key: shown
            for partition, bounds in timeline.log.bounds.items()
            for key, shown in timeline.documents(partition, bounds.end).items()
        }

    def _read(self) -> Log:
        transport = self.target.open_log()
        try:
            return Log.read(transport)
        finally:
            transport.close()

    # -- what is looked at ---------------------------------------------------------------------

    def open_again(self, what: str, mount: str, before: Documents | None, *errors: type[IKVError]) -> None:
        """Open a mount on the changed log: one of `errors`, and what it had before is still shown (None: the mount
        itself is refused); or, without any, all of the log.
        """
        reader = create_new_reader(self.target.options(mount))
        try:
            reader.startup(timeout=_PATIENCE)
        except errors as exc:
            self.told.append(f"{what}: {type(exc).__name__}")
            if before is not None:
                self._stale(what, mount, before)
        else:
            self.told.append(f"{what}: went on")
            if errors:
                self.wrong.append(f"{what}: nothing was told")
            elif self.shown(reader) != self.expected():
                self.wrong.append(f"{what}: it shows other documents than the log has")
        finally:
            reader.shutdown()

    def _stale(self, what: str, mount: str, before: Documents) -> None:
        reader = create_new_reader(self.target.options(mount))
        reader.startup(timeout=_PATIENCE, allow_stale=True)
        try:
            self._halts(what, reader, before)
        finally:
            reader.shutdown()

    def _halts(self, what: str, reader: IKVReader, before: Documents) -> None:
        deadline = time.monotonic() + _PATIENCE
        while reader.health().state != "halted":
            if time.monotonic() > deadline:
                self.wrong.append(f"{what}: health is still {reader.health()}")
                break
            time.sleep(0.01)
        shown = self.shown(reader)
        if shown != before and not self._on_the_way(shown):
            self.wrong.append(f"{what}: it does not show what it had")

    def keep_whole(self) -> None:
        """What readers may have come to before the log is changed, since they go on to where it is."""
        self._whole = Timeline(self._read())

    def _on_the_way(self, shown: Documents) -> bool:
        """Whether each partition shows a state that the whole log had."""
        if self._whole is None:
            return False
        whole, keys = self._whole, self._work.all_keys()
        parts = [{k: shown.get(k) for k in keys if whole.partition(k) == p} for p in whole.log.bounds]
        return all(whole.first_state(number, part, 0) is not None for number, part in enumerate(parts))

    def live(self, change: Callable[[], object]) -> None:
        """Change the log under an open reader and an open writer: both say so."""
        with (
            create_new_reader(self.target.options("live")) as reader,
            create_new_writer(self.target.options()) as writer,
        ):
            before = self.shown(reader)
            change()
            self._halts("followed while it was", reader, before)
            try:
                perform(writer, self._work.call(0, 0), self.target.description)
                self.wrong.append("a writer wrote to a log that is gone")
            except TransportError as exc:
                self.told.append(f"followed while it was: {type(exc).__name__}")


def play(directory: str, change: str, seed: int, pair: dict[str, Any]) -> dict[str, Any]:
    """One log: who was told what, and what was wrong."""
    game = _Play(Path(directory), seed, Pair(**pair))
    CHANGES[change](game)
    return {"told": game.told, "wrong": game.wrong}


# -- the changes -----------------------------------------------------------------------------------


def _deleted(game: _Play) -> None:
    game.write(30)
    game.follow("mount")
    game.live(lambda: _delete(game))
    game.open_again("followed before", "mount", None, StoreAccessError)


def _made_again(game: _Play) -> None:
    game.write(30)
    game.follow("mount")

    def change() -> None:
        _delete(game)
        store = game.target.description
        create_store(
            store.store_name,
            account_id=ACCOUNT,
            account_passkey=PASSKEY,
            primary_key=store.primary_key,
            partitions=store.partitions,
        )

    game.live(change)
    game.write(60)
    game.open_again("followed before", "mount", None, LogDivergedError)
    game.open_again("not followed before", "fresh", {})


def _restored(game: _Play, *, more: int = 0) -> None:
    game.write(game.dice.randrange(5, 30))
    copy = game.log.with_name("copy")
    shutil.copytree(game.log, copy)
    game.write(game.dice.randrange(1, 20))
    before = game.follow("mount")

    def change() -> None:
        game.log.rename(copy.with_name("old"))
        copy.rename(copy.with_name("log"))

    game.live(change)
    game.write(more)
    game.open_again("followed before", "mount", before, LogDivergedError)
    game.open_again("not followed before", "fresh", {})


def _file_restored(game: _Play) -> None:
    """Only the file is put back, as `mv` does it, in the directory that its clients have open."""
    game.write(game.dice.randrange(5, 30))
    shutil.copy(game.log / "data.mdb", game.log.parent / "copy")
    game.write(game.dice.randrange(1, 20))
    before = game.follow("mount")
    file = game.log / "data.mdb"
    game.live(lambda: shutil.move(game.log.parent / "copy", file))
    game.open_again("followed before", "mount", before, LogDivergedError)
    game.open_again("not followed before", "fresh", {})


def _cut_at_its_beginning(game: _Play) -> None:
    game.write(game.dice.randrange(10, 20))
    behind = game.follow("behind")
    game.write(40)
    before = game.follow("mount")
    _remove(game, lambda position, end: position < end - 2)
    if game.follow("mount") != before:  # what it lacks is nothing: it needs only what comes next
        game.wrong.append("followed to its end: it does not show what it had")
    game.open_again("followed in part", "behind", behind, LogTrimmedError)
    game.open_again("not followed before", "fresh", {}, LogTrimmedError)


def _cut_at_its_end(game: _Play) -> None:
    game.write(40)
    before = game.follow("mount")
    _remove(game, lambda position, end: position >= end - game.dice.randrange(1, 3))
    if game.dice.random() < 0.5:
        game.write(40)
    game.open_again("followed before", "mount", before, LogDivergedError)
    game.open_again("not followed before", "fresh", {})


def _cut_in_its_middle(game: _Play) -> None:
    game.write(20)
    behind = game.follow("behind")
    game.write(40)
    game.keep_whole()
    gap = game.dice.randrange(3, 6)
    _remove(game, lambda position, end: position == end - gap)
    game.open_again("followed in part", "behind", behind, IngestHaltedError)


CHANGES: Final[dict[str, Callable[[_Play], None]]] = {
    "deleted": _deleted,
    "deleted and made again": _made_again,
    "restored from an old copy": _restored,
    "restored from an old copy and written on": lambda game: _restored(game, more=60),
    "whose file was restored from an old copy": _file_restored,
    "cut at its beginning": _cut_at_its_beginning,
    "cut at its end": _cut_at_its_end,
    "with a gap": _cut_in_its_middle,
}


def _delete(game: _Play) -> None:
    delete_store(game.target.description.store_name, account_id=ACCOUNT, account_passkey=PASSKEY)


def _remove(game: _Play, which: Callable[[int, int], bool]) -> None:
    """Remove entries from the closed log: `which` is asked with the position and its partition's end."""
    import lmdb

    from ikv_transports._local_entries import entry_key

    log = game.target.open_log()
    ends = {partition: bounds.end for partition, bounds in log.bounds().items()}
    log.close()
    with lmdb.open(str(game.log)) as env, env.begin(write=True) as txn:
        for partition, end in ends.items():
            for position in list(_chosen(end, which)):
                txn.delete(entry_key(partition, position))


def _chosen(end: int, which: Callable[[int, int], bool]) -> Iterator[int]:
    return (position for position in range(end) if which(position, end))
