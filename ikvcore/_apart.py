"""Looking at files in a process of its own, since an engine may crash on damaged ones."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["NotFoundOutError", "find_apart"]

_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""What an engine that believes a damaged file dies of; other signals come from outside."""

_CHILD: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ikvcore._apart import answer_parent
answer_parent()
"""


class NotFoundOutError(Exception):
    """The process ended without an answer, so nothing is known."""


def find_apart(function: str, request: Mapping[str, Any]) -> list[str]:
    """What `function`, as "module:name", returns for the request: findings, none where all is well.

    That it crashed is a finding. Raises what it raised, and NotFoundOutError.
    """
    command = [sys.executable, "-c", _CHILD, json.dumps([str(path) for path in sys.path])]
    # Settings for this process's clients, passkeys among them, are nothing to a process that reads files.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IKV_")}
    asked = pickle.dumps((function, dict(request)))
    child = subprocess.run(command, input=asked, capture_output=True, env=kept)  # noqa: S603  our own program
    if -child.returncode in _CRASHES:
        name = signal.Signals(-child.returncode).name
        return [f"reading it ended the process that did ({name}): the engine's files are damaged"]
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise NotFoundOutError(f"the process that reads it ended with {child.returncode}: {last or 'no message'}")
    try:
        answer = pickle.loads(child.stdout)  # noqa: S301  what our own child wrote
    except (EOFError, pickle.UnpicklingError) as exc:
        raise NotFoundOutError(f"the process that reads it gave no answer ({exc})") from exc
    if isinstance(answer, BaseException):
        raise answer
    findings: list[str] = answer
    return findings


def answer_parent() -> None:
    """The child's part: a pickled request on stdin, findings or an error on stdout."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # a plugin may print
    function, request = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  what our parent wrote
    module, _, name = function.partition(":")
    try:
        answer: object = getattr(importlib.import_module(module), name)(**request)
    except Exception as exc:
        answer = exc
    out.write(pickle.dumps(answer))
