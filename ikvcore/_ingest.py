"""Ingest: take messages from the log, decode and fold them, and commit them together with the positions after them.

An Ingester knows nothing of threads, processes or mounts: something calls `step` again and again, and whoever calls
it, in whichever process, the compare-and-set on the commit number keeps two of them from doing harm (C5).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ikvcore._decoder import EventDecoder
from ikvcore._events import BadEvent
from ikvcore._fold import fold
from ikvcore._observers import Audience
from ikvcore._progress import (
    COMMIT_KEY,
    QUARANTINE_KEPT,
    PartitionProgress,
    QuarantinedEvent,
    commit_value,
    quarantine_key,
    read_progress,
)
from ikvcore.errors import LogTrimmedError
from ikvcore.models import BadEventFound, BatchApplied, LogMessage, Meta, Mutation, Polled, Start, StoreDescription
from ikvcore.protocols import Reclaim, Storage, Subscription, Transport

__all__ = ["Ingester"]

_log = logging.getLogger(__name__)

_MAX_MESSAGES: Final = 4_000
_MAX_BYTES: Final = 8 * 1024 * 1024
_RECLAIM_RECORDS: Final = 2_000
_RECLAIM_EVERY: Final = 50
"""A log that never pauses gets a reclaiming commit after so many others; one that pauses gets them in its pauses."""


class Ingester:
    """Applies a store's log to a storage. Used by one thread."""

    def __init__(
        self,
        storage: Storage,
        transport: Transport,
        *,
        partitions: Sequence[int],
        quarantine: bool,
        partial_history: bool,
        audience: Audience | None = None,
        mount: Path | None = None,
    ) -> None:
        """`audience` is told of batches and bad events, with `mount` as the place where they went."""
        self._storage = storage
        self._transport = transport
        self._store: StoreDescription = transport.describe()
        self._decoder = EventDecoder(self._store)
        self._held = tuple(partitions)
        self._quarantine = quarantine
        self._partial_history = partial_history
        self.halts: dict[int, str] = {}
        """Partitions that stopped before a bad event, with the reason."""
        self._subscription: Subscription | None = None
        self._commit = 0
        self._progress: dict[int, PartitionProgress] = {}
        self._begun: dict[int, PartitionProgress] = {}
        self._since_reclaim = 0
        self._pending: _Batch | None = None
        self._audience = audience or Audience()
        self._mount = mount

    def step(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for messages and apply what came; whether anything was committed.

        Raises FencedError where another ingester committed (call `forget` and leave the log to it), StorageError where
        the storage failed (call again: what was polled is kept), and TransportError.
        """
        if self._pending is None:
            subscription = self._subscription or self._subscribe()
            polled = subscription.poll(max_messages=_MAX_MESSAGES, max_bytes=_MAX_BYTES, timeout=timeout)
            self._pending = self._batch(polled)
        batch = self._pending
        if batch.progress:
            self._apply(batch)
        self._pending = None
        if batch.halts:
            # Only now, after what came before the bad event: who sees the halt may rely on that being visible.
            self.halts.update(batch.halts)
            for partition, reason in batch.halts.items():
                _log.error("ingest of partition %d has halted: %s", partition, reason)
            self.close()  # the next step subscribes to the partitions that are left
        if self._audience:
            self._tell(batch)
        self._since_reclaim += 1
        if not batch.mutations or self._since_reclaim >= _RECLAIM_EVERY:
            return self._reclaim() or bool(batch.progress)
        return True

    def wake(self) -> None:
        """End a step that waits. From any thread."""
        subscription = self._subscription
        if subscription is not None:
            subscription.wake()

    def forget(self) -> None:
        """Throw away everything that was read or planned; the next step begins with what is committed."""
        self.close()
        self._pending = None
        self.halts = {}

    def close(self) -> None:
        """End the subscription. Idempotent."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _subscribe(self) -> Subscription:
        """Read commit number and positions of one state, and go on in the log from there."""
        progress = read_progress(self._storage, self._held)
        bounds = self._transport.bounds()
        starts: dict[int, Start] = {}
        for partition in self._held:
            if partition in self.halts:
                continue
            done = progress.partitions.get(partition)
            if done is None:
                first, _, complete = bounds[partition]
                if not complete and not self._partial_history:
                    raise LogTrimmedError(partition, 0, first)
                starts[partition] = Start(first, None)
            else:
                starts[partition] = done.start
        subscription = self._transport.subscribe(starts)
        self._commit = progress.commit
        self._progress = {
            partition: progress.partitions.get(partition) or PartitionProgress(position=start.position)
            for partition, start in starts.items()
        }
        # A log that was cut before we came has a beginning that must be committed: there may be no message to do it.
        self._begun = {
            partition: done
            for partition, done in self._progress.items()
            if partition not in progress.partitions and done.position
        }
        self._subscription = subscription
        return subscription

    def _batch(self, polled: Polled) -> _Batch:
        """What to commit for these messages."""
        batch = _Batch(began=time.perf_counter())
        batch.progress.update(self._begun)
        by_partition: dict[int, list[LogMessage]] = {}
        for message in polled.messages:
            by_partition.setdefault(message.partition, []).append(message)
        for partition, messages in by_partition.items():
            self._decode(batch, partition, messages)
        for partition, position in polled.positions.items():
            if partition not in batch.halts:
                done = batch.progress.get(partition) or self._progress[partition]
                if done.position < position:
                    batch.progress[partition] = done.moved(position)
        return batch

    def _decode(self, batch: _Batch, partition: int, messages: Sequence[LogMessage]) -> None:
        """Decode a partition's messages, up to a bad event that halts it."""
        timestamp, passed, bad = None, 0, 0
        for message in messages:
            mutation = None
            try:
                mutation = self._decoder.decode(message)
            except BadEvent as exc:
                batch.bad.append((message, str(exc)))
                if not self._quarantine:
                    batch.halts[partition] = f"bad event at position {message.position}: {exc}"
                    break
                bad += 1
                batch.quarantined.append(_quarantined(message, str(exc)))
                _log.warning("bad event at %d:%d quarantined: %s", partition, message.position, exc)
            if mutation is not None:
                batch.mutations.append(mutation)
            timestamp = message.timestamp if mutation is None else mutation.timestamp
            passed += 1
        if passed:
            batch.passed += passed
            done = batch.progress.get(partition) or self._progress[partition]
            batch.progress[partition] = done.past(
                messages[passed - 1], identity=self._store.identity, timestamp=timestamp, passed=passed, bad=bad
            )

    def _apply(self, batch: _Batch) -> None:
        meta: dict[bytes, bytes | None] = dict(done.entry(partition) for partition, done in batch.progress.items())
        self._keep_quarantined(batch, meta)
        self._commit_with(meta, batch.mutations)
        self._progress.update(batch.progress)
        self._begun = {}

    def _tell(self, batch: _Batch) -> None:
        """Tell observers of a batch that is committed."""
        subject: dict[str, Any] = {
            "store_name": self._store.store_name,
            "account_id": self._store.account_id,
            "mount": self._mount,
        }
        if batch.progress:
            times = [done.timestamp for done in batch.progress.values() if done.timestamp is not None]
            self._audience.tell(
                "batch_applied",
                BatchApplied(
                    **subject,
                    events=batch.passed,
                    quarantined=len(batch.quarantined),
                    seconds=time.perf_counter() - batch.began,
                    delay_seconds=max(0.0, (time.time_ns() - max(times)) / 1e9) if times and batch.passed else None,
                    positions={partition: done.position for partition, done in batch.progress.items()},
                ),
            )
        for message, reason in batch.bad:
            place: dict[str, Any] = {"partition": message.partition, "position": message.position}
            found = BadEventFound(**subject, **place, reason=reason, quarantined=self._quarantine)
            self._audience.tell("bad_event", found)

    def _keep_quarantined(self, batch: _Batch, meta: dict[bytes, bytes | None]) -> None:
        if not batch.quarantined:
            return
        sequence = sum(done.quarantined for done in read_progress(self._storage, self._held).partitions.values())
        for event in batch.quarantined:
            if sequence < QUARANTINE_KEPT:
                meta[quarantine_key(sequence)] = event.stored()
            sequence += 1

    def _commit_with(self, meta: dict[bytes, bytes | None], mutations: Sequence[Mutation]) -> None:
        expect: Meta = {COMMIT_KEY: commit_value(self._commit)}
        meta[COMMIT_KEY] = commit_value(self._commit + 1)
        self._storage.apply(fold(mutations), meta=meta, expect=expect)
        self._commit += 1

    def _reclaim(self) -> bool:
        """Give back some of the space that drops left behind; whether there may be more."""
        self._since_reclaim = 0
        if not isinstance(self._storage, Reclaim):
            return False
        more = self._storage.reclaim(
            max_records=_RECLAIM_RECORDS,
            meta={COMMIT_KEY: commit_value(self._commit + 1)},
            expect={COMMIT_KEY: commit_value(self._commit)},
        )
        if more:
            self._commit += 1
        return more


class _Batch:
    """What one poll comes to."""

    __slots__ = ("bad", "began", "halts", "mutations", "passed", "progress", "quarantined")

    def __init__(self, *, began: float) -> None:
        self.began = began
        self.passed = 0
        self.bad: list[tuple[LogMessage, str]] = []
        self.mutations: list[Mutation] = []
        self.progress: dict[int, PartitionProgress] = {}
        self.quarantined: list[QuarantinedEvent] = []
        self.halts: dict[int, str] = {}


def _quarantined(message: LogMessage, reason: str) -> QuarantinedEvent:
    value = message.value or b""
    return QuarantinedEvent(
        partition=message.partition,
        position=message.position,
        reason=reason,
        key=message.key,
        value=value,
        size=len(value),
        timestamp=message.timestamp,
    )
