"""A replica as a client sees it: its storage, the loop that keeps it fresh, and waiting for what is to come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ikvcore import errors
from ikvcore._deadline import Deadline
from ikvcore._ingest import Ingester
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._loop import ReplicaLoop, Role
from ikvcore._mount import Manifest, Mount, MountLock
from ikvcore._progress import PartitionProgress, read_progress
from ikvcore._status import Status
from ikvcore.errors import (
    ForkedError,
    IKVError,
    IngestHaltedError,
    MountBusyError,
    ShutDownError,
)
from ikvcore.forks import after_fork_in_child
from ikvcore.models import BackendContext, BackendInfo, Position, StoreDescription
from ikvcore.protocols import OrderedKeyValue, Storage, Transport

__all__ = ["Replica", "ReplicaPlan", "manifest_of"]

_log = logging.getLogger(__name__)

_FOLLOWER_POLL: Final = 0.002
_FOLLOWER_SLOW_POLL: Final = 0.02
_NOTIFIED_POLL: Final = 0.2
_JOIN_SECONDS: Final = 30.0
_REPORT_SECONDS: Final = 2.0


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


def manifest_of(plan: ReplicaPlan, store: StoreDescription) -> Manifest:
    return Manifest(description=store, backend=plan.backend.name, partitions=plan.partitions, history=plan.history)


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
            self._thread = threading.Thread(target=self.loop.run, name="ikvcore-replica", daemon=True)
            self._thread.start()
        except BaseException:
            storage: Storage | None = getattr(self, "storage", None)
            if storage is not None:
                storage.close()
            if self._lock is not None:
                self._lock.close()
            raise
        after_fork_in_child(self)

    def _open_mount(self) -> Mount | None:
        if self.plan.mount is None:
            return None
        return Mount.open(self.plan.mount, manifest_of(self.plan, self.store))

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
        if loop.role is Role.UNDECIDED:
            return Outlook()
        if loop.role is Role.INGESTING or self._mount is None:
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

    def check_log(self) -> None:
        """Compare the log with what was applied of it. Raises LogTrimmedError, LogDivergedError, TransportError."""
        self.transport.subscribe({p: done.start for p, done in self.progress().items()}).close()

    # -- waiting -------------------------------------------------------------------------------

    def wait(
        self,
        target: Mapping[int, Position],
        deadline: Deadline,
        *,
        cancelled: Callable[[], bool],
        report: Callable[[Mapping[int, Position]], None] | None = None,
    ) -> None:
        """Block until every position of `target` is reached. `report` is called now and then with the positions.

        Raises WaitTimeoutError; ShutDownError once `cancelled`; and at once what makes waiting vain: IngestHaltedError
        for a partition waited for, LogTrimmedError, LogDivergedError.
        """
        began = reported = time.monotonic()
        while True:
            if self._forked:
                raise ForkedError("reader")
            if cancelled():
                raise ShutDownError("reader")
            # In this order: what is told of the ingest was true before the positions were read.
            changes, outlook = self.loop.changes, self.outlook()
            reached = self.positions()
            missing = {p: end for p, end in target.items() if reached.get(p, 0) < end}
            _raise_if_vain(outlook, missing)
            if not missing:
                return
            now = time.monotonic()
            deadline.check(missing, reached)
            if report is not None and now - reported >= _REPORT_SECONDS:
                report(reached)
                reported = now
            self._pause(changes, now - began, deadline.left())

    def positions(self) -> dict[int, Position]:
        """The positions reached; absent where nothing was applied yet."""
        return {partition: done.position for partition, done in self.progress().items()}

    def wake_waiters(self) -> None:
        """Have every wait look again, since one of them was cancelled."""
        with self.loop.changed:
            self.loop.changes += 1
            self.loop.changed.notify_all()

    def _pause(self, changes: int, waited: float, left: float | None) -> None:
        """Sleep until something may have changed: until told by our own loop, or a short while beside another's."""
        if self.loop.role is Role.FOLLOWING:
            pause = _FOLLOWER_POLL if waited < 1 else _FOLLOWER_SLOW_POLL
            time.sleep(pause if left is None else min(pause, left))
            return
        with self.loop.changed:
            if self.loop.changes == changes:
                self.loop.changed.wait(_NOTIFIED_POLL if left is None else min(_NOTIFIED_POLL, left))


def _raise_if_vain(outlook: Outlook, missing: Mapping[int, Position]) -> None:
    failure = outlook.failure
    if isinstance(failure, (errors.LogTrimmedError, errors.LogDivergedError)):
        # Even where nothing is missing: positions of a log that is not ours say nothing.
        raise errors.restore(type(failure), failure.args, {})
    if missing and failure is not None:
        raise IngestHaltedError(dict.fromkeys(missing, str(failure)))
    halted = {p: reason for p, reason in outlook.halts.items() if p in missing}
    if halted:
        raise IngestHaltedError(halted)
