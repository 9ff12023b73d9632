"""Verifies a replica's files in a process of its own, since an engine may crash on damaged ones.

    python -m ikvcore._check     with a JSON request on stdin; prints the findings, one JSON string a line

The process ends with 0 whatever it finds; any other end is a finding itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ikvcore.errors import IKVError, ReplicaDamagedError, StorageError

__all__ = ["CheckFailedError", "answer", "check_apart", "verify_files"]


class CheckFailedError(Exception):
    """Nothing could be found out."""


def verify_files(directory: Path, *, backend: str, options: Any) -> list[str]:
    """What is wrong with the replica in a generation's directory, none where all is well.

    backend: as in ClientOptions. options: an instance of the backend's options. Raises StorageError where the files
    could not be checked at all, so that nothing is known.
    """
    request = {"directory": str(directory), "backend": backend, "options": _plain(options)}
    try:
        return check_apart("ikvcore._check", request)
    except CheckFailedError as exc:
        raise StorageError(f"the replica at {str(directory)!r} could not be checked: {exc}") from exc


def check_apart(module: str, request: Mapping[str, Any]) -> list[str]:
    """Run a module that reads a request from stdin and prints findings, as `answer` does it, in a process of its own.

    That it was killed by a signal is a finding. Raises CheckFailedError.
    """
    done = subprocess.run(  # noqa: S603 - this interpreter, and modules of this project
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        # Settings for this process's clients, passkeys among them, are nothing to a process that reads files.
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("IKV_")},
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONWARNINGS": "ignore",
        },
    )
    if done.returncode < 0:
        return [f"its engine ended with {signal.Signals(-done.returncode).name} while the files were read"]
    if done.returncode > 0:
        raise CheckFailedError(done.stderr.strip().rpartition("\n")[2])
    return [str(json.loads(line)) for line in done.stdout.splitlines()]


def answer(find: Callable[..., list[str]]) -> int:
    """The other end of `check_apart`: what such a module's process does. Its exit code."""
    request = json.load(sys.stdin)
    try:
        findings = find(**request)
    except IKVError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    for finding in findings:
        sys.stdout.write(json.dumps(finding) + "\n")
    return 0


def _plain(options: Any) -> dict[str, Any]:
    """Options that differ from their defaults, as JSON can carry them."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default and isinstance(value, (str, int, float, bool))
    }


def _findings(directory: str, backend: str, options: dict[str, Any]) -> list[str]:
    from ikvcore._registry import build_options, load_backend
    from ikvcore._storage import opened_storage
    from ikvcore.models import BackendContext
    from ikvcore.protocols import Verify

    plugin = load_backend(backend)
    context = BackendContext(
        directory=Path(directory), options=build_options(f"backend {backend!r}", plugin.info.options, options)
    )
    try:
        storage = opened_storage(plugin.hook.ikv_open_backend(context=context), plugin.info)
        try:
            return storage.verify() if isinstance(storage, Verify) else []
        finally:
            storage.close()
    except ReplicaDamagedError as exc:
        return [exc.what]


if __name__ == "__main__":
    sys.exit(answer(_findings))
