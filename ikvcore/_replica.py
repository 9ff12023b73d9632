"""A replica as a client sees it: its storage, the loop that keeps it fresh, and waiting for what is to come."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from ikvcore import errors
from ikvcore._check import summary, verify_files
from ikvcore._damage import Damage
from ikvcore._deadline import Deadline
from ikvcore._generations import Generation, Generations
from ikvcore._ingest import Ingester
from ikvcore._loop import ReplicaLoop, Role
from ikvcore._mount import Manifest, Mount, MountLock
from ikvcore._observers import Audience
from ikvcore._opened import Opened
from ikvcore._progress import PartitionProgress, read_progress
from ikvcore._registry import lacks_capability, load_backend
from ikvcore._status import Status
from ikvcore._storage import as_storage, catch_up
from ikvcore.errors import (
    ForkedError,
    IKVError,
    IngestHaltedError,
    InvalidOptionError,
    MountBusyError,
    MountError,
    ReplicaDamagedError,
    ShutDownError,
    StorageError,
)
from ikvcore.forks import after_fork_in_child
from ikvcore.models import BackendContext, BackendInfo, Position, Sharing, StoreDescription
from ikvcore.protocols import OrderedKeyValue, Storage, Transport

__all__ = ["Listener", "Replica", "ReplicaPlan", "manifest_of"]

_log = logging.getLogger(__name__)

_FOLLOWER_POLL: Final = 0.002
_FOLLOWER_SLOW_POLL: Final = 0.02
_NOTIFIED_POLL: Final = 0.2
_MAKING_SECONDS: Final = 10.0
_LOOK_AGAIN: Final = 0.02
_JOIN_SECONDS: Final = 30.0
_REPORT_SECONDS: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class ReplicaPlan:
    """What a replica is opened with."""

    backend: BackendInfo
    backend_name: str
    """As the options chose it: a name, or dist:name."""
    backend_options: Any
    """An instance of the backend's options."""
    open_storage: Callable[[BackendContext], OrderedKeyValue | Storage]
    mount: Path | None
    """None for volatile backends."""
    partitions: tuple[int, ...]
    on_bad_event: str
    history: str
    backend_given: Mapping[str, Any] = field(default_factory=dict)
    """The backend's options as they were given."""
    audience: Audience = field(default_factory=Audience)
    """Whom the client observes with."""


@dataclass(slots=True)
class Outlook:
    """What is known of the ingest: by this worker's loop if it ingests, else by the mount's status."""

    halts: Mapping[int, str] = field(default_factory=dict)
    failure: IKVError | None = None
    last_error: str | None = None


def manifest_of(plan: ReplicaPlan, store: StoreDescription) -> Manifest:
    return Manifest(description=store, backend=plan.backend.name, partitions=plan.partitions, history=plan.history)


class Listener(Protocol):
    """Somebody who reads a replica."""

    def replica_changed(self) -> None:
        """Another storage is to be read now, or none until a damaged one is rebuilt."""


