"""The replicas that this process has open.

Clients of one mount share one: a second lock or a second LMDB environment on the same files in one process would break
the first.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from ikvcore._mount import Mount, prepare_directory
from ikvcore._observers import Audience
from ikvcore._replica import Replica, ReplicaPlan, manifest_of
from ikvcore.errors import InvalidOptionError
from ikvcore.forks import after_fork_in_child
from ikvcore.protocols import Transport

__all__ = ["close_replica", "open_replica"]

_log = logging.getLogger(__name__)

_Key: TypeAlias = tuple[int, int]


class _Table:
    """The replicas of this process, by device and inode of their mounts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, Replica] = {}
        self._closing: dict[_Key, threading.Event] = {}
        after_fork_in_child(self)
        atexit.register(self.close_all)

    def enter(self, plan: ReplicaPlan, transport: Transport) -> Replica:
        if plan.mount is None:
            return Replica(plan, transport)
        prepare_directory(plan.mount)
        status = plan.mount.stat()
        key = (status.st_dev, status.st_ino)
        with self._opened_or_closed(key):
            replica = self._open.get(key)
            if replica is None:
                replica = Replica(plan, transport)
                self._open[key] = replica
            else:
                self._share(replica, plan, transport)
                replica.audience.join(plan.audience)
            replica.users += 1
            return replica

    @contextmanager
    def _opened_or_closed(self, key: _Key) -> Iterator[None]:
        """Hold the lock at a moment when the replica of `key` is not being closed."""
        while True:
            with self._lock:
                closing = self._closing.get(key)
                if closing is None:
                    yield
                    return
            closing.wait()

    @staticmethod
    def _share(replica: Replica, plan: ReplicaPlan, transport: Transport) -> None:
        """Check that a further client asks for the replica that is open, and drop the transport it brought."""
        assert replica.plan.mount is not None  # volatile replicas are never shared
        Mount.open(replica.plan.mount, manifest_of(plan, transport.describe()))
        for name in ("on_bad_event", "backend_options"):
            ours, theirs = getattr(replica.plan, name), getattr(plan, name)
            if ours != theirs:
                raise InvalidOptionError(
                    name, theirs, f"another client of this process has this mount open with {ours!r}; use the same"
                )
        transport.close()

    def leave(self, replica: Replica, audience: Audience | None) -> None:
        with self._lock:
            replica.users -= 1
            if replica.users > 0:
                if audience is not None:
                    replica.audience.leave(audience)
                return
            keys = [key for key, other in self._open.items() if other is replica]
            for key in keys:
                del self._open[key]
                self._closing[key] = threading.Event()
        try:
            replica.close()  # it may take its time; other mounts must not wait for it
        finally:
            with self._lock:
                for key in keys:
                    self._closing.pop(key).set()

    def close_all(self) -> None:
        """At interpreter exit, for clients that were not shut down: so that others learn at once that we are gone."""
        with self._lock:
            replicas, self._open = list(self._open.values()), {}
        for replica in replicas:
            try:
                replica.close()
            except Exception:  # exit goes on
                _log.exception("a replica could not be closed")

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._open, self._closing = {}, {}


_table: Final = _Table()


def open_replica(plan: ReplicaPlan, transport: Transport) -> Replica:
    """The replica of a mount, opened or shared; takes `transport` over. Pair with close_replica.

    Raises MountError and its kin, LogDivergedError, StorageError, InvalidOptionError.
    """
    return _table.enter(plan, transport)


def close_replica(replica: Replica, audience: Audience | None = None) -> None:
    """Give up one client's use, and its audience; the last one closes."""
    _table.leave(replica, audience)
