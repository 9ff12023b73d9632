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
from pathlib import Path
from typing import Any

from ikvcore.errors import IKVError, ReplicaDamagedError, StorageError

__all__ = ["verify_files"]


def verify_files(directory: Path, *, backend: str, options: Any) -> list[str]:
    """What is wrong with the replica in a generation's directory, none where all is well.

    backend: as in ClientOptions. options: an instance of the backend's options. Raises StorageError where the files
    could not be checked at all, so that nothing is known.
    """
    request = {"directory": str(directory), "backend": backend, "options": _plain(options)}
    done = subprocess.run(
        [sys.executable, "-m", "ikvcore._check"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode < 0:
        return [f"its engine ended with {signal.Signals(-done.returncode).name} while the files were read"]
    if done.returncode > 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise StorageError(f"the replica at {str(directory)!r} could not be checked: {last}")
    return [str(json.loads(line)) for line in done.stdout.splitlines()]


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


def _main() -> int:
    request = json.load(sys.stdin)
    try:
        findings = _findings(**request)
    except IKVError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    for finding in findings:
        sys.stdout.write(json.dumps(finding) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
