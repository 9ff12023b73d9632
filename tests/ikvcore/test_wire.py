"""Documents written by hand are documents as protobuf writes and reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikvcore._events import delete_document_event, delete_fields_event, upsert_event
from ikvcore._proto import IKVDataEvent, IKVDocumentOnWire
from ikvcore._wire import delimited, document_bytes, entry_head, varint
from ikvcore.fields import FieldBytes, FieldType

TYPES = st.sampled_from([field_type for field_type in FieldType if field_type is not FieldType.UNKNOWN])
FIELDS = st.dictionaries(st.text(max_size=140), st.tuples(TYPES, st.binary(max_size=140)), max_size=5)


def by_protobuf(fields: dict[str, FieldBytes]) -> bytes:
    document = IKVDocumentOnWire()
    for name, (field_type, data) in fields.items():
        document.document[name].fieldType = field_type
        document.document[name].value = data
    written: bytes = document.SerializeToString()
    return written


def read(document: IKVDocumentOnWire) -> dict[str, tuple[int, bytes]]:
    return {name: (value.fieldType, value.value) for name, value in document.document.items()}


@given(FIELDS)
def test_a_document_reads_as_what_it_was_made_of(fields: dict[str, FieldBytes]) -> None:
    """Byte for byte protobuf's own, but for the order of fields, which is the document's."""
    written = document_bytes(fields)
    assert read(IKVDocumentOnWire.FromString(written)) == fields
    assert written == b"".join(by_protobuf({name: value}) for name, value in fields.items())


@pytest.mark.parametrize("length", [0, 1, *range(112, 132), 16_370, 16_383, 16_384, 2**21])
@pytest.mark.parametrize("name", ["", "f", "n" * 117, "n" * 127, "é" * 64])
def test_every_length_of_a_length(name: str, length: int) -> None:
    fields = {name: (FieldType.BYTES, b"\xff" * length)}
    assert document_bytes(fields) == by_protobuf(fields)


def test_a_varint_has_seven_bits_a_byte() -> None:
    """The example of protobuf's encoding guide, and the ends of one byte."""
    assert [varint(number) for number in (0, 127, 128, 150)] == [b"\x00", b"\x7f", b"\x80\x01", b"\x96\x01"]


def test_a_head_and_a_value_are_an_entry() -> None:
    """As in the encoding guide, a map's entry is a message of key and value."""
    assert (
        entry_head("id", FieldType.STRING, 3) + b"abc"
        == b"\x0a\x0d" + b"\x0a\x02id" + b"\x12\x07" + b"\x08\x05\x12\x03abc"
    )
    assert delimited(b"\x0a", b"abc") == b"\x0a\x03abc"


@given(FIELDS.filter(bool), st.integers(-(10**18), 4 * 10**18))
def test_events_carry_their_document_and_time(fields: dict[str, FieldBytes], timestamp: int) -> None:
    upsert = IKVDataEvent.FromString(upsert_event(fields, timestamp))
    assert read(upsert.upsertDocumentFieldsEvent.document) == fields
    delete = IKVDataEvent.FromString(delete_document_event(fields, timestamp))
    assert read(delete.deleteDocumentEvent.documentId) == fields
    delete_fields = IKVDataEvent.FromString(delete_fields_event(fields, ["a", "b"], timestamp))
    assert read(delete_fields.deleteDocumentFieldsEvent.documentId) == fields
    assert delete_fields.deleteDocumentFieldsEvent.fieldsToDelete == ["a", "b"]
    for event in (upsert, delete, delete_fields):
        source = event.eventHeader.sourceTimestamp
        assert (source.seconds, source.nanos) == divmod(timestamp, 10**9)
