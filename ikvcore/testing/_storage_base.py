"""What the parts of StorageSuite share: the storage under test, commits as the core's, reads as dicts."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ikvcore._kvstorage import KeyValueStorage
from ikvcore.fields import FieldBytes, FieldType, Value, encode, encode_any
from ikvcore.models import (
    BackendInfo,
    Clear,
    Cursor,
    DeleteDocument,
    DeleteFields,
    DropFields,
    Meta,
    Mutation,
    Projection,
    Row,
    Upsert,
    storage_key,
)
from ikvcore.protocols import OrderedKeyValue, Reclaim, Storage
from ikvcore.testing._plugins import open_backend
from ikvcore.testing.model import StoreModel, decoded

__all__ = [
    "ALL",
    "KEY_FIELD",
    "Document",
    "Ingester",
    "StorageBase",
    "as_document",
    "bits",
    "clear",
    "contents",
    "delete",
    "delete_fields",
    "drop",
    "modelled",
    "read",
    "row_document",
    "typed",
    "upsert",
]

ALL = Projection(None)
KEY_FIELD = "id"
"""Name of the primary key in these tests."""

Document = dict[str, tuple[FieldType, Value]]


class StorageBase:
    """A storage opened anew for each test."""

    info: ClassVar[BackendInfo]
    """The backend under test."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options that the backend is opened with."""

    def open_storage(self, directory: Path, *, follow: bool = False) -> Storage:
        """Open the storage in `directory`; a second call for the same one opens the same data."""
        opened = open_backend(self.info.name, directory, self.options, follow=follow)
        if isinstance(opened, OrderedKeyValue):
            return KeyValueStorage(opened, max_key_bytes=self.info.max_key_bytes)
        return opened

    def reopened(self, storage: Storage, directory: Path) -> Storage:
        """The same data through a new instance; `storage` itself where nothing outlives the instance."""
        if self.info.volatile:
            return storage
        storage.close()
        return self.open_storage(directory)

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        """The storage's own, existing directory."""
        path = tmp_path / "storage"
        path.mkdir()
        return path

    @pytest.fixture
    def storage(self, directory: Path) -> Iterator[Storage]:
        """An empty storage."""
        storage = self.open_storage(directory)
        yield storage
        storage.close()

    @pytest.fixture
    def ingester(self, storage: Storage) -> Ingester:
        """Commits to `storage` as the core does."""
        return Ingester(storage)


class Ingester:
    """Makes commits as the core does: each is a compare-and-set on a commit number (C5)."""

    COMMIT = b"commit"

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def step(self) -> tuple[Meta, Meta]:
        """The `meta` and `expect` of the next commit."""
        found = self.storage.read_meta([self.COMMIT])[0]
        return {self.COMMIT: b"%d" % (int(found or 0) + 1)}, {self.COMMIT: found}

    def apply(self, *mutations: Mutation, meta: Meta | None = None) -> None:
        """One commit."""
        number, expect = self.step()
        self.storage.apply(mutations, meta={**(meta or {}), **number}, expect=expect)

    def reclaim(self, max_records: int = 1_000) -> int:
        """Reclaim until nothing is left to do; how many steps it took."""
        assert isinstance(self.storage, Reclaim)
        for steps in range(5_000):
            meta, expect = self.step()
            if not self.storage.reclaim(max_records=max_records, meta=meta, expect=expect):
                return steps
        raise AssertionError("reclaim finds something left to do for ever")


# -- mutations ---------------------------------------------------------------------------------


def typed(name: str, value: object) -> FieldBytes:
    """A field's bytes: of the type that `value` is a pair with, else of its Python class."""
    if isinstance(value, tuple):
        field_type, data = value
        return field_type, data if field_type is FieldType.BYTES else encode(name, field_type, data)
    return encode_any(name, value)


def upsert(key: bytes, partition: int = 0, /, **fields: object) -> Upsert:
    """An upsert of Python values, with the primary key among its fields."""
    values = {name: typed(name, value) for name, value in fields.items()}
    return Upsert(partition, key, {KEY_FIELD: (FieldType.BYTES, key), **values}, None)


def delete_fields(key: bytes, *names: str, partition: int = 0) -> DeleteFields:
    """A delete of fields."""
    return DeleteFields(partition, key, frozenset(names), None)


def delete(key: bytes, partition: int = 0) -> DeleteDocument:
    """A delete of a document."""
    return DeleteDocument(partition, key, None)


def drop(*names: str, prefixes: tuple[str, ...] = (), partition: int = 0) -> DropFields:
    """A drop that keeps the primary key."""
    return DropFields(partition, frozenset(names), prefixes, frozenset({KEY_FIELD}), None)


def clear(partition: int = 0) -> Clear:
    """A clear."""
    return Clear(partition, None)


# -- reads -------------------------------------------------------------------------------------


def as_document(**fields: object) -> Document:
    """What `row_document` gives for a document of these Python values, the primary key left out."""
    document: Document = {}
    for name, value in fields.items():
        plain: Any = value[1] if isinstance(value, tuple) else value
        document[name] = typed(name, value)[0], plain
    return document


def row_document(row: Row | None, key: bytes | None = None) -> Document | None:
    """A row of all fields as name -> (type, value), without the primary key, which must be `key`."""
    if row is None:
        return None
    names, types, values = row
    assert len(names) == len(types) == len(values)
    assert len(set(names)) == len(names), f"a name twice in {names}"
    document: Document = {}
    for name, field_type, value in zip(names, types, values, strict=True):
        assert field_type is not None
        assert value is not None
        document[name] = (field_type, value)
    found = document.pop(KEY_FIELD, None)
    assert key is None or found == (FieldType.BYTES, key)
    return document


def read(storage: Storage, key: bytes, partition: int = 0) -> Document | None:
    """One document without its primary key, None if it is not there."""
    return row_document(storage.get(storage_key(partition, key), ALL), key)


def contents(storage: Storage, limit: int = 100) -> dict[tuple[int, bytes], Document]:
    """Everything that a scan gives, by (partition, key); each document must come once."""
    found: dict[tuple[int, bytes], Document] = {}
    cursor: Cursor | None = None
    for _ in range(100_000):
        page = storage.scan(ALL, after=cursor, limit=limit)
        assert len(page.rows) <= limit
        for stored, row in page.rows:
            place = int.from_bytes(stored[:2], "big"), stored[2:]
            document = row_document(row, place[1])
            assert document is not None
            assert place not in found, f"a scan gave {place} twice"
            found[place] = document
        cursor = page.cursor
        if cursor is None:
            assert storage.count() == len(found)
            return found
    raise AssertionError("a scan does not end")


def modelled(model: StoreModel) -> dict[tuple[int, bytes], Document]:
    """What `contents` has to give where the storage equals the model."""
    found: dict[tuple[int, bytes], Document] = {}
    for partition, key, fields in model.documents():
        values = decoded(fields)
        found[partition, key] = {name: (fields[name][0], values[name]) for name in fields if name != KEY_FIELD}
    return found


def bits(value: object) -> object:
    """A form of `value` that compares floats by their bits."""
    return struct.pack("<d", value) if isinstance(value, float) else value
