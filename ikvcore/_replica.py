"""A replica as a client sees it: its storage, the loop that keeps it fresh, and waiting for what is to come.

Clients of one mount in one process share one replica: a second lock or a second LMDB environment on the same files in
one process would break the first.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ikvcore import errors
from ikvcore._ingest import Ingester
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._loop import ReplicaLoop, Role
from ikvcore._mount import Manifest, Mount, MountLock, prepare_directory
from ikvcore._progress import PartitionProgress, positions_of, read_progress
from ikvcore._status import Status
from ikvcore.errors import (
    ForkedError,
    IKVError,
    IngestHaltedError,
    InvalidOptionError,
    MountBusyError,
    WaitTimeoutError,
)
from ikvcore.forks import after_fork_in_child
from ikvcore.models import BackendContext, BackendInfo, Position, StoreDescription
from ikvcore.protocols import OrderedKeyValue, Storage, Transport

__all__ = ["Replica", "ReplicaPlan", "close_replica", "open_replica"]

_log = logging.getLogger(__name__)

_FOLLOWER_POLL: Final = 0.002
_FOLLOWER_SLOW_POLL: Final = 0.02
_NOTIFIED_POLL: Final = 0.2
_JOIN_SECONDS: Final = 30.0
_REPORT_SECONDS: Final = 2.0

_Key = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ReplicaPlan:
    """What a replica is opened with."""

    backend: BackendInfo
    backend_options: Any
    open_storage: Callable[[BackendContext], OrderedKeyValue | Storage]
    mount: Path | None
    """None for volatile backends."""
    partitions: tuple[int, ...]
    on_bad_event: str
    history: str


@dataclass(slots=True)
class Outlook:
    """What is known of the ingest: by this worker's loop if it ingests, else by the mount's status."""

    halts: Mapping[int, str] = field(default_factory=dict)
    failure: IKVError | None = None
    last_error: str | None = None


class Replica:
    """One process's open replica. Owns its transport, storage, lock and loop."""

    def __init__(self, plan: ReplicaPlan, transport: Transport) -> None:
        self.plan = plan
        self.transport = transport
        self.store = transport.describe()
        self.partitions = plan.partitions
        self.users = 0
        self._forked = False
        self._mount = self._open_mount()
        self._lock = None if self._mount is None else MountLock(self._mount.path)
        try:
            self.storage = self._open_storage()
            ingester = Ingester(
                self.storage,
                transport,
                partitions=plan.partitions,
                quarantine=plan.on_bad_event == "quarantine",
                partial_history=plan.history == "partial",
            )
            shared = plan.backend.process_shared
            self.loop = ReplicaLoop(ingester, mount=self._mount, lock=self._lock if shared else None)
        except BaseException:
            if self._lock is not None:
                self._lock.close()
            raise
        self._thread = threading.Thread(target=self.loop.run, name="ikvcore-replica", daemon=True)
        after_fork_in_child(self)
        self._thread.start()

    def _open_mount(self) -> Mount | None:
        if self.plan.mount is None:
            return None
        return Mount.open(self.plan.mount, _manifest(self.plan, self.store))

    def _open_storage(self) -> Storage:
        directory = None
        if self._mount is not None:
            if not self.plan.backend.process_shared and self._lock is not None and not self._lock.try_acquire():
                status = Status.read(self._mount.path)
                raise MountBusyError(self._mount.path, self.plan.backend.name, status.pid if status else None)
            directory = self._mount.generation()
        opened = self.plan.open_storage(BackendContext(directory=directory, options=self.plan.backend_options))
        if isinstance(opened, OrderedKeyValue):
            return KeyValueStorage(opened, max_key_bytes=self.plan.backend.max_key_bytes)
        return opened

    def close(self) -> None:
        """Stop the loop and close everything. In a forked child nothing is touched."""
        if self._forked:
            return
        self.loop.stop()
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            # Closing an engine under a thread that is inside it could crash the process; leaving it open cannot.
            _log.error("the replica's thread did not end within %.0f s; its files stay open", _JOIN_SECONDS)
            return
        self.storage.close()
        self.transport.close()
        if self._lock is not None:
            self._lock.close()

    def forked(self) -> None:
        """See ikvcore.forks."""
        self._forked = True

    # -- what is known -------------------------------------------------------------------------

    def progress(self) -> Mapping[int, PartitionProgress]:
        """Committed progress by partition, of one state; absent where nothing was applied yet."""
        return read_progress(self.storage, self.partitions).partitions

    def outlook(self) -> Outlook:
        """How the ingest of this mount stands."""
        if self._forked:
            raise ForkedError("reader")
        loop = self.loop
        if loop.role is not Role.FOLLOWING or self._mount is None:
            return Outlook(loop.halts, loop.failure, loop.last_error)
        status = Status.read(self._mount.path)
        if status is None or not status.fresh():
            return Outlook(last_error=loop.last_error)
        failure = None
        if status.failure is not None:
            name, message = status.failure
            cls = getattr(errors, name, IKVError)
            failure = errors.restore(cls if name in errors.__all__ else IKVError, (message,), {})
        return Outlook(status.halts, failure, status.last_error)

    # -- waiting -------------------------------------------------------------------------------

    def wait(
        self,
        target: Mapping[int, Position],
        timeout: float | None,
        *,
        what: str,
        report: Callable[[Mapping[int, Position]], None] | None = None,
    ) -> None:
        """Block until every position of `target` is reached. `report` is called now and then with the positions.

        Raises WaitTimeoutError, and at once what stops the ingest of a partition waited for: IngestHaltedError,
        LogTrimmedError, LogDivergedError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        began = reported = time.monotonic()
        while True:
            if self._forked:
                raise ForkedError("reader")
            reached = positions_of(self.storage, self.partitions)
            missing = {p: end for p, end in target.items() if reached.get(p, 0) < end}
            if not missing:
                return
            self._raise_if_vain(missing)
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                behind = ", ".join(f"partition {p} at {reached.get(p, 0)} of {end}" for p, end in missing.items())
                raise WaitTimeoutError(f"{what} did not happen within {timeout:g} s: {behind}")
            if report is not None and now - reported >= _REPORT_SECONDS:
                report(reached)
                reported = now
            self._pause(now - began, None if deadline is None else deadline - now)

    def _raise_if_vain(self, missing: Mapping[int, Position]) -> None:
        if self.loop.role is Role.UNDECIDED:
            return
        outlook = self.outlook()
        if isinstance(outlook.failure, (errors.LogTrimmedError, errors.LogDivergedError)):
            raise errors.restore(type(outlook.failure), outlook.failure.args, {})
        if outlook.failure is not None:
            raise IngestHaltedError(dict.fromkeys(missing, str(outlook.failure)))
        halted = {p: reason for p, reason in outlook.halts.items() if p in missing}
        if halted:
            raise IngestHaltedError(halted)

    def _pause(self, waited: float, left: float | None) -> None:
        """Sleep until something may have changed: until told by our own loop, or a short while beside another's."""
        if self.loop.role is Role.FOLLOWING:
            pause = _FOLLOWER_POLL if waited < 1 else _FOLLOWER_SLOW_POLL
        else:
            pause = _NOTIFIED_POLL
        pause = pause if left is None else min(pause, left)
        if self.loop.role is Role.FOLLOWING:
            time.sleep(max(pause, 0))
        else:
            with self.loop.changed:
                self.loop.changed.wait(max(pause, 0))


