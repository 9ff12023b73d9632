"""From keys and field names to rows of the replica: the part of a read that every getter shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ikvcore._arguments import as_list
from ikvcore._keys import key_bytes, message_key, partition_of
from ikvcore.client import Key
from ikvcore.errors import PartitionNotHeldError, ReplicaDamagedError, ShutDownError, StorageError
from ikvcore.fields import check_name
from ikvcore.health import ReadCount
from ikvcore.models import Cursor, Page, Projection, Row, StoreDescription, storage_key
from ikvcore.protocols import Query, Storage

__all__ = ["Lookup"]

_EVERYTHING: Final = Projection(None)
_MAX_PROJECTIONS: Final = 4_096


class Lookup:
    """Finds documents in a storage. Thread-safe."""

    def __init__(
        self,
        storage: Storage,
        store: StoreDescription,
        held: Sequence[int],
        *,
        found_damaged: Callable[[ReplicaDamagedError], object],
        reads: ReadCount | None = None,
    ) -> None:
        """`found_damaged` is told of damage that a read of `storage` meets. What is read counts in `reads`."""
        self._storage = storage
        self._store = store
        self._held = tuple(held)
        self._get = storage.get
        self._found_damaged = found_damaged
        self.closed = False
        """Set when the reader is shut down."""
        self._prefix = storage_key(0, b"")
        self._one_field: dict[str, Projection] = {}
        self._many_fields: dict[tuple[str, ...], Projection] = {}
        self._reads = reads
        row = self._row_of_one_partition if store.partitions == 1 else self._row_of_many_partitions
        self.row = row if reads is None else _counted(row, reads)
        """(primary key, field name) -> the one-field row of a document, None if there is no such document."""

    def rows(self, primary_keys: Sequence[Key], field_names: Sequence[str] | None) -> list[Row | None]:
        """The rows of keys in one state, aligned with them; of all fields where `field_names` is None."""
        keys = as_list(primary_keys, "keys")
        projection = self.projection(field_names)
        if self._reads is not None:
            count = len(keys)
            self._reads.batched += count  # with no call in between, where another thread's turn could come
        return self._find(keys, projection) if keys else []

    def page(self, projection: Projection, cursor: Cursor | None, limit: int) -> Page:
        """A page of a scan."""
        try:
            return self._storage.scan(projection, after=cursor, limit=limit)
        except StorageError as exc:
            self._failed(exc)
            raise

    def count(self) -> int:
        """How many documents there are."""
        try:
            return self._storage.count()
        except StorageError as exc:
            self._failed(exc)
            raise

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
        """The table that a query gives; None where the storage has no queries."""
        if not isinstance(self._storage, Query):
            return None
        try:
            return self._storage.query(sql, parameters)
        except StorageError as exc:
            self._failed(exc)
            raise

    def _failed(self, exc: StorageError) -> None:
        """A read that a shutdown overtook fails somewhere in the engine; its caller should learn what happened."""
        if self.closed:
            raise ShutDownError("reader") from None
        if isinstance(exc, ReplicaDamagedError):
            self._found_damaged(exc)

    def projection(self, field_names: Sequence[str] | None) -> Projection:
        """The projection of these names, the same object each time, so that storages can cache by it."""
        if field_names is None:
            return _EVERYTHING
        names = tuple(as_list(field_names, "field names"))
        try:
            projection = self._many_fields.get(names)
        except TypeError:  # something that is not even hashable, let alone a name
            projection = None
        if projection is None:
            projection = Projection([check_name(name) for name in names])
            if len(self._many_fields) >= _MAX_PROJECTIONS:
                self._many_fields.clear()
            self._many_fields[names] = projection
        return projection

    def _row_of_one_partition(self, primary_key: Key, field_name: str) -> Row | None:
        """One field of one document, on the hot path: a key is checked only if nothing is found under it."""
        try:
            key = self._prefix + primary_key.encode()  # type: ignore[union-attr]  # bytes have no encode
        except (AttributeError, UnicodeEncodeError, TypeError):
            key = self._prefix + key_bytes(primary_key, self._store.primary_key_type)
        try:
            projection = self._one_field[field_name]
        except (KeyError, TypeError):
            projection = self._one(field_name)
        try:
            row = self._get(key, projection)
        except StorageError as exc:
            self._failed(exc)
            raise
        if row is None:
            key_bytes(primary_key, self._store.primary_key_type)
        return row

    def _row_of_many_partitions(self, primary_key: Key, field_name: str) -> Row | None:
        try:
            projection = self._one_field[field_name]
        except (KeyError, TypeError):
            projection = self._one(field_name)
        return self._find([primary_key], projection)[0]

    def _find(self, primary_keys: Sequence[Key], projection: Projection) -> list[Row | None]:
        try:
            return self._read(primary_keys, projection)
        except StorageError as exc:
            self._failed(exc)
            raise

    def _read(self, primary_keys: Sequence[Key], projection: Projection) -> list[Row | None]:
        """The rows of keys in one state. Where the primary key does not decide its partition, all held ones are probed,
        and the lowest that has it is read.
        """
        store, held, get_many = self._store, self._held, self._storage.get_many
        keys = [key_bytes(key, store.primary_key_type) for key in primary_keys]
        if store.partitions == 1:
            return get_many([self._prefix + key for key in keys], projection)
        if store.routed_by_primary_key:
            partitions = [partition_of(message_key(store.primary_key_type, key), store) for key in keys]
            for key, partition in zip(primary_keys, partitions, strict=True):
                if partition not in held:
                    raise PartitionNotHeldError(key, partition, held)
            return get_many(
                [storage_key(partition, key) for partition, key in zip(partitions, keys, strict=True)], projection
            )
        found = get_many([storage_key(p, key) for key in keys for p in held], projection)
        width = len(held)
        probes = [found[at : at + width] for at in range(0, len(found), width)]
        return [next((row for row in probe if row is not None), None) for probe in probes]

    def _one(self, field_name: str) -> Projection:
        projection = Projection((check_name(field_name),))
        if len(self._one_field) >= _MAX_PROJECTIONS:
            self._one_field.clear()
        self._one_field[field_name] = projection
        return projection


def _counted(row: Callable[[Key, str], Row | None], reads: ReadCount) -> Callable[[Key, str], Row | None]:
    """`row`, counting its calls: for a reader that is observed, so that others' reads do not even ask."""

    def counted(primary_key: Key, field_name: str) -> Row | None:
        reads.single += 1
        return row(primary_key, field_name)

    return counted
