"""Between events on the wire and mutations of documents (wire format: ikvcore/_proto/ikvschemas.proto).

Decoding is where a bad event is recognised: from its bytes and the store's description alone, so that every replica, on
every backend, comes to the same verdict (C7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from ikvcore._keys import MAX_KEY_BYTES
from ikvcore._proto import IKVDataEvent
from ikvcore._wire import delimited, document_bytes
from ikvcore.fields import FIXED_WIDTHS, FieldBytes, FieldType
from ikvcore.models import (
    Clear,
    DeleteDocument,
    DeleteFields,
    DropFields,
    LogMessage,
    Mutation,
    StoreDescription,
    Upsert,
)

__all__ = [
    "FIELD_TYPES",
    "BadEvent",
    "decode_event",
    "delete_document_event",
    "delete_fields_event",
    "drop_event",
    "source_timestamp",
    "upsert_event",
]

# Bound once: reaching a member through its enum class is slow in Python 3.11.
_STRING: Final = FieldType.STRING
_BYTES: Final = FieldType.BYTES
_BOOLEAN: Final = FieldType.BOOLEAN
_SECOND: Final = 1_000_000_000
FIELD_TYPES: Final = {int(field_type): field_type for field_type in FieldType if field_type is not FieldType.UNKNOWN}
"""By the numbers of the wire format; any other number counts as UNKNOWN."""
_UPSERT_TAG: Final = b"\x12"
_DOCUMENT_TAG: Final = b"\x0a"
_TRUE: Final = b"\x01"
_FALSE: Final = b"\x00"


class BadEvent(Exception):  # noqa: N818 - a verdict on an event, caught by the ingester; not an error of this program
    """The event can never be applied, whatever the replica's state."""


# -- writing -----------------------------------------------------------------------------------


def upsert_event(fields: Mapping[str, FieldBytes], timestamp: int) -> bytes:
    """The event that upserts `fields`; `timestamp` in nanoseconds since the epoch."""
    # Protobuf takes a message's fields one after the other, so the header's bytes and the document's make an event.
    return _header(timestamp) + delimited(_UPSERT_TAG, delimited(_DOCUMENT_TAG, document_bytes(fields)))


def delete_fields_event(primary_key: Mapping[str, FieldBytes], names: Iterable[str], timestamp: int) -> bytes:
    """The event that deletes fields of one document; its id carries the primary key only."""
    event = _stamped(timestamp)
    event.deleteDocumentFieldsEvent.documentId.MergeFromString(document_bytes(primary_key))
    event.deleteDocumentFieldsEvent.fieldsToDelete.extend(names)
    return _serialized(event)


def delete_document_event(primary_key: Mapping[str, FieldBytes], timestamp: int) -> bytes:
    """The event that deletes one document; its id carries the primary key only."""
    event = _stamped(timestamp)
    event.deleteDocumentEvent.documentId.MergeFromString(document_bytes(primary_key))
    return _serialized(event)


def drop_event(
    timestamp: int, *, names: Iterable[str] = (), prefixes: Iterable[str] = (), drop_all: bool = False
) -> bytes:
    """The event that drops fields of all documents, or all documents; `drop_all` counts only without names and
    prefixes.
    """
    event = _stamped(timestamp)
    event.dropFieldEvent.field_names.extend(names)
    event.dropFieldEvent.field_name_prefixes.extend(prefixes)
    event.dropFieldEvent.drop_all = drop_all
    return _serialized(event)


def _stamped(timestamp: int) -> Any:
    event = IKVDataEvent()
    source = event.eventHeader.sourceTimestamp
    source.seconds, source.nanos = divmod(timestamp, _SECOND)
    return event


@lru_cache(maxsize=16)
def _header(timestamp: int) -> bytes:
    """An event of nothing but its header: the same for all documents of a batch."""
    return _serialized(_stamped(timestamp))


def _serialized(event: Any) -> bytes:
    data: bytes = event.SerializeToString()
    return data


# -- reading -----------------------------------------------------------------------------------


