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
    """A mount's lock that another process takes once it is given up, and gives up itself where it is `free`."""

    def __init__(self, *, held: bool = True) -> None:
        self.held = held
        self.free = False

    def try_acquire(self) -> bool:
        self.held = self.held or self.free
        return self.held

    def release(self) -> None:
        self.held = False


class Clock:
    """The time that the loop goes by."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_loop, "time", clock)
    return clock


def make_loop(mount: Path, lock: Lock) -> ReplicaLoop:
    generations: Any = SimpleNamespace(damage=None)
    unused: Any = None
    place: Any = SimpleNamespace(path=mount)
    return ReplicaLoop(generations, unused, unused, partitions=[0], mount=place, lock=lock)  # type: ignore[arg-type]


def fenced() -> bool:
    raise FencedError(b"1", b"2")


def test_after_a_fence_the_silence_of_the_other_counts_from_its_commit(tmp_path: Path, clock: Clock) -> None:
    """Not from when this worker looks again, a second later: that would be a second too long without an ingester."""
    loop = make_loop(tmp_path, Lock())
    assert loop._may_ingest()
    loop._work(fenced)
    Status(heartbeat=100.1).write(tmp_path)  # the other one's last word
    answers = []
    for clock.now in (100.5, 101.1, 105.0, 105.2):
        answers.append((clock.now, loop._may_ingest()))
    assert answers == [(100.5, False), (101.1, False), (105.0, False), (105.2, True)]


def test_who_was_fenced_without_the_lock_takes_it_as_soon_as_it_is_free(tmp_path: Path, clock: Clock) -> None:
    """What fenced it can be the last commit of a process that has died: then there is nobody to follow."""
    lock = Lock(held=False)
    loop = make_loop(tmp_path, lock)
    Status(heartbeat=94.0).write(tmp_path)
    assert not loop._may_ingest()
    clock.now = 105.1
    assert loop._may_ingest()
    loop._set_role(_loop.Role.INGESTING)
    loop._last_beat = 94.0  # the silent word is our own: it says nothing of whoever holds the lock
    loop._work(fenced)
    clock.now = 105.2
    assert not loop._may_ingest()
    lock.free = True
    assert loop._may_ingest()


def test_who_was_fenced_with_the_lock_leaves_it_to_the_other(tmp_path: Path, clock: Clock) -> None:
    lock = Lock()
    loop = make_loop(tmp_path, lock)
    assert loop._may_ingest()
    loop._work(fenced)
    lock.free = True
    clock.now = 100.5
    assert not loop._may_ingest()
    clock.now = 101.1
    assert loop._may_ingest()
