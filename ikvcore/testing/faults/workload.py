"""Seeded work: the n-th call of a writer is a function of seed, writer and n, so that a checker can make it again.

Each call stamps its events with its writer and number, as their source time: what stands in the log tells whose it is,
also where an event has no field to carry that.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from ikvcore import _writer
from ikvcore._keys import message_key, partition_of
from ikvcore.client import IKVWriter
from ikvcore.document import IKVDocument
from ikvcore.fields import FieldBytes, FieldType, encode
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, Message, Mutation, StoreDescription, Upsert
from ikvcore.tokens import Token

__all__ = ["Call", "Clock", "Workload", "expected", "perform", "stamp", "unstamp"]

_EPOCH: Final = 1_500_000_000_000
_MILLISECOND: Final = 1_000_000
_CALLS: Final = 1_000_000
"""Of one writer, before its times would be the next one's."""
_NAMES: Final = tuple(f"f{number}" for number in range(8))
_TYPES: Final = tuple(field_type for field_type in FieldType if field_type is not FieldType.UNKNOWN)
_KINDS: Final = {
    "upsert": 60,
    "batch": 12,
    "delete_fields": 10,
    "delete_document": 10,
    "drop_names": 4,
    "drop_prefix": 2,
    "clear": 1,
    "empty": 1,
    "no-op": 4,
}


def stamp(writer: int, number: int, epoch: int = _EPOCH) -> int:
    """The source time, in nanoseconds, of a writer's call: whole milliseconds, since some logs keep no more of it."""
    return (epoch + writer * _CALLS + number) * _MILLISECOND


