"""Power losses: the writes of a run are recorded, and played back with those dropped or torn that no sync had kept.

At every cut between two writes, a log that is kept with durability `power-loss` opens and has everything that had been
acknowledged, whichever of the other writes arrived; a replica is read right, rebuilt where it has to be. With
`process-crash` a log that was being written is checked first: it is whole, though its last events may be gone, or it is
refused.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ikvcore.testing.faults.corruption_apart import Apart
from ikvcore.testing.faults.powerloss_writes import Acknowledged, Trace, left_behind, read_trace
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.syscalls import STRACE_HOW, can_trace
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.zygote import environment

__all__ = ["run"]

_VICTIM: Final = "ikvcore.testing.faults.powerloss_victim"
_TRACED: Final = "openat,lseek,pwrite64,pwritev,writev,write,fdatasync,fsync"
_AT_ONCE: Final = 20


def run(*, variants: int, every: int, seed: int, directory: Path, pair: Pair) -> Result:
    """At every `every`-th cut the extremes and `variants` others, of log and replica, with either durability."""
    if not can_trace():
        return Result(rows=(), not_run=[f"power losses: {STRACE_HOW}"])
    rows, violations = [], []
    with Apart(directory) as apart:
        for durability, what in itertools.product(("power-loss", "process-crash"), ("log", "replica")):
            play = _Play(directory / f"{what}-{durability}", apart, what, durability)
            cuts, words = 0, Counter[str]()
            for cut in range(0, len(play.trace.steps) + 1, every):
                cuts += 1
                for word in play.outcomes(cut, seed, variants):
                    words[word.partition(" ")[0]] += 1
                    if word.startswith("wrong") or (word.startswith("lost") and durability == "power-loss"):
                        violations.append(f"{what}, {durability}, cut {cut}: {word}")
            wrong = sum(violation.startswith(f"{what}, {durability}") for violation in violations)
            told = ", ".join(f"{count:,} {word}" for word, count in words.most_common())
            fault = f"power loss, {what} with {durability}"
            happened = f"{cuts} cuts of a run: {told}"
            rows.append(Row(fault=fault, times=words.total(), happened=happened, violations=wrong, seed=seed))
    return Result(rows=rows, violations=violations)


class _Play:
    """One run, recorded, and the place where what is left of it is opened."""

    def __init__(self, directory: Path, apart: Apart, what: str, durability: str) -> None:
        self._directory, self._apart, self._what = directory, apart, what
        self._home = directory / "home"
        self._durability = durability
        self._target: dict[str, Any] = self._do("make", directory=str(directory), durability=durability)
        apart.warm("ikvcore.testing.faults.corruption_victim:sign_in", home=self._home, target=self._target)
        if what == "replica":
            self._do("write_ahead", target=self._target)
            file = Target.from_json(self._target).mount() / "gen-1" / "data.mdb"
        else:
            (file,) = self._home.glob("accounts/*/stores/*/log/data.mdb")
        self.trace = self._record(file)
        self._whole = self._do("expected", target=self._target)
        counts = [len(events) for events in self._whole["events"].values()]
        self._before = sum(counts) - self._events_of(len(self.trace.steps))

    def _record(self, file: Path) -> Trace:
        before = file.read_bytes()
        trace, acknowledgements = self._directory / "trace", self._directory / "acknowledgements"
        role = "write" if self._what == "log" else "ingest"
        strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-o", str(trace), "-e", f"trace={_TRACED}"]
        program = [sys.executable, "-m", _VICTIM, role, json.dumps(self._target), str(acknowledgements)]
        done = subprocess.run(
            [*strace, *program],
            capture_output=True,
            text=True,
            env={**environment(), "IKV_HOME": str(self._home), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        found = read_trace(trace, file, acknowledgements, before)
        trace.unlink()
        return found

    def _events_of(self, cut: int) -> int:
        """How many events had been acknowledged before a cut, of those of the run."""
        done = [step.calls for step in self.trace.steps[:cut] if isinstance(step, Acknowledged)]
        return self._events_after(done[-1]) if done else 0

    def _events_after(self, calls: int) -> int:
        events: int = self._do("count_events", target=self._target, calls=calls)
        return events

    def outcomes(self, cut: int, seed: int, variants: int) -> Iterator[str]:
        """In a word each, what became of the outcomes of a power loss at a cut."""
        files = []
        for number, content in enumerate(left_behind(self.trace, cut, seed, variants)):
            file = self._directory / f"left-{number}"
            file.write_bytes(content)
            files.append(str(file))
        arguments: dict[str, Any] = {"target": self._target}
        if self._what == "log":
            arguments |= {"events": self._whole["events"], "least": self._before + self._events_of(cut)}
            arguments["check"] = self._durability != "power-loss"
        else:
            arguments["documents"] = self._whole["documents"]
        for at in range(0, len(files), _AT_ONCE):
            yield from self._open(files[at : at + _AT_ONCE], arguments)

    def _open(self, files: Sequence[str], arguments: dict[str, Any]) -> Iterator[str]:
        ended = self._apart.run(f"{_VICTIM}:open_{self._what}s", home=self._home, files=files, **arguments)
        if ended.value is not None:
            yield from ended.value
        else:
            yield f"wrong: {ended}\n{ended.trace}"

    def _do(self, function: str, **arguments: Any) -> Any:
        ended = self._apart.run(f"{_VICTIM}:{function}", home=self._home, **arguments)
        if ended.error or ended.signal:
            raise RuntimeError(f"{ended}\n{ended.trace}")
        return ended.value
