"""Verifies a replica's files in a process of its own, since an engine may crash on damaged ones."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ikvcore._progress import kept_events, read_progress
from ikvcore.errors import InvalidOptionError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.protocols import Storage, Verify

__all__ = ["summary", "verify_files"]

_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""What an engine that believes a damaged file dies of; other signals come from outside."""

_CHILD: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ikvcore._check import answer_parent
answer_parent()
"""


def verify_files(
    directory: Path, *, backend: str, options: Mapping[str, Any], partitions: Sequence[int], alone: bool
) -> list[str]:
    """One sentence for each thing that is wrong with the replica in a generation's directory, none if all is well.

    backend, options: as in ClientOptions. alone: this process holds the mount already, where the backend cannot be
    shared. Raises InvalidOptionError where the backend cannot tell, MountBusyError, and StorageError where the files
    could not be checked at all, so that nothing is known.
    """
    request = {
        "directory": directory,
        "backend": backend,
        "options": dict(options),
        "partitions": tuple(partitions),
        "alone": alone,
    }
    command = [sys.executable, "-c", _CHILD, json.dumps([str(path) for path in sys.path])]
    # Nothing of the environment is needed there, and a passkey may be in it.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IKV_")}
    child = subprocess.run(command, input=pickle.dumps(request), capture_output=True, env=kept)  # noqa: S603  our own program
    if -child.returncode in _CRASHES:
        name = signal.Signals(-child.returncode).name
        return [f"reading it ended the process that did ({name}): the engine's files are damaged"]
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise StorageError(f"the process that verifies ended with exit code {child.returncode}: {last or 'no message'}")
    try:
        answer = pickle.loads(child.stdout)  # noqa: S301  what our own child wrote
    except (EOFError, pickle.UnpicklingError) as exc:
        raise StorageError(f"the process that verifies gave no answer ({exc})") from exc
    if isinstance(answer, BaseException):
        raise answer
    findings: list[str] = answer
    return findings


def summary(findings: Sequence[str]) -> str:
    """Some of what a check found, in a sentence."""
    more = f", and {len(findings) - 3:,} more" if len(findings) > 3 else ""
    return "; ".join(findings[:3]) + more


def answer_parent() -> None:
    """The child's part: a pickled request on stdin, findings or an error on stdout."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # a plugin may print
    try:
        answer: object = _findings(**pickle.loads(sys.stdin.buffer.read()))  # noqa: S301  what our parent wrote
    except Exception as exc:
        answer = exc
    out.write(pickle.dumps(answer))


def _findings(
    *, directory: Path, backend: str, options: Mapping[str, Any], partitions: tuple[int, ...], alone: bool
) -> list[str]:
    from ikvcore._visit import opened_storage

    try:
        with opened_storage(directory.parent, directory, backend, options, alone=alone) as storage:
            if not isinstance(storage, Verify):
                raise InvalidOptionError(
                    "backend", backend, "its storage cannot verify itself; rebuild the replica where it is in doubt"
                )
            return _wrong_in(storage, storage.verify, partitions)
    except ReplicaDamagedError as exc:
        return [exc.what]


def _wrong_in(storage: Storage, verify: Callable[[], list[str]], partitions: tuple[int, ...]) -> list[str]:
    try:
        return [*_bookkeeping(storage, partitions), *verify()]
    except (ReplicaDamagedError, StorageFullError):
        raise
    except StorageError as exc:  # it was opened: what then cannot be read is not what was written
        return [str(exc)]


def _bookkeeping(storage: Storage, partitions: tuple[int, ...]) -> list[str]:
    """What is wrong with the core's own entries."""
    wrong = []
    for read in (lambda: read_progress(storage, partitions), lambda: kept_events(storage)):
        try:
            read()
        except ReplicaDamagedError as exc:
            wrong.append(exc.what)
    return wrong
