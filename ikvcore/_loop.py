"""The replica loop: one worker's share in keeping a mount fresh. It runs in a thread or in a process of its own alike.

Each turn it either ingests, or waits a tick and looks whether it should. One worker of a mount ingests at a time, for
efficiency: the lock decides which. A worker whose commit was fenced gives the lock up and follows for a while; a
worker that finds the lock taken and its holder silent ingests without the lock, which the compare-and-set makes
harmless.

Where the replica is found damaged, whoever holds the lock stops ingesting into it and builds the generation that
replaces it; everybody changes over when CURRENT names that.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ikvcore._generations import Generations
from ikvcore._ingest import Ingester
from ikvcore._mount import Mount, MountLock
from ikvcore._opened import Opened
from ikvcore._progress import COMMIT_KEY
from ikvcore._rebuild import Rebuild
from ikvcore._status import SILENCE, Status, boot_id
from ikvcore._storage import catch_up
from ikvcore.errors import (
    FencedError,
    IKVError,
    LogDivergedError,
    LogTrimmedError,
    ReplicaDamagedError,
    StorageError,
)
from ikvcore.models import Position, Sharing
from ikvcore.protocols import Storage, Transport

__all__ = ["ReplicaLoop", "Role"]

_log = logging.getLogger(__name__)

TICK: Final = 0.2
_HEARTBEAT: Final = 0.5
_FOLLOW_AFTER_FENCE: Final = 1.0
_RETRIES: Final = 5
_LONGEST_PAUSE: Final = 1.0


class Role(enum.Enum):
    """What this worker does for the mount."""

    UNDECIDED = "undecided"
    INGESTING = "ingesting"
    FOLLOWING = "following"


class ReplicaLoop:
    """Keeps a replica fresh as long as this worker is the one to do it, and says on the mount how it goes.

    `make_ingester` makes what applies the log to a storage. `mount` and `lock` are None where nobody else can have the
    replica; then this worker always ingests. `sharing` says what a worker without the lock may do. `quarantine`: its
    ingesters pass bad events over. `on_change` is called when another storage is to be read, or none.
    """

    def __init__(
        self,
        generations: Generations,
        transport: Transport,
        make_ingester: Callable[[Storage], Ingester],
        *,
        partitions: Sequence[int],
        mount: Mount | None = None,
        lock: MountLock | None = None,
        sharing: Sharing = Sharing.SHARED,
        quarantine: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._generations = generations
        self._transport = transport
        self._make_ingester = make_ingester
        self._partitions = partitions
        self._mount = mount
        self._lock = lock
        self._one_writer = sharing is Sharing.FOLLOWERS
        self._may_write = lock is None or lock.held  # else the storage was opened to follow, where one process writes
        self._quarantine = quarantine
        self._on_change = on_change
        self._ingester: Ingester | None = None
        self._rebuild: Rebuild | None = None
        self._looked = 0.0
        self._marked = False  # whether opened.json says that the files are being written, by this worker
        self._noted: Path | None = None  # the generation of which opened.json says that it has a commit
        self._stopped = threading.Event()
        self._follow_until = 0.0
        self._gave_up = False  # whether it follows so that somebody else takes the lock
        self._last_beat = 0.0
        self._found_locked = 0.0  # when this worker first saw the lock taken: a holder may never have been heard of
        self._told: object = None
        self._failures = 0
        self._turn_began = time.monotonic()
        self.changes = 0
        """How often `changed` was notified: who reads it before looking misses no notification."""
        self.changed = threading.Condition()
        """Notified after each commit of this worker and each change of what is below."""
        self.role = Role.UNDECIDED
        self.failure: IKVError | None = None
        """What stops the ingest of every partition at the moment; cleared when a later try succeeds."""
        self.silence: StorageError | None = None
        """That the process that ingests is silent, where nobody can do its work while it lives."""
        self._last_error: str | None = None

    @property
    def halts(self) -> dict[int, str]:
        """Partitions that stopped before a bad event, with the reason."""
        ingester = self._ingester
        return {} if ingester is None else dict(ingester.halts)

    @property
    def rebuilt(self) -> Mapping[int, Position]:
        """How far a damaged replica was rebuilt by this worker."""
        rebuild = self._rebuild
        return {} if rebuild is None else rebuild.reached

    @property
    def last_error(self) -> str | None:
        """What ingest last complained of: a failure, else a halt."""
        halt = next((f"partition {partition}: {reason}" for partition, reason in self.halts.items()), None)
        return self._last_error or halt

    def run(self) -> None:
        """Work until `stop`; then give the ingest up in good order. The lock stays with whoever closes the storage."""
        try:
            while not self._stopped.is_set():
                self._turn_began = time.monotonic()
                try:
                    self._turn()
                except Exception as exc:  # whatever it is, the next turn may do better, and waiting must not be in vain
                    _log.exception("the replica loop failed")
                    self._failed(exc, fatal=True)
        finally:
            if self.role is Role.INGESTING:
                self._tell(ingesting=False)
            self._forget()

    def _turn(self) -> None:
        self._look_around()
        if self._may_ingest():
            self._set_role(Role.INGESTING)
            self._beat()
            self._work(self._ingest if self._generations.damage is None else self._rebuild_damaged)
        else:
            self._set_role(Role.FOLLOWING)
            self._catch_up()
            self._stopped.wait(TICK)

    def stalled(self) -> float:
        """Seconds since the present turn began: a turn that ingests takes a fraction of one where all is well."""
        return time.monotonic() - self._turn_began

    def stop(self) -> None:
        """Have `run` return soon. From any thread."""
        self._stopped.set()
        for ingester in (self._ingester, None if self._rebuild is None else self._rebuild.ingester):
            if ingester is not None:
                ingester.wake()

    def _may_ingest(self) -> bool:
        if self._lock is None or self._mount is None:
            return True
        follows = time.monotonic() < self._follow_until
        if follows and self._gave_up:
            return False
        if self._lock.held:
            return True
        if self._lock.try_acquire():
            self._found_locked, self._marked = 0.0, False  # who had it may have said that the files are closed
            self.silence = None
            return True
        self._found_locked = self._found_locked or time.monotonic()
        if self._one_writer:
            self._note_silence(self._mount if self._holder_is_silent(self._mount) else None)
            return False
        return not follows and self._holder_is_silent(self._mount)

    def _note_silence(self, mount: Mount | None) -> None:
        """The engine lets nobody else write while the silent process lives: say so, since waiting may be in vain."""
        if mount is None:
            self.silence = None
        elif self.silence is None:
            status = Status.read(mount.path)
            holder = f"process {status.pid}" if status else "the process that holds it"
            self.silence = StorageError(
                f"{holder}, which ingests into {mount.path}, has not been heard of for {SILENCE:.0f} s, and this "
                "backend lets no other process write while that one lives: look what it does, or end it"
            )
            _log.error("%s", self.silence)
            self._notify()

    def _holder_is_silent(self, mount: Mount) -> bool:
        """Whether the lock is held, but whoever holds it has not been heard of for long.

        Our own heartbeat counts as ours: a worker that ingests without the lock goes on until it is fenced or gets it.
        """
        status = Status.read(mount.path)
        heard = self._found_locked
        if status is not None and status.ingesting and status.boot == boot_id():
            if self.role is Role.INGESTING and status.heartbeat == self._last_beat:
                return True
            heard = self._found_locked = max(heard, status.heartbeat)
        return time.monotonic() - heard > SILENCE

    def _look_around(self) -> None:
        """See whether another process has replaced the replica, or found it damaged."""
        now = time.monotonic()
        if now - self._looked < TICK:
            return
        self._looked = now
        if self._generations.refresh():
            self._changed_over()

    def _changed_over(self) -> None:
        self._forget()
        self._on_change()
        self._notify()

    def _forget(self) -> None:
        """Give up what was begun in a storage that is no longer the one."""
        ingester, self._ingester = self._ingester, None
        rebuild, self._rebuild = self._rebuild, None
        self._marked = False
        if ingester is not None:
            ingester.close()
        if rebuild is not None:
            rebuild.abandon()

    def _catch_up(self) -> None:
        current = self._generations.current
        if current.storage is None or current.damage is not None:
            return
        try:
            catch_up(current.storage)
        except ReplicaDamagedError as exc:
            if self._generations.found_damaged(exc.what, current.storage):
                self._changed_over()
        except StorageError as exc:  # reads go on with what was there, and the next tick tries again
            if str(exc) != self._last_error:
                _log.warning("the replica could not catch up: %s", exc)
            self._last_error = str(exc)

    def _begin_writing(self) -> None:
        """Open the storage to write, where it was opened to follow the process whose place this one takes."""
        if self._one_writer and not self._may_write:
            self._generations.reopen()
            self._changed_over()
        self._may_write = True

    def _ingest(self) -> bool:
        self._begin_writing()
        if self._generations.damage is not None:
            return False
        self._mark_opened()
        storage = self._generations.current.storage
        try:
            if self._ingester is None:
                self._ingester = self._make_ingester(self._generations.storage)
                self._note_use()
            committed = self._ingester.step(TICK)
            if committed:
                self._note_use()
            return committed
        except ReplicaDamagedError as exc:
            # A read may have met it first, and noted it; where nothing can be noted, nothing takes its place.
            if not self._generations.found_damaged(exc.what, storage) and self._generations.damage is None:
                raise
        self._changed_over()
        return False

    def _rebuild_damaged(self) -> bool:
        """A step towards the generation that replaces the damaged one. Without the lock somebody else may be at it."""
        if self._rebuild is None:
            self._forget()  # a read may have found the damage while we were ingesting
        if self._lock is not None and not self._lock.held:
            self._stopped.wait(TICK)
            return False
        self._mark_opened()
        if self._rebuild is None:
            passed = self._mount is not None and self._mount.may_have_passed_bad_events
            self._rebuild = Rebuild(
                self._generations, self._transport, self._make_ingester, self._partitions, may_halt=not passed
            )
        done = self._rebuild.step(TICK)
        if self._rebuild.blocked is not None:  # it is kept: begun anew it would only come to the same place
            self._failed(self._rebuild.blocked, fatal=True)
            return False
        if done:
            # Its ingester goes on as ours.
            self._ingester, self._rebuild, self._may_write = self._rebuild.ingester, None, True
            self._note_use()
            self._on_change()
        return True

    def _mark_opened(self) -> None:
        """Say, before the first write, that the files are not whole until they are closed."""
        if self._mount is not None and not self._marked:
            Opened.mark(self._mount.path, clean=False)
            if self._quarantine:
                self._mount.note_quarantine()
        self._marked = True

    def _note_use(self) -> None:
        """Say that the current generation has a commit, so that nobody takes it for new where its files are lost."""
        current = self._generations.current
        if self._mount is None or current.directory is None or self._noted == current.directory:
            return
        if current.storage is None or current.storage.read_meta([COMMIT_KEY]) == [None]:
            return
        try:
            if Opened.holds(self._mount.path) != current.directory.name:
                Opened.mark(self._mount.path, clean=False, holds=current.directory.name)
            self._noted = current.directory
        except OSError as exc:  # the next commit tries again
            _log.warning("opened.json could not be written: %s", exc)

    def _work(self, step: Callable[[], bool]) -> None:
        try:
            committed = step()
        except FencedError as exc:
            _log.info("another worker ingests now: %s", exc)
            self._failures, self.failure = 0, None  # what failed here is now the other worker's to find out
            self._forget()
            if self._lock is not None and not self._one_writer:
                # A lock that was ours is for the other one to take now. One that was not, and can be had, was given up
                # by a process that has died: its last commit can be what fenced us.
                self._gave_up = self._lock.held
                self._lock.release()
                # The other one was heard of by its commit: should it fall silent now, its silence began here.
                self._found_locked = time.monotonic()
                self._follow_until = self._found_locked + _FOLLOW_AFTER_FENCE
        except (LogTrimmedError, LogDivergedError, ReplicaDamagedError) as exc:
            # The log can be restored under us, so look again; but nobody should wait for it in vain, nor for a rebuild
            # that the log no longer allows.
            self._forget()
            self._failed(exc, fatal=True)
        except Exception as exc:  # a plugin may raise anything; the thread must live and say so
            if not isinstance(exc, IKVError):
                _log.exception("ingest failed unexpectedly")
            self._failed(exc, fatal=self._failures >= _RETRIES)
        else:
            self._succeeded(committed)

    def _succeeded(self, committed: bool) -> None:
        if self._failures:
            _log.info("ingest works again")
        recovered, self._failures, self.failure = self.failure is not None, 0, None
        if committed or recovered or self.halts:
            self._notify()

    def _failed(self, exc: Exception, *, fatal: bool) -> None:
        """Note an error and pause, longer each time; after some tries, or at once where that is vain, ingest has
        halted.
        """
        self._failures += 1
        text = str(exc) or type(exc).__name__
        if text != self._last_error:
            _log.error("ingest failed: %s", text)
        self._last_error = text
        if fatal:
            self.failure = exc if isinstance(exc, IKVError) else IKVError(f"{type(exc).__name__}: {exc}")
        self._notify()
        self._beat()
        self._stopped.wait(min(0.02 * 2 ** min(self._failures, 10), _LONGEST_PAUSE))

    def _set_role(self, role: Role) -> None:
        if role is not self.role:
            _log.debug("this worker is now %s", role.value)
            self.role = role
            self._notify()

    def _notify(self) -> None:
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    def _beat(self) -> None:
        """Tell the mount that this worker ingests: now and then, and at once when there is something to tell."""
        news = (self.role, self.halts, self.failure)
        if news != self._told or time.monotonic() - self._last_beat >= _HEARTBEAT:
            self._told = news
            self._tell(ingesting=True)

    def _tell(self, *, ingesting: bool) -> None:
        if self._mount is None:
            return
        failure = None if self.failure is None else (type(self.failure).__name__, str(self.failure))
        status = Status(ingesting=ingesting, halts=self.halts, failure=failure, last_error=self.last_error)
        self._last_beat = status.heartbeat
        try:
            status.write(self._mount.path)
        except OSError as exc:  # a full disk: the replica's own commits will say so
            _log.warning("status.json could not be written: %s", exc)
