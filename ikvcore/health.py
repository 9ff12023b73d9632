"""What a reader tells of itself: `IKVReader.health` and `IKVReader.stats`, and its reads to observers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Health", "PartitionStats", "ReadCount", "Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a reader serves, and how fresh."""

    state: str
    """"ready": what was in the log at startup is visible, and ingest goes on. "catching-up": it is not all visible yet
    (startup with allow_stale). "halted": ingest of a partition has stopped; reads go on with what came before.
    "stopped": not
    started, or shut down."""
    reason: str = ""
    """Why it is not ready; "" if it is."""
    halts: Mapping[int, str] = field(default_factory=dict)
    """Halted partition -> reason."""

    @property
    def ready(self) -> bool:
        """Whether the state is "ready": what a readiness probe asks."""
        return self.state == "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStats:
    """One partition of a replica beside its log."""

    position: int
    """The next position to apply."""
    end: int
    """Where the log ends now."""
    lag_events: int
    """Positions between the two; an upper bound where a log's positions are not dense."""
    lag_seconds: float
    """Age of the last event applied while others wait, 0.0 where none wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A replica in figures."""

    documents: int
    partitions: Mapping[int, PartitionStats]
    """By partition held."""
    events_applied: int
    """Messages passed since the replica was made, no-ops and quarantined ones too."""
    bad_events: int
    """Bad events passed over (quarantined) since the replica was made."""
    last_error: str | None
    """What ingest last complained of, None if nothing since the ingesting process started."""
    log_bytes: int | None
    """Size of the log in bytes, None where the transport cannot tell."""
    first: Mapping[int, int]
    """First position that the log still holds, by partition held."""


class ReadCount:
    """How many documents a reader was asked for by key, found or not. Scans are not counted.

    Counted without a lock, by additions that CPython's interpreter lock does not interrupt; without that lock some may
    be missed.
    """

    __slots__ = ("batched", "single")

    def __init__(self) -> None:
        self.single = 0
        """By the getters of one value."""
        self.batched = 0
        """By multigets and whole documents, each key."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.single + self.batched
