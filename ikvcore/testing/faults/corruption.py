"""Flipped bits and cut files: of a log, of a replica, and of the small files beside them.

Each case damages one file of a copy of a real home and a real mount, marks what it damaged as a power loss would, and
reads and writes it in a process of its own. What is read is what was written, or an error of this project says what to
do; nothing ends by a signal. Half of the flips fall anywhere, half where engines keep what they trust.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ikvcore.testing.faults.corruption_apart import Apart, Ended
from ikvcore.testing.faults.corruption_victim import HOME, suspect
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair, Target

__all__ = ["logs", "manifests", "replicas"]

_VICTIM: Final = "ikvcore.testing.faults.corruption_victim"
_CALLS: Final = 600
_MORE: Final = 60
_PAGE: Final = 4096
_MANIFESTS: Final = ("replica.json", "CURRENT", "opened.json", "damage.json", "status.json")
_DESCRIPTIONS: Final = ("store.json", "account.json", "opened.json")


@dataclass(frozen=True)
class _Damage:
    """One change of a file: the bit that is flipped, or the length that it is cut to."""

    bit: int | None = None
    length: int | None = None

    def do(self, file: Path) -> None:
        data = bytearray(file.read_bytes())
        if self.bit is not None:
            data[self.bit // 8] ^= 1 << self.bit % 8
        file.write_bytes(data if self.length is None else data[: self.length])

    def __str__(self) -> str:
        return f"bit {self.bit} flipped" if self.length is None else f"cut to {self.length} bytes"


@dataclass
class _Copies:
    """Copies of one victim, each made where the last one was: the paths of a store are part of no file."""

    directory: Path
    apart: Apart
    target: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, list[str]] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    pair: Pair = field(default_factory=Pair)

    def make(self) -> None:
        """Make the victim."""
        made = self.apart.run(
            f"{_VICTIM}:make", home=self.home, directory=str(self.directory), calls=_CALLS, pair=self.pair.to_json()
        )
        if made.value is None:
            raise RuntimeError(f"the victim could not be made: {made} {made.trace}")
        self.target = made.value
        self.apart.warm(f"{_VICTIM}:sign_in", home=self.home, target=self.target)
        read = self.apart.run(f"{_VICTIM}:read_log", home=self.home, target=self.target)
        self.events, self.documents = read.value["events"], read.value["documents"]
        (self.store / "opened.json").write_bytes((self.mount / "opened.json").read_bytes())
        for place in (self.home, self.mount):
            shutil.copytree(place, place.with_name(f"{place.name}-whole"))

    def fresh(self) -> None:
        """As it was made."""
        for place in (self.home, self.mount):
            shutil.rmtree(place)
            shutil.copytree(place.with_name(f"{place.name}-whole"), place)

    @property
    def home(self) -> Path:
        return self.directory / HOME

    @property
    def mount(self) -> Path:
        return Target.from_json(self.target).mount() if self.target else self.directory / "victim" / "mount"

    @property
    def store(self) -> Path:
        """The only store of the only account."""
        (found,) = self.home.glob("accounts/*/stores/*")
        return found

    def read(self, function: str, **arguments: Any) -> Ended:
        return self.apart.run(f"{_VICTIM}:{function}", home=self.home, target=self.target, **arguments)


_Judge = Callable[[_Copies, Ended], tuple[str, str | None]]
"""What came of a case, in a word, and what was wrong with that."""


def replicas(*, flips: int, cuts: int, seed: int, directory: Path, pair: Pair) -> Result:
    """A file of the replica, verified before it is read; then written on."""

    def damage(copies: _Copies, dice: random.Random) -> Path:
        suspect(copies.mount)
        files = Target.from_json(copies.target).replica_files()
        return dice.choice([files[0], *files])  # a large file more often, and each now and then

    def look(copies: _Copies) -> Ended:
        return copies.read("read_replica", expected=copies.documents, more=_MORE)

    return _campaign("replica", damage, look, _judge_replica, flips, cuts, seed, directory, pair)


def logs(*, flips: int, cuts: int, seed: int, directory: Path, pair: Pair) -> Result:
    """The log's data file, verified before it is read; then written on."""

    def damage(copies: _Copies, _: random.Random) -> Path:
        suspect(copies.store)
        return copies.store / "log" / "data.mdb"

    def look(copies: _Copies) -> Ended:
        return copies.read("read_log", more=_MORE)

    return _campaign("log", damage, look, _judge_log, flips, cuts, seed, directory, pair)


