"""A replica's schema: field ids, shapes, and what was dropped, as key-value entries and as the view that reads use.

Field and shape ids only append and are never reused in one generation, so their tables are shared by all views. What a
drop changes is in the view alone, and a view belongs to one schema version.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from zlib import crc32

from ikvcore._record import Shape, ShapeFields
from ikvcore.errors import ReplicaDamagedError
from ikvcore.fields import FieldBytes, FieldType
from ikvcore.models import Projection
from ikvcore.protocols import OrderedKeyValue, Snapshot

__all__ = ["MAX_SHAPES", "VERSION_KEY", "PartitionState", "SchemaTables", "SchemaView", "Version", "seal", "unseal"]

MAX_SHAPES: Final = 1024
"""Records of further shapes use the general layout: a store of sparse documents must not drown in shapes."""

# All of the schema lies under the tag 0x00, with one letter for the kind of entry.
VERSION_KEY: Final = b"\x00v"
FIELD_PREFIX: Final = b"\x00f"
SHAPE_PREFIX: Final = b"\x00s"
PARTITION_PREFIX: Final = b"\x00p"

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_VERSION: Final = struct.Struct("<QIIQ")
_PARTITION: Final = struct.Struct("<III")
_DROP: Final = struct.Struct("<II")
_SHAPE_FIELD: Final = struct.Struct("<IB")


def seal(key: bytes, value: bytes) -> bytes:
    """`value` with a checksum over its key and itself: a damaged field name would be as wrong as a damaged value."""
    return value + crc32(value, crc32(key)).to_bytes(4, "little")


def unseal(key: bytes, sealed: bytes) -> bytes:
    """The value in `sealed`. Raises ReplicaDamagedError."""
    value = sealed[:-4]
    if len(sealed) < 4 or crc32(value, crc32(key)) != int.from_bytes(sealed[-4:], "little"):
        raise ReplicaDamagedError(f"the entry {key!r} fails its checksum")
    return value


class Version(NamedTuple):
    """The one entry that tells whether a view is current: it changes with every change of the schema."""

    version: int = 0
    fields: int = 0
    shapes: int = 0
    drops: int = 0
    """All drops and clears that there ever were: the sum of the partitions' epochs."""

    @classmethod
    def read(cls, engine: OrderedKeyValue, snapshot: Snapshot) -> Version:
        """The version of a state; that of an empty store where none is written."""
        # By the engine, not by its snapshot, here and wherever speed allows: its errors tell damage from failures.
        (sealed,) = engine.get_many(snapshot, [VERSION_KEY])
        if sealed is None:
            return cls()
        value = unseal(VERSION_KEY, sealed)
        if len(value) != _VERSION.size:
            raise ReplicaDamagedError(f"the entry {VERSION_KEY!r} was not written by this release")
        return cls(*_VERSION.unpack(value))

    def entry(self) -> tuple[bytes, bytes]:
        """The key and value that store it."""
        return VERSION_KEY, seal(VERSION_KEY, _VERSION.pack(*self))


@dataclass(slots=True)
class PartitionState:
    """What was dropped in one partition, and is perhaps still in its records (C3.11)."""

    epoch: int = 0
    """Counts the partition's drops and clears; a record carries the epoch of its last write."""
    clear: int = 0
    """Epoch of the last clear that is not reclaimed: older records do not exist."""
    drops: dict[int, int] = field(default_factory=dict)
    """Field id -> epoch of its last drop that is not reclaimed: in older records the field does not exist."""

    floor: int = field(init=False)
    """Records of this epoch and later have nothing masked: the latest of the above, kept since every read asks."""

    def __post_init__(self) -> None:
        self.floor = max(self.clear, max(self.drops.values(), default=0))

    def advance(self) -> int:
        """Begin a new epoch, with a drop or clear that the caller adds."""
        self.epoch += 1
        self.floor = self.epoch
        return self.epoch

    def visible(self, fields: dict[int, FieldBytes], epoch: int) -> dict[int, FieldBytes]:
        """What a record of `epoch` with these fields shows."""
        if epoch >= self.floor:
            return fields
        return {field_id: value for field_id, value in fields.items() if self.drops.get(field_id, 0) <= epoch}

    def copy(self) -> PartitionState:
        """A state that can be changed on its own."""
        return PartitionState(self.epoch, self.clear, dict(self.drops))

    def entry(self, partition: int) -> tuple[bytes, bytes]:
        """The key and value that store it."""
        key = PARTITION_PREFIX + _U16.pack(partition)
        drops = b"".join(_DROP.pack(*drop) for drop in self.drops.items())
        return key, seal(key, _PARTITION.pack(self.epoch, self.clear, len(self.drops)) + drops)

    @classmethod
    def from_entry(cls, value: bytes) -> PartitionState:
        """The state stored as `value`."""
        epoch, clear, _ = _PARTITION.unpack_from(value)
        return cls(epoch, clear, dict(_DROP.iter_unpack(value[_PARTITION.size :])))


