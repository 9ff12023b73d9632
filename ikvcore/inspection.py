"""For operators: a store's log as readable events, the state of a replica, its quarantine, and what is installed.

    from ikvcore.inspection import inspect_store, read_log

    report = inspect_store(options)
    print(report.state, report.reason)
    for event in read_log(options):
        print(event.partition, event.position, event.kind, event.key)

Nothing here ingests, makes a replica or takes a service's place; only `drop_quarantined_events` changes something. It
all takes the ClientOptions of the store's readers; the backend and the partitions are those that the mount was made
for. The commands `ikv tail`, `status`, `quarantine`, `verify` and `plugins` are thin over this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from ikvcore import _store_inspection, _trial, _verification
from ikvcore._arguments import as_list
from ikvcore._damage import Damage
from ikvcore._log_reader import EventStream, LogEvent, Place, starts_of
from ikvcore._mount import Mount
from ikvcore._opened import Opened
from ikvcore._plugin_list import OptionReport, PluginReport, list_plugins
from ikvcore._progress import QuarantinedEvent, kept_events
from ikvcore._quarantine import drop_events
from ikvcore._store_inspection import StoreInspection, open_log
from ikvcore._store_report import IngesterReport, LogReport, PartitionReport, ReplicaReport, StoreReport
from ikvcore._trial import TrialResult
from ikvcore._visit import backend_name, is_blank, opened_storage, visited_mount
from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import InvalidArgumentError, MountError, ReplicaDamagedError
from ikvcore.protocols import Storage

__all__ = [
    "EventStream",
    "IngesterReport",
    "LogEvent",
    "LogReport",
    "OptionReport",
    "PartitionReport",
    "Place",
    "PluginReport",
    "QuarantinedEvent",
    "ReplicaReport",
    "StoreInspection",
    "StoreReport",
    "TrialResult",
    "drop_quarantined_events",
    "inspect_store",
    "list_plugins",
    "quarantined_events",
    "read_log",
    "try_plugin",
    "verify_log",
    "verify_replica",
]


def read_log(
    client_options: ClientOptions,
    *,
    start: Place = "beginning",
    partitions: Iterable[int] | None = None,
    follow: bool = False,
    limit: int | None = None,
) -> EventStream:
    """The log's events, in the log's order within each partition; a context manager that closes.

    `start`: "beginning", "end", or a position for each partition to read. `partitions`: all by default. Ends where the
    log ended when this was called; with `follow` it waits for events to come, until `close` is called, from any thread.
    Ends after `limit` events in any case. Raises InvalidArgumentError for a partition or position that the log does not
    have, StoreAccessError, TransportError; the last also from the iteration.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise InvalidArgumentError(f"limit cannot be {limit!r}: give a number of events, or None for all")
    chosen = None if partitions is None else as_list(partitions, "partitions")
    log = open_log(client_options)
    try:
        bounds = log.bounds()
        starts = starts_of(start, chosen, bounds)
        stops = None if follow else {partition: bounds[partition].end for partition in starts}
        return EventStream(log, starts, stops=stops, limit=limit)
    except BaseException:
        log.close()
        raise


def inspect_store(client_options: ClientOptions, *, patience: float = 1.0) -> StoreReport:
    """How the store's log and the replica in the mount directory stand; see StoreInspection.report."""
    with StoreInspection(client_options) as inspection:
        return inspection.report(patience=patience)


def verify_log(client_options: ClientOptions) -> list[str] | None:
    """Read all of the store's log; one sentence for each thing that is wrong, none where all is well.

    None where the transport has no VerifyLog and so cannot tell. The log may be in use; no replica is needed. The same
    as ikvcore.admin.verify_log, for those who have a reader's options. Raises StoreAccessError, MissingOptionError, and
    TransportError where nothing could be found out.
    """
    return _store_inspection.verify_log(client_options)


def verify_replica(client_options: ClientOptions) -> list[str]:
    """Read all of the replica in the mount directory; one sentence for each thing that is wrong, none if all is well.

    In one state, and in a process of its own, which damaged files may end. What is found is noted in the mount: its
    readers raise ReplicaDamagedError from then on, until they have rebuilt the replica from the log. Beside a busy
    ingester the replica's files grow while this runs. The log is not needed. Raises MountError where there is no
    replica, MountBusyError where another process has it open and its backend is not shared, InvalidOptionError where
    the backend cannot tell.
    """
    return _verification.verify_mount(visited_mount(client_options), client_options)


def try_plugin(
    kind: Literal["backend", "transport"],
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    patience: float = _trial.PATIENCE,
) -> Iterator[TrialResult]:
    """Open a backend or transport, by its name or `dist:name`, and see what works; results come as they are found.

    In a process of its own and in a temporary directory, which is IKV_HOME there too; a transport that keeps its stores
    elsewhere makes one there and deletes it. A plugin that crashes, or takes more than `patience` seconds for a step,
    has failed in that step. Raises PluginNotFoundError, PluginClashError, InvalidArgumentError.
    """
    return _trial.try_plugin(kind, name, options, patience=patience)


def quarantined_events(client_options: ClientOptions) -> dict[int, QuarantinedEvent]:
    """The bad events that the replica in the mount directory keeps, by their sequence numbers, oldest first.

    The log is not needed. Raises MountError and its kin, StorageError.
    """
    mount = visited_mount(client_options)
    if is_blank(mount):
        return {}
    with _opened(mount, client_options) as storage:
        return kept_events(storage)


def drop_quarantined_events(client_options: ClientOptions, sequences: Iterable[int] | None = None) -> int:
    """Remove these events, or all, from the quarantine, all or nothing; how many there were.

    Also beside a process that ingests: it finds that another one committed, and goes on after about a second. What
    counts bad events counts on: those were passed over, whether they are kept or not. Raises InvalidArgumentError for a
    number that the quarantine does not hold, MountError and its kin (MountBusyError where a process has it open whose
    backend lets one process write), StorageError.
    """
    chosen = None if sequences is None else as_list(sequences, "sequence numbers")
    mount = visited_mount(client_options)
    if is_blank(mount):
        return 0
    with _opened(mount, client_options, writes=True) as storage:
        return drop_events(storage, chosen)


def _opened(mount: Mount, client_options: ClientOptions, *, writes: bool = False) -> AbstractContextManager[Storage]:
    directory = mount.generation()
    damage = Damage.read(mount.path, directory.name)
    if damage is not None:
        raise ReplicaDamagedError(damage.reason)
    if Opened.suspect(mount.path):
        raise MountError(
            mount.path, "it was not closed before the machine went down; `ikv verify`, or its next reader, checks it"
        )
    backend, options = backend_name(mount, client_options), client_options.backend_options
    return opened_storage(mount.path, directory, backend, options, writes=writes)
