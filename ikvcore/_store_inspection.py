"""Looking at a store, again and again: its log, and a replica through short visits that its service does not notice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ikvcore._closing import Closing
from ikvcore._damage import Damage
from ikvcore._mount import Mount
from ikvcore._opened import Opened
from ikvcore._progress import PartitionProgress, read_progress
from ikvcore._storage import catch_up
from ikvcore._store_report import (
    IngesterReport,
    LogReport,
    ReplicaReport,
    StoreReport,
    partition_report,
    unread_replica,
)
from ikvcore._visit import backend_name, existing_mount, is_blank, opened_storage
from ikvcore.clientoptions import ClientOptions, require_writer
from ikvcore.errors import (
    LogDivergedError,
    LogTrimmedError,
    MountBusyError,
    ReplicaDamagedError,
    StorageError,
    TransportError,
)
from ikvcore.models import Position, TransportContext
from ikvcore.protocols import Storage, Transport

if TYPE_CHECKING:
    from ikvcore._registry import LoadedPlugin
    from ikvcore.models import TransportInfo

__all__ = ["StoreInspection", "open_log", "verify_log"]

_LOOK_AGAIN: Final = 0.01


def open_log(options: ClientOptions) -> Transport:
    """The log that `options` name. Raises MissingOptionError, StoreAccessError, TransportError, PluginError."""
    plugin, context = _transport(options)
    log: Transport = plugin.hook.ikv_open_transport(context=context)
    return log


def verify_log(options: ClientOptions) -> list[str] | None:
    """What is wrong with the log that `options` name; None where its transport cannot tell. Raises as open_log does."""
    plugin, context = _transport(options)
    if "VerifyLog" not in plugin.info.capabilities:
        return None
    findings: list[str] = plugin.hook.ikv_verify_log(context=context)
    return findings


def _transport(options: ClientOptions) -> tuple[LoadedPlugin[TransportInfo], TransportContext]:
    from ikvcore._registry import build_options, load_transport

    require_writer(options)
    plugin = load_transport(options.transport)
    assert options.account_id is not None
    assert options.account_passkey is not None
    context = TransportContext(
        store_name=options.store_name,
        account_id=options.account_id,
        passkey=options.account_passkey,
        options=build_options(f"transport {options.transport!r}", plugin.info.options, options.transport_options),
    )
    return plugin, context


class StoreInspection(Closing):
    """A store that is looked at now and then. Keeps its log open in between, and its replica closed.

    A context manager that closes. Used by one thread.
    """

    def __init__(self, options: ClientOptions) -> None:
        """Raises MissingOptionError, StoreAccessError; a log that is out of reach is part of the report."""
        self._options = options
        self._log: Transport | None = None
        self._log_error: str | None = None
        self._reopen()

    def close(self) -> None:
        """Give up the log. Idempotent."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def report(self, *, patience: float = 1.0) -> StoreReport:
        """How things stand now.

        A replica that is behind gets up to `patience` seconds to show what was in the log when this was called: so a
        service that ingests all the time is not taken for a slow one. Raises MountError and its kin.
        """
        log = self._log_report()
        mount = existing_mount(self._options)
        replica = None if mount is None else self._look(mount, log, patience)
        return StoreReport(log=log, log_error=self._log_error, replica=replica)

    # -- the log -------------------------------------------------------------------------------

    def _reopen(self) -> None:
        try:
            self._log, self._log_error = open_log(self._options), None
        except TransportError as exc:
            self._log_error = str(exc)

    def _log_report(self) -> LogReport | None:
        if self._log is None:
            self._reopen()
        if self._log is None:
            return None
        self._log_error = None
        try:
            return LogReport(store=self._log.describe(), bytes=self._log.size(), bounds=dict(self._log.bounds()))
        except TransportError as exc:
            self.close()
            self._log_error = str(exc)
            return None

    def _mismatch(self, mount: Mount, progress: Mapping[int, PartitionProgress], log: LogReport) -> str | None:
        """How the log differs from the one that the replica followed."""
        ours, theirs = mount.manifest.description.identity, log.store.identity
        if ours != theirs:
            return str(LogDivergedError(None, f"its identity is {theirs!r}, that of the replica's log was {ours!r}"))
        try:
            if self._log is not None:
                self._log.subscribe({partition: done.start for partition, done in progress.items()}).close()
        except (LogTrimmedError, LogDivergedError) as exc:
            return str(exc)
        except TransportError as exc:
            self._log_error = str(exc)
        return None

    # -- the replica ---------------------------------------------------------------------------

    def _look(self, mount: Mount, log: LogReport | None, patience: float) -> ReplicaReport:
        known = unread_replica(mount, unread="nothing was stored in it yet")
        damage = Damage.read(mount.path, mount.generation().name)
        if damage is not None:  # it is not opened: an engine may crash on it
            return replace(known, ingester=IngesterReport.of(mount.path), unread=damage.reason, damage=damage.reason)
        if Opened.suspect(mount.path):
            reason = "it was not closed before the machine went down; `ikv verify`, or its next reader, checks it"
            return replace(known, ingester=IngesterReport.of(mount.path), unread=reason)
        if is_blank(mount):
            return known
        backend, options = backend_name(mount, self._options), self._options.backend_options
        try:
            with opened_storage(mount.path, mount.generation(), backend, options) as storage:
                ingester, progress = _settled(storage, mount, log, patience)
                documents = storage.count()
        except ReplicaDamagedError as exc:
            return replace(known, unread=exc.what, damage=exc.what)
        except (MountBusyError, StorageError) as exc:
            return replace(known, unread=str(exc))
        bounds = {} if log is None else log.bounds
        return replace(
            known,
            ingester=ingester,
            partitions={each: partition_report(progress.get(each), bounds.get(each)) for each in known.held},
            documents=documents,
            unread=None,
            mismatch=None if log is None else self._mismatch(mount, progress, log),
        )


def _settled(
    storage: Storage, mount: Mount, log: LogReport | None, patience: float
) -> tuple[IngesterReport | None, Mapping[int, PartitionProgress]]:
    """Ingester and positions, once all that the log report speaks of is visible, or when waiting is vain or over."""
    held, end = mount.manifest.partitions, time.monotonic() + patience
    while True:
        catch_up(storage)
        # In this order: what the ingester says was true before the positions were read.
        ingester = IngesterReport.of(mount.path)
        progress = read_progress(storage, held).partitions
        vain = log is None or ingester is None or not ingester.alive or ingester.complains
        if vain or time.monotonic() >= end or log is None or not _behind(progress, held, log):
            return ingester, progress
        time.sleep(_LOOK_AGAIN)


def _behind(progress: Mapping[int, PartitionProgress], held: tuple[int, ...], log: LogReport) -> bool:
    def reached(partition: int) -> Position:
        done = progress.get(partition)
        return log.bounds[partition].first if done is None else done.position

    return any(each in log.bounds and reached(each) < log.bounds[each].end for each in held)