class _Table:
    """The replicas of this process, by device and inode of their mounts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, Replica] = {}
        after_fork_in_child(self)
        atexit.register(self.close_all)

    def enter(self, plan: ReplicaPlan, transport: Transport) -> Replica:
        if plan.mount is None:
            return Replica(plan, transport)
        prepare_directory(plan.mount)
        status = plan.mount.stat()
        key = (status.st_dev, status.st_ino)
        with self._lock:
            replica = self._open.get(key)
            if replica is None:
                replica = Replica(plan, transport)
                self._open[key] = replica
            else:
                self._share(replica, plan, transport)
            replica.users += 1
            return replica

    @staticmethod
    def _share(replica: Replica, plan: ReplicaPlan, transport: Transport) -> None:
        """Check that a further client asks for the replica that is open, and drop the transport it brought."""
        assert replica.plan.mount is not None  # volatile replicas are never shared
        Mount.open(replica.plan.mount, _manifest(plan, transport.describe()))
        for name in ("on_bad_event", "backend_options"):
            ours, theirs = getattr(replica.plan, name), getattr(plan, name)
            if ours != theirs:
                raise InvalidOptionError(
                    name, theirs, f"another client of this process has this mount open with {ours!r}; use the same"
                )
        transport.close()

    def leave(self, replica: Replica) -> None:
        with self._lock:
            replica.users -= 1
            if replica.users > 0:
                return
            for key, other in list(self._open.items()):
                if other is replica:
                    del self._open[key]
            replica.close()

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
        self._open = {}


def _manifest(plan: ReplicaPlan, store: StoreDescription) -> Manifest:
    return Manifest(description=store, backend=plan.backend.name, partitions=plan.partitions, history=plan.history)


_table = _Table()


def open_replica(plan: ReplicaPlan, transport: Transport) -> Replica:
    """The replica of a mount, opened or shared; takes `transport` over. Pair with close_replica.

    Raises MountError and its kin, LogDivergedError, StorageError, InvalidOptionError.
    """
    return _table.enter(plan, transport)


def close_replica(replica: Replica) -> None:
    """Give up one client's use; the last one closes."""
    _table.leave(replica)
