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
from pathlib import Path
from typing import Final

from ikvcore._damage import Damage
from ikvcore._mount import Mount
from ikvcore.errors import ReplicaDamagedError, StorageError
from ikvcore.protocols import Storage

__all__ = ["Generations"]

_log = logging.getLogger(__name__)

_GRACE: Final = 2.0
"""Seconds that a replaced storage stays open, for reads that had begun in it."""


class Generations:
    """A replica's storages. `refresh`, `begin_next` and `change_over` are called by the replica's loop alone."""

    def __init__(self, mount: Mount | None, open_storage: Callable[[Path | None], Storage]) -> None:
        """Raises StorageError; a damaged current generation raises nothing and is told by `damage`."""
        self._mount = mount
        self._open = open_storage
        self._lock = threading.Lock()
        self._retired: list[tuple[float, Storage]] = []
        self._storage: Storage | None = None
        self._directory: Path | None = None
        self.damage: Damage | None = None
        """What is wrong with the current generation: until it is replaced, nothing may be read."""
        self._enter(None if mount is None else mount.generation())

    @property
    def storage(self) -> Storage:
        """The current generation's storage. Raises ReplicaDamagedError where it could not even be opened."""
        if self._storage is None:
            raise ReplicaDamagedError(self.damage.reason if self.damage else "it is closed")
        return self._storage

    def raise_if_damaged(self) -> None:
        """Raise ReplicaDamagedError until the current generation is sound."""
        if self.damage is not None:
            raise ReplicaDamagedError(self.damage.reason)

    def found_damaged(self, reason: str) -> bool:
        """Note what is wrong with the current generation, for all processes of the mount; whether that was news.

        From any thread. A generation without a mount has none to take its place: nothing is noted.
        """
        if self._mount is None or self._directory is None or self.damage is not None:
            return False
        damage = Damage(generation=self._directory.name, reason=reason)
        _log.error("the replica in %s is damaged: %s", self._directory, reason)
        self.damage = damage
        try:
            damage.write(self._mount.path)
        except OSError as exc:  # the others find it themselves, or not; this process knows
            _log.warning("damage.json could not be written: %s", exc)
        return True

    def refresh(self) -> bool:
        """Look what other processes did: whether there is another generation or another finding to read it by."""
        self._close_retired()
        if self._mount is None:
            return False
        current, before = self._mount.generation(), self.damage
        if current != self._directory:
            self._enter(current)
            return True
        self.damage = before or Damage.read(self._mount.path, current.name)
        return self.damage is not before

    def begin_next(self) -> tuple[Path, Storage]:
        """An empty generation after the current one, and its storage; what a crash left there is removed."""
        assert self._mount is not None
        directory = self._mount.make_next_generation()
        return directory, self._open(directory)

    def change_over(self, directory: Path, storage: Storage) -> None:
        """Make a generation that was built the current one, for all processes, also after a power loss."""
        assert self._mount is not None
        self._mount.make_current(directory)
        self._take(directory, storage)

    def abandon(self, directory: Path, storage: Storage) -> None:
        """Remove a generation that will not be finished."""
        storage.close()
        shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """Close every storage. Idempotent."""
        with self._lock:
            retired, self._retired = self._retired, []
            storage, self._storage = self._storage, None
        for each in [*(old for _, old in retired), *([] if storage is None else [storage])]:
            each.close()

    def _enter(self, directory: Path | None) -> None:
        """Open the generation that CURRENT names."""
        damage = None
        if directory is not None and self._mount is not None:
            damage = Damage.read(self._mount.path, directory.name)
        if damage is not None:  # it is not even opened: an engine may crash on it
            self._take(directory, None, damage)
            return
        try:
            storage = self._open(directory)
        except ReplicaDamagedError as exc:
            if directory is None:
                raise
            self._take(directory, None)
            self.found_damaged(exc.what)
        else:
            self._take(directory, storage)

    def _take(self, directory: Path | None, storage: Storage | None, damage: Damage | None = None) -> None:
        with self._lock:
            if self._storage is not None:
                self._retired.append((time.monotonic(), self._storage))
            self.damage, self._storage, self._directory = damage, storage, directory

    def _close_retired(self) -> None:
        if not self._retired:
            return
        now = time.monotonic()
        with self._lock:
            ready = [storage for since, storage in self._retired if now - since > _GRACE]
            self._retired = [each for each in self._retired if now - each[0] <= _GRACE]
        for storage in ready:
            try:
                storage.close()
            except StorageError as exc:
                _log.warning("a replaced generation could not be closed: %s", exc)
