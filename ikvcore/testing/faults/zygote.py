"""Makes worker processes in milliseconds: a process that has imported everything and opened nothing forks them.

LMDB must not be open at a fork, so nobody but this process forks, and it opens no store. Where a transport keeps
passkeys, it verifies the harness's once, which takes 0.2 s on purpose, and its children remember that.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import ikvcore
from ikvcore._closing import Closing
from ikvcore.testing.faults.marks import Marks
from ikvcore.testing.faults.target import ACCOUNT, PASSKEY, Pair, Target
from ikvcore.testing.faults.workload import Workload

__all__ = ["Process", "Zygote", "environment"]

PATIENCE: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1


def environment() -> dict[str, str]:
    """The environment of a process that is to import this very ikvcore."""
    place = str(Path(ikvcore.__file__).parent.parent)
    paths = [place, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


class Process:
    """A worker: its process id, its marks, and what may be done to it."""

    def __init__(self, zygote: Zygote, pid: int, name: str, marks: Marks) -> None:
        self._zygote = zygote
        self.pid = pid
        self.name = name
        self.marks = marks
        self.code: int | None = None
        """The exit status once it has ended, negative for a signal."""

    def signal(self, number: int) -> None:
        """Send a signal; it has not been waited for, so the id is still its own."""
        if self.code is None:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGSTOP, and return when it has stopped."""
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while self._state() not in "Tt":
            if self._state() in "ZX" or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not stop")
            time.sleep(0.0005)

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    @property
    def ended(self) -> bool:
        """Whether it is dead; asks without waiting."""
        if self.code is None:
            self.code = self._zygote.ask(poll=self.pid)["code"]
        return self.code is not None

    def gone(self) -> bool:
        """The same, to be passed on."""
        return self.ended

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        deadline = time.monotonic() + PATIENCE
        while not self.ended:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not end within {PATIENCE} s")
            time.sleep(0.001)
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def strike(self) -> None:
        """The same to one that is at work. Raises RuntimeError where it had ended by itself: that is no kill."""
        self.kill()
        if self.code != -signal.SIGKILL:
            raise RuntimeError(f"{self.name} ended with {self.code} by itself; the workers said: {self._zygote.tail()}")


class Zygote(Closing):
    """The client's side: a process that forks workers on request. Thread-safe. A context manager."""

    def __init__(self, pair: Pair, directory: Path) -> None:
        """`directory` gets a file with what the workers say on stderr."""
        directory.mkdir(parents=True, exist_ok=True)
        self.said = directory / "workers.log"
        with self.said.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ikvcore.testing.faults.zygote"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
            )
        self._lock = threading.Lock()
        self._processes: list[Process] = []
        self.ask(warm={"transport": pair.transport, "options": dict(pair.transport_options), "backend": pair.backend})

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request, and give the answer."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the zygote died; see {self.said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self, target: Target, workload: Workload, job: Mapping[str, Any]) -> Process:
        """Fork a worker."""
        from ikvcore.testing.faults.worker import marks_path  # it imports what parents of forks do without

        marks = Marks(marks_path(target, job["name"]))
        answer = self.ask(start={"job": dict(job), "target": target.to_json(), "workload": workload.to_json()})
        process = Process(self, answer["pid"], job["name"], marks)
        self._processes.append(process)
        return process

    def finish(self, target: Target, workload: Workload, job: Mapping[str, Any]) -> None:
        """Fork a worker that ends by itself, and wait for it. Raises RuntimeError where it failed."""
        code = self.start(target, workload, job).wait()
        if code:
            raise RuntimeError(f"{job['name']} ended with {code}; see {self.said}:\n{self.tail()}")

    def tail(self) -> str:
        """The last that workers said."""
        return self.said.read_text(errors="replace")[-2_000:]

    def close(self) -> None:
        """Kill the workers that are left, by their ids, and end."""
        for process in self._processes:
            if process.code is None and self._process.poll() is None:
                process.kill()
            process.marks.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(PATIENCE)


# -- the process itself ------------------------------------------------------------------------


def serve() -> None:
    """Answer requests, one JSON line each, until there are no more."""
    children: set[int] = set()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if "warm" in request:
            _warm(**request["warm"])
        elif "start" in request:
            pid = os.fork()
            if pid == 0:
                answers.close()
                _be_worker(request["start"])
            children.add(pid)
            answer["pid"] = pid
        elif "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer["code"] = os.waitstatus_to_exitcode(status) if pid else None
            children.discard(pid)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _warm(transport: str, options: Mapping[str, Any], backend: str) -> None:
    """Import all that workers import, and look the account up; neither opens a store."""
    import ikvcore._check
    import ikvcore._proto
    import ikvcore.testing.faults.worker
    from ikvcore._registry import load_backend, load_transport
    from ikvcore.admin import create_account, list_stores
    from ikvcore.errors import StoreExistsError

    assert ikvcore._proto.IKVDataEvent
    load_backend(backend)
    if not load_transport(transport).info.keeps_passkeys:
        return
    account: Any = {
        "account_id": ACCOUNT,
        "account_passkey": PASSKEY,
        "transport": transport,
        "transport_options": options,
    }
    with suppress(StoreExistsError):
        create_account(**account)
    list_stores(**account)


def _be_worker(config: Mapping[str, Any]) -> None:
    """What a child does; it never returns into the zygote's loop."""
    from ikvcore.testing.faults import worker

    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        faulthandler.enable()
        worker.start(config)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
