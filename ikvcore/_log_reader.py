"""A store's log as events that a person can read, for those who look and never ingest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from ikvcore._closing import Closing
from ikvcore._events import BadEvent, decode_event
from ikvcore.errors import InvalidArgumentError, TransportError
from ikvcore.fields import FieldType, Value, decode
from ikvcore.models import (
    Bounds,
    Clear,
    DeleteDocument,
    DeleteFields,
    DropFields,
    LogMessage,
    Mutation,
    Position,
    Start,
    StoreDescription,
    Upsert,
)
from ikvcore.protocols import Transport

__all__ = ["EventStream", "LogEvent", "Place", "starts_of"]

Place: TypeAlias = "Literal['beginning', 'end'] | Mapping[int, Position]"
"""Where to begin: in every partition, or at these positions and in these partitions alone."""

_MAX_MESSAGES: Final = 500
_MAX_BYTES: Final = 1024 * 1024
_POLL_SECONDS: Final = 0.5
"""A driver that waits in C notices Ctrl-C only between two polls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One message of a log, as every replica understands it."""

    partition: int
    position: Position
    timestamp: int | None
    """Nanoseconds since the epoch: the writer's, else the transport's, None where neither is known."""
    kind: str
    """"upsert", "delete-fields", "delete-document", "drop-fields", "clear", "no-op" or "bad"."""
    size: int
    """Bytes of the message's value."""
    key: str | bytes | None = None
    """The document's primary key, in the store's type; None where the event concerns none or many."""
    fields: Mapping[str, tuple[FieldType, Value]] = field(default_factory=dict)
    """What an upsert sets."""
    names: tuple[str, ...] = ()
    """The fields that a delete or a drop names."""
    prefixes: tuple[str, ...] = ()
    """The beginnings of names that a drop names; "" is every field but the keys."""
    reason: str | None = None
    """Why the event is bad."""


class EventStream(Closing, Iterator[LogEvent]):
    """Events of a log, in the log's order within each partition. Owns its transport.

    Iterated by one thread; a context manager that closes. `close` may be called from any thread.
    """

    def __init__(
        self, log: Transport, starts: Mapping[int, Position], *, stops: Mapping[int, Position] | None, limit: int | None
    ) -> None:
        """`stops`: the positions to end at; None to wait for events to come, for ever."""
        self._log = log
        self.store = log.describe()
        """What was fixed when the store was made."""
        self._reached = dict(starts)
        self._stops = stops
        self._left = limit
        self._closed = False
        self._subscription = log.subscribe({partition: Start(place, None) for partition, place in starts.items()})
        self._events = self._read()

    def __next__(self) -> LogEvent:
        if self._closed or self._left == 0:
            raise StopIteration
        try:
            event = next(self._events)
        except TransportError:
            if self._closed:
                raise StopIteration from None
            raise
        if self._left is not None:
            self._left -= 1
        return event

    def close(self) -> None:
        """End the iteration, also one that waits in another thread, and give up the log. Idempotent."""
        self._closed = True
        self._log.close()

    def _read(self) -> Iterator[LogEvent]:
        while not self._is_done():
            polled = self._subscription.poll(
                max_messages=_MAX_MESSAGES if self._left is None else min(self._left, _MAX_MESSAGES),
                max_bytes=_MAX_BYTES,
                timeout=_POLL_SECONDS,
            )
            self._reached.update(polled.positions)
            for message in polled.messages:
                # A partition that is done goes on while others are read.
                if self._stops is None or message.position < self._stops[message.partition]:
                    yield _event(message, self.store)

    def _is_done(self) -> bool:
        return self._closed or (
            self._stops is not None and all(self._reached[each] >= stop for each, stop in self._stops.items())
        )


def starts_of(place: Place, partitions: Iterable[int] | None, bounds: Mapping[int, Bounds]) -> dict[int, Position]:
    """The position to begin at, of each partition to read. Raises InvalidArgumentError for what is not in the log."""
    if isinstance(place, str) and place not in ("beginning", "end"):
        raise InvalidArgumentError(f"start cannot be {place!r}: use 'beginning', 'end', or a position by partition")
    given = None if isinstance(place, str) else dict(place)
    chosen = set(partitions if partitions is not None else bounds if given is None else given)
    for partition in (*chosen, *(given or ())):
        if partition not in bounds:
            raise InvalidArgumentError(
                f"the store has no partition {partition!r}: its partitions are 0 to {max(bounds)}"
            )
    if given is None:
        return {each: bounds[each].first if place == "beginning" else bounds[each].end for each in sorted(chosen)}
    if given.keys() != chosen:
        raise InvalidArgumentError(f"start names partitions {sorted(given)}, but those to read are {sorted(chosen)}")
    for partition, position in given.items():
        first, end, _ = bounds[partition]
        if not isinstance(position, int) or not first <= position <= end:
            raise InvalidArgumentError(
                f"partition {partition} has no position {position!r}: its log now goes from {first} to {end}"
            )
    return given


def _event(message: LogMessage, store: StoreDescription) -> LogEvent:
    size = len(message.value or b"")
    try:
        mutation = decode_event(message, store)
    except BadEvent as exc:
        return LogEvent(
            partition=message.partition,
            position=message.position,
            timestamp=message.timestamp,
            kind="bad",
            size=size,
            reason=str(exc),
        )
    kind, names, prefixes = _form(mutation)
    key = mutation.key if isinstance(mutation, (Upsert, DeleteFields, DeleteDocument)) else None
    return LogEvent(
        partition=message.partition,
        position=message.position,
        timestamp=message.timestamp if mutation is None else mutation.timestamp,
        kind=kind,
        size=size,
        key=None if key is None else _key(key, store),
        fields=_fields(mutation) if isinstance(mutation, Upsert) else {},
        names=names,
        prefixes=prefixes,
    )


def _form(mutation: Mutation | None) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """An event's kind, and the names and prefixes that it speaks of."""
    if isinstance(mutation, DropFields):
        return "drop-fields", tuple(sorted(mutation.names)), mutation.prefixes
    if isinstance(mutation, DeleteFields):
        return "delete-fields", tuple(sorted(mutation.names)), ()
    kinds = {Upsert: "upsert", DeleteDocument: "delete-document", Clear: "clear", type(None): "no-op"}
    return kinds[type(mutation)], (), ()


def _fields(mutation: Upsert) -> dict[str, tuple[FieldType, Value]]:
    """In the order of their names: an event has them in none."""
    return {name: (each[0], decode(*each)) for name, each in sorted(mutation.fields.items())}


def _key(key: bytes, store: StoreDescription) -> str | bytes:
    return key.decode() if store.primary_key_type is FieldType.STRING else key
