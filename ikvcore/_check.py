"""Verifies a replica's files in a process of its own, since an engine may crash on damaged ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ikvcore._apart import NotFoundOutError, find_apart
from ikvcore._progress import kept_events, read_progress
from ikvcore.errors import InvalidOptionError, ReplicaDamagedError, StorageError, StorageFullError
from ikvcore.protocols import Storage, Verify

__all__ = ["findings", "summary", "verify_files"]


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
    try:
        return find_apart("ikvcore._check:findings", request)
    except NotFoundOutError as exc:
        raise StorageError(f"the replica at {str(directory)!r} could not be checked: {exc}") from exc


def summary(found: Sequence[str]) -> str:
    """Some of what a check found, in a sentence."""
    more = f", and {len(found) - 3:,} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def findings(
    *, directory: Path, backend: str, options: Mapping[str, Any], partitions: tuple[int, ...], alone: bool
) -> list[str]:
    """The child's part of verify_files."""
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
        # The engine first: what is wrong below explains what is wrong above.
        return verify() or _bookkeeping(storage, partitions)
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
