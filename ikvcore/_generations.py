"""The generations of a replica: the one that is read, what is wrong with it, and the one that takes its place.

A replica without a mount has one generation that is never replaced. Under a mount every process looks now and then
what CURRENT names and what damage.json says, and changes over.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ikvcore._damage import Damage
from ikvcore._mount import Mount
from ikvcore._opened import Opened
from ikvcore.errors import MountError, ReplicaDamagedError, ShutDownError, StorageError
from ikvcore.protocols import Storage

__all__ = ["Generation", "Generations"]

_log = logging.getLogger(__name__)

_GRACE: Final = 2.0
"""Seconds that a replaced storage stays open, for reads that had begun in it."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What is read now, in one piece: whoever looks, from whichever thread, never sees halves of two."""

    directory: Path | None = None
    """None for a replica without a mount."""
    storage: Storage | None = None
    """None where it could not even be opened, and once all is closed."""
    damage: Damage | None = None
    """What is wrong with it: until it is replaced, nothing may be read."""


class Generations:
    """A replica's storages. `refresh`, `begin_next` and `change_over` are called by the replica's loop alone."""

    def __init__(self, mount: Mount | None, open_storage: Callable[[Path | None], Storage]) -> None:
        """Raises StorageError; a damaged current generation raises nothing and is told by `damage`."""
        self._mount = mount
        self._open = open_storage
        self._lock = threading.RLock()  # a signal handler may shut down a client whose thread holds it
        self._retired: list[tuple[float, Storage]] = []
        self._current = Generation()
        self._enter(None if mount is None else mount.generation())

    @property
    def current(self) -> Generation:
        """The generation that is read, as it is known at this moment."""
        return self._current

    @property
    def damage(self) -> Damage | None:
        """What is wrong with the current generation."""
        return self._current.damage

    @property
    def storage(self) -> Storage:
        """The current generation's storage. Raises ReplicaDamagedError until it is sound, ShutDownError at the end."""
        current = self._current
        if current.damage is not None:
            raise ReplicaDamagedError(current.damage.reason)
        if current.storage is None:
            raise ShutDownError("reader")
        return current.storage

    def found_damaged(self, reason: str, storage: Storage | None) -> bool:
        """Note what is wrong with the current generation, for all processes of the mount; whether that was news.

        From any thread. Of a storage that is no longer the current one it is no news: a read may have begun in it
        before it was replaced. A generation without a mount has none to take its place: nothing is noted.
        """
        with self._lock:
            current = self._current
            if current.directory is None or current.damage is not None or current.storage is not storage:
                return False
            damage = Damage(generation=current.directory.name, reason=reason)
            self._current = replace(current, damage=damage)
        self._tell(damage)
        return True

    def refresh(self) -> bool:
        """Look what other processes did: whether there is another generation or another finding to read it by."""
        self._close_retired()
        if self._mount is None:
            return False
        directory = self._mount.generation()
        if directory != self._current.directory:
            self._enter(directory)
            return True
        damage = self._current.damage or Damage.read(self._mount.path, directory.name)
        with self._lock:
            # What a thread of ours found in the meantime is not forgotten: its file may not be written yet.
            if damage is None or self._current.damage is not None:
                return False
            self._current = replace(self._current, damage=damage)
        return True

    def begin_next(self) -> tuple[Path, Storage]:
        """An empty generation after the current one, and its storage; what a crash left there is removed."""
        assert self._mount is not None
        directory = self._mount.make_next_generation()
        return directory, self._open(directory)

    def reopen(self) -> None:
        """Open the current generation again, since this process may do more with it now: what was read stays readable
        meanwhile. Raises StorageError; then nothing has changed."""
        assert self._mount is not None
        if self.damage is None:  # else it is not opened at all, and another takes its place
            self._enter(self._mount.generation())

    def change_over(self, directory: Path, storage: Storage) -> None:
        """Make a generation that was built the current one, for all processes, also after a power loss."""
        assert self._mount is not None
        if self.damage is not None:
            # Again, since one that cannot be read would speak of the new generation too.
            self.damage.write(self._mount.path)
        self._mount.make_current(directory)
        self._take(Generation(directory, storage))

    def abandon(self, directory: Path, storage: Storage) -> None:
        """Remove a generation that will not be finished."""
        assert self._mount is not None
        _close(storage)
        with suppress(MountError):
            # A change-over that failed may have come as far as CURRENT: what that names is everybody's.
            if self._mount.generation() != directory:
                shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """Close every storage. Idempotent. Raises StorageError where one was not closed in good order."""
        with self._lock:
            retired, self._retired = self._retired, []
            storage, self._current = self._current.storage, Generation()
        with ExitStack() as stack:
            if storage is not None:
                stack.callback(storage.close)
            for _, old in retired:
                stack.callback(_close, old)

    def _enter(self, directory: Path | None) -> None:
        """Open the generation that CURRENT names."""
        if directory is None or self._mount is None:
            self._take(Generation(None, self._open(None)))
            return
        damage = Damage.read(self._mount.path, directory.name)
        storage = None
        if damage is None:  # else it is not even opened: an engine may crash on it
            try:
                storage = self._open_filled(directory)
            except ReplicaDamagedError as exc:
                damage = Damage(generation=directory.name, reason=exc.what)
                self._tell(damage)
        self._take(Generation(directory, storage, damage))

    def _open_filled(self, directory: Path) -> Storage:
        """Open a storage that was not made anew by that, if anything was ever in it. Raises ReplicaDamagedError."""
        storage = self._open(directory)
        try:
            Opened.refuse_emptied(directory, storage)
        except BaseException:
            _close(storage)
            raise
        return storage

    def _tell(self, damage: Damage) -> None:
        """Have the other processes of the mount know what this one found."""
        assert self._mount is not None
        _log.error("the replica in %s is damaged: %s", self._mount.path / damage.generation, damage.reason)
        try:
            damage.write(self._mount.path)
        except OSError as exc:  # the others find it themselves, or not; this process knows
            _log.warning("damage.json could not be written: %s", exc)

    def _take(self, following: Generation) -> None:
        with self._lock:
            if self._current.storage is not None:
                self._retired.append((time.monotonic(), self._current.storage))
            self._current = following

    def _close_retired(self) -> None:
        if not self._retired:
            return
        now = time.monotonic()
        with self._lock:
            ready = [storage for since, storage in self._retired if now - since > _GRACE]
            self._retired = [each for each in self._retired if now - each[0] <= _GRACE]
        for storage in ready:
            _close(storage)


def _close(storage: Storage) -> None:
    """Close a storage that nobody will read again."""
    try:
        storage.close()
    except StorageError as exc:
        _log.warning("a replaced generation could not be closed: %s", exc)
