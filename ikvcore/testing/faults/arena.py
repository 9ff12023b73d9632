"""One target and its processes: starts them under names of their own, waits on their marks, and checks at the end."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from ikvcore.testing.faults.checker import Checker, Violation
from ikvcore.testing.faults.marks import Stage
from ikvcore.testing.faults.recorder import History, Inspection
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.worker import Job
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import PATIENCE, Process, Zygote

__all__ = ["Aim", "Arena", "until"]

_LOOK: Final = 0.0002


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE, look: float = _LOOK) -> Any:
    """The first true answer; `look` seconds between two questions. Raises TimeoutError that says what did not come."""
    deadline = time.monotonic() + patience
    while not (answer := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience:.0f} s: {what}")
        time.sleep(look)
    return answer


class Arena:
    """A store, its workload, and who works on it."""

    def __init__(
        self,
        zygote: Zygote,
        directory: Path,
        pair: Pair,
        workload: Workload,
        *,
        partitions: int = 2,
        fault: str | None = None,
    ) -> None:
        """`fault` is given to every writer and reader; see worker.Job."""
        self.zygote = zygote
        self.workload = workload
        self.target = Target.make(directory, pair, partitions=partitions)
        self._fault = fault
        self._numbers = itertools.count(1)

    # -- processes -----------------------------------------------------------------------------

    def writer(self, **more: Any) -> Process:
        """A new writer, whose events are its own."""
        number = next(self._numbers)
        return self._start(Job(role="writer", name=f"writer-{number}", writer=number, fault=self._fault, **more))

    def reader(self, client: str, **more: Any) -> Process:
        """A new life of the reader `client`."""
        name = f"{client}-{next(self._numbers)}"
        return self._start(Job(role="reader", name=name, client=client, fault=self._fault, **more))

    def look(self, mount: str = "mount", *, fault: str | None = None) -> None:
        """Record what the mount's files hold now; nobody ingests by this."""
        self._finish(Job(role="inspector", name=f"look-{next(self._numbers)}", mount=mount, fault=fault))

    def _start(self, job: Job) -> Process:
        return self.zygote.start(self.target, self.workload, job.to_json())

    def _finish(self, job: Job) -> None:
        self.zygote.finish(self.target, self.workload, job.to_json())

    # -- the end -------------------------------------------------------------------------------

    def settle(self, *mounts: str, rebuild: bool = True, **more: Any) -> None:
        """After all have ended: let a reader of each of `mounts` (by default "mount") catch up and look, and have
        another replica built from the log. `more` is what Job takes.
        """
        for mount in mounts or ("mount",):
            self._finish(Job(role="rebuilder", name=f"last-{mount}", mount=mount, **more))
        if rebuild:
            self._finish(Job(role="rebuilder", name="last-rebuilt", mount="rebuilt", **more))

    def check(self, **more: Any) -> list[Violation]:
        """Everything that is wrong. `more` is what Checker takes."""
        checker = Checker(self.target, self.workload, **more)
        return [*checker.run(), *self._caught_up(checker)]

    def acknowledged(self) -> int:
        """How many calls returned."""
        return sum(1 for _ in History.read(self.target.directory).events("acked"))

    @staticmethod
    def _caught_up(checker: Checker) -> Iterable[Violation]:
        for name, lines in checker.history.lives.items():
            for line in lines if name.startswith("last-") else ():
                if line["e"] == "looked" and not checker.reached_end(Inspection.from_json(line)):
                    yield Violation("documents", f"the replica {name} stands at {line['positions']}, before the end")


class Aim:
    """Chooses moments to kill at: some at random, the others right before, inside or after a commit; and counts where
    they fell.
    """

    def __init__(self, seed: int, *, longest: float = 0.01, depth: float = 0.0003) -> None:
        """`longest`: seconds that a random moment may be away; `depth`: seconds into a commit that is aimed at."""
        self._dice = random.Random(f"aim/{seed}")
        self._longest = longest
        self._depth = depth
        self._waited = 0
        self.fell: Counter[str] = Counter()

    def wait(self, process: Process) -> None:
        """Return at the moment chosen."""
        choice = self._dice.random()
        # Where few have fallen inside, more are aimed there: on a busy machine most of those that are aimed miss.
        few = self.fell["inside"] <= self._waited // 8
        self._waited += 1
        if choice < 0.4 or few:
            self.inside(process)
        elif choice < 0.6:
            self._see(process, (Stage.BEFORE,))
        elif choice < 0.7:
            self._see(process, (Stage.AFTER,))
        else:
            time.sleep(self._dice.random() * self._longest)

    def inside(self, process: Process) -> None:
        """Return when it is inside."""
        self._see(process, (Stage.INSIDE, Stage.TRANSACTION))
        self._spin(self._dice.random() * self._depth)

    @staticmethod
    def _see(process: Process, stages: tuple[Stage, ...]) -> None:
        """Wait for a process to come there; but not for ever, since a short stage may be missed each time."""
        deadline = time.monotonic() + 0.2
        while process.marks.stage not in stages and time.monotonic() < deadline:
            pass  # a sleep would miss it

    @staticmethod
    def _spin(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    def killed(self, process: Process) -> None:
        """Count where a process was when it died."""
        self.fell[process.marks.stage.when] += 1

    @property
    def words(self) -> str:
        """before, inside and after."""
        return ", ".join(f"{when} {self.fell[when]:,}" for when in ("before", "inside", "after"))
