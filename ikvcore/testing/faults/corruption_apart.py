"""Runs functions in processes of their own, which may crash: forked by a process that has imported much and opened
nothing.

    with Apart(directory) as apart:
        ended = apart.run("package.module:function", home=..., argument=...)

What the function returned comes back as JSON; what it raised as its class and text; a signal as its name.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ikvcore._registry import load_backend, load_transport
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.zygote import environment

__all__ = ["Apart", "Ended"]

PATIENCE: Final = 120
"""Seconds after which a child is ended by SIGALRM: it hangs."""
_PRELOADED: Final = (
    "ikvcore._check",
    "ikvcore._proto",
    "ikvcore.factory",
    "ikvcore.testing.faults.checker",
    "ikvcore.testing.faults.worker",
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a function's process came to its end."""

    value: Any = None
    """What the function returned."""
    error: str = ""
    """The class of what it raised, then its bases, with " < " between; empty where it returned."""
    text: str = ""
    """The text of that error."""
    trace: str = ""
    """Its traceback, or what faulthandler had to say."""
    signal: str = ""
    """The signal that ended the process; SIGALRM where it hung."""

    @property
    def typed(self) -> bool:
        """Whether it was ended by an error of this project."""
        return "IKVError" in self.error.split(" < ")

    def is_a(self, name: str) -> bool:
        """Whether the error is of this class."""
        return name in self.error.split(" < ")

    def __str__(self) -> str:
        return self.signal or (f"{self.error.split(' < ')[0]}: {self.text}" if self.error else "returned")


class Apart:
    """The client's side. A context manager."""

    def __init__(self, directory: Path, pair: Pair | None = None, command: Sequence[str] = ()) -> None:
        """`directory` gets a file with what the functions say on stderr; `pair` (the default one) is what they will
        open, imported once; `command` comes before Python's.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._said = directory / "apart.log"
        with self._said.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, sys.executable, "-m", "ikvcore.testing.faults.corruption_apart", *_plugins(pair or Pair())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
            )

    def run(
        self,
        function: str,
        /,
        *,
        home: Path | None = None,
        limits: Mapping[str, int] | None = None,
        apart: bool = True,
        **arguments: Any,
    ) -> Ended:
        """Call module:function with `arguments`, which JSON can carry.

        home: IKV_HOME there. limits: names of resource limits (RLIMIT_FSIZE, ...) and what they are set to. apart: see
        `warm`.
        """
        request = {
            "function": function,
            "home": None if home is None else str(home),
            "limits": dict(limits or {}),
            "arguments": arguments,
            "apart": apart,
        }
        said = self._said.stat().st_size
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that forks died; see {self._said}")
        answer = json.loads(line)
        if answer.get("signal"):
            with self._said.open("rb") as log:
                log.seek(said)
                answer["trace"] = log.read().decode(errors="replace")
        return Ended(**answer)

    def warm(self, function: str, /, *, home: Path | None = None, **arguments: Any) -> None:
        """Call a function in the process that forks, so that all later ones begin with what it knows.

        It opens nothing and starts no thread.
        """
        ended = self.run(function, home=home, apart=False, **arguments)
        if ended.error:
            raise RuntimeError(ended.trace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(PATIENCE)


# -- the process itself ------------------------------------------------------------------------


def _plugins(pair: Pair) -> tuple[str, str]:
    return pair.backend, pair.transport


def _serve(backend: str, transport: str) -> None:
    for name in _PRELOADED:
        importlib.import_module(name)
    load_backend(backend)
    load_transport(transport)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if not request.get("apart", True):
            if request["home"] is not None:
                os.environ["IKV_HOME"] = request["home"]
            answers.write(json.dumps(_called(request["function"], request["arguments"])).encode() + b"\n")
            answers.flush()
            continue
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            answers.close()
            _be_child(request, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code < 0:
            said = json.dumps({"signal": signal.Signals(-code).name}).encode()
        answers.write((said or json.dumps({"signal": f"exit {code}"}).encode()) + b"\n")
        answers.flush()


def _be_child(request: Mapping[str, Any], pipe: int) -> None:
    """Never returns."""
    try:
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        faulthandler.enable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        if request["home"] is not None:
            os.environ["IKV_HOME"] = request["home"]
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        answer = _called(request["function"], request["arguments"])
        with os.fdopen(pipe, "wb") as out:
            out.write(json.dumps(answer).encode())
    finally:
        sys.stderr.flush()
        os._exit(0)


def _called(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(**arguments)}
    except BaseException as exc:
        kinds = [kind.__name__ for kind in type(exc).__mro__ if kind is not object]
        return {"error": " < ".join(kinds), "text": str(exc), "trace": traceback.format_exc()}


if __name__ == "__main__":
    _serve(*sys.argv[1:])
