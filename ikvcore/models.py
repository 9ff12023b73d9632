"""What passes between the core and its plugins: plain values, no behaviour beyond their own form.

Plugin authors import these together with the contracts in protocols.py.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Self, TypeAlias

from ikvcore.errors import InvalidOptionError
from ikvcore.fields import FieldBytes, FieldType, Value

if TYPE_CHECKING:
    from ikvcore.client import IKVReader
    from ikvcore.health import Health, ReadCount

__all__ = [
    "API_VERSION",
    "BackendContext",
    "BackendInfo",
    "BadEventFound",
    "BatchApplied",
    "Bounds",
    "Clear",
    "Cursor",
    "DeleteDocument",
    "DeleteFields",
    "DropFields",
    "Durability",
    "EventsPublished",
    "HealthChanged",
    "LogMessage",
    "Message",
    "Meta",
    "Mutation",
    "Page",
    "Polled",
    "Position",
    "Projection",
    "ReaderStarted",
    "Row",
    "Secret",
    "Sharing",
    "Start",
    "StoreDescription",
    "TransportContext",
    "TransportInfo",
    "Upsert",
    "Witness",
    "WriteBatch",
    "storage_key",
]

API_VERSION: Final = 1
"""Version of the plugin API: hookspecs, protocols and these models."""

Position: TypeAlias = int
"""The next message to read in a partition's log: any size, strictly increasing, not dense."""

Meta: TypeAlias = Mapping[bytes, "bytes | None"]
"""Core-owned keys and values; None means absent (in `expect`) or delete (in `meta`)."""

Cursor: TypeAlias = bytes
"""Where a scan goes on; opaque to its caller."""


class _Level(enum.IntEnum):
    """Levels of which a plugin declares one, and an application may require one as the least."""

    @property
    def word(self) -> str:
        """The name used in options and docs, such as process-crash."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def parse(cls, word: str) -> Self:
        """The level of a word; InvalidOptionError lists the words."""
        for level in cls:
            if level.word == word:
                return level
        raise InvalidOptionError(cls.__name__.lower(), word, f"use one of {', '.join(level.word for level in cls)}")


class Durability(_Level):
    """What a commit survives: none, process-crash or power-loss. Levels are lower bounds."""

    NONE = 0
    PROCESS_CRASH = 1
    POWER_LOSS = 2


class Sharing(_Level):
    """Which processes may have a generation open at once: one-process, followers, shared. Levels are lower bounds."""

    ONE_PROCESS = 0
    FOLLOWERS = 1
    """One process writes; others read beside it, and see what it wrote once they have caught up: see Follower."""
    SHARED = 2
    """All may read and write, and see each commit at once."""


class Secret:
    """A passkey that shows itself in no repr, str, format or pickle."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; call it only where it is checked or sent."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        # dataclasses.asdict copies deeply, which would else go through pickling's refusal.
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a passkey is not pickled; build the options in the child process, e.g. ClientOptions.from_env()"
        )


# -- the store ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoreDescription:
    """What is fixed when a store is provisioned."""

    store_name: str
    account_id: str
    identity: str
    """Identity of the log: a random id that no other log has, also one of the same name created later."""
    primary_key: str
    primary_key_type: FieldType = FieldType.STRING
    partitioning_key: str | None = None
    """Name of the partitioning-key field; None where the primary key routes."""
    partitioning_key_type: FieldType = FieldType.STRING
    partitions: int = 1
    partitioner: str = "murmur2"
    """"murmur2" or "crc32"."""
    max_event_bytes: int = 512 * 1024 * 1024
    """Largest event in bytes that the log takes."""

    @property
    def key_fields(self) -> frozenset[str]:
        """Names of the primary-key and partitioning-key fields, which deletes and drops skip."""
        return frozenset(name for name in (self.primary_key, self.partitioning_key) if name is not None)

    @property
    def routed_by_primary_key(self) -> bool:
        """Whether the primary key alone decides a document's partition."""
        return self.partitioning_key is None or self.partitioning_key == self.primary_key

    def to_json(self) -> dict[str, Any]:
        """A form that json can write; types by name."""
        data = asdict(self)
        data["primary_key_type"] = self.primary_key_type.name
        data["partitioning_key_type"] = self.partitioning_key_type.name
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoreDescription:
        """The inverse of to_json; unknown entries are ignored. Raises KeyError or TypeError where malformed."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        for name in ("primary_key_type", "partitioning_key_type"):
            if name in known:
                known[name] = FieldType[known[name]]
        return cls(**known)


# -- the log -----------------------------------------------------------------------------------


class Message(NamedTuple):
    """An event to publish."""

    partition: int
    key: bytes
    value: bytes
    timestamp: int
    """Nanoseconds since the epoch."""


class LogMessage(NamedTuple):
    """An event read from the log."""

    partition: int
    position: Position
    key: bytes
    value: bytes | None
    """None is a message without value: a no-op."""
    timestamp: int | None
    """Nanoseconds since the epoch, as the transport knows it."""


class Bounds(NamedTuple):
    """What a partition's log holds: positions first <= p < end."""

    first: Position
    end: Position
    complete: bool
    """True if nothing was ever cut from this log."""


