"""How a store's log and a replica of it stand, in figures: what an operator asks, and a script."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ikvcore._mount import FORMAT_VERSION, Mount
from ikvcore._progress import PartitionProgress
from ikvcore._status import Status, boot_id
from ikvcore.models import Bounds, Position, StoreDescription

__all__ = [
    "IngesterReport",
    "LogReport",
    "PartitionReport",
    "ReplicaReport",
    "StoreReport",
    "partition_report",
    "unread_replica",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReport:
    """What a store's log holds."""

    store: StoreDescription
    bytes: int | None
    """None where the transport cannot tell."""
    bounds: Mapping[int, Bounds]
    """Of every partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngesterReport:
    """What the ingesting process last said of itself."""

    pid: int
    alive: bool
    """It ingests, is there, and was heard of within 5 s."""
    heartbeat_age: float | None
    """Seconds since it was heard of; None where that was before this machine's last start."""
    halts: Mapping[int, str]
    """Halted partition -> reason."""
    failure: str | None
    """What stops the ingest of all partitions."""
    last_error: str | None

    @property
    def complains(self) -> bool:
        """Whether anything has halted."""
        return self.failure is not None or bool(self.halts)

    @classmethod
    def of(cls, mount: Path) -> IngesterReport | None:
        """None where no process has said anything yet."""
        status = Status.read(mount)
        if status is None:
            return None
        return cls(
            pid=status.pid,
            alive=status.fresh(),
            heartbeat_age=max(0.0, time.monotonic() - status.heartbeat) if status.boot == boot_id() else None,
            halts=status.halts,
            failure=None if status.failure is None else status.failure[1],
            last_error=status.last_error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReport:
    """One partition of a replica beside its log."""

    position: Position | None
    """The next position to apply; None where nothing was applied yet."""
    applied: int
    """Messages passed, no-ops and quarantined ones too."""
    bad: int
    """Quarantined ones among them, also those that were dropped from the quarantine since."""
    timestamp: int | None
    """Of the last message passed, nanoseconds since the epoch."""
    lag_events: int | None
    """Positions up to the log's end; an upper bound where a log's positions are not dense. None where the log cannot be
    read."""
    lag_seconds: float | None
    """Age of the last event applied while others wait, 0.0 where none wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """A mount, and what is in it."""

    directory: Path
    store: StoreDescription
    """As it was when the mount was made."""
    backend: str
    held: tuple[int, ...]
    """Its partitions."""
    history: str
    format: int
    generation: str
    bytes: int
    """Of all its files, by their sizes."""
    ingester: IngesterReport | None
    """None where no process has ever ingested into it."""
    partitions: Mapping[int, PartitionReport] | None
    """By partition held. None, as `documents`, where they could not be read; `unread` says why."""
    documents: int | None
    unread: str | None = None
    damage: str | None = None
    """What its storage says, where that is why."""
    mismatch: str | None = None
    """How the log differs from the one that was followed so far."""

    @property
    def lag_events(self) -> int | None:
        """Of all partitions; None where it cannot be told."""
        if self.partitions is None or any(each.lag_events is None for each in self.partitions.values()):
            return None
        return sum(each.lag_events or 0 for each in self.partitions.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """A store: its log, a replica, and whether that replica is kept fresh."""

    log: LogReport | None
    """None where the log cannot be reached; `log_error` says why."""
    log_error: str | None
    replica: ReplicaReport | None
    """None where there is none."""

    @property
    def ready(self) -> bool:
        """Whether the state is "ready"."""
        return self.state == "ready"

    @property
    def state(self) -> str:
        """ "ready": a process ingests, and all that was in the log when this was asked is visible. "catching-up": it
        ingests, and is behind. "halted": ingest of a partition has stopped, or can never go on. "stopped": no process
        ingests. "damaged": what is stored cannot be read. "unknown": the log, or an engine that another process has
        open, could not be read, and nothing bad is known. "absent": there is no replica.
        """
        return self._judged()[0]

    @property
    def reason(self) -> str:
        """Why it is not ready; "" if it is."""
        return self._judged()[1]

    def _judged(self) -> tuple[str, str]:
        replica = self.replica
        if replica is None:
            return "absent", "there is no replica"
        if replica.damage is not None:
            return "damaged", replica.damage
        if replica.mismatch is not None:
            return "halted", replica.mismatch
        ingester = replica.ingester
        if ingester is None:
            return "stopped", "no process has ingested into it yet"
        complaints = [ingester.failure] if ingester.failure is not None else []
        complaints += [f"partition {each}: {reason}" for each, reason in sorted(ingester.halts.items())]
        if not ingester.alive:
            last = f"; its last complaint: {'; '.join(complaints)}" if complaints else ""
            return "stopped", f"no process ingests now, the last one was {ingester.pid}{last}"
        if complaints:
            return "halted", "; ".join(complaints)
        if replica.lag_events:
            return "catching-up", f"{replica.lag_events:,} events are not visible yet"
        unread = replica.unread or self.log_error
        return ("ready", "") if unread is None else ("unknown", unread)


def partition_report(done: PartitionProgress | None, bounds: Bounds | None) -> PartitionReport:
    """A partition's figures now."""
    lag = seconds = None
    if bounds is not None:
        lag = max(0, bounds.end - (bounds.first if done is None else done.position))
        waiting_since = None if done is None or not lag else done.timestamp
        seconds = 0.0 if waiting_since is None else max(0.0, (time.time_ns() - waiting_since) / 1e9)
    return PartitionReport(
        position=None if done is None else done.position,
        applied=0 if done is None else done.applied,
        bad=0 if done is None else done.quarantined,
        timestamp=None if done is None else done.timestamp,
        lag_events=lag,
        lag_seconds=seconds,
    )


def unread_replica(mount: Mount, *, unread: str) -> ReplicaReport:
    """What is known of a mount without opening its storage."""
    manifest = mount.manifest
    return ReplicaReport(
        directory=mount.path,
        store=manifest.description,
        backend=manifest.backend,
        held=manifest.partitions,
        history=manifest.history,
        format=FORMAT_VERSION,
        generation=mount.generation().name,
        bytes=_bytes_of(mount.path),
        ingester=IngesterReport.of(mount.path),
        partitions=None,
        documents=None,
        unread=unread,
    )


def _bytes_of(directory: Path) -> int:
    """By stat alone: opening an engine's files beside it can break its locks."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except OSError:  # replaced since it was listed
                continue
    return total
