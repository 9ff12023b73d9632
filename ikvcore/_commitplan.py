"""From mutations to one key-value commit: read what they touch, change it in memory, write it once.

A plan belongs to one snapshot and is thrown away with it, whether its commit succeeds or not: no id or count that it
thought of outlives a failed commit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from zlib import crc32

from ikvcore._record import (
    CRC_RESIDUE,
    FULL_KEY,
    GENERAL,
    HEADER,
    Shape,
    ShapeFields,
    encode_record,
    general_fields,
)
from ikvcore._schema import MAX_SHAPES, PartitionState, SchemaView, Version, field_entry, seal, shape_entry, unseal
from ikvcore.errors import ReplicaDamagedError
from ikvcore.fields import FieldBytes, FieldType
from ikvcore.models import (
    Clear,
    DeleteDocument,
    DeleteFields,
    DropFields,
    Mutation,
    Upsert,
    WriteBatch,
    storage_key,
)
from ikvcore.protocols import OrderedKeyValue, Snapshot

__all__ = ["COUNT_PREFIX", "CommitPlan", "Counts", "KeyForm", "record_epoch", "record_fields"]

COUNT_PREFIX: Final = b"\x00c"
_COUNTS: Final = struct.Struct("<QQ")
_MODULUS: Final = 1 << 64


class KeyForm:
    """How a document's storage key is stored: under tag 0x01 as it is, or, too long for the engine, as a digest under
    0x02.
    """

    METADATA: Final = b"\x00"
    PLAIN: Final = b"\x01"
    DIGEST: Final = b"\x02"
    END: Final = b"\x03"

    def __init__(self, max_key_bytes: int | None) -> None:
        self.longest = 0x1_0000_0000 if max_key_bytes is None else max_key_bytes - 1
        """The longest storage key that is stored as it is."""

    def stored(self, key: bytes) -> bytes:
        """The engine's key for a storage key."""
        if len(key) <= self.longest:
            return self.PLAIN + key
        return self.DIGEST + key[:2] + sha256(key[2:]).digest()


def record_fields(record: bytes, view: SchemaView) -> dict[int, FieldBytes]:
    """Every field of a record whose checksum was found right, masked ones among them."""
    shape_id, _ = HEADER.unpack_from(record)
    return general_fields(record) if shape_id == GENERAL else view.tables.shapes[shape_id].values(record)


def record_epoch(record: bytes) -> int:
    """The epoch that a record carries."""
    epoch: int = HEADER.unpack_from(record)[1]
    return epoch


@dataclass(slots=True)
class Counts:
    """What a partition holds: how many documents, and the sum of their records' checksums modulo 2^64 (C7)."""

    documents: int = 0
    digest: int = 0

    def add(self, record: bytes) -> None:
        """Count a record in."""
        self.documents += 1
        self.digest = (self.digest + int.from_bytes(record[-4:], "little")) % _MODULUS

    def remove(self, record: bytes) -> None:
        """Count a record out."""
        self.documents -= 1
        self.digest = (self.digest - int.from_bytes(record[-4:], "little")) % _MODULUS

    def entry(self, partition: int) -> tuple[bytes, bytes]:
        """The key and value that store it."""
        key = COUNT_PREFIX + partition.to_bytes(2, "big")
        return key, seal(key, _COUNTS.pack(self.documents, self.digest))

    @classmethod
    def read(cls, snapshot: Snapshot, partition: int) -> Counts:
        """The counts of a partition in a state."""
        key = COUNT_PREFIX + partition.to_bytes(2, "big")
        sealed = snapshot.get(key)
        return cls() if sealed is None else cls(*_COUNTS.unpack(unseal(key, sealed)))


@dataclass(slots=True)
class _Draft:
    """A document while it is being changed."""

    partition: int
    fields: dict[int, FieldBytes] | None
    """None where there is no document."""
    counted: bytes | None
    """The stored record, if it is in the partition's counts."""
    stored: bool
    """Whether the engine holds a record, visible or not."""


