"""Programs of campaigns that need a process as users have it, not a zygote's fork: run as modules, and watched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ikvcore.testing.faults.target import Target
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import environment

__all__ = ["Ended", "given", "play"]


class Ended(NamedTuple):
    """A program that has ended, or was killed since it did not."""

    code: int | None
    """None where it had to be killed."""
    answer: dict[str, Any]
    """The JSON object that it printed last; empty where it printed none."""
    said: str

    @property
    def wrong(self) -> list[str]:
        """A sentence where it did not end well."""
        if self.code is None:
            return [f"it hung: {self.said[-1500:]}"]
        return [f"it ended with {self.code}: {self.said[-1500:]}"] if self.code else []


def play(module: str, target: Target, workload: Workload, *arguments: str, patience: float) -> Ended:
    """Run `python -m module TARGET.json WORKLOAD arguments...`, for at most `patience` seconds."""
    command = [sys.executable, "-X", "faulthandler", "-m", module, str(target.save()), json.dumps(workload.to_json())]
    with (target.directory / "said.txt").open("w+b") as said:
        process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment()
        )
        code: int | None
        try:
            printed, _ = process.communicate(timeout=patience)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
            code = None
        said.seek(0)
        words = said.read().decode(errors="replace")
    lines = printed.decode().splitlines()
    return Ended(code, json.loads(lines[-1]) if lines else {}, words)


def given(arguments: Sequence[str]) -> tuple[Target, Workload, Sequence[str]]:
    """What `play` passed to the program."""
    path, workload, *rest = arguments
    return Target.from_json(json.loads(Path(path).read_text())), Workload(**json.loads(workload)), rest
