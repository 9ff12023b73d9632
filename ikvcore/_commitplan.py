"""From mutations to one key-value commit: read what they touch, change it in memory, write it once.

A plan belongs to one snapshot and is thrown away with it, whether its commit succeeds or not: no id or count that it
thought of outlives a failed commit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from typing import Final, TypeAlias
from zlib import crc32

from ikvcore._columns import ColumnFields, Columns
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
_Pick: TypeAlias = Callable[[tuple[bytes, ...]], tuple[bytes, ...]]


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
        self._prefixes: dict[int, bytes] = {}

    def of_document(self, partition: int, key: bytes) -> bytes:
        """The engine's key for a document."""
        if len(key) + 2 > self.longest:
            return self.stored(storage_key(partition, key))
        prefix = self._prefixes.get(partition)
        if prefix is None:
            prefix = self._prefixes[partition] = self.stored(storage_key(partition, b""))
        return prefix + key

    def stored(self, key: bytes) -> bytes:
        """The engine's key for a storage key."""
        if len(key) <= self.longest:
            return self.PLAIN + key
        return self.DIGEST + key[:2] + sha256(key[2:]).digest()


_DIGEST: Final = KeyForm.DIGEST[0]


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
    def read(cls, engine: OrderedKeyValue, snapshot: Snapshot, partition: int) -> Counts:
        """The counts of a partition in a state."""
        key = COUNT_PREFIX + partition.to_bytes(2, "big")
        (sealed,) = engine.get_many(snapshot, [key])
        return cls() if sealed is None else cls(*_COUNTS.unpack(unseal(key, sealed)))