class CommitPlan:
    """One commit in the making. Used by one thread."""

    def __init__(self, engine: OrderedKeyValue, snapshot: Snapshot, view: SchemaView, keys: KeyForm) -> None:
        self._engine = engine
        self._snapshot = snapshot
        self._view = view
        self._keys = keys
        self._drafts: dict[bytes, _Draft] = {}
        self._partitions: dict[int, PartitionState] = {}
        self._changed_partitions: set[int] = set()
        self._counts: dict[int, Counts] = {}
        self._new_fields: dict[str, int] = {}
        self._new_shapes: dict[ShapeFields, Shape] = {}
        self._changes: dict[type, Callable[..., None]] = {
            Upsert: self._upsert,
            DeleteFields: self._delete_fields,
            DeleteDocument: self._delete_document,
            DropFields: self._drop_fields,
            Clear: self._clear,
        }

    def apply(self, mutations: Iterable[Mutation]) -> None:
        """Carry out mutations in their order."""
        mutations = list(mutations)
        self._prefetch(mutations)
        for mutation in mutations:
            self._changes[type(mutation)](mutation)

    def batch(self) -> WriteBatch:
        """The commit: changed records, counts and schema."""
        batch = WriteBatch()
        for stored_key, draft in self._drafts.items():
            self._finish(batch, stored_key, draft)
        for partition, counts in self._counts.items():
            self._put(batch, counts.entry(partition))
        for partition in self._changed_partitions:
            self._put(batch, self._partitions[partition].entry(partition))
        for name, field_id in self._new_fields.items():
            self._put(batch, field_entry(field_id, name))
        for fields, shape in self._new_shapes.items():
            self._put(batch, shape_entry(shape.id, fields))
        if self._new_fields or self._new_shapes or self._changed_partitions:
            old = self._view.version
            version = Version(old.version + 1, old.fields + len(self._new_fields), old.shapes + len(self._new_shapes))
            self._put(batch, version.entry())
        return batch

    # -- what mutations do ---------------------------------------------------------------------

    def _upsert(self, mutation: Upsert) -> None:
        stored_key, draft = self._draft(mutation.partition, mutation.key)
        if draft.fields is None:
            draft.fields = {}
            if stored_key[:1] == KeyForm.DIGEST:
                draft.fields[FULL_KEY] = (FieldType.BYTES, mutation.key)
        fields = draft.fields
        known = self._view.tables.field_ids
        for name, value in mutation.fields.items():
            fields[known.get(name) or self._field_id(name)] = value

    def _delete_fields(self, mutation: DeleteFields) -> None:
        _, draft = self._draft(mutation.partition, mutation.key)
        if draft.fields is not None:
            for name in mutation.names:
                field_id = self._known_field_id(name)
                if field_id is not None:
                    draft.fields.pop(field_id, None)

    def _delete_document(self, mutation: DeleteDocument) -> None:
        self._draft(mutation.partition, mutation.key)[1].fields = None

    def _drop_fields(self, mutation: DropFields) -> None:
        dropped = [
            field_id
            for name, field_id in [*self._view.tables.field_ids.items(), *self._new_fields.items()]
            if name not in mutation.keep and (name in mutation.names or name.startswith(mutation.prefixes))
        ]
        if not dropped:
            return
        state = self._advance(mutation.partition)
        state.drops.update(dict.fromkeys(dropped, state.epoch))
        for draft in self._drafts.values():
            if draft.partition == mutation.partition and draft.fields is not None:
                for field_id in dropped:
                    draft.fields.pop(field_id, None)

    def _clear(self, mutation: Clear) -> None:
        state = self._advance(mutation.partition)
        state.clear = state.epoch
        state.drops.clear()  # no older record is left for them to mask
        self._counts[mutation.partition] = Counts()
        for draft in self._drafts.values():
            if draft.partition == mutation.partition:
                draft.fields, draft.counted = None, None

    # -- documents -----------------------------------------------------------------------------

    def _prefetch(self, mutations: Sequence[Mutation]) -> None:
        """Read every record that the mutations touch, in one call and in the engine's order."""
        wanted: dict[bytes, int] = {}
        for mutation in mutations:
            if isinstance(mutation, (Upsert, DeleteFields, DeleteDocument)):
                stored_key = self._keys.stored(storage_key(mutation.partition, mutation.key))
                wanted[stored_key] = mutation.partition
        stored_keys = sorted(wanted.keys() - self._drafts.keys())
        for stored_key, record in zip(stored_keys, self._engine.get_many(self._snapshot, stored_keys), strict=True):
            self._drafts[stored_key] = self._load(wanted[stored_key], stored_key, record)

    def _draft(self, partition: int, key: bytes) -> tuple[bytes, _Draft]:
        stored_key = self._keys.stored(storage_key(partition, key))
        return stored_key, self._drafts[stored_key]

    def _load(self, partition: int, stored_key: bytes, record: bytes | None) -> _Draft:
        """The draft of a stored record, without what is masked at this place in the order."""
        if record is None:
            return _Draft(partition, None, None, stored=False)
        if crc32(record, crc32(stored_key)) != CRC_RESIDUE:
            raise ReplicaDamagedError(f"the record of {stored_key[3:]!r} fails its checksum")
        state, epoch = self._partition(partition), record_epoch(record)
        if epoch < state.clear:
            return _Draft(partition, None, None, stored=True)
        fields = state.visible(record_fields(record, self._view), epoch)
        return _Draft(partition, fields, record, stored=True)

    def _finish(self, batch: WriteBatch, stored_key: bytes, draft: _Draft) -> None:
        """Write a draft back and keep the counts."""
        if draft.fields is None and not draft.stored:
            return
        record = None
        if draft.fields is not None:
            record = encode_record(
                self._shape(draft.fields),
                draft.fields,
                epoch=self._partition(draft.partition).epoch,
                stored_key=stored_key,
            )
            if record == draft.counted:
                return
            batch.puts[stored_key] = record
        else:
            batch.deletes.add(stored_key)
        counts = self._counts_of(draft.partition)
        if draft.counted is not None:
            counts.remove(draft.counted)
        if record is not None:
            counts.add(record)

    # -- schema --------------------------------------------------------------------------------

    def _known_field_id(self, name: str) -> int | None:
        return self._view.tables.field_ids.get(name) or self._new_fields.get(name)

    def _field_id(self, name: str) -> int:
        field_id = self._new_fields.get(name)
        if field_id is None:
            field_id = self._view.version.fields + len(self._new_fields) + 1
            self._new_fields[name] = field_id
        return field_id

    def _shape(self, fields: Mapping[int, FieldBytes]) -> Shape | None:
        """The shape of a document's fields; None where the store has shapes enough."""
        key: ShapeFields = tuple(sorted((field_id, value[0]) for field_id, value in fields.items()))
        shape_id = self._view.tables.shape_ids.get(key)
        if shape_id is not None:
            return self._view.tables.shapes[shape_id]
        shape = self._new_shapes.get(key)
        if shape is None:
            shape_id = self._view.version.shapes + len(self._new_shapes) + 1
            if shape_id > MAX_SHAPES:
                return None
            shape = self._new_shapes[key] = Shape(shape_id, key)
        return shape

    def _partition(self, partition: int) -> PartitionState:
        state = self._partitions.get(partition)
        if state is None:
            state = self._view.partitions.get(partition, PartitionState()).copy()
            self._partitions[partition] = state
        return state

    def _advance(self, partition: int) -> PartitionState:
        state = self._partition(partition)
        state.advance()
        self._changed_partitions.add(partition)
        return state

    def _counts_of(self, partition: int) -> Counts:
        counts = self._counts.get(partition)
        if counts is None:
            counts = self._counts[partition] = Counts.read(self._snapshot, partition)
        return counts

    @staticmethod
    def _put(batch: WriteBatch, entry: tuple[bytes, bytes]) -> None:
        batch.puts[entry[0]] = entry[1]