def decode_event(message: LogMessage, store: StoreDescription) -> Mutation | None:
    """The mutation that a message asks for, None for a no-op. Raises BadEvent."""
    if message.value is None:
        return None
    if len(message.value) > store.max_event_bytes:
        raise BadEvent(f"it has {len(message.value):,} bytes, over the store's limit of {store.max_event_bytes:,}")
    try:
        event = IKVDataEvent.FromString(message.value)
    except (DecodeError, ValueError, RecursionError) as exc:  # ValueError: text that is not UTF-8, in some runtimes
        raise BadEvent(f"it is not an event in the wire format ({exc})") from exc
    timestamp = source_timestamp(event, message)
    kind = event.WhichOneof("event")
    if kind == "upsertDocumentFieldsEvent":
        return _upsert(event.upsertDocumentFieldsEvent.document.document, message, store, timestamp)
    if kind == "deleteDocumentFieldsEvent":
        return _delete_fields(event.deleteDocumentFieldsEvent, message, store, timestamp)
    if kind == "deleteDocumentEvent":
        document = event.deleteDocumentEvent.documentId.document
        return DeleteDocument(message.partition, _key(document, store), timestamp) if document else None
    if kind == "dropFieldEvent":
        return _drop(event.dropFieldEvent, message.partition, store, timestamp)
    return None


def source_timestamp(event: Any, message: LogMessage) -> int | None:
    """When the writer made an event; where it does not say, the message's own timestamp."""
    header = event.eventHeader
    if not header.HasField("sourceTimestamp"):
        return message.timestamp
    source = header.sourceTimestamp
    timestamp: int = source.seconds * _SECOND + source.nanos
    return timestamp


def _upsert(document: Any, message: LogMessage, store: StoreDescription, timestamp: int | None) -> Upsert | None:
    if not document:
        return None
    key = _key(document, store)
    fields: dict[str, FieldBytes] = {}
    for name in document:  # items() of a protobuf map goes through a slow generator
        value = document[name]
        field_type = FIELD_TYPES.get(value.fieldType)
        if name == store.primary_key:
            fields[name] = (store.primary_key_type, key)
        elif field_type is not None:  # a value of a type that this release does not know leaves the old one in place
            data = value.value
            if field_type is not _BYTES:
                data = _checked(name, field_type, data)
            fields[name] = (field_type, data)
    return Upsert(message.partition, key, fields, timestamp)


def _delete_fields(event: Any, message: LogMessage, store: StoreDescription, timestamp: int | None) -> Mutation | None:
    document = event.documentId.document
    if not document or not event.fieldsToDelete:
        return None
    key = _key(document, store)
    names = frozenset(event.fieldsToDelete) - store.key_fields
    return DeleteFields(message.partition, key, names, timestamp) if names else None


def _drop(event: Any, partition: int, store: StoreDescription, timestamp: int | None) -> Mutation | None:
    if event.field_names or event.field_name_prefixes:
        names, prefixes = frozenset(event.field_names), tuple(event.field_name_prefixes)
        return DropFields(partition, names, prefixes, store.key_fields, timestamp)
    return Clear(partition, timestamp) if event.drop_all else None


def _key(document: Any, store: StoreDescription) -> bytes:
    """The primary key's bytes; a type other than the store's counts by its bytes."""
    if store.primary_key not in document:
        raise BadEvent(f"its document has no primary key {store.primary_key!r}")
    value = document[store.primary_key]
    key: bytes = value.value
    if value.fieldType not in FIELD_TYPES:
        raise BadEvent(f"its primary key {store.primary_key!r} is of type UNKNOWN ({value.fieldType})")
    if not key:
        raise BadEvent(f"its primary key {store.primary_key!r} is empty")
    if len(key) > MAX_KEY_BYTES:
        raise BadEvent(f"its primary key {store.primary_key!r} has {len(key):,} bytes, over {MAX_KEY_BYTES:,}")
    if store.primary_key_type is _STRING:
        _checked(store.primary_key, _STRING, key)
    return key


def _checked(name: str, field_type: FieldType, data: bytes) -> bytes:
    """`data` in its one form, if it is a value of its type."""
    if field_type is _STRING:
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            raise BadEvent(f"its field {name!r} is a STRING that is not UTF-8") from exc
    elif field_type is _BYTES:
        return data
    elif len(data) != FIXED_WIDTHS[field_type]:
        width = FIXED_WIDTHS[field_type]
        raise BadEvent(f"its field {name!r} is {field_type.name} in {len(data)} bytes instead of {width}")
    elif field_type is _BOOLEAN:
        return _FALSE if data == _FALSE else _TRUE
    return data