def manifests(*, flips: int, cuts: int, seed: int, directory: Path, pair: Pair) -> Result:
    """The small files of mount, store and account."""

    def damage(copies: _Copies, dice: random.Random) -> Path:
        store = copies.store
        homes = {"store.json": store, "opened.json": store, "account.json": store.parent.parent}
        files = [copies.mount / name for name in _MANIFESTS] + [homes[name] / name for name in _DESCRIPTIONS]
        return dice.choice(files)

    def look(copies: _Copies) -> Ended:
        return copies.read("read_replica", expected=copies.documents, more=_MORE)

    return _campaign("manifest", damage, look, _judge_replica, flips, cuts, seed, directory, pair)


def _campaign(
    what: str,
    damage: Callable[[_Copies, random.Random], Path],
    look: Callable[[_Copies], Ended],
    judge: _Judge,
    flips: int,
    cuts: int,
    seed: int,
    directory: Path,
    pair: Pair,
) -> Result:
    rows, violations = [], []
    with Apart(directory, pair) as apart:
        copies = _Copies(directory, apart, pair=pair)
        copies.make()
        for kind, times in (("flip", flips), ("cut", cuts)):
            outcomes: Counter[str] = Counter()
            wrong = 0
            for number in range(times):
                dice = random.Random(f"{seed}/{what}/{kind}/{number}")
                copies.fresh()
                file = damage(copies, dice)
                change = _chosen(kind, file, dice, number)
                change.do(file)
                word, complaint = judge(copies, look(copies))
                outcomes[word] += 1
                if complaint is not None:
                    wrong += 1
                    violations.append(f"{what} {file.name}, case {number}, {change}: {complaint}")
            words = ", ".join(f"{count} {word}" for word, count in outcomes.most_common())
            fault = f"a bit of the {what} flipped" if kind == "flip" else f"the {what} cut short"
            rows.append(Row(fault=fault, times=times, happened=words, violations=wrong, seed=seed))
    return Result(rows=rows, violations=violations)


def _chosen(kind: str, file: Path, dice: random.Random, number: int) -> _Damage:
    size = file.stat().st_size
    if kind == "cut":
        lengths = [0, dice.randrange(size), dice.randrange(-(-size // _PAGE)) * _PAGE]
        return _Damage(length=min(lengths[number % 3], size - 1))
    if size < 3 * _PAGE or number % 2:
        return _Damage(bit=dice.randrange(8 * size))
    # A meta page, or the head of any other: its number, flags, limits and pointers.
    page, depth = (dice.randrange(2), 152) if number % 8 == 0 else (dice.randrange(2, size // _PAGE), 64)
    return _Damage(bit=8 * (page * _PAGE + dice.randrange(depth)) + dice.randrange(8))


def _judge_replica(copies: _Copies, ended: Ended) -> tuple[str, str | None]:
    if ended.value is not None:
        wrong: list[str] = ended.value["wrong"]
        word = "harmless" if ended.value["generation"] == "gen-1" else "rebuilt"
        return word, "; ".join(wrong[:3]) if wrong else None
    return _judge_end(ended)


def _judge_log(copies: _Copies, ended: Ended) -> tuple[str, str | None]:
    if ended.value is not None:
        right = ended.value["events"] == copies.events
        return "harmless", None if right else "the log shows other events than were written, or fewer"
    return _judge_end(ended)


def _judge_end(ended: Ended) -> tuple[str, str | None]:
    if ended.typed and any(word in ended.text for word in _ADVICE):
        return "refused", None
    return "failed", f"{ended}\n{ended.trace}"


_ADVICE: Final = ("restore", "remove", "create", "upgrade", "mount directory of its own", "passkey")
"""An error that says what to do has one of these."""
