"""The log as the model sees it: which document stood under which key between which positions of its partition."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ikvcore._events import BadEvent, decode_event
from ikvcore._keys import message_key, partition_of
from ikvcore.models import Bounds, Clear, DropFields, LogMessage, Mutation, Start, StoreDescription
from ikvcore.protocols import Transport
from ikvcore.testing.faults.recorder import digest
from ikvcore.testing.model import StoreModel

__all__ = ["Log", "Timeline"]

_FOREVER: Final = 1 << 200


@dataclass(frozen=True, kw_only=True)
class Log:
    """A whole log, by partition."""

    store: StoreDescription
    messages: Mapping[int, Sequence[LogMessage]]
    bounds: Mapping[int, Bounds]

    @classmethod
    def read(cls, transport: Transport) -> Log:
        """Everything up to the end that the log has now; of a log that was cut, what is left."""
        store, bounds = transport.describe(), dict(transport.bounds())
        messages: dict[int, list[LogMessage]] = {partition: [] for partition in range(store.partitions)}
        reached = {partition: bounds[partition].first for partition in messages}
        subscription = transport.subscribe({partition: Start(first, None) for partition, first in reached.items()})
        try:
            while any(position < bounds[partition].end for partition, position in reached.items()):
                polled = subscription.poll(max_messages=10_000, max_bytes=1 << 26, timeout=1.0)
                for message in polled.messages:
                    messages[message.partition].append(message)
                reached.update(polled.positions)
        finally:
            subscription.close()
        return cls(store=store, messages=messages, bounds=bounds)

    def after(self, earlier: Log) -> Log:
        """The same with what was cut off since `earlier`, a whole look at it."""
        messages, bounds = {}, {}
        for partition, found in self.messages.items():
            first = self.bounds[partition].first
            messages[partition] = [m for m in earlier.messages[partition] if m.position < first] + list(found)
            bounds[partition] = earlier.bounds[partition]._replace(end=self.bounds[partition].end)
        return Log(store=self.store, messages=messages, bounds=bounds)


class Timeline:
    """Every state that a replica of this log may ever show.

    The state at position p of a partition is what the messages before p come to.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.mutations: dict[int, list[tuple[LogMessage, Mutation | None]]] = {}
        """What each message asks for; None for no-ops and bad events."""
        self._positions = {p: [message.position for message in found] for p, found in log.messages.items()}
        self._versions: dict[tuple[int, str], tuple[list[int], list[str | None]]] = {}
        self._counts: dict[int, tuple[list[int], list[int]]] = {}
        self._model = StoreModel(log.store.key_fields)
        for partition, messages in log.messages.items():
            self._counts[partition] = ([], [])
            self.mutations[partition] = [(message, self._mutation(message)) for message in messages]
            for message, mutation in self.mutations[partition]:
                if mutation is not None:
                    self._apply(partition, message.position + 1, mutation)

    def partition(self, key: str) -> int:
        """Where a key lives; stores of the harness are routed by the primary key."""
        return partition_of(message_key(self.log.store.primary_key_type, key.encode()), self.log.store)

    def messages_before(self, partition: int, position: int) -> int:
        """How many messages a replica has passed at a position."""
        return bisect_left(self._positions[partition], position)

    def version(self, partition: int, key: str, position: int) -> str | None:
        """The digest of a document at a position."""
        starts, digests = self._versions.get((partition, key), ([], []))
        index = bisect_right(starts, position) - 1
        return digests[index] if index >= 0 else None

    def documents(self, partition: int, position: int) -> dict[str, str]:
        """Every document of a partition at a position: key -> digest."""
        found = {}
        for held, key in self._versions:
            if held == partition:
                shown = self.version(partition, key, position)
                if shown is not None:
                    found[key] = shown
        return found

    def first_state(self, partition: int, seen: Mapping[str, str | None], since: int) -> int | None:
        """The first position, not before `since`, at which every key of `seen` shows what was seen; None if none."""
        position = since
        while True:
            begun = position
            for key, shown in seen.items():
                following = self._next_shown(partition, key, shown, position)
                if following is None:
                    return None
                position = following
            if position == begun:
                return position

    def _next_shown(self, partition: int, key: str, shown: str | None, since: int) -> int | None:
        """The first position from `since` on at which `key` shows `shown`."""
        starts, digests = self._versions.get((partition, key), ([], []))
        index = bisect_right(starts, since) - 1
        if (digests[index] if index >= 0 else None) == shown:
            return since
        for later in range(index + 1, len(starts)):
            if digests[later] == shown:
                return starts[later]
        return None

    def _mutation(self, message: LogMessage) -> Mutation | None:
        try:
            return decode_event(message, self.log.store)
        except BadEvent:
            return None

    def _apply(self, partition: int, position: int, mutation: Mutation) -> None:
        self._model.apply([mutation])
        keys: Iterable[str]
        if isinstance(mutation, (DropFields, Clear)):
            keys = [key for held, key in self._versions if held == partition]
        else:
            keys = [mutation.key.decode()]
        for key in keys:
            starts, digests = self._versions.setdefault((partition, key), ([], []))
            shown = digest(self._model.get(partition, key.encode()))
            if (digests[-1] if digests else None) != shown:
                starts.append(position)
                digests.append(shown)
