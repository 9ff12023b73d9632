"""A replica's own bookkeeping, in the storage's metadata: commit number, positions, witnesses, quarantine.

All of it changes in the commit that applies the events it speaks of (C5). Keys: `commit`, `p` and two bytes of
partition, `q` and eight bytes of sequence number. Values are JSON, which carries positions of any size.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ikvcore.errors import ReplicaDamagedError
from ikvcore.models import LogMessage, Position, Start, Witness, dump_json
from ikvcore.protocols import Storage
from ikvcore.witness import message_checksum

__all__ = [
    "COMMIT_KEY",
    "QUARANTINE_KEPT",
    "PartitionProgress",
    "Progress",
    "QuarantinedEvent",
    "commit_value",
    "kept_events",
    "quarantine_key",
    "quarantined_events",
    "read_progress",
]

COMMIT_KEY: Final = b"commit"
QUARANTINE_KEPT: Final = 1_000
"""How many quarantined events are kept; further ones are counted."""
_QUARANTINE_BYTES: Final = 64 * 1024
_POSITION_PREFIX: Final = b"p"
_QUARANTINE_PREFIX: Final = b"q"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProgress:
    """How far a partition was applied."""

    position: Position
    applied: int = 0
    """Messages passed, no-ops and quarantined ones too."""
    quarantined: int = 0
    """Bad events among them."""
    timestamp: int | None = None
    """Source time of the last message passed, nanoseconds since the epoch."""
    witness: Witness | None = None

    @property
    def start(self) -> Start:
        """Where a subscription goes on."""
        return Start(self.position, self.witness)

    def past(
        self, last: LogMessage, *, identity: str, timestamp: int | None, passed: int, bad: int
    ) -> PartitionProgress:
        """The progress after `passed` more messages, `bad` of them quarantined."""
        return PartitionProgress(
            position=last.position + 1,
            applied=self.applied + passed,
            quarantined=self.quarantined + bad,
            timestamp=timestamp,
            witness=Witness(identity, last.position, message_checksum(last.key, last.value)),
        )

    def moved(self, position: Position) -> PartitionProgress:
        """The progress after a gap without messages."""
        return replace(self, position=position) if position > self.position else self

    def entry(self, partition: int) -> tuple[bytes, bytes]:
        """The metadata key and value that store it."""
        data = {
            "position": self.position,
            "applied": self.applied,
            "quarantined": self.quarantined,
            "timestamp": self.timestamp,
            "witness": self.witness,
        }
        return _position_key(partition), dump_json(data)

    @classmethod
    def from_entry(cls, value: bytes) -> PartitionProgress:
        """The progress stored as `value`. Raises ReplicaDamagedError."""
        try:
            data: dict[str, Any] = json.loads(value)
            witness = data.pop("witness")
            return cls(**data, witness=None if witness is None else Witness(*witness))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ReplicaDamagedError(f"its positions cannot be read ({exc!r})") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A replica's progress in one state."""

    commit: int
    partitions: Mapping[int, PartitionProgress]
    """Partitions of which nothing was applied yet are absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedEvent:
    """A bad event that was passed over, with its first 64 KiB."""

    partition: int
    position: Position
    reason: str
    key: bytes
    value: bytes
    size: int
    """Bytes of the whole value."""
    timestamp: int | None

    def stored(self) -> bytes:
        """The metadata value that keeps it."""
        data = {
            "partition": self.partition,
            "position": self.position,
            "reason": self.reason,
            "key": base64.b64encode(self.key[:_QUARANTINE_BYTES]).decode(),
            "value": base64.b64encode(self.value[:_QUARANTINE_BYTES]).decode(),
            "size": self.size,
            "timestamp": self.timestamp,
        }
        return dump_json(data)


def read_progress(storage: Storage, partitions: Iterable[int]) -> Progress:
    """Commit number and positions, of one state."""
    partitions = list(partitions)
    commit, *found = storage.read_meta([COMMIT_KEY, *map(_position_key, partitions)])
    return Progress(
        commit=0 if commit is None else int(commit),
        partitions={
            partition: PartitionProgress.from_entry(value)
            for partition, value in zip(partitions, found, strict=True)
            if value is not None
        },
    )


def commit_value(commit: int) -> bytes | None:
    """The stored form of a commit number; none is stored before the first commit."""
    return str(commit).encode() if commit else None


def quarantine_key(sequence: int) -> bytes:
    """The metadata key of the quarantined event with this sequence number."""
    return _QUARANTINE_PREFIX + sequence.to_bytes(8, "big")


def kept_events(storage: Storage) -> dict[int, QuarantinedEvent]:
    """The events kept in quarantine by their sequence numbers, oldest first. Raises ReplicaDamagedError."""
    return {
        int.from_bytes(key[len(_QUARANTINE_PREFIX) :], "big"): _quarantined(value)
        for key, value in storage.scan_meta(_QUARANTINE_PREFIX)
    }


def quarantined_events(storage: Storage) -> list[QuarantinedEvent]:
    """The events kept in quarantine, oldest first."""
    return list(kept_events(storage).values())


def _quarantined(value: bytes) -> QuarantinedEvent:
    try:
        data = json.loads(value)
        data["key"], data["value"] = base64.b64decode(data["key"]), base64.b64decode(data["value"])
        return QuarantinedEvent(**data)
    except (ValueError, KeyError, TypeError) as exc:
        raise ReplicaDamagedError(f"an event in its quarantine cannot be read ({exc!r})") from exc


def _position_key(partition: int) -> bytes:
    return _POSITION_PREFIX + partition.to_bytes(2, "big")