class SchemaTables:
    """Field names and shapes by their ids: only ever appended to, and only with what is committed."""

    def __init__(self) -> None:
        self.names: list[str] = [""]  # id 0 is FULL_KEY, which has no name
        self.field_ids: dict[str, int] = {}
        self.shapes: dict[int, Shape] = {}
        self.shape_ids: dict[ShapeFields, int] = {}
        self._lock = threading.Lock()

    def catch_up(self, engine: OrderedKeyValue, snapshot: Snapshot, version: Version) -> None:
        """Read the fields and shapes that `version` has and these tables lack."""
        with self._lock:
            for field_id, value in self._new(engine, snapshot, FIELD_PREFIX, len(self.names), version.fields):
                name = str(value, "utf-8")
                self.names.append(name)
                self.field_ids[name] = field_id
            for shape_id, value in self._new(engine, snapshot, SHAPE_PREFIX, len(self.shapes) + 1, version.shapes):
                shape = Shape(shape_id, tuple((i, FieldType(t)) for i, t in _SHAPE_FIELD.iter_unpack(value)))
                self.shapes[shape_id] = shape
                self.shape_ids[shape.fields] = shape_id

    @staticmethod
    def _new(
        engine: OrderedKeyValue, snapshot: Snapshot, prefix: bytes, first: int, last: int
    ) -> Iterator[tuple[int, bytes]]:
        """(id, value) for ids first..last, each of which must be there."""
        if first > last:
            return
        expected = first
        for key, sealed in engine.scan(snapshot, prefix + _U32.pack(first), prefix + _U32.pack(last + 1)):
            (number,) = _U32.unpack(key[len(prefix) :])
            if number != expected:
                break
            yield number, unseal(key, sealed)
            expected += 1
        if expected != last + 1:
            raise ReplicaDamagedError(f"the schema entry {prefix + _U32.pack(expected)!r} is missing")


def field_entry(field_id: int, name: str) -> tuple[bytes, bytes]:
    """The key and value that store a field's name."""
    key = FIELD_PREFIX + _U32.pack(field_id)
    return key, seal(key, name.encode())


def shape_entry(shape_id: int, fields: ShapeFields) -> tuple[bytes, bytes]:
    """The key and value that store a shape."""
    key = SHAPE_PREFIX + _U32.pack(shape_id)
    return key, seal(key, b"".join(_SHAPE_FIELD.pack(field_id, field_type) for field_id, field_type in fields))


class SchemaView:
    """The schema of one version: what a read needs beside the record. Immutable."""

    __slots__ = ("has_masked", "partitions", "stored_version", "tables", "version")

    def __init__(self, tables: SchemaTables, version: Version, partitions: Mapping[int, PartitionState]) -> None:
        self.tables = tables
        self.version = version
        self.stored_version = None if version == Version() else version.entry()[1]
        """What a snapshot of this version has under VERSION_KEY."""
        self.partitions = partitions
        self.has_masked = any(state.floor for state in partitions.values())
        """The highest floor of any partition: records of this epoch and later need no look at their partition."""

    @classmethod
    def load(cls, tables: SchemaTables, engine: OrderedKeyValue, snapshot: Snapshot) -> SchemaView:
        """The view of a snapshot. Raises ReplicaDamagedError where an entry of it is damaged, missing or too old."""
        version = Version.read(engine, snapshot)
        tables.catch_up(engine, snapshot, version)
        stop = PARTITION_PREFIX[:-1] + bytes([PARTITION_PREFIX[-1] + 1])
        partitions = {
            _U16.unpack(key[len(PARTITION_PREFIX) :])[0]: PartitionState.from_entry(unseal(key, sealed))
            for key, sealed in engine.scan(snapshot, PARTITION_PREFIX, stop)
        }
        known = sum(state.epoch for state in partitions.values())
        if known != version.drops:  # what was dropped would be there again
            raise ReplicaDamagedError(
                f"its entries tell of {known:,} drops and clears, and there were {version.drops:,}"
            )
        return cls(tables, version, partitions)

    def columns(self, projection: Projection, shape_fields: ShapeFields) -> tuple[list[str], list[int | None]]:
        """Whether any partition has drops or clears to reclaim: only then does a read look at epochs."""
        if projection.names is not None:
            return list(projection.names), [self.tables.field_ids.get(name) for name in projection.names]
        field_ids = [field_id for field_id, _ in shape_fields if field_id]
        return [self.tables.names[field_id] for field_id in field_ids], list(field_ids)