@dataclass(slots=True)
class _Draft:
    """A document while it is being changed.

    Values stand in the shape's order. What a mutation does to a shape is worked out once for all documents of that
    shape; what is left for each is to pick its values from the old and the new ones.
    """

    partition: int
    shape: Shape | None
    """None where there is no document."""
    data: tuple[bytes, ...]
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
        self._nothing: Shape | None = None
        self._numbered: list[Shape] = []
        self._columns: dict[tuple[tuple[str, FieldType], ...], Columns] = {}
        self._merges: dict[tuple[Shape, Columns], tuple[Shape, _Pick]] = {}
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
        stored_keys = [self._stored_key(mutation) for mutation in mutations]
        self._prefetch(stored_keys)
        for mutation, stored_key in zip(mutations, stored_keys, strict=True):
            self._changes[type(mutation)](mutation, stored_key)

    def batch(self) -> WriteBatch:
        """The commit: changed records, counts and schema."""
        batch = WriteBatch()
        partition, epoch, counts = -1, 0, Counts()
        for stored_key, draft in self._drafts.items():
            if draft.partition != partition:  # seldom: drafts come in the order of their keys
                partition = draft.partition
                epoch, counts = self._partition(partition).epoch, self._counts_of(partition)
            self._finish(batch, stored_key, draft, epoch, counts)
        for partition, counts in self._counts.items():
            self._put(batch, counts.entry(partition))
        for partition in self._changed_partitions:
            self._put(batch, self._partitions[partition].entry(partition))
        for name, field_id in self._new_fields.items():
            self._put(batch, field_entry(field_id, name))
        for shape in self._numbered:
            self._put(batch, shape_entry(shape.id, shape.fields))
        if self._new_fields or self._numbered or self._changed_partitions:
            old = self._view.version
            version = Version(
                old.version + 1,
                old.fields + len(self._new_fields),
                old.shapes + len(self._numbered),
                sum(state.epoch for state in {**self._view.partitions, **self._partitions}.values()),
            )
            self._put(batch, version.entry())
        return batch

    # -- what mutations do ---------------------------------------------------------------------

    def _upsert(self, mutation: Upsert, stored_key: bytes) -> None:
        draft = self._drafts[stored_key]
        fields = mutation.fields if isinstance(mutation.fields, ColumnFields) else self._as_columns(mutation.fields)
        if draft.shape is None:
            draft.shape, draft.data = self._empty(stored_key, mutation.key)
        merge = self._merges.get((draft.shape, fields.columns))
        if merge is None:
            merge = self._merge(draft.shape, fields.columns)
            self._merges[draft.shape, fields.columns] = merge
        draft.shape, pick = merge
        draft.data = pick(draft.data + fields.data)

    def _delete_fields(self, mutation: DeleteFields, stored_key: bytes) -> None:
        self._remove(self._drafts[stored_key], {self._known_field_id(name) for name in mutation.names})

    def _delete_document(self, _: DeleteDocument, stored_key: bytes) -> None:
        self._drafts[stored_key].shape = None

    def _drop_fields(self, mutation: DropFields, _: None) -> None:
        dropped = {
            field_id
            for name, field_id in [*self._view.tables.field_ids.items(), *self._new_fields.items()]
            if name not in mutation.keep and (name in mutation.names or name.startswith(mutation.prefixes))
        }
        if not dropped:
            return
        state = self._advance(mutation.partition)
        state.drops.update(dict.fromkeys(dropped, state.epoch))
        for draft in self._drafts.values():
            if draft.partition == mutation.partition:
                self._remove(draft, dropped)

    def _clear(self, mutation: Clear, _: None) -> None:
        state = self._advance(mutation.partition)
        state.clear = state.epoch
        state.drops.clear()  # no older record is left for them to mask
        self._counts[mutation.partition] = Counts()
        for draft in self._drafts.values():
            if draft.partition == mutation.partition:
                draft.shape, draft.counted = None, None

    # -- documents -----------------------------------------------------------------------------

    def _stored_key(self, mutation: Mutation) -> bytes | None:
        """The engine's key of the document that a mutation touches."""
        if isinstance(mutation, (DropFields, Clear)):
            return None
        return self._keys.of_document(mutation.partition, mutation.key)

    def _prefetch(self, touched: Iterable[bytes | None]) -> None:
        """Read every record that mutations touch, in one call and in the engine's order."""
        stored_keys = sorted({stored_key for stored_key in touched if stored_key is not None} - self._drafts.keys())
        for stored_key, record in zip(stored_keys, self._engine.get_many(self._snapshot, stored_keys), strict=True):
            if record is None:
                self._drafts[stored_key] = _Draft(int.from_bytes(stored_key[1:3], "big"), None, (), None, False)
            else:
                self._drafts[stored_key] = self._load(stored_key, record)

    def _load(self, stored_key: bytes, record: bytes) -> _Draft:
        """The draft of a stored record, without what is masked at this place in the order."""
        partition = int.from_bytes(stored_key[1:3], "big")
        if crc32(record, crc32(stored_key)) != CRC_RESIDUE:
            raise ReplicaDamagedError(f"the record of {stored_key[3:]!r} fails its checksum")
        state, (shape_id, epoch) = self._partition(partition), HEADER.unpack_from(record)
        if epoch < state.clear:
            return _Draft(partition, None, (), None, True)
        if shape_id == GENERAL:
            draft = _Draft(partition, *self._shaped(general_fields(record)), record, True)
        else:
            shape = self._view.tables.shapes[shape_id]
            draft = _Draft(partition, shape, shape.data(record), record, True)
        if epoch < state.floor:
            self._remove(draft, {field_id for field_id, dropped in state.drops.items() if dropped > epoch})
        return draft

    def _finish(self, batch: WriteBatch, stored_key: bytes, draft: _Draft, epoch: int, counts: Counts) -> None:
        """Write a draft back and keep its partition's counts."""
        shape, record = draft.shape, None
        if shape is not None:
            if shape.id != GENERAL or self._number(shape):
                record = shape.sealed(epoch, draft.data, stored_key)
            else:
                record = encode_record(None, shape.typed(draft.data), epoch=epoch, stored_key=stored_key)
            if record == draft.counted:
                return
            batch.puts[stored_key] = record
        elif draft.stored:
            batch.deletes.add(stored_key)
        else:
            return
        if draft.counted is not None:
            counts.remove(draft.counted)
        if record is not None:
            counts.add(record)

    # -- values in a shape's order -------------------------------------------------------------

    def _empty(self, stored_key: bytes, key: bytes) -> tuple[Shape, tuple[bytes, ...]]:
        """A document of no fields yet; under a digest it carries its full key."""
        if stored_key[0] == _DIGEST:
            return self._shape(((FULL_KEY, FieldType.BYTES),)), (key,)
        if self._nothing is None:
            self._nothing = self._shape(())
        return self._nothing, ()

    def _shaped(self, fields: Mapping[int, FieldBytes]) -> tuple[Shape, tuple[bytes, ...]]:
        shape = self._shape(tuple(sorted((field_id, value[0]) for field_id, value in fields.items())))
        return shape, tuple(fields[field_id][1] for field_id in shape.order)

    def _as_columns(self, fields: Mapping[str, FieldBytes]) -> ColumnFields:
        key = tuple((name, value[0]) for name, value in fields.items())
        columns = self._columns.get(key)
        if columns is None:
            columns = self._columns[key] = Columns(key)
        return ColumnFields(columns, tuple(value[1] for value in fields.values()))

    def _merge(self, shape: Shape, columns: Columns) -> tuple[Shape, _Pick]:
        """What setting `columns` makes of a shape, and what picks the values from the old ones and the new ones."""
        known = self._view.tables.field_ids
        field_ids = [known.get(name) or self._field_id(name) for name in columns.names]
        merged = self._shape(tuple(sorted((shape.types | dict(zip(field_ids, columns.types, strict=True))).items())))
        places = {field_id: place for place, field_id in enumerate((*shape.order, *field_ids))}  # the last one counts
        return merged, _picker([places[field_id] for field_id in merged.order])

    def _remove(self, draft: _Draft, removed: Collection[int | None]) -> None:
        """Take fields out of a document. Order is kept, so what is left stands in its own shape's order."""
        shape = draft.shape
        if shape is not None and not shape.types.keys().isdisjoint(removed):
            values = zip(shape.order, draft.data, strict=True)
            draft.data = tuple(value for field_id, value in values if field_id not in removed)
            draft.shape = self._shape(tuple(field for field in shape.fields if field[0] not in removed))

    # -- schema --------------------------------------------------------------------------------

    def _known_field_id(self, name: str) -> int | None:
        return self._view.tables.field_ids.get(name) or self._new_fields.get(name)

    def _field_id(self, name: str) -> int:
        field_id = self._new_fields.get(name)
        if field_id is None:
            field_id = self._view.version.fields + len(self._new_fields) + 1
            self._new_fields[name] = field_id
        return field_id

    def _shape(self, fields: ShapeFields) -> Shape:
        """The shape of these fields; without an id where no record has it yet."""
        shape_id = self._view.tables.shape_ids.get(fields)
        if shape_id is not None:
            return self._view.tables.shapes[shape_id]
        shape = self._new_shapes.get(fields)
        if shape is None:
            shape = self._new_shapes[fields] = Shape(GENERAL, fields)
        return shape

    def _number(self, shape: Shape) -> bool:
        """Give a new shape its id; False where the store has shapes enough."""
        shape_id = self._view.version.shapes + len(self._numbered) + 1
        if shape_id > MAX_SHAPES:
            return False
        shape.id = shape_id
        self._numbered.append(shape)
        return True

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
            counts = self._counts[partition] = Counts.read(self._engine, self._snapshot, partition)
        return counts

    @staticmethod
    def _put(batch: WriteBatch, entry: tuple[bytes, bytes]) -> None:
        batch.puts[entry[0]] = entry[1]


def _picker(places: Sequence[int]) -> _Pick:
    """What picks the values at these places of a tuple into another."""
    if len(places) > 1:
        return itemgetter(*places)
    start = places[0] if places else 0
    return itemgetter(slice(start, start + len(places)))  # of a single place, itemgetter gives the value itself
