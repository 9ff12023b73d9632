"""Whether a log may have lost writes, or worse, when the machine went down: opened.json beside it (ikvcore._opened).

Only a log that is written without syncs is marked, so that one that is synced costs nothing. Its writers share a lock
on the log's directory; the last one to close brings everything to the disk and says so. A log that was being written in
another boot is checked in a process of its own before it is opened.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ikv_transports._local_check import verify_log
from ikvcore._opened import Opened
from ikvcore.errors import IKVError, TransportError

__all__ = ["UnsyncedWrites", "check_suspect"]

_log = logging.getLogger(__name__)


def check_suspect(directory: Path, identity: str, directory_fd: int) -> None:
    """Raise TransportError where the log was damaged when the machine went down; whoever comes first finds out."""
    store = directory.parent
    if not Opened.suspect(store):
        return
    try:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)
        if not Opened.suspect(store):
            return
        _log.warning("the log %s was written without syncs when the machine went down; checking it", directory)
        wrong = verify_log(directory, identity)
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise TransportError(
                f"the log at {str(directory)!r} was written without syncs when the machine went down, and is damaged: "
                f"{wrong[0]}{more}; restore it from a copy, or delete the store, create it anew and publish the "
                "documents again"
            )
        Opened.mark(store, clean=True)
    except OSError as exc:
        raise TransportError(f"the log at {str(directory)!r} could not be checked: {exc}") from exc
    finally:
        with suppress(OSError):
            fcntl.flock(directory_fd, fcntl.LOCK_UN)


class UnsyncedWrites:
    """One process's writes to a log that leaves them to the operating system."""

    def __init__(self, store: Path, directory_fd: int) -> None:
        """`directory_fd` is the log's directory, open as long as this is used, and locked by nobody else here."""
        self._store: Final = store
        self._fd: Final = directory_fd
        self._begun = False

    def begin(self) -> None:
        """Before a write: say that the files are not whole until somebody says so. Raises OSError."""
        if self._begun:
            return
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        Opened.mark(self._store, clean=False)
        self._begun = True

    def end(self, sync: Callable[[], bool]) -> None:
        """After the last write: say that the files are whole, unless others are still writing; `sync` makes them so."""
        if not self._begun:
            return
        self._begun = False
        try:
            # In this order: once nobody else writes, what is synced is all there is.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        try:
            if sync():
                Opened.mark(self._store, clean=True)
        except (OSError, IKVError) as exc:  # the log is only checked once more than needed
            _log.warning("opened.json could not be written: %s", exc)
        finally:  # not left to the close: a forked child holds the same lock
            fcntl.flock(self._fd, fcntl.LOCK_UN)
