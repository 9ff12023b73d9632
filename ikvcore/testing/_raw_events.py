"""Events as any producer may write them, good and bad: built from the wire schema, past the writer's checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ikvcore._proto import IKVDataEvent

__all__ = [
    "BYTES",
    "STRING",
    "UNKNOWN",
    "raw_delete_document",
    "raw_delete_fields",
    "raw_drop",
    "raw_upsert",
    "without_content",
]

UNKNOWN, INT32, INT64, FLOAT32, FLOAT64, STRING, BYTES, BOOLEAN = range(8)
"""Numbers of the wire schema's FieldType."""

RawDocument = Mapping[str, tuple[int, bytes]]


def raw_upsert(fields: RawDocument) -> bytes:
    """An upsert of fields that need not be valid."""
    event = IKVDataEvent()
    _fill(event.upsertDocumentFieldsEvent.document, fields)
    return _bytes(event)


def raw_delete_fields(document_id: RawDocument, names: Iterable[str]) -> bytes:
    """A delete of fields."""
    event = IKVDataEvent()
    _fill(event.deleteDocumentFieldsEvent.documentId, document_id)
    event.deleteDocumentFieldsEvent.fieldsToDelete.extend(names)
    return _bytes(event)


def raw_delete_document(document_id: RawDocument) -> bytes:
    """A delete of a document."""
    event = IKVDataEvent()
    _fill(event.deleteDocumentEvent.documentId, document_id)
    return _bytes(event)


def raw_drop(*, names: Iterable[str] = (), prefixes: Iterable[str] = (), drop_all: bool = False) -> bytes:
    """A drop."""
    event = IKVDataEvent()
    event.dropFieldEvent.SetInParent()
    event.dropFieldEvent.field_names.extend(names)
    event.dropFieldEvent.field_name_prefixes.extend(prefixes)
    event.dropFieldEvent.drop_all = drop_all
    return _bytes(event)


def without_content() -> dict[str, bytes]:
    """Every event that means nothing and is passed over (C7, wire.md)."""
    events: dict[str, bytes] = {"no bytes": b"", "empty drop": raw_drop()}
    header = IKVDataEvent()
    header.eventHeader.SetInParent()
    events["a header alone"] = _bytes(header)
    for member in ("upsertDocumentFieldsEvent", "deleteDocumentFieldsEvent", "deleteDocumentEvent"):
        event = IKVDataEvent()
        event.eventHeader.SetInParent()
        getattr(event, member).SetInParent()
        events[f"{member} without a document"] = _bytes(event)
    events["upsert of an empty map"] = raw_upsert({})
    events["delete of an empty map"] = raw_delete_document({})
    events["delete of fields of an empty map"] = raw_delete_fields({}, ["x"])
    events["delete of no fields"] = raw_delete_fields({"id": (STRING, b"a")}, [])
    return events


def _fill(target: Any, fields: RawDocument) -> None:
    target.SetInParent()
    for name, (field_type, value) in fields.items():
        entry = target.document[name]
        entry.fieldType = field_type
        entry.value = value


def _bytes(event: Any) -> bytes:
    data: bytes = event.SerializeToString(deterministic=True)
    return data
