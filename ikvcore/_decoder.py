"""Decoding at the speed of ingest: what `decode_event` says, without taking each entry of a document apart.

Most of an event is names, types and lengths, the same in document after document. So the bytes before a value, which
`_wire.entry_head` writes, are remembered with what protobuf read in them; an event made of entries that begin so, and
are as long as they say, is read by looking its entries up; one that is laid out as an event before it is not even taken
into entries (_templates.py). Any other event goes to protobuf, and so does every doubt: no event is found bad here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from ikvcore._columns import ColumnFields, Columns
from ikvcore._events import FIELD_TYPES, decode_event, source_timestamp
from ikvcore._keys import MAX_KEY_BYTES
from ikvcore._proto import Entry, EventOutline
from ikvcore._templates import Templates
from ikvcore._wire import delimited, entry_head
from ikvcore.fields import FIXED_WIDTHS, FieldType
from ikvcore.models import LogMessage, Mutation, StoreDescription, Upsert

__all__ = ["EventDecoder"]

_MAX_HEADS: Final = 16_384
_MAX_SETS: Final = 1_024
_MAX_TIMES: Final = 256
"""Past these all are forgotten, and met again as they come."""
_ENTRY_TAG: Final = b"\x0a"
_TRUE: Final = b"\x01"
_FLAGS: Final = (b"\x00", b"\x01")


class _Unusual(Exception):  # noqa: N818 - no error: protobuf is to read the event
    """The event, or an entry of it, is not in the form that is looked for here."""


class _Column:
    """A name and a type. One object for each pair, so that lists of them are compared by identity."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, field_type: FieldType) -> None:
        self.name = name
        self.type = field_type


class EventDecoder:
    """Decodes the events of one store. Used by one thread."""

    def __init__(self, store: StoreDescription) -> None:
        self._store = store
        self._forget()

    def _forget(self) -> None:
        self._heads: dict[bytes, tuple[int, _Column, int]] = {}
        """Bytes before a value -> size of the whole entry, its column, number of these bytes."""
        self._columns: dict[tuple[str, FieldType], _Column] = {}
        self._sets: dict[tuple[_Column, ...], Columns] = {}
        self._templates = Templates()
        self._times: dict[bytes, int] = {}
        """Content of a header -> the time it says: one for all events of a batch."""

    def decode(self, message: LogMessage) -> Mutation | None:
        """The mutation that a message asks for, None for a no-op. Raises BadEvent."""
        value = message.value
        if value is None:
            return None
        try:
            # The hot path, in one function: each line of it was measured.
            template = self._templates.by_length.get(len(value))
            if template is not None:
                pieces = template.unpack(value)
                if pieces[::2] == template.around:
                    columns, data, timestamp = template.columns, pieces[3::2], self._times.get(pieces[1])
                    if not columns.is_plain:
                        data = _normal(columns, data)
                    if timestamp is None:
                        timestamp = self._meet_header(pieces, message)
                    return Upsert(message.partition, data[template.key_place], ColumnFields(columns, data), timestamp)
            return self._upsert(message, value)
        except (_Unusual, DecodeError, ValueError, RecursionError, IndexError):
            return decode_event(message, self._store)

    def _upsert(self, message: LogMessage, value: bytes) -> Upsert:
        if len(value) > self._store.max_event_bytes:
            raise _Unusual
        event = EventOutline.FromString(value)
        if event.WhichOneof("other") is not None:
            raise _Unusual
        fields = self._fields(event.upsertDocumentFieldsEvent.document.entries[:])
        place = self._key_place(fields)
        self._templates.learn(value, fields, place)
        return Upsert(message.partition, fields.data[place], fields, source_timestamp(event, message))

    def _meet_header(self, pieces: tuple[bytes, ...], message: LogMessage) -> int | None:
        event = EventOutline.FromString(pieces[0] + pieces[1])
        timestamp = source_timestamp(event, message)
        if timestamp is not None and event.eventHeader.HasField("sourceTimestamp"):
            if len(self._times) >= _MAX_TIMES:
                self._times.clear()
            self._times[pieces[1]] = timestamp
        return timestamp

    def _key_place(self, fields: ColumnFields) -> int:
        """Where the primary key is, if it is as the store's own writers put it."""
        place = fields.columns.places.get(self._store.primary_key)
        if place is None or fields.columns.types[place] is not self._store.primary_key_type:
            raise _Unusual
        if not 0 < len(fields.data[place]) <= MAX_KEY_BYTES:
            raise _Unusual
        return place

    def _fields(self, entries: Sequence[bytes]) -> ColumnFields:
        known = self._heads
        columns: list[_Column] = []
        values: list[bytes] = []
        for entry in entries:
            try:
                # Tag and length of the name, the name, then tags, lengths and type in six bytes while all are short.
                size, column, start = known[entry[: entry[1] + 8]]
            except KeyError:
                size, column, start = self._meet(entry)
            if size != len(entry):
                raise _Unusual
            columns.append(column)
            values.append(entry[start:])
        key = tuple(columns)
        found = self._sets.get(key) or self._meet_set(key)
        return ColumnFields(found, _normal(found, tuple(values)))

    def _meet(self, entry: bytes) -> tuple[int, _Column, int]:
        """What stands before the value of an entry, as protobuf reads it."""
        parsed = Entry.FromString(entry)
        name, number, data = parsed.key, parsed.value.fieldType, parsed.value.value
        field_type = FIELD_TYPES.get(number)
        if field_type is None or len(data) != FIXED_WIDTHS.get(field_type, len(data)):
            raise _Unusual
        # Only what we would write ourselves: then the value is all that stands behind the head.
        if entry_head(name, field_type, len(data)) + data != delimited(_ENTRY_TAG, entry):
            raise _Unusual
        start = len(entry) - len(data)
        if len(self._heads) >= _MAX_HEADS or len(self._columns) >= _MAX_HEADS:
            self._forget()
        column = self._columns.setdefault((name, field_type), _Column(name, field_type))
        head = (len(entry), column, start)
        if entry[: entry[1] + 8] == entry[:start]:
            self._heads[entry[:start]] = head
        return head

    def _meet_set(self, key: tuple[_Column, ...]) -> Columns:
        columns = Columns([(column.name, column.type) for column in key])
        if len(columns.places) != len(key):
            raise _Unusual  # a name twice: the last one counts
        if len(self._sets) >= _MAX_SETS:
            self._sets.clear()
        self._sets[key] = columns
        return columns


def _normal(columns: Columns, data: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Values in their one form. Raises ValueError where a STRING is not UTF-8."""
    for place in columns.texts:
        if not data[place].isascii():
            data[place].decode()
    for place in columns.flags:
        if data[place] not in _FLAGS:
            data = (*data[:place], _TRUE, *data[place + 1 :])
    return data
