"""Every system call that matters fails once, or is the last: of a writer, of an ingester and of provisioning.

strace lets the n-th call of a kind fail with EIO or ENOSPC, or kills the process in it, for every n that a run without
faults makes. Afterwards nothing acknowledged is lost, an unacknowledged write is there whole or not at all, stores are
made wholly or not, and the next run works.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ikvcore.testing.faults.corruption_apart import Apart, Ended
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.syscalls_victim import ACKNOWLEDGED, CALLS, REFUSED, UNTYPED, Steps
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.zygote import environment

__all__ = ["STRACE_HOW", "can_trace", "run"]

STRACE_HOW: Final = "apt-get install strace, where processes may be traced"
_VICTIM: Final = "ikvcore.testing.faults.syscalls_victim"
_KINDS: Final = (
    "pwrite64",
    "pwritev",
    "writev",
    "write",
    "fdatasync",
    "fsync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "mknodat",
    "chmod",
    "fchmod",
    "fchmodat",
)
"""All calls that change files, in each of the forms that a C library may use; not every machine has all of them."""
_HARMS: Final = {"EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "kill": "signal=KILL"}
_TYPED: Final = re.compile(r"ikvcore\.errors\.\w+")
_PATIENCE: Final = 90.0
_BEFORE: Final = 80
"""Documents that are there before a run."""


def can_trace() -> bool:
    """Whether strace is here and may trace."""
    try:
        done = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class _Case(NamedTuple):
    kind: str
    number: int
    """Which call of that kind; of each thread, as strace counts."""
    harm: str

    def __str__(self) -> str:
        return f"{self.harm} in {self.kind} number {self.number}"


@dataclass
class _Stage:
    """Where one kind of run is repeated: a home and a mount, put back to what they were before each run."""

    role: str
    directory: Path
    apart: Apart
    target: Mapping[str, Any]

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def fresh(self) -> None:
        for name in ("home", "victim"):
            place = self.directory / name
            shutil.rmtree(place, ignore_errors=True)
            if place.with_name(f"{name}-whole").exists():
                shutil.copytree(place.with_name(f"{name}-whole"), place)
        (self.directory / "steps").unlink(missing_ok=True)

    def keep(self) -> None:
        for name in ("home", "victim"):
            place = self.directory / name
            if place.exists():
                shutil.copytree(place, place.with_name(f"{name}-whole"))

    def trace(self, *options: str) -> tuple[int | None, list[int], str]:
        """One run under strace: its end (None where it hung), how its steps went, and what it said."""
        steps = Steps(self.directory / "steps")
        command = ["strace", "-f", "-qq", "--seccomp-bpf", *options]
        program = [sys.executable, "-m", _VICTIM, self.role, json.dumps(self.target), str(self.directory / "steps")]
        extra = {"IKV_HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [*command, *program],
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                env={**environment(), **extra},
            )
        except subprocess.TimeoutExpired as exc:
            return None, [steps[number] for number in range(Steps.SIZE)], str(exc.stderr)
        return done.returncode, [steps[number] for number in range(Steps.SIZE)], done.stderr


def run(*, times: int | None, seed: int, directory: Path, pair: Pair) -> Result:
    """`times` of the cases of each program, drawn by `seed`; all of them where that is None."""
    if not can_trace():
        return Result(rows=(), not_run=[f"system calls that fail: {STRACE_HOW}"])
    rows, violations = [], []
    judges = {"write": _judge_write, "ingest": _judge_ingest, "provision": _judge_provision}
    # What writers and provisioning call is of the log alone.
    roles = judges if pair.is_default else ("ingest",)
    for role in roles:
        judge = judges[role]
        with Apart(directory / role, pair) as apart:
            stage = _stage(role, directory / role, apart, pair)
            cases = list(_cases(stage))
            calls = Counter(case.kind for case in cases)
            if times is not None:
                cases = random.Random(f"{seed}/{role}").sample(cases, min(times, len(cases)))
            ends: Counter[str] = Counter()
            wrong = 0
            for case in cases:
                complaints = list(_case(stage, case, judge, ends))
                wrong += bool(complaints)
                violations += [f"{role}, {case}: {complaint}" for complaint in complaints]
        made = ", ".join(f"{count // len(_HARMS)} {kind}" for kind, count in calls.most_common())
        happened = f"{', '.join(f'{count:,} {word}' for word, count in ends.most_common())}; of {made}"
        fault = f"a system call of {_NAMES[role]} fails or is the last"
        rows.append(Row(fault=fault, times=len(cases), happened=happened, violations=wrong, seed=seed))
    return Result(rows=rows, violations=violations)


_NAMES: Final = {"write": "a writer", "ingest": "an ingester", "provision": "provisioning"}


def _stage(role: str, directory: Path, apart: Apart, pair: Pair) -> _Stage:
    target: Mapping[str, Any] = {}
    if role != "provision":
        made = apart.run(f"{_VICTIM}:make", home=directory / "home", directory=str(directory), pair=pair.to_json())
        target = _value(made)
    else:
        target = {
            "directory": str(directory / "victim"),
            "pair": {},
            "description": {"store_name": "", "account_id": "", "identity": "", "primary_key": "id"},
        }
    stage = _Stage(role, directory, apart, target)
    stage.keep()
    return stage


def _cases(stage: _Stage) -> Iterator[_Case]:
    """Each call that a run without faults makes, with each harm."""
    stage.fresh()
    trace = stage.directory / "trace"
    code, steps, said = stage.trace("-o", str(trace), "-e", f"trace={','.join(f'?{kind}' for kind in _KINDS)}")
    if code != 0 or any(step not in (0, ACKNOWLEDGED) for step in steps):
        raise RuntimeError(f"a run without faults failed: {code} {steps} {said}")
    counts: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            counts[found[2], found[1]] += 1
    most: dict[str, int] = {}
    for (kind, _), count in counts.items():
        most[kind] = max(most.get(kind, 0), count)
    for kind, count in most.items():
        for number in range(1, count + 1):
            for harm in _HARMS:
                yield _Case(kind, number, harm)


def _case(stage: _Stage, case: _Case, judge: _Judge, ends: Counter[str]) -> Iterator[str]:
    stage.fresh()
    options = ["-o", "/dev/null", "-e", f"inject={case.kind}:{_HARMS[case.harm]}:when={case.number}"]
    code, steps, said = stage.trace(*options)
    ends["killed" if code == -9 else "ended by itself"] += 1
    yield from _wrong_end(code, said)
    if UNTYPED in steps:
        yield f"an error that is not of this project: {said[-1500:]}"
    ends["refused a step"] += REFUSED in steps
    yield from judge(stage, steps)


def _wrong_end(code: int | None, said: str) -> Iterator[str]:
    """What is wrong with how a process has ended: it may be killed, and a shutdown may fail, with a typed error."""
    if code is None:
        yield f"it hung: {said[-500:]}"
    elif code < 0 and code != -9:
        yield f"it ended with signal {-code}: {said[-500:]}"
    elif code > 0 and _TYPED.match((said.strip().splitlines() or [""])[-1]) is None:
        yield f"it ended with {code}, without an error of this project: {said[-1500:]}"


_Judge = Callable[[_Stage, list[int]], Iterator[str]]


def _judge_write(stage: _Stage, steps: list[int]) -> Iterator[str]:
    found = stage.apart.run(f"{_VICTIM}:look", home=stage.home, target=dict(stage.target))
    if found.value is None:
        yield f"the next run fails: {found}\n{found.trace}"
        return
    shown = set(found.value["shown"])
    for number in range(CALLS):
        there = len({key for key in shown if key.startswith(f"{number}/")})
        if there not in (0, 3):
            yield f"call {number} is there in part"
        if steps[number] == ACKNOWLEDGED and not there:
            yield f"call {number} was acknowledged and is lost"
        if steps[number] in (0, REFUSED) and there:
            yield f"call {number} was refused, or never made, and is there"
    yield from _judge_ingest(stage, steps, found)


def _judge_ingest(stage: _Stage, steps: list[int], found: Ended | None = None) -> Iterator[str]:
    found = found or stage.apart.run(f"{_VICTIM}:look", home=stage.home, target=dict(stage.target))
    if found.value is None:
        yield f"the next run fails: {found}\n{found.trace}"
        return
    before = [key for key in found.value["shown"] if key.startswith("before/")]
    if len(before) != _BEFORE or found.value["counted"] != len(found.value["shown"]):
        yield f"{len(before)} of {_BEFORE} documents are shown, {found.value['counted']} counted"
    if found.value["applied"] != found.value["messages"]:
        yield f"{found.value['applied']} events applied of {found.value['messages']}"


def _judge_provision(stage: _Stage, steps: list[int]) -> Iterator[str]:
    found = stage.apart.run(f"{_VICTIM}:stores", home=stage.home, steps=steps)
    if found.value is None:
        yield f"the next run fails: {found}\n{found.trace}"
    else:
        yield from found.value


def _value(ended: Ended) -> Any:
    if ended.value is None:
        raise RuntimeError(f"{ended}\n{ended.trace}")
    return ended.value
