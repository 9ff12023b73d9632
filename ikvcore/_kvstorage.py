"""A Storage over an OrderedKeyValue: records, schema, drops and counts, so that an engine needs to know bytes only.

The engine's key space, by first byte: 0x00 metadata (v version, f fields, s shapes, p drops, c counts, m the core's
own), 0x01 documents under their storage key, 0x02 documents under a digest of a key that is too long for the engine.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar
from zlib import crc32

from ikvcore._commitplan import COUNT_PREFIX, CommitPlan, Counts, KeyForm, record_fields
from ikvcore._reclaim import Reclaimer
from ikvcore._record import CRC_RESIDUE, FULL_KEY, GENERAL, HEADER, Plan, general_row
from ikvcore._schema import VERSION_KEY, PartitionState, SchemaTables, SchemaView, Version, seal, unseal
from ikvcore.errors import IKVError, ReplicaDamagedError, StorageError
from ikvcore.models import Cursor, Meta, Mutation, Page, Projection, Row, WriteBatch
from ikvcore.protocols import Follower, OrderedKeyValue, Snapshot, Verify

__all__ = ["KeyValueStorage"]

T = TypeVar("T")

_META_PREFIX: Final = b"\x00m"
_MAX_PLANS: Final = 16_384
"""About 2 KiB each; past this all are forgotten and compiled again as they are asked for."""
_MALFORMED: Final = (struct.error, IndexError, KeyError, UnicodeDecodeError, ValueError)
"""What taking apart a record of nonsense can raise."""


class KeyValueStorage:
    """Implements protocols.Storage, Reclaim, Verify and Follower. Thread-safe as its engine is.

    `max_key_bytes` is the engine's limit; None where it takes keys of any length that documents can have.
    """

    def __init__(self, engine: OrderedKeyValue, *, max_key_bytes: int | None) -> None:
        self._engine = engine
        self._keys = KeyForm(max_key_bytes)
        self._longest = self._keys.longest
        self._snapshot = engine.snapshot
        self._tables = SchemaTables()
        # The view that the last state seen needs, with that state's id: one tuple, replaced as a whole.
        self._seen: tuple[int, SchemaView] = (-1, SchemaView(self._tables, Version(), {}))
        # Compiled projections: by projection, then by a record's first four bytes, which are its shape id.
        self._plans: dict[Projection, dict[bytes, Plan]] = {}
        self._compiled = 0
        self._reclaimer = Reclaimer()

    # -- reads ---------------------------------------------------------------------------------

    def get(self, key: bytes, projection: Projection) -> Row | None:
        """See Storage. The hot path: each line of it was measured."""
        stored_key = b"\x01" + key if len(key) <= self._longest else self._keys.stored(key)
        try:
            with self._snapshot() as snapshot:
                record = snapshot.get(stored_key)
                state, view = self._seen
                if snapshot.id() != state:
                    view = self._current_view(snapshot)
            if record is None:
                return None
            if crc32(record, crc32(stored_key)) != CRC_RESIDUE:
                self._damaged(stored_key, "fails its checksum")
            if view.has_masked:
                return self._row(stored_key, record, view, projection)
            try:
                plan = self._plans[projection][record[:4]]
            except KeyError:
                return self._row(stored_key, record, view, projection)
            return plan(record)
        except ReplicaDamagedError:
            # Perhaps it was only read by the view of an earlier state; the slow way looks at the state itself.
            return self.get_many([key], projection)[0]
        except IKVError:
            raise
        except Exception:
            # The slow way tries again, and says what is wrong if that fails too.
            return self.get_many([key], projection)[0]

    def get_many(self, keys: Sequence[bytes], projection: Projection) -> list[Row | None]:
        """See Storage."""
        stored_keys = [self._keys.stored(key) for key in keys]

        def read(snapshot: Snapshot, view: SchemaView) -> list[Row | None]:
            records = self._engine.get_many(snapshot, stored_keys)
            return [
                None if record is None else self._checked_row(stored_key, record, view, projection)
                for stored_key, record in zip(stored_keys, records, strict=True)
            ]

        return self._read(read)

    def scan(self, projection: Projection, *, after: Cursor | None, limit: int) -> Page:
        """See Storage. Ascending in storage keys; keys stored under a digest come last."""
        start = KeyForm.PLAIN if after is None else after + b"\x00"

        def read(snapshot: Snapshot, view: SchemaView) -> Page:
            rows: list[tuple[bytes, Row]] = []
            last = start
            for stored_key, record in self._engine.scan(snapshot, start, KeyForm.END):
                if len(rows) == limit:
                    return Page(rows, last)
                last = stored_key
                row = self._checked_row(stored_key, record, view, projection)
                if row is not None:
                    rows.append((self._storage_key(stored_key, record, view), row))
            return Page(rows, None)

        return self._read(read)

    def count(self) -> int:
        """See Storage."""
        return self._read(lambda snapshot, _: sum(counts.documents for counts in self._all_counts(snapshot).values()))

    def read_meta(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Storage."""
        stored_keys = [_META_PREFIX + key for key in keys]

        def read(snapshot: Snapshot, _: SchemaView) -> list[bytes | None]:
            found = self._engine.get_many(snapshot, stored_keys)
            return [
                None if sealed is None else unseal(key, sealed) for key, sealed in zip(stored_keys, found, strict=True)
            ]

        return self._read(read)

    def scan_meta(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """See Storage."""
        start = _META_PREFIX + prefix

        def read(snapshot: Snapshot, _: SchemaView) -> list[tuple[bytes, bytes]]:
            found = []
            for key, sealed in self._engine.scan(snapshot, start, b"\x00n"):
                if not key.startswith(start):
                    break
                found.append((key[len(_META_PREFIX) :], unseal(key, sealed)))
            return found

        return self._read(read)

    # -- writes --------------------------------------------------------------------------------

    def apply(self, mutations: Sequence[Mutation], *, meta: Meta, expect: Meta) -> None:
        """See Storage."""

        def read(snapshot: Snapshot, view: SchemaView) -> WriteBatch:
            plan = CommitPlan(self._engine, snapshot, view, self._keys)
            plan.apply(mutations)
            return plan.batch()

        self._commit(self._read(read), meta, expect)

    def reclaim(self, *, max_records: int, meta: Meta, expect: Meta) -> bool:
        """See Reclaim."""
        work = self._read(lambda snapshot, view: self._reclaimer.plan(self._engine, snapshot, view, max_records))
        if work is None:
            return False
        self._commit(work.batch, meta, expect)
        self._reclaimer.done(work)
        return True

    def catch_up(self) -> None:
        """See Follower; nothing where the engine needs none."""
        if isinstance(self._engine, Follower):
            self._engine.catch_up()

    def close(self) -> None:
        """See Storage."""
        self._engine.close()

    # -- verification --------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """See Verify: what the engine itself finds; else every entry's checksum, every record's form, and each
        partition's count and digest, in one state."""
        wrong = self._engine.verify() if isinstance(self._engine, Verify) else []
        return wrong or self._read(self._verify)

    def _verify(self, snapshot: Snapshot, view: SchemaView) -> list[str]:
        wrong: list[str] = []
        for key, sealed in self._engine.scan(snapshot, KeyForm.METADATA, KeyForm.PLAIN):
            try:
                unseal(key, sealed)
            except ReplicaDamagedError as exc:
                wrong.append(exc.what)
        found: dict[int, Counts] = {}
        for stored_key, record in self._engine.scan(snapshot, KeyForm.PLAIN, KeyForm.END):
            partition = int.from_bytes(stored_key[1:3], "big")
            try:
                row = self._checked_row(stored_key, record, view, _EVERYTHING)
            except ReplicaDamagedError as exc:
                wrong.append(exc.what)
                continue
            if row is not None:
                found.setdefault(partition, Counts()).add(record)
        stated = self._all_counts(snapshot)
        for partition in sorted(found.keys() | stated.keys()):
            ours, theirs = found.get(partition, Counts()), stated.get(partition, Counts())
            if ours != theirs:
                wrong.append(
                    f"partition {partition} holds {ours.documents} documents with digest {ours.digest:016x}, "
                    f"its commits say {theirs.documents} with {theirs.digest:016x}"
                )
        return wrong

    # -- parts ---------------------------------------------------------------------------------

    def _read(self, work: Callable[[Snapshot, SchemaView], T]) -> T:
        """Do `work` in one state. What the engine raises is tried again in a new state, once, and then a StorageError:
        an engine that had to be changed while it was read, for more room or after a failure, ends its snapshots."""
        for attempt in (1, 2):
            try:
                with self._snapshot() as snapshot:
                    return work(snapshot, self._current_view(snapshot))
            except ReplicaDamagedError:
                raise
            except StorageError:
                if attempt == 2:
                    raise
            except IKVError:
                raise
            except Exception as exc:  # what a snapshot raises is the driver's own
                if attempt == 2:
                    raise StorageError(f"the engine failed: {type(exc).__name__}: {exc}") from exc
        raise AssertionError("the second attempt returns or raises")

    def _current_view(self, snapshot: Snapshot) -> SchemaView:
        """The view of a snapshot: the last one seen unless the schema's version differs in this very state.

        The id does not tell: LMDB gives a state the id of an earlier one where commits fell between the two looks that
        it takes. So a view is kept under an id only if no commit has come since, by what a later snapshot says.
        """
        state = snapshot.id()
        seen = self._seen
        view = seen[1]
        # By the engine, whose errors tell damage from failures.
        (stored,) = self._engine.get_many(snapshot, [VERSION_KEY])
        if stored != view.stored_version:
            view = SchemaView.load(self._tables, self._engine, snapshot)
        if (state, view) != seen:
            with self._snapshot() as later:
                if later.id() == state:
                    self._seen = (state, view)
        return view

    def _checked_row(self, stored_key: bytes, record: bytes, view: SchemaView, projection: Projection) -> Row | None:
        if crc32(record, crc32(stored_key)) != CRC_RESIDUE:
            self._damaged(stored_key, "fails its checksum")
        if not view.has_masked:
            plans = self._plans.get(projection)
            plan = None if plans is None else plans.get(record[:4])
            if plan is not None:
                return plan(record)
        return self._row(stored_key, record, view, projection)

    def _row(self, stored_key: bytes, record: bytes, view: SchemaView, projection: Projection) -> Row | None:
        """The row of a record whose checksum is right; None where a clear has removed it."""
        try:
            shape_id, epoch = HEADER.unpack_from(record)
            state = view.partitions.get(int.from_bytes(stored_key[1:3], "big"), _NOTHING_DROPPED)
            if epoch < state.clear:
                return None
            if shape_id == GENERAL or epoch < state.floor:
                values = state.visible(record_fields(record, view), epoch)
                shape_fields = tuple((field_id, value[0]) for field_id, value in values.items())
                return general_row(values, *view.columns(projection, shape_fields))
            plan = self._plans.get(projection, {}).get(record[:4])
            if plan is None:
                shape = view.tables.shapes[shape_id]
                plan = shape.plan(*view.columns(projection, shape.fields))
                self._keep(projection, record[:4], plan)
            return plan(record)
        except _MALFORMED as exc:
            self._damaged(stored_key, f"cannot be taken apart ({exc!r})")

    def _keep(self, projection: Projection, shape: bytes, plan: Plan) -> None:
        self._compiled += 1
        if self._compiled > _MAX_PLANS:
            self._plans, self._compiled = {}, 1
        self._plans.setdefault(projection, {})[shape] = plan

    @staticmethod
    def _storage_key(stored_key: bytes, record: bytes, view: SchemaView) -> bytes:
        if stored_key[:1] == KeyForm.PLAIN:
            return stored_key[1:]
        return stored_key[1:3] + record_fields(record, view)[FULL_KEY][1]

    def _all_counts(self, snapshot: Snapshot) -> dict[int, Counts]:
        stop = COUNT_PREFIX[:-1] + bytes([COUNT_PREFIX[-1] + 1])
        partitions = [int.from_bytes(key[2:], "big") for key, _ in self._engine.scan(snapshot, COUNT_PREFIX, stop)]
        return {partition: Counts.read(self._engine, snapshot, partition) for partition in partitions}

    def _commit(self, batch: WriteBatch, meta: Meta, expect: Meta) -> None:
        for key, value in meta.items():
            stored_key = _META_PREFIX + key
            if value is None:
                batch.deletes.add(stored_key)
            else:
                batch.puts[stored_key] = seal(stored_key, value)
        sealed_expect = {}
        for key, value in expect.items():
            stored_key = _META_PREFIX + key
            sealed_expect[stored_key] = None if value is None else seal(stored_key, value)
        self._engine.commit(batch, expect=sealed_expect)

    def _damaged(self, stored_key: bytes, what: str) -> NoReturn:
        raise ReplicaDamagedError(
            f"the record of key {stored_key[3:35]!r} in partition {int.from_bytes(stored_key[1:3], 'big')} {what}"
        )


_EVERYTHING: Final = Projection(None)
_NOTHING_DROPPED: Final = PartitionState()
