"""The replica loop, seen from inside: whose turn it is to ingest, and from when silence counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ikvcore import _loop
from ikvcore._loop import ReplicaLoop
from ikvcore._mount import Mount
from ikvcore._status import Status
from ikvcore.errors import FencedError, StorageError
from ikvcore.models import Sharing


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


def test_where_one_process_may_write_a_silent_one_is_told_of_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine would refuse whoever tried; when it is heard of again, nothing is wrong any more."""
    clock, lock = Clock(), Lock()
    lock.held = False
    monkeypatch.setattr(_loop, "time", clock)
    generations: Any = SimpleNamespace(damage=None)
    mount: Any = SimpleNamespace(path=tmp_path)
    unused: Any = None
    loop = ReplicaLoop(
        generations,
        unused,
        unused,
        partitions=[0],
        mount=mount,
        lock=lock,  # type: ignore[arg-type]
        sharing=Sharing.FOLLOWERS,
    )
    Status(pid=4321, heartbeat=100.0).write(tmp_path)
    told = []
    for clock.now, heartbeat in ((100.0, 100.0), (105.1, 100.0), (105.2, 105.2)):
        Status(pid=4321, heartbeat=heartbeat).write(tmp_path)
        assert not loop._may_ingest()
        told.append(str(loop.silence))
    assert told[0] == told[2] == "None"
    assert "process 4321, which ingests" in told[1]


def test_who_takes_over_from_the_one_that_writes_opens_the_storage_anew(tmp_path: Path) -> None:
    """Once, and before it ingests; as long as that fails, it neither ingests nor gives its place up."""
    opened: list[str] = []
    lock, unused = Lock(), None
    lock.held = False
    generations: Any = SimpleNamespace(
        damage=None, current=SimpleNamespace(storage="storage", directory=None), storage="storage"
    )
    failures = [StorageError("its lock is still held")]

    def reopen() -> None:
        if failures:
            raise failures.pop()
        opened.append("to write")

    generations.reopen = reopen

    class Stepper:
        halts: ClassVar[dict[int, str]] = {}

        def step(self, timeout: float) -> bool:
            opened.append("step")
            return False

        def close(self) -> None:
            pass

    loop: Any = ReplicaLoop(
        generations,
        unused,  # type: ignore[arg-type]
        lambda storage: Stepper(),  # type: ignore[arg-type,return-value]
        partitions=[0],
        mount=Mount(tmp_path, unused),  # type: ignore[arg-type]
        lock=lock,  # type: ignore[arg-type]
        sharing=Sharing.FOLLOWERS,
    )
    loop._stopped.set()  # no pauses
    lock.held = True
    for _ in range(3):
        loop._work(loop._ingest)
    assert opened == ["to write", "step", "step"]


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
