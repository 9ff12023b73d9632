"""Power losses: what a run did to its files is recorded, and played back without what no sync had kept.

At every cut between two steps, a log that is kept with durability `power-loss` opens and has everything that had been
acknowledged, whichever of the other writes arrived. So has a replica: it stands at the positions of its last commit
that had returned, or later, without being built anew. With `process-crash` a log that was being written is checked
first: it is whole, though its last events may be gone, or it is refused; a replica may be behind or be built anew.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from ikvcore._registry import load_backend
from ikvcore.testing.faults.corruption_apart import Apart
from ikvcore.testing.faults.powerloss_left import Left, left_behind, whole
from ikvcore.testing.faults.powerloss_writes import TRACED, Acknowledged, Trace, read_trace
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.syscalls import STRACE_HOW, can_trace
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.zygote import environment

__all__ = ["run"]

_VICTIM: Final = "ikvcore.testing.faults.powerloss_victim"
_MAPPED: Final = ("lock.mdb", "-shm")
"""Endings of files that are changed in memory, which strace does not see."""
_DURABILITIES: Final = ("power-loss", "process-crash")


def run(*, variants: int, cuts: int, seed: int, directory: Path, pair: Pair) -> Result:
    """At `cuts` cuts of each run, the last one at its end, or at all that it has: the extremes and `variants` others.

    Of the log, on the default backend's turn, and of the replica; with either durability.
    """
    if not can_trace():
        return Result(rows=(), not_run=[f"power losses: {STRACE_HOW}"])
    rows, violations = [], []
    with Apart(directory, pair) as apart:
        for what, durability in _plays(pair):
            play = _Play(directory / f"{what}-{durability}", apart, what, durability, pair)
            words, wrong = Counter[str](), []
            chosen = play.cuts(cuts)
            for cut in chosen:
                for word in play.outcomes(cut, seed, variants):
                    words[word.partition(" ")[0].rstrip(":")] += 1
                    if word.startswith("wrong") or (word not in _SAFE and durability == "power-loss"):
                        wrong.append(f"{what}, {durability}, cut {cut}: {word}")
            told = ", ".join(f"{count:,} {word}" for word, count in words.most_common())
            fault = f"power loss, {what} with {durability}"
            happened = f"{len(chosen)} cuts of a run: {told}"
            rows.append(Row(fault=fault, times=words.total(), happened=happened, violations=len(wrong), seed=seed))
            violations += wrong
    return Result(rows=rows, violations=violations)


_SAFE: Final = ("kept", "rebuilt before any commit")


def _plays(pair: Pair) -> Iterator[tuple[str, str]]:
    has_both = any(option.name == "durability" for option in fields(load_backend(pair.backend).info.options))
    for durability in _DURABILITIES:
        if pair.is_default:
            yield "log", durability
        if has_both or durability == load_backend(pair.backend).info.durability.word:
            yield "replica", durability


class _Play:
    """One run, recorded, and the place where what is left of it is opened."""

    def __init__(self, directory: Path, apart: Apart, what: str, durability: str, pair: Pair) -> None:
        self._directory, self._apart, self._what = directory, apart, what
        self._home = directory / "home"
        self._durability = durability
        chosen = pair.with_durability(durability).to_json()
        self._target: dict[str, Any] = self._do("make", directory=str(directory), pair=chosen)
        apart.warm("ikvcore.testing.faults.corruption_victim:sign_in", home=self._home, target=self._target)
        if what == "replica":
            files = Target.from_json(self._target).mount()
            files.mkdir(mode=0o700)
        else:
            (files,) = self._home.glob("accounts/*/stores/*/log")
        self.trace = self._record(files)
        self._whole = self._do("expected", target=self._target)
        counts = [len(events) for events in self._whole["events"].values()]
        self._before = sum(counts) - self._events_of(len(self.trace.steps)) if what == "log" else 0

    def _record(self, files: Path) -> Trace:
        before = _content(files)
        trace, acknowledgements = self._directory / "trace", self._directory / "acknowledgements"
        role = "write" if self._what == "log" else "ingest"
        strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000000", "-o", str(trace)]
        traced = ",".join(f"?{name}" for name in TRACED.split(","))
        program = [sys.executable, "-m", _VICTIM, role, json.dumps(self._target), str(acknowledgements)]
        done = subprocess.run(
            [*strace, "--seccomp-bpf", "-e", f"trace={traced}", *program],
            capture_output=True,
            text=True,
            env={**environment(), "IKV_HOME": str(self._home), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        found = read_trace(trace, files, acknowledgements, before)
        _compare(whole(found), _content(files), found.unfinished)
        trace.unlink()
        return found

    def cuts(self, most: int) -> list[int]:
        """Where the run is cut: everywhere, or at so many places."""
        steps = len(self.trace.steps)
        if most > steps:
            return list(range(steps + 1))
        return [steps * number // most for number in range(1, most + 1)]

    def _said(self, cut: int) -> str | None:
        """What the run had said last before a cut."""
        said = [step.text for step in self.trace.steps[:cut] if isinstance(step, Acknowledged)]
        return said[-1] if said else None

    def _events_of(self, cut: int) -> int:
        """How many events had been acknowledged before a cut, of those of the run."""
        events: int = self._do("count_events", target=self._target, calls=int(self._said(cut) or 0))
        return events

    def outcomes(self, cut: int, seed: int, variants: int) -> list[str]:
        """In a word each, what became of the outcomes of a power loss at a cut."""
        file = self._directory / "left"
        file.write_bytes(pickle.dumps(list(left_behind(self.trace, cut, seed, variants))))
        arguments: dict[str, Any] = {"target": self._target, "file": str(file)}
        if self._what == "log":
            arguments |= {"events": self._whole["events"], "least": self._before + self._events_of(cut)}
            arguments["check"] = self._durability != "power-loss"
        else:
            arguments |= {"documents": self._whole["documents"], "least": json.loads(self._said(cut) or "{}")}
        ended = self._apart.run(f"{_VICTIM}:open_{self._what}s", home=self._home, **arguments)
        if ended.value is None:
            return [f"wrong: {ended}\n{ended.trace}"]
        words: list[str] = ended.value
        nothing = self._what == "replica" and not arguments["least"]
        return ["rebuilt before any commit" if word == "rebuilt" and nothing else word for word in words]

    def _do(self, function: str, **arguments: Any) -> Any:
        ended = self._apart.run(f"{_VICTIM}:{function}", home=self._home, **arguments)
        if ended.error or ended.signal:
            raise RuntimeError(f"{ended}\n{ended.trace}")
        return ended.value


def _content(directory: Path) -> dict[str, bytes | None]:
    """What is in a directory that nobody has open."""
    found = sorted(path for path in directory.rglob("*") if path.is_file() or path.is_dir())
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in found}


def _compare(played: Left, found: Left, unknown: Collection[str] = ()) -> None:
    """Refuse a record that does not come to the files: something was written in another way."""
    names = [name for name in played.keys() | found.keys() if not name.endswith(_MAPPED) and name not in unknown]
    wrong = sorted(name for name in names if name not in played or name not in found or played[name] != found[name])
    if wrong:
        raise RuntimeError(f"the record of the run does not come to its files {wrong}")