class Witness(NamedTuple):
    """What the replica remembers of the last message it applied, to recognise the log by."""

    identity: str
    position: Position
    checksum: int
    """ikvcore.witness.message_checksum of that message."""


class Start(NamedTuple):
    """Where a partition's subscription begins."""

    position: Position
    witness: Witness | None


class Polled(NamedTuple):
    """What one poll brought."""

    messages: Sequence[LogMessage]
    """In log order within each partition; empty where the timeout ended or wake() was called."""
    positions: Mapping[int, Position]
    """Partitions that moved, with the position after this poll, also over gaps that carry no message."""


# -- mutations ---------------------------------------------------------------------------------


class Upsert(NamedTuple):
    """Set `fields` of one document, keeping its other fields; create it if absent.

    `fields` includes the primary key's.
    """

    partition: int
    key: bytes
    fields: Mapping[str, FieldBytes]
    timestamp: int | None


class DeleteFields(NamedTuple):
    """Remove `names` from one document; no-op for what is absent."""

    partition: int
    key: bytes
    names: frozenset[str]
    timestamp: int | None


class DeleteDocument(NamedTuple):
    """Remove one document; no-op if absent."""

    partition: int
    key: bytes
    timestamp: int | None


class DropFields(NamedTuple):
    """Remove, from every document that the partition holds now, the fields named and the fields whose names begin with
    one of `prefixes`; never those in `keep`."""

    partition: int
    names: frozenset[str]
    prefixes: tuple[str, ...]
    keep: frozenset[str]
    timestamp: int | None


class Clear(NamedTuple):
    """Remove every document that the partition holds now."""

    partition: int
    timestamp: int | None


Mutation: TypeAlias = Upsert | DeleteFields | DeleteDocument | DropFields | Clear


# -- reads -------------------------------------------------------------------------------------


class Projection:
    """The fields that a read asks for: a tuple of names in the order asked, or None for all that there are.

    Compared by identity, so that storages can key their caches by it cheaply: keep it and pass the same one again.
    """

    __slots__ = ("__weakref__", "names")

    def __init__(self, names: Sequence[str] | None) -> None:
        self.names: Final[tuple[str, ...] | None] = None if names is None else tuple(names)

    def __repr__(self) -> str:
        return f"Projection({self.names!r})"


Row: TypeAlias = "tuple[tuple[str, ...], tuple[FieldType | None, ...], Sequence[Value | None]]"
"""(names, types, values), aligned. For named projections in the order asked, duplicates repeated, None where the field
is absent; for the projection of all fields only what is there, in no promised order."""


class Page(NamedTuple):
    """One page of a scan."""

    rows: Sequence[tuple[bytes, Row]]
    """(storage key, row) pairs."""
    cursor: Cursor | None
    """Where the next page begins; None at the end."""


def storage_key(partition: int, key: bytes) -> bytes:
    """The key of a document in a Storage: two bytes of partition, big-endian, then the document's key."""
    return partition.to_bytes(2, "big") + key


@dataclass(slots=True)
class WriteBatch:
    """A key-value commit: range deletes are carried out first, then deletes, then puts."""

    puts: dict[bytes, bytes] = field(default_factory=dict)
    deletes: set[bytes] = field(default_factory=set)
    """Absent keys are no error; no key is in both `puts` and `deletes`."""
    ranges: list[tuple[bytes, bytes]] = field(default_factory=list)
    """start <= key < stop."""


