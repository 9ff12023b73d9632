"""The replica loop, seen from inside: whose turn it is to ingest, and from when silence counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ikvcore import _loop
from ikvcore._loop import ReplicaLoop
from ikvcore._status import Status
from ikvcore.errors import FencedError


class Lock:
    """A mount's lock that another process takes once it is given up."""

    def __init__(self) -> None:
        self.held = True

    def try_acquire(self) -> bool:
        return self.held

    def release(self) -> None:
        self.held = False


class Clock:
    """The time that the loop goes by."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_after_a_fence_the_silence_of_the_other_counts_from_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from when this worker looks again, a second later: that would be a second too long without an ingester."""
    clock, lock = Clock(), Lock()
    monkeypatch.setattr(_loop, "time", clock)
    generations: Any = SimpleNamespace(damage=None)
    mount: Any = SimpleNamespace(path=tmp_path)
    unused: Any = None
    loop = ReplicaLoop(generations, unused, unused, partitions=[0], mount=mount, lock=lock)  # type: ignore[arg-type]

    def fenced() -> bool:
        raise FencedError(b"1", b"2")

    assert loop._may_ingest()
    loop._work(fenced)
    Status(heartbeat=100.1).write(tmp_path)  # the other one's last word
    answers = []
    for clock.now in (100.5, 101.1, 105.0, 105.2):
        answers.append((clock.now, loop._may_ingest()))
    assert answers == [(100.5, False), (101.1, False), (105.0, False), (105.2, True)]
