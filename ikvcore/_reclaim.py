"""Giving back the space of what drops and clears have masked, a few records a commit (C3.11).

One pass goes through a partition's records: what a clear removed is deleted, what holds masked fields is rewritten
without them. At its end the drops that were there at its beginning mask nothing any more and are forgotten. A pass
lives in memory: after a restart a new one begins from the first record, which costs time and is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from ikvcore._commitplan import Counts, KeyForm, record_epoch, record_fields
from ikvcore._record import CRC_RESIDUE, encode_record
from ikvcore._schema import PartitionState, SchemaView
from ikvcore.errors import ReplicaDamagedError
from ikvcore.models import WriteBatch
from ikvcore.protocols import OrderedKeyValue, Snapshot

__all__ = ["Reclaimer", "Work"]

_TAGS: Final = (KeyForm.PLAIN, KeyForm.DIGEST)


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass through one partition: drops up to `epoch` are being removed, and records before `cursor` are done."""

    partition: int
    epoch: int
    cursor: bytes


@dataclass(frozen=True, slots=True)
class Work:
    """One step: what to commit, perhaps nothing, and where the pass stands after it."""

    batch: WriteBatch
    after: _Pass | None


class Reclaimer:
    """Plans steps; the storage commits them. Steps are planned and done by one thread at a time."""

    def __init__(self) -> None:
        self._pass: _Pass | None = None

    def plan(self, engine: OrderedKeyValue, snapshot: Snapshot, view: SchemaView, max_records: int) -> Work | None:
        """The next step over up to `max_records` records; None where no drop is left to reclaim."""
        current = self._pass
        if current is None or not view.partitions.get(current.partition, PartitionState()).floor:
            pending = [partition for partition, state in view.partitions.items() if state.floor]
            if not pending:
                self._pass = None
                return None
            partition = min(pending)
            current = _Pass(partition, view.partitions[partition].epoch, KeyForm.PLAIN + partition.to_bytes(2, "big"))
        return self._step(engine, snapshot, view, current, max_records)

    def done(self, work: Work) -> None:
        """The step is committed."""
        self._pass = work.after

    def _step(
        self, engine: OrderedKeyValue, snapshot: Snapshot, view: SchemaView, current: _Pass, max_records: int
    ) -> Work:
        batch = WriteBatch()
        state = view.partitions[current.partition]
        counts = Counts.read(engine, snapshot, current.partition)
        left, cursor = max_records, current.cursor
        for tag in _TAGS[_TAGS.index(cursor[:1]) :]:
            cursor = max(cursor, tag + current.partition.to_bytes(2, "big"))
            stop = tag + (current.partition + 1).to_bytes(3, "big")[-2:]
            if current.partition == 0xFFFF:
                stop = bytes([tag[0] + 1])
            for stored_key, record in engine.scan(snapshot, cursor, stop):
                if not left:
                    return self._page(batch, counts, _Pass(current.partition, current.epoch, stored_key))
                left -= 1
                self._clean(batch, counts, view, state, stored_key, record)
        return self._end(batch, counts, view, current)

    @staticmethod
    def _clean(
        batch: WriteBatch, counts: Counts, view: SchemaView, state: PartitionState, stored_key: bytes, record: bytes
    ) -> None:
        if crc32(record, crc32(stored_key)) != CRC_RESIDUE:
            raise ReplicaDamagedError(f"the record of {stored_key[3:35]!r} fails its checksum")
        epoch = record_epoch(record)
        if epoch < state.clear:
            batch.deletes.add(stored_key)  # outside count and digest since the clear
        elif epoch < state.floor:
            fields = record_fields(record, view)
            kept = state.visible(fields, epoch)
            if len(kept) < len(fields):
                key = tuple(sorted((field_id, value[0]) for field_id, value in kept.items()))
                shape_id = view.tables.shape_ids.get(key)
                # Reclaiming makes no new shapes: a record without a shape of its own takes the general layout.
                shape = None if shape_id is None else view.tables.shapes[shape_id]
                cleaned = encode_record(shape, kept, epoch=state.epoch, stored_key=stored_key)
                counts.remove(record)
                counts.add(cleaned)
                batch.puts[stored_key] = cleaned

    @staticmethod
    def _page(batch: WriteBatch, counts: Counts, after: _Pass) -> Work:
        key, value = counts.entry(after.partition)
        batch.puts[key] = value
        return Work(batch, after)

    @staticmethod
    def _end(batch: WriteBatch, counts: Counts, view: SchemaView, current: _Pass) -> Work:
        """The last step of a pass forgets the drops that it removed; later ones begin another."""
        old = view.partitions[current.partition]
        state = PartitionState(
            old.epoch,
            old.clear if old.clear > current.epoch else 0,
            {field_id: epoch for field_id, epoch in old.drops.items() if epoch > current.epoch},
        )
        version = view.version._replace(version=view.version.version + 1)
        for key, value in (state.entry(current.partition), counts.entry(current.partition), version.entry()):
            batch.puts[key] = value
        return Work(batch, None)