class Replica:
    """One process's open replica. Owns its transport, storages, lock and loop."""

    def __init__(self, plan: ReplicaPlan, transport: Transport) -> None:
        self.plan = plan
        self.transport = transport
        self.store = transport.describe()
        self.partitions = plan.partitions
        self.users = 0
        self.audience = Audience()
        """Those of the clients that have it open; the loop's thread tells them."""
        self.audience.join(plan.audience)
        self._forked = False
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._listening = threading.RLock()  # as in Reader: a signal handler may come while it is held
        self._mount = self._open_mount()
        self._lock = None if self._mount is None else MountLock(self._mount.path)
        self._generations: Generations | None = None
        try:
            self._hold_alone()
            self._check_suspect()
            self._generations = self._open_generations()
            self.loop = ReplicaLoop(
                self._generations,
                transport,
                self._make_ingester,
                partitions=plan.partitions,
                mount=self._mount,
                lock=self._lock if plan.backend.process_shared else None,
                sharing=plan.backend.sharing,
                quarantine=plan.on_bad_event == "quarantine",
                on_change=self._tell_listeners,
            )
            self._thread = threading.Thread(target=self.loop.run, name="ikvcore-replica", daemon=True)
            self._thread.start()
        except BaseException:
            if self._generations is not None:
                self._generations.close()
            if self._lock is not None:
                self._lock.close()
            raise
        after_fork_in_child(self)

    def _open_mount(self) -> Mount | None:
        if self.plan.mount is None:
            return None
        return Mount.open(self.plan.mount, manifest_of(self.plan, self.store))

    def _hold_alone(self) -> None:
        """Take the mount for this process, where its engine lets one process write: raise where nobody can follow."""
        if self._mount is None or self._lock is None or self.plan.backend.sharing is Sharing.SHARED:
            return
        if not self._lock.try_acquire() and not self.plan.backend.process_shared:
            status = Status.read(self._mount.path)
            raise MountBusyError(self._mount.path, self.plan.backend.name, status.pid if status else None)

    def _open_generations(self) -> Generations:
        """The mount's storage, as far as this process may have it.

        Whoever is to follow has to wait until there is something to follow: another process makes it at this moment, or
        dies of it.
        """
        deadline = time.monotonic() + _MAKING_SECONDS
        while True:
            try:
                return Generations(self._mount, self._open_storage)
            except StorageError:
                if not self._follows or time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_AGAIN)
            self._hold_alone()

    @property
    def _follows(self) -> bool:
        """Whether another process may write the files, and this one may not."""
        alone = self._lock is None or self._lock.held
        return self.plan.backend.sharing is Sharing.FOLLOWERS and not alone

    def _check_suspect(self) -> None:
        """Verify files that may have lost writes when the machine went down; once, whichever process comes first."""
        mount = self._mount
        if mount is None or not Opened.suspect(mount.path):
            return
        try:
            with mount.alone():
                if Opened.suspect(mount.path):
                    self._check(mount)
        except OSError as exc:
            if isinstance(exc, IKVError):
                raise
            raise MountError(mount.path, f"what its check found cannot be noted ({exc.strerror or exc})") from exc

    def _check(self, mount: Mount) -> None:
        directory = mount.generation()
        if Damage.read(mount.path, directory.name) is None:
            _log.warning("the mount %s was not closed before the machine went down; checking it", mount.path)
            wrong = self._verify(directory)
            if wrong:
                Damage(generation=directory.name, reason=summary(wrong)).write(mount.path)
        Opened.mark(mount.path, clean=True)

    def _verify(self, directory: Path) -> list[str]:
        try:
            return verify_files(
                directory,
                backend=self.plan.backend_name,
                options=self.plan.backend_given,
                partitions=self.partitions,
                alone=True,
            )
        except InvalidOptionError as exc:
            _log.warning("the replica in %s is used unchecked: %s", directory, exc)
            return []

    def _open_storage(self, directory: Path | None) -> Storage:
        context = BackendContext(directory=directory, options=self.plan.backend_options, follow=self._follows)
        return as_storage(self.plan.open_storage(context), self.plan.backend)

    def _make_ingester(self, storage: Storage) -> Ingester:
        return Ingester(
            storage,
            self.transport,
            partitions=self.partitions,
            quarantine=self.plan.on_bad_event == "quarantine",
            partial_history=self.plan.history == "partial",
            audience=self.audience,
            mount=self.plan.mount,
        )

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
        assert self._generations is not None
        try:
            self._generations.close()
        except StorageError as exc:  # so what was written last may not be on the disk, and opened.json must not say so
            _log.error("the replica was not closed in good order: %s", exc)
        else:
            self._mark_closed()
        self.transport.close()
        if self._lock is not None:
            self._lock.close()

    def _mark_closed(self) -> None:
        """Say that the files are whole, where it was this process that wrote them: the lock is still held."""
        if self._mount is not None and self._lock is not None and self._lock.held and self.loop.role is Role.INGESTING:
            try:
                Opened.mark(self._mount.path, clean=True)
            except OSError as exc:  # they are only checked once more than needed
                _log.warning("opened.json could not be written: %s", exc)

    def forked(self) -> None:
        """See ikvcore.forks."""
        self._forked = True

    def refuse_capability(self, capability: str) -> NoReturn:
        """Raise RequirementError: the backend lacks it, and these installed ones have it."""
        raise lacks_capability(load_backend(self.plan.backend_name), capability)

    # -- generations ---------------------------------------------------------------------------

    @property
    def storage(self) -> Storage:
        """What is read now. Raises ReplicaDamagedError until a damaged generation is replaced, ShutDownError."""
        return self._opened().storage

    @property
    def current(self) -> Generation:
        """The generation that is read, and what is wrong with it."""
        return self._opened().current

    @property
    def damage(self) -> Damage | None:
        """What is wrong with the generation that is current."""
        return self._opened().damage

    def _opened(self) -> Generations:
        assert self._generations is not None
        return self._generations

    def found_damaged(self, storage: Storage, exc: ReplicaDamagedError) -> bool:
        """Note what a read of `storage` found: nothing more is read until it is replaced. Whether that was news."""
        news = self._opened().found_damaged(exc.what, storage)
        if news:
            self._tell_listeners()
        return news

    def refusal(self) -> ReplicaDamagedError | None:
        """Why nothing can be read now; None where it can."""
        damage = self.damage
        if damage is None:
            return None
        failure = self.outlook().failure
        if isinstance(failure, ReplicaDamagedError):  # it cannot be rebuilt, and says what to do
            return failure
        return ReplicaDamagedError(damage.reason)

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of changes, as long as it lives."""
        with self._listening:
            self._listeners.add(listener)

    def _tell_listeners(self) -> None:
        with self._listening:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.replica_changed()

    # -- what is known -------------------------------------------------------------------------

    def progress(self) -> Mapping[int, PartitionProgress]:
        """Committed progress by partition, of one state; absent where nothing was applied yet."""
        storage = self.storage
        try:
            with suppress(StorageError):  # what is there already is answered with; the loop tells what is wrong
                catch_up(storage)
            return read_progress(storage, self.partitions).partitions
        except ReplicaDamagedError as exc:
            self.found_damaged(storage, exc)
            raise

    def _sound_progress(self) -> Mapping[int, PartitionProgress] | None:
        """The progress; None in a damaged replica, also where this very look finds that out."""
        try:
            return self.progress()
        except ReplicaDamagedError:
            if self.damage is None:  # nothing will take its place
                raise
            return None

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
            # One that has died since is no longer silent: it is about to be replaced.
            silence = loop.silence if status is None or status.alive() else None
            return Outlook(failure=silence, last_error=loop.last_error)
        failure = None
        if status.failure is not None:
            name, message = status.failure
            cls = getattr(errors, name, IKVError)
            failure = errors.restore(cls if name in errors.__all__ else IKVError, (message,), {})
        return Outlook(status.halts, failure, status.last_error)

    def check_log(self) -> None:
        """Compare the log with what was applied of it. Raises LogTrimmedError, LogDivergedError, TransportError."""
        progress = self._sound_progress()
        if progress is not None:
            self.transport.subscribe({p: done.start for p, done in progress.items()}).close()

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
        for a partition waited for, LogTrimmedError, LogDivergedError. Servers that are silent may come back.
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
            damaged = self.damage is not None
            _raise_if_vain(outlook, target if damaged else missing)
            if not missing and not damaged:
                return
            now = time.monotonic()
            deadline.check(missing, reached, outlook.failure)
            if report is not None and now - reported >= _REPORT_SECONDS:
                report(reached)
                reported = now
            self._pause(changes, now - began, deadline.left())

    def positions(self) -> dict[int, Position]:
        """The positions reached; absent where nothing was applied yet. In a damaged replica, those of its rebuild."""
        progress = self._sound_progress()
        if progress is None:
            return dict(self.loop.rebuilt)
        return {partition: done.position for partition, done in progress.items()}

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
    if isinstance(failure, (errors.LogTrimmedError, errors.LogDivergedError, ReplicaDamagedError)):
        # Even where nothing is missing: positions of a log that is not ours say nothing.
        raise errors.restore(type(failure), failure.args, vars(failure))
    if missing and failure is not None and not isinstance(failure, errors.LogUnavailableError):
        raise IngestHaltedError(dict.fromkeys(missing, str(failure)))
    halted = {p: reason for p, reason in outlook.halts.items() if p in missing}
    if halted:
        raise IngestHaltedError(halted)
