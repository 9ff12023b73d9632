"""The writer: from documents to messages in the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from ikvcore._arguments import as_list
from ikvcore._events import delete_document_event, delete_fields_event, drop_event, upsert_event
from ikvcore._keys import key_bytes, message_key, partition_of
from ikvcore._observation import observation
from ikvcore._observers import Audience
from ikvcore.client import IKVWriter
from ikvcore.document import IKVDocument
from ikvcore.errors import (
    EventTooLargeError,
    FieldNameError,
    ForkedError,
    InvalidArgumentError,
    InvalidDocumentError,
    InvalidKeyError,
    MissingExtraError,
    NotStartedError,
    ShutDownError,
)
from ikvcore.fields import FieldBytes, FieldType, check_name, decode
from ikvcore.forks import after_fork_in_child
from ikvcore.models import EventsPublished, Message, StoreDescription
from ikvcore.protocols import Transport
from ikvcore.tokens import Token

if TYPE_CHECKING:
    from pathlib import Path

    from ikvcore.loadreport import LoadProgress, LoadReport

__all__ = ["Writer"]

_log = logging.getLogger(__name__)

Fields = Mapping[str, FieldBytes]


class Writer(IKVWriter):
    """Implements IKVWriter on the transport that `open_transport` opens."""

    def __init__(self, open_transport: Callable[[], Transport], audience: Audience | None = None) -> None:
        self._open_transport = open_transport
        self._audience = audience or Audience()
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._store: StoreDescription | None = None
        self._was_started = False
        self._forked = False
        after_fork_in_child(self)

    def startup(self) -> None:
        if self._forked:
            raise ForkedError("writer")
        with self._lock:
            if self._transport is None:
                transport = self._open_transport()
                self._store = transport.describe()
                self._transport = transport
                self._was_started = True
                _log.info("writer of store %s started", self._store.store_name)

    def shutdown(self) -> None:
        if self._forked:
            return  # nothing of the parent's may be touched here, not even its lock
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            if self._audience:
                observation.drain()

    def forked(self) -> None:
        """See ikvcore.forks."""
        self._forked = True

    def upsert_fields(self, document: IKVDocument) -> Token:
        return self.upsert_fields_batch((document,))

    def upsert_fields_batch(self, documents: Iterable[IKVDocument]) -> Token:
        return self._publish(documents, lambda fields, now, _: upsert_event(fields, now))

    def delete_fields(self, document: IKVDocument, fields_to_delete: Sequence[str]) -> Token:
        return self.delete_fields_batch((document,), fields_to_delete)

    def delete_fields_batch(self, documents: Iterable[IKVDocument], fields_to_delete: Sequence[str]) -> Token:
        names = _names(fields_to_delete, check_name)

        def event(fields: Fields, now: int, store: StoreDescription) -> bytes | None:
            wanted = [name for name in names if name not in store.key_fields]
            return delete_fields_event(_primary_key(fields, store), wanted, now) if wanted else None

        return self._publish(documents, event)

    def delete_document(self, document: IKVDocument) -> Token:
        return self.delete_document_batch((document,))

    def delete_document_batch(self, documents: Iterable[IKVDocument]) -> Token:
        return self._publish(
            documents, lambda fields, now, store: delete_document_event(_primary_key(fields, store), now)
        )

    def drop_fields_by_name(self, field_names: Sequence[str]) -> Token:
        names = _names(field_names, check_name)
        return self._drop(names=names) if names else self._nothing()

    def drop_fields_by_name_prefix(self, field_name_prefixes: Sequence[str]) -> Token:
        prefixes = _names(field_name_prefixes, _check_prefix)
        return self._drop(prefixes=prefixes) if prefixes else self._nothing()

    def drop_all_fields(self) -> Token:
        return self._drop(drop_all=True)

    def load(
        self,
        source: object,
        *,
        primary_key: str | None = None,
        select: str | None = None,
        where: str | None = None,
        batch_size: int = 1_000,
        timestamps: str = "iso",
        casts: Mapping[str, str] | None = None,
        null: str | Sequence[str] = (),
        format: str | None = None,  # noqa: A002 - the word that everybody uses for it
        errors: str | Path | None = None,
        progress: LoadProgress | None = None,
    ) -> LoadReport:
        _, store = self._opened()
        try:
            from ikv_load.loading import load
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.startswith("ikv"):  # ours: no extra brings that
                raise
            raise MissingExtraError("load", "load", exc.name) from exc
        return load(
            self,
            store,
            source,
            primary_key=primary_key,
            select=select,
            where=where,
            batch_size=batch_size,
            timestamps=timestamps,
            casts=casts,
            null=null,
            file_format=format,
            errors=errors,
            progress=progress,
        )

    # -- parts ---------------------------------------------------------------------------------

    def _opened(self) -> tuple[Transport, StoreDescription]:
        transport, store = self._transport, self._store
        if transport is None or store is None or self._forked:
            self._refuse()
        return transport, store

    def _refuse(self) -> NoReturn:
        if self._forked:
            raise ForkedError("writer")
        raise ShutDownError("writer") if self._was_started else NotStartedError("writer")

    def _nothing(self) -> Token:
        self._opened()
        return Token()

    def _publish(
        self,
        documents: Iterable[IKVDocument],
        event: Callable[[Fields, int, StoreDescription], bytes | None],
    ) -> Token:
        """Publish the event of each document. All of them are made, and so checked, before the first is published."""
        transport, store = self._opened()
        now = time.time_ns()
        messages = []
        for document in as_list(documents, "documents"):
            fields, key = _routed(document, store)
            value = event(fields, now, store)
            if value is not None:
                messages.append(_message(partition_of(key, store), key, value, now, store))
        return self._send(transport, messages, store) if messages else Token()

    def _drop(self, *, names: Sequence[str] = (), prefixes: Sequence[str] = (), drop_all: bool = False) -> Token:
        """Publish a drop to every partition: it takes effect in each at its place in that one's log."""
        transport, store = self._opened()
        now = time.time_ns()
        value = drop_event(now, names=names, prefixes=prefixes, drop_all=drop_all)
        # The key of a drop is an empty FieldValue, which has no bytes.
        messages = [_message(partition, b"", value, now, store) for partition in range(store.partitions)]
        return self._send(transport, messages, store)

    def _send(self, transport: Transport, messages: Sequence[Message], store: StoreDescription) -> Token:
        if not self._audience:
            return transport.publish(messages)
        began = time.perf_counter()
        token = transport.publish(messages)
        published = EventsPublished(
            store_name=store.store_name,
            account_id=store.account_id,
            events=len(messages),
            bytes=sum(len(message.value) for message in messages),
            seconds=time.perf_counter() - began,
        )
        self._audience.tell("events_published", published)
        return token


