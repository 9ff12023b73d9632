"""Reading everything of a replica, in a process of its own: over damaged files an engine may end its process."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ikvcore._mount import Mount
from ikvcore._progress import kept_events, read_progress
from ikvcore._visit import backend_name, is_blank, opened_storage
from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import InvalidOptionError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.protocols import Storage, Verify

__all__ = ["verify_mount"]

_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""What an engine that believes a damaged file dies of; other signals come from outside."""

_CHILD: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ikvcore._verification import answer_parent
answer_parent()
"""


def verify_mount(mount: Mount, options: ClientOptions) -> list[str]:
    """What is wrong with a mount's storage, none where all is well. Raises InvalidOptionError where it cannot tell."""
    if is_blank(mount):
        return ["there is no storage: no reader has made it yet, or its files were removed"]
    request = {
        "path": mount.path,
        "generation": mount.generation(),
        "partitions": mount.manifest.partitions,
        "backend": backend_name(mount, options),
        "options": dict(options.backend_options),
    }
    return _verified_in_child(request)


def _verified_in_child(request: Mapping[str, Any]) -> list[str]:
    """The findings of a child process, or its death as one. Raises what was raised there."""
    command = [sys.executable, "-c", _CHILD, json.dumps([str(path) for path in sys.path])]
    child = subprocess.run(command, input=pickle.dumps(request), capture_output=True)  # noqa: S603  our own program
    if -child.returncode in _CRASHES:
        name = signal.Signals(-child.returncode).name
        return [f"reading it ended the process that did ({name}): the engine's files are damaged"]
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise StorageError(f"the process that verifies ended with exit code {child.returncode}: {last or 'no message'}")
    answer = pickle.loads(child.stdout)  # noqa: S301  what our own child wrote
    if isinstance(answer, BaseException):
        raise answer
    findings: list[str] = answer
    return findings


def answer_parent() -> None:
    """The child's part: a pickled request on stdin, findings or an error on stdout."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # a plugin may print
    try:
        answer: object = _findings(**pickle.loads(sys.stdin.buffer.read()))  # noqa: S301  what our parent wrote
    except Exception as exc:
        answer = exc
    out.write(pickle.dumps(answer))


def _findings(
    *, path: Path, generation: Path, partitions: tuple[int, ...], backend: str, options: Mapping[str, Any]
) -> list[str]:
    try:
        with opened_storage(path, generation, backend, options) as storage:
            if not isinstance(storage, Verify):
                raise InvalidOptionError(
                    "backend", backend, "its storage cannot verify itself; rebuild the replica where it is in doubt"
                )
            return [*_bookkeeping(storage, partitions), *storage.verify()]
    except StorageFullError:
        raise
    except StorageError as exc:  # what cannot be read at all is not verified further
        return [str(exc)]


def _bookkeeping(storage: Storage, partitions: tuple[int, ...]) -> list[str]:
    """What is wrong with the core's own entries."""
    wrong = []
    for read in (lambda: read_progress(storage, partitions), lambda: kept_events(storage)):
        try:
            read()
        except ReplicaDamagedError as exc:
            wrong.append(str(exc))
    return wrong
