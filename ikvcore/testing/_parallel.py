"""Threads, spawned processes and forks for tests: each ends in a bounded time, and its failures reach the test."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

__all__ = ["ATTEMPTS", "PATIENCE", "Worker", "eventually", "in_fork", "run_threads", "spawned", "started"]

ATTEMPTS = 1_000
"""Of a commit beside others': each that is fenced is another's success, and of those a test has fewer."""
PATIENCE = 60.0
"""Seconds after which a test gives up waiting for something that has to happen; never a measure of speed."""


class Worker(threading.Thread):
    """A daemon thread that keeps its function's result or error for `finish`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as exc:
            self._error = exc

    def finish(self, patience: float = PATIENCE) -> Any:
        """Wait for the end; the function's result, or its error raised here."""
        self.join(patience)
        assert not self.is_alive(), f"{self._function} did not end within {patience} s"
        if self._error is not None:
            raise self._error
        return self._result


def started(function: Callable[[], Any]) -> Worker:
    """Run `function` in a thread of its own, already started."""
    worker = Worker(function)
    worker.start()
    return worker


def run_threads(functions: Sequence[Callable[[], Any]], *, patience: float = PATIENCE) -> list[Any]:
    """Run all at once, each in its thread; their results in order, or the first error."""
    barrier = threading.Barrier(len(functions))

    def together(function: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        return function()

    workers = [started(partial(together, function)) for function in functions]
    return [worker.finish(patience) for worker in workers]


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer of `condition`; for states that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not come to pass within {PATIENCE} s"
        time.sleep(0.005)
    return answer


@contextmanager
def spawned(target: Callable[..., Any], *args: Any, patience: float = PATIENCE) -> Iterator[Callable[[], Any]]:
    """Run `target(*args)`, a module-level function, in a new process; the value gives its result or fails the test."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, target, args), daemon=True)
    process.start()
    sender.close()

    def result() -> Any:
        assert receiver.poll(patience), f"{target.__name__} did not answer within {patience} s"
        try:
            ok, answer = receiver.recv()
        except EOFError:
            raise AssertionError(f"{target.__name__} died without an answer") from None
        assert ok, answer
        return answer

    try:
        yield result
    finally:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        receiver.close()


def _report(sender: Any, target: Callable[..., Any], args: Sequence[Any]) -> None:
    try:
        answer = (True, target(*args))
    except BaseException as exc:
        answer = (False, f"{type(exc).__name__} in the child process: {exc}")
    sender.send(answer)
    sender.close()


def in_fork(function: Callable[[], str]) -> str:
    """What `function` returns in a forked child; a child that hangs is killed and fails the test."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads: that is the test
        child = os.fork()
    if child == 0:
        try:
            text = function()
        except BaseException as exc:
            text = f"{type(exc).__name__}: {exc}"
        try:
            os.write(write_end, text.encode()[:4096])
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], PATIENCE)
        if not ready:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert ready, f"the forked child gave no answer within {PATIENCE} s"
        return os.read(read_end, 4096).decode()
    finally:
        os.close(read_end)
