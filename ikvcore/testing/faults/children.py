"""Every way to get a child process while clients are open: it works, or it is refused at once; and nothing is lost.

Each way is played by a program of its own (this module's main), which opens clients, has children, and goes on reading
and writing after they are gone.
"""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from ikvcore._registry import load_backend
from ikvcore.models import Sharing
from ikvcore.testing.faults import offspring
from ikvcore.testing.faults.checker import Checker
from ikvcore.testing.faults.program import Ended, given, play
from ikvcore.testing.faults.recorder import Recorder
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.worker import inject, inspect
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import environment

__all__ = ["WAYS", "run"]

_PATIENCE: Final = 60.0
_WORKS: Final = "works"
_REFUSED: Final = "ForkedError"
_BUSY: Final = "MountBusyError"
_TOGETHER: Final = 3

WAYS: Final = {
    "fork": _REFUSED,
    "fork beside busy threads": _REFUSED,
    "fork, new clients of the same store": _REFUSED,
    "fork before anything is open": _WORKS,
    "multiprocessing fork, daemon": _REFUSED,
    "Pool of forks": _REFUSED,
    "ProcessPoolExecutor of forks": _REFUSED,
    "spawn": _WORKS,
    "spawn, daemon": _WORKS,
    "Pool of spawned": _WORKS,
    "forkserver": _WORKS,
    "Pool of a forkserver": _WORKS,
    "ProcessPoolExecutor of spawned": _WORKS,
    "a daemon that opens after it has become one": _WORKS,
    "a daemon that had opened before": _REFUSED,
    "gunicorn": _WORKS,
    "gunicorn --preload, opened at import": _REFUSED,
    "gunicorn --preload, opened in post_fork": _WORKS,
}
"""What is to come of each."""

_BESIDE_THE_PARENT: Final = frozenset(way for way in WAYS if "spawn" in way or "forkserver" in way)
"""Ways whose children open the mount that their parent has open."""


def _due(way: str, pair: Pair) -> str:
    """What is to come of a way: where a mount is one process's at a time, it is said who has it."""
    return _BUSY if way in _BESIDE_THE_PARENT and _alone(pair) else WAYS[way]


def _alone(pair: Pair) -> bool:
    return load_backend(pair.backend).info.sharing is Sharing.ONE_PROCESS


def run(
    *,
    times: int,
    seed: int,
    directory: Path,
    pair: Pair,
    ways: Sequence[str] | None = None,
    fault: str | None = None,
) -> Result:
    """Each way so many times, some at once. `fault`: FILE.py:FUNCTION that breaks something in the parents first, not
    in gunicorn's.
    """
    chosen = list(ways or WAYS)
    not_run = []
    if importlib.util.find_spec("gunicorn") is None:
        not_run = [f"{way}: gunicorn is not installed (pip install gunicorn)" for way in chosen if "gunicorn" in way]
        chosen = [way for way in chosen if "gunicorn" not in way]
    fast = pair.with_durability("process-crash")
    targets = {
        (way, number): Target.make(directory / f"{list(WAYS).index(way)}-{number}", fast)
        for way in chosen
        for number in range(times)
    }
    with ThreadPoolExecutor(_TOGETHER) as pool:
        found = dict(zip(targets, pool.map(lambda key: _once(key[0], targets[key], seed, fault), targets), strict=True))
    rows, violations = [], []
    for way in chosen:
        wrong = [f"{way}: {each}" for (played, _), (_, out) in found.items() if played == way for each in out]
        children = sum(count for (played, _), (count, _) in found.items() if played == way)
        due = _due(way, pair)
        happened = f"{children} children: {due}{' at once' * (due == _REFUSED)}; the parent goes on"
        rows.append(Row(fault=way, times=times, happened=happened, violations=len(wrong), seed=seed))
        violations += wrong
    return Result(rows=rows, violations=violations, not_run=not_run)


