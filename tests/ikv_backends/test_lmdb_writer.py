"""A process that is stopped inside a write transaction is killed, and nobody else ever is."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.requires_part(
    "stopped writers",
    available=platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc",
    how="LMDB's write lock is read on 64-bit x86 with glibc",
)

PATIENCE = 30.0
HOLDER = """
import sys, lmdb
environment = lmdb.open(sys.argv[1])
transaction = environment.begin(write=True) if sys.argv[2] == "inside" else None
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that is inside a write transaction, or outside of one."""
    started: list[subprocess.Popen[str]] = []

    def start(where: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Any]:
    from ikv_backends._lmdb_environment import LmdbEnvironment
    from ikvcore.errors import StorageError

    opened = LmdbEnvironment(tmp_path, sync=False, create=True, what="replica", error=StorageError)
    yield opened
    opened.close()


def stop(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    while True:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return


def test_a_writer_that_waits_behind_a_stopped_one_goes_on(
    environment: Any, holder: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ikv_backends._writer_watch.WAIT", 0.5)
    process = holder("inside")
    stop(process)
    environment.write(lambda transaction: transaction.put(b"a", b"1"))
    assert process.wait(PATIENCE) == -signal.SIGKILL
    with environment.read() as transaction:
        assert transaction.get(b"a") == b"1"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time that looks go by, which a test moves; nobody else looks, since each test makes its own."""
    now = [time.monotonic()]
    monkeypatch.setattr("ikv_backends._writer_watch.time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    return now


def look_for(sight: Any, clock: list[float], seconds: float, *, waiting: bool) -> int | None:
    """Look twice a second for so long: the process that was killed, or None."""
    for _ in range(int(2 * seconds) + 1):
        killed: int | None = sight.look(waiting=waiting)
        if killed is not None:
            return killed
        clock[0] += 0.5
    return None


@pytest.fixture
def sight(environment: Any, tmp_path: Path, clock: list[float]) -> Any:
    from ikv_backends._lmdb_writer import LmdbSight

    return LmdbSight(tmp_path)


def test_what_was_seen_before_somebody_waits_counts(
    sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    """A successor waits first for the ingester's silence, and only then for the write."""
    process = holder("inside")
    stop(process)
    assert look_for(sight, clock, 5.0, waiting=False) is None
    assert sight.look(waiting=True) == process.pid
    assert process.wait(PATIENCE) == -signal.SIGKILL


def test_nobody_is_killed_before_five_seconds(
    sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = holder("inside")
    stop(process)
    assert look_for(sight, clock, 4.5, waiting=True) is None
    assert process.poll() is None


def test_a_stopped_process_that_keeps_nobody_waiting_is_left_alone(
    sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = holder("inside")
    stop(process)
    assert look_for(sight, clock, 60.0, waiting=False) is None
    assert process.poll() is None


def test_a_stopped_process_outside_of_a_write_is_left_alone(
    sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = holder("outside")
    stop(process)
    assert look_for(sight, clock, 60.0, waiting=True) is None
    assert process.poll() is None


def test_a_slow_writer_is_left_alone(
    sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    """However long it takes: it is not stopped, and its transaction ends some time."""
    process = holder("inside")
    assert look_for(sight, clock, 60.0, waiting=True) is None
    assert process.poll() is None


def test_a_process_that_goes_on_between_two_looks_is_left_alone(
    sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]]
) -> None:
    """Stopped at many moments is not stopped for long: a tracer stops a process at every system call."""
    process = holder("inside")
    for _ in range(5):
        stop(process)
        assert look_for(sight, clock, 3.0, waiting=True) is None
        os.kill(process.pid, signal.SIGCONT)
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            os.sched_yield()
    assert process.poll() is None


def test_an_environment_that_was_opened_anew_is_found_again(
    environment: Any, sight: Any, clock: list[float], holder: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    """After a failed commit it is mapped somewhere else."""
    sight.look(waiting=False)
    environment._usable().close()
    with mmap(-1, (tmp_path / "lock.mdb").stat().st_size):  # something else takes its place in memory
        environment._env = environment._open(create=False)
        environment.begin = environment._env.begin
        process = holder("inside")
        stop(process)
        assert look_for(sight, clock, 6.0, waiting=True) == process.pid


def test_who_watches_keeps_no_environment_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ikv_backends import _writer_watch
    from ikv_backends._lmdb_writer import LmdbSight

    class Idle:
        is_waiting = False

    turns = threading.Semaphore(0)
    go_on = threading.Semaphore(0)

    def sleep(_: float) -> None:
        turns.release()
        assert go_on.acquire(timeout=PATIENCE)

    monkeypatch.setattr(_writer_watch, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    watch = _writer_watch._Watch()
    idle = Idle()
    watch.add(idle, LmdbSight(tmp_path))
    thread, seen = watch._thread, weakref.ref(idle)
    assert thread is not None
    go_on.release()
    assert turns.acquire(timeout=PATIENCE)
    assert turns.acquire(timeout=PATIENCE)  # it has looked after the environment once, and rests
    del idle
    assert seen() is None
    go_on.release()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_nobody_is_found_where_nobody_writes(sight: Any, clock: list[float]) -> None:
    assert look_for(sight, clock, 60.0, waiting=True) is None


def test_our_own_write_is_left_alone(environment: Any, sight: Any, clock: list[float]) -> None:
    environment.write(lambda _: look_for(sight, clock, 60.0, waiting=True))
