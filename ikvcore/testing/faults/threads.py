"""Sixteen threads of one process that read, write, close and open again: no crash, no deadlock, and the model holds."""

from __future__ import annotations

import faulthandler
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ikvcore.client import IKVReader
from ikvcore.errors import NotStartedError, ShutDownError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.checker import Checker
from ikvcore.testing.faults.program import given, play
from ikvcore.testing.faults.recorder import Recorder, digest, row_fields
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.worker import inject, inspect
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp
from ikvcore.tokens import Token

__all__ = ["run"]

_WRITERS: Final = 6
_READERS: Final = 8
_SHARERS: Final = 2
"""Threads that share one reader, which they also shut down and start under each other's hands."""
_GRACE: Final = 60.0
"""Seconds after the end within which every thread has to be done, else it is a deadlock."""


def run(*, seconds: float, seed: int, directory: Path, pair: Pair, fault: str | None = None) -> Result:
    """So many seconds of it, in a process of its own. `fault`: FILE.py:FUNCTION that breaks something there first."""
    target = Target.make(directory, pair.with_durability("process-crash"), partitions=3)
    workload = Workload(seed=seed, keys=60)
    arguments = [str(seconds), *([] if fault is None else [fault])]
    ended = play(__name__, target, workload, *arguments, patience=seconds + 3 * _GRACE)
    violations = [*ended.wrong, *ended.answer.get("wrong", [])]
    if not violations:
        violations += map(str, Checker(target, workload).run())
    done = ended.answer.get("done", {})
    happened = (
        f"{seconds:.0f} s: {done.get('calls', 0):,} writes, {done.get('reads', 0):,} reads, "
        f"{done.get('opened', 0):,} clients opened and closed"
    )
    threads = _WRITERS + _READERS + _SHARERS
    row = Row(
        fault=f"{threads} threads read, write, close and open",
        times=done.get("opened", 0),
        happened=happened,
        violations=len(violations),
        seed=seed,
    )
    return Result(rows=[row], violations=violations)


# -- the process itself ------------------------------------------------------------------------


class _Play:
    """What the threads do until the time is over."""

    def __init__(self, target: Target, workload: Workload, seconds: float) -> None:
        self._target = target
        self._workload = workload
        self._end = time.monotonic() + seconds
        self._clock = Clock.take_over()
        self._lock = threading.Lock()
        self._shared = create_new_reader(target.options())
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def threads(self) -> list[threading.Thread]:
        """All of them, not started."""
        parts: list[Callable[[int], None]] = [
            *[self._write] * _WRITERS,
            *[self._read] * _READERS,
            *[self._share] * _SHARERS,
        ]
        return [
            threading.Thread(target=self._guarded, args=(part, number), name=f"thread-{number}", daemon=True)
            for number, part in enumerate(parts, start=1)
        ]

    def _guarded(self, part: Callable[[int], None], number: int) -> None:
        try:
            part(number)
        except BaseException as exc:
            self.wrong.append(f"thread {number}: {type(exc).__name__}: {exc}")

    def _going(self) -> bool:
        return time.monotonic() < self._end

    def _count(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.done[what] += times

    def _write(self, number: int) -> None:
        dice, recorder = random.Random(f"threads/{number}"), Recorder(self._target.directory, f"thread-{number}")
        calls = itertools.count()
        while self._going():
            with create_new_writer(self._target.options()) as writer:
                self._count("opened")
                for _ in range(dice.randint(1, 40)):
                    call = self._workload.call(number, next(calls))
                    self._clock.now = stamp(number, call.number)
                    recorder.call(number, call.number)
                    recorder.acknowledged(number, call.number, perform(writer, call, self._target.description))
                    self._count("calls")
                    time.sleep(0.002)  # else nothing but writing is done

    def _read(self, number: int) -> None:
        dice, recorder = random.Random(f"threads/{number}"), Recorder(self._target.directory, f"thread-{number}")
        while self._going():
            with create_new_reader(self._target.options()) as reader:
                self._count("opened")
                for _ in range(dice.randint(1, 40)):
                    self._read_once(reader, dice, recorder)

    def _share(self, number: int) -> None:
        dice, recorder = random.Random(f"threads/{number}"), Recorder(self._target.directory, f"thread-{number}")
        while self._going():
            if dice.random() < 0.1:
                self._shared.shutdown()
            with suppress(ShutDownError, NotStartedError):
                self._shared.startup(timeout=_GRACE)
                self._read_once(self._shared, dice, recorder)
        self._shared.shutdown()

    def _read_once(self, reader: IKVReader, dice: random.Random, recorder: Recorder) -> None:
        if dice.random() < 0.2:
            stats = reader.stats()
            reached = {p: part.end for p, part in stats.partitions.items() if part.end}
            token = Token(self._target.description.identity, reached)
            reader.wait_for(token, timeout=_GRACE)
            recorder.waited(token)
        keys = dice.sample(self._workload.all_keys(), 5)
        rows = reader.get_rows(keys)
        recorder.read((key, digest(row_fields(row))) for key, row in zip(keys, rows, strict=True))
        self._count("reads")
        time.sleep(0.001)


def main(arguments: Sequence[str]) -> int:
    """The program's exit status."""
    target, workload, (seconds, *faults) = given(arguments)
    for fault in faults:
        inject(fault)
    faulthandler.dump_traceback_later(float(seconds) + 2 * _GRACE, exit=True)
    playing = _Play(target, workload, float(seconds))
    threads = playing.threads()
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + float(seconds) + _GRACE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            playing.wrong.append(f"{thread.name} is still at it: a deadlock")
            faulthandler.dump_traceback()
    if not playing.wrong:
        with create_new_reader(target.options()) as reader:
            reader.count()
        Recorder(target.directory, "last").looked(inspect(target))
    sys.stdout.write(json.dumps({"done": playing.done, "wrong": playing.wrong}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