def _once(way: str, target: Target, seed: int, fault: str | None) -> tuple[int, list[str]]:
    """How many children there were, and what was wrong."""
    workload = Workload(seed=seed)
    ended: Ended = (
        _gunicorn(way, target, workload)
        if "gunicorn" in way
        else play(__name__, target, workload, way, *([] if fault is None else [fault]), patience=_PATIENCE)
    )
    outcomes = ended.answer.get("outcomes", [])
    wrong = [*ended.wrong, *(f"a child: {outcome}" for outcome in outcomes if outcome != _due(way, target.pair))]
    if not outcomes:
        wrong.append("no child told anything")
    if not wrong:
        Recorder(target.directory, "last").looked(inspect(target))
        checker = Checker(target, workload)
        wrong += map(str, checker.run())
    return len(outcomes), wrong


# -- gunicorn ----------------------------------------------------------------------------------


class _OnSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def _gunicorn(way: str, target: Target, workload: Workload) -> Ended:
    """Start it with two workers, or one where no more may have the mount; ask it a few times, stop it in good order."""
    with tempfile.TemporaryDirectory() as place:  # a short path: sockets allow no long ones
        address = f"{place}/socket"
        module = "ikvcore.testing.faults._wsgi"
        workers = "1" if _alone(target.pair) else "2"
        opened = "post_fork" if way.endswith("post_fork") else "import"
        command = [sys.executable, "-m", "gunicorn", f"{module}:application", "-w", workers, "-b", f"unix:{address}"]
        # The module of hooks is imported by the master too, so it is only given where nothing is opened at import.
        command += ["-c", f"python:{module}"] if opened == "post_fork" else []
        command += ["--preload"] if "--preload" in way else []
        config = json.dumps({"target": target.to_json(), "workload": workload.to_json()})
        said = target.directory / "said.txt"
        with said.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place,
                env={**environment(), "IKV_FAULTS_CONFIG": config, "IKV_FAULTS_OPEN": opened},
            )
        outcomes = [_ask(address, process) for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        code: int | None
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        return Ended(code, {"outcomes": outcomes}, said.read_text(errors="replace"))


def _ask(address: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        connection = _OnSocket(address)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.02)  # it has not bound its socket yet
        finally:
            connection.close()
    return "it did not answer"


# -- the process itself ------------------------------------------------------------------------


class _Parent:
    """Has open clients, and children."""

    def __init__(self, target: Target, workload: Workload) -> None:
        self.target = target
        self.workload = workload
        self.config = json.dumps({"target": target.to_json(), "workload": workload.to_json()})
        self._first = itertools.count(0, 3)

    def open(self) -> None:
        """Open clients, and use them."""
        offspring.open_here(self.target)
        self.use()

    def use(self) -> None:
        """Write, wait and read."""
        writer, reader = offspring.CLIENTS
        offspring.work_with(writer, reader, self.target, self.workload, 1, next(self._first))

    def close(self) -> None:
        """Shut the clients down."""
        for client in offspring.CLIENTS:
            client.shutdown()

    def fork(self, work: Callable[[], str]) -> str:
        """What `work` says in a forked child, which then leaves by the interpreter's own way."""
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a call that blocks ends the child
            os.write(sending, work().encode())
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - what the parent had buffered is the parent's
            sys.exit(0)
        os.close(sending)
        with open(receiving, "rb") as pipe:  # noqa: PTH123 - a descriptor
            said = pipe.read().decode()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return said if code == 0 else f"{said}, and ended with {code}"

    def daemonize(self, work: Callable[[], str]) -> str:
        """What `work` says in a daemon: a grandchild in a session of its own, whose parent is gone."""
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            signal.alarm(30)
            os.chdir("/")
            os.write(sending, work().encode())
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - see above
            sys.exit(0)
        os.close(sending)
        os.waitpid(child, 0)
        with open(receiving, "rb") as pipe:  # noqa: PTH123 - a descriptor
            return pipe.read().decode()

    def process(self, method: str, function: Callable[..., str], *args: Any, daemon: bool) -> str:
        """What a function says in a multiprocessing.Process."""
        context: Any = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        process = context.Process(target=_answer, args=(answers, function, args), daemon=daemon)
        process.start()
        process.join(_PATIENCE)
        if process.exitcode != 0:
            return f"it ended with {process.exitcode}"
        said: str = answers.get()
        return said


def _answer(answers: Any, function: Callable[..., str], args: Sequence[Any]) -> None:
    answers.put(function(*args))


def _pooled(parent: _Parent, method: str) -> list[str]:
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        if method == "fork":
            found = pool.map_async(offspring.inherited, range(4)).get(_PATIENCE)
        else:
            found = pool.starmap_async(offspring.own, [(parent.config, number) for number in (2, 3, 4)]).get(_PATIENCE)
        pool.close()
        pool.join()
    return found


def _executed(parent: _Parent, method: str) -> list[str]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        if method == "fork":
            return list(pool.map(offspring.inherited, range(4), timeout=_PATIENCE))
        return list(pool.map(offspring.own, [parent.config] * 3, (2, 3, 4), timeout=_PATIENCE))


def _beside_threads(parent: _Parent) -> list[str]:
    """Threads that read and hold every lock now and then, while the process forks."""
    _, reader = offspring.CLIENTS
    stop = threading.Event()

    def churn(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    parts: list[Callable[[], object]] = [
        lambda: reader.get_document("key-0"),
        lambda: list(reader.scan()),
        reader.stats,
    ]
    threads = [threading.Thread(target=churn, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    found = [parent.fork(offspring.inherited) for _ in range(4)]
    stop.set()
    for thread in threads:
        thread.join(_PATIENCE)
    return found


def _children(way: str, parent: _Parent) -> list[str]:
    """What the children of one way say."""
    own, config = offspring.own, parent.config
    simple: dict[str, Callable[[], list[str]]] = {
        "fork": lambda: [parent.fork(offspring.inherited)],
        "fork beside busy threads": lambda: _beside_threads(parent),
        "fork, new clients of the same store": lambda: [parent.fork(lambda: own(config, 2))],
        "fork before anything is open": lambda: [parent.fork(partial(own, config, number)) for number in (2, 3)],
        "multiprocessing fork, daemon": lambda: [parent.process("fork", offspring.inherited, daemon=True)],
        "Pool of forks": lambda: _pooled(parent, "fork"),
        "ProcessPoolExecutor of forks": lambda: _executed(parent, "fork"),
        "spawn": lambda: [parent.process("spawn", own, config, 2, daemon=False)],
        "spawn, daemon": lambda: [parent.process("spawn", own, config, 2, daemon=True)],
        "Pool of spawned": lambda: _pooled(parent, "spawn"),
        "forkserver": lambda: [parent.process("forkserver", own, config, n, daemon=False) for n in (2, 3)],
        "Pool of a forkserver": lambda: _pooled(parent, "forkserver"),
        "ProcessPoolExecutor of spawned": lambda: _executed(parent, "spawn"),
        "a daemon that opens after it has become one": lambda: [parent.daemonize(lambda: own(config, 2))],
        "a daemon that had opened before": lambda: [parent.daemonize(offspring.inherited)],
    }
    return simple[way]()


_OPEN_LATER: Final = ("fork before anything is open", "a daemon that opens after it has become one")


def main(arguments: Sequence[str]) -> int:
    """The program's exit status."""
    target, workload, (way, *faults) = given(arguments)
    for fault in faults:
        inject(fault)
    parent = _Parent(target, workload)
    if way not in _OPEN_LATER:
        parent.open()
    outcomes = _children(way, parent)
    if way in _OPEN_LATER:
        parent.open()
    for _ in range(5):
        parent.use()
    parent.close()
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"outcomes": outcomes}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    # By its own name: what is passed to spawned children has to be found there.
    from ikvcore.testing.faults import children

    sys.exit(children.main(sys.argv[1:]))