def unstamp(timestamp: int, epoch: int = _EPOCH) -> tuple[int, int]:
    """The inverse: (writer, number of the call)."""
    return divmod(timestamp // _MILLISECOND - epoch, _CALLS)


class Clock(threading.local):
    """Tells writers, in place of the time, whose call it is: a thread sets `now` before each of its calls."""

    now = 0
    perf_counter = staticmethod(time.perf_counter)

    def time_ns(self) -> int:
        """See time.time_ns."""
        return self.now

    @classmethod
    def take_over(cls) -> Clock:
        """Have every writer of this process ask a new clock from now on."""
        clock = cls()
        vars(_writer)["time"] = clock
        return clock


class Call(NamedTuple):
    """One call of a writer."""

    writer: int
    number: int
    kind: str
    documents: tuple[Mapping[str, FieldBytes], ...] = ()
    names: tuple[str, ...] = ()
    at: int = 0
    """Its stamp."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Calls over a bounded set of keys. Upserts carry the writer (`w`) and the call's number (`n`)."""

    seed: int
    keys: int = 40
    payload: int = 0
    """Bytes that each upsert adds, so that documents have some size."""
    upserts_only: bool = False
    epoch: int = _EPOCH
    """Milliseconds since 1970 at which the times of the calls begin: some logs forget what they know of old events, or
    refuse those of the future."""

    def call(self, writer: int, number: int) -> Call:
        """A writer's n-th call."""
        return self._call(writer, number)._replace(at=stamp(writer, number, self.epoch))

    def _call(self, writer: int, number: int) -> Call:
        dice = random.Random(f"{self.seed}/{writer}/{number}")
        kind = "upsert" if self.upserts_only else dice.choices(list(_KINDS), list(_KINDS.values()))[0]
        if kind == "upsert":
            return Call(writer, number, kind, (self._document(dice, writer, number),))
        if kind == "batch":
            documents = tuple(self._document(dice, writer, number) for _ in range(dice.randint(2, 5)))
            return Call(writer, number, kind, documents)
        if kind == "delete_fields":
            names = tuple(dice.sample(_NAMES, 2))
            return Call(writer, number, kind, (self._key(dice),), (*names, "never", "id"))
        if kind == "delete_document":
            return Call(writer, number, kind, (self._key(dice),))
        if kind == "drop_names":
            return Call(writer, number, kind, names=(dice.choice(_NAMES), "never", "id"))
        if kind == "drop_prefix":
            return Call(writer, number, kind, names=(dice.choice(("f1", "f", "z")),))
        if kind == "empty":
            # A document of its key alone: a no-op where it is there already, and counted all the same.
            return Call(writer, number, kind, (self._key(dice),))
        return Call(writer, number, kind)

    def key(self, number: int) -> str:
        """One of the keys."""
        return f"key-{number}"

    def all_keys(self) -> list[str]:
        """Every key that there may be."""
        return [self.key(number) for number in range(self.keys)]

    def _key(self, dice: random.Random) -> dict[str, FieldBytes]:
        return {"id": (FieldType.STRING, self.key(dice.randrange(self.keys)).encode())}

    def _document(self, dice: random.Random, writer: int, number: int) -> dict[str, FieldBytes]:
        fields = self._key(dice)
        fields["w"] = (FieldType.INT64, encode("w", FieldType.INT64, writer))
        fields["n"] = (FieldType.INT64, encode("n", FieldType.INT64, number))
        for name in dice.sample(_NAMES, dice.randint(0, 3)):
            fields[name] = _value(dice)
        if self.payload:
            fields["payload"] = (FieldType.BYTES, dice.randbytes(self.payload))
        return fields

    def to_json(self) -> dict[str, Any]:
        """A form that a worker can be given: the constructor's arguments."""
        return asdict(self)


def _value(dice: random.Random) -> FieldBytes:
    field_type = dice.choice(_TYPES)
    if field_type is FieldType.STRING:
        return field_type, ("é" * dice.randint(0, 6) + str(dice.random())).encode()
    if field_type is FieldType.BYTES:
        return field_type, dice.randbytes(dice.randint(0, 12))
    if field_type is FieldType.BOOLEAN:
        return field_type, bytes([dice.randint(0, 1)])
    value = dice.randint(-(2**31), 2**31 - 1) if field_type in (FieldType.INT32, FieldType.INT64) else dice.random()
    return field_type, encode("value", field_type, value)


def perform(writer: IKVWriter, call: Call, store: StoreDescription) -> Token:
    """Make the call."""
    if call.kind == "no-op":  # no call of a writer publishes one, other programs do
        partition = call.number % store.partitions
        token: Token = writer._transport.publish([Message(partition, b"", b"", call.at)])  # type: ignore[attr-defined]
        return token
    documents = [IKVDocument(fields) for fields in call.documents]
    if call.kind in ("upsert", "empty"):
        return writer.upsert_fields(documents[0])
    if call.kind == "batch":
        return writer.upsert_fields_batch(documents)
    if call.kind == "delete_fields":
        return writer.delete_fields(documents[0], call.names)
    if call.kind == "delete_document":
        return writer.delete_document(documents[0])
    if call.kind == "drop_names":
        return writer.drop_fields_by_name(call.names)
    if call.kind == "drop_prefix":
        return writer.drop_fields_by_name_prefix(call.names)
    return writer.drop_all_fields()


def expected(call: Call, store: StoreDescription) -> dict[int, list[Mutation | None]]:
    """What the call's events ask for (None: nothing), by partition and in order.

    Written from the contract (C3), not with the codec.
    """
    at = call.at
    asked: dict[int, list[Mutation | None]] = {}
    if call.kind == "no-op":
        return {call.number % store.partitions: [None]}
    if not call.documents:
        for partition in range(store.partitions):
            asked[partition] = [_drop(call, partition, store, at)]
        return asked
    for fields in call.documents:
        key = fields[store.primary_key][1]
        partition = partition_of(message_key(store.primary_key_type, key), store)
        mutation: Mutation
        if call.kind == "delete_fields":
            mutation = DeleteFields(partition, key, frozenset(call.names) - store.key_fields, at)
        elif call.kind == "delete_document":
            mutation = DeleteDocument(partition, key, at)
        else:
            mutation = Upsert(partition, key, fields, at)
        asked.setdefault(partition, []).append(mutation)
    return asked


def _drop(call: Call, partition: int, store: StoreDescription, at: int) -> Mutation:
    if call.kind == "clear":
        return Clear(partition, at)
    if call.kind == "drop_names":
        return DropFields(partition, frozenset(call.names), (), store.key_fields, at)
    return DropFields(partition, frozenset(), call.names, store.key_fields, at)