def _routed(document: IKVDocument, store: StoreDescription) -> tuple[Fields, bytes]:
    """A document's fields, its keys in the store's types, and its message key."""
    if not isinstance(document, IKVDocument):
        raise InvalidArgumentError(
            f"a document is wanted, not {type(document).__name__}; build one with IKVDocumentBuilder or "
            "IKVDocument.from_dict"
        )
    fields: Fields = document.fields
    routing = b""
    for name, key_type, role in (
        (store.primary_key, store.primary_key_type, "primary key"),
        (store.partitioning_key, store.partitioning_key_type, "partitioning key"),
    ):
        if name is None:
            continue
        given = fields.get(name)
        if given is None:
            raise InvalidDocumentError(name, role, fields)
        data = _key_data(name, given, key_type)
        if given != (key_type, data):  # a key of the other type: it is published in the store's
            fields = {**fields, name: (key_type, data)}
        routing = message_key(key_type, data)
    return fields, routing


def _key_data(name: str, given: FieldBytes, key_type: FieldType) -> bytes:
    field_type, data = given
    if field_type not in (FieldType.STRING, FieldType.BYTES):
        raise InvalidKeyError(
            decode(field_type, data),
            f"field {name!r} is the store's key, of type {key_type.name}; put it as a string or as bytes, "
            f"not as {field_type.name}",
        )
    return key_bytes(decode(field_type, data), key_type)


def _primary_key(fields: Fields, store: StoreDescription) -> Fields:
    return {store.primary_key: fields[store.primary_key]}


def _message(partition: int, key: bytes, value: bytes, now: int, store: StoreDescription) -> Message:
    if len(value) > store.max_event_bytes:
        raise EventTooLargeError(len(value), store.max_event_bytes)
    return Message(partition, key, value, now)


def _names(names: Sequence[str] | None, check: Callable[[object], str]) -> list[str]:
    """Checked names; None, which the published client takes too, means none."""
    return [] if names is None else [check(name) for name in as_list(names, "names")]


def _check_prefix(prefix: object) -> str:
    if prefix == "" and isinstance(prefix, str):
        return prefix
    try:
        return check_name(prefix)
    except FieldNameError as exc:
        raise FieldNameError(prefix, "field name prefixes are str") from exc