# -- plugins -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What a backend says of itself (C9); the conformance kit verifies it."""

    name: str
    api_version: int
    summary: str
    options: type[Any]
    """A frozen keyword-only dataclass; its constructor raises InvalidOptionError for bad values."""
    durability: Durability
    """The level with default options."""
    sharing: Sharing
    """Which processes may open one generation directory at once."""
    volatile: bool = False
    """Nothing outlives the instance: no mount is needed, none is made."""
    capabilities: frozenset[str] = frozenset()
    """Names of the capability protocols that its storage implements."""
    max_key_bytes: int | None = None
    """For OrderedKeyValue backends: the engine's limit, None for none below 65,540."""
    max_value_bytes: int | None = None

    @property
    def process_shared(self) -> bool:
        """Whether clients in several processes may use one mount at once."""
        return self.sharing >= Sharing.FOLLOWERS


@dataclass(frozen=True, kw_only=True)
class TransportInfo:
    """What a transport says of itself (C9)."""

    name: str
    api_version: int
    summary: str
    options: type[Any]
    durability: Durability
    process_shared: bool
    """Clients in several processes may use one log at once."""
    capabilities: frozenset[str] = frozenset()
    keeps_passkeys: bool = True
    """It checks each account's passkey itself. Where not, whatever it connects to may check them, by its own means."""


@dataclass(frozen=True, kw_only=True)
class BackendContext:
    """What a backend is opened with."""

    directory: Path | None
    """An existing directory that is this storage's alone; None for a volatile backend."""
    options: Any
    """An instance of the info's `options`."""
    follow: bool = False
    """Open it beside the process that writes, only to read; asked of backends whose sharing is FOLLOWERS alone."""


@dataclass(frozen=True, kw_only=True)
class TransportContext:
    """What a transport is opened with. `store_name` is None where only provisioning is asked for."""

    store_name: str | None
    account_id: str
    passkey: Secret
    options: Any


# -- what observers are told -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStarted:
    """A reader's startup has come to its end. Told in the process of the reader."""

    store_name: str
    account_id: str
    mount: Path | None
    """The mount directory; None for a volatile backend."""
    seconds: float
    """How long startup took."""
    reader: IKVReader
    """To be asked for `stats` and `health`, from any thread. Keep a weak reference: it should not live for you."""
    reads: ReadCount
    """How many documents it was asked for by key, counted from here on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchApplied:
    """A batch from the log was committed to a replica. Told in the process that ingests, after the commit."""

    store_name: str
    account_id: str
    mount: Path | None
    events: int
    """Messages passed, no-ops and quarantined ones too."""
    quarantined: int
    """Bad events among them."""
    seconds: float
    """To decode and to commit, retries of a failing storage included; without the wait for the log."""
    delay_seconds: float | None
    """From the newest event's source time to the commit; None where the log gives no times. Clocks may differ."""
    positions: Mapping[int, Position]
    """Where the partitions that moved stand now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadEventFound:
    """Ingest met an event that can never be applied. Told after the commit of what came before it, or of itself where
    it was quarantined; once a time that it is met: a replica that is built anew meets it again.
    """

    store_name: str
    account_id: str
    mount: Path | None
    partition: int
    position: Position
    reason: str
    quarantined: bool
    """Whether it was passed over; else its partition has halted before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged:
    """A reader's health is of another state, or other partitions have halted. Looked for four times a second."""

    store_name: str
    account_id: str
    mount: Path | None
    before: Health
    """"stopped" in the first one, which follows ReaderStarted."""
    after: Health
    """"stopped" in the last one, at shutdown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsPublished:
    """A writer's call has published. Told in the process of the writer, after the events are durable."""

    store_name: str
    account_id: str
    events: int
    """A drop counts once for each partition."""
    bytes: int
    """Of the events, without keys."""
    seconds: float
    """Until they were durable; without making them."""


def dump_json(data: object) -> bytes:
    """Compact JSON in ASCII, which takes any str: the form of small core-owned entries."""
    return json.dumps(data, separators=(",", ":")).encode()
