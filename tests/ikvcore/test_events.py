"""From bytes in the log to mutations: what is applied, what is passed over, and what is a bad event (C7, wire.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ikvcore._decoder import EventDecoder
from ikvcore._events import (
    BadEvent,
    decode_event,
    delete_document_event,
    delete_fields_event,
    drop_event,
    upsert_event,
)
from ikvcore._proto import IKVDataEvent
from ikvcore.fields import FieldType
from ikvcore.models import Clear, DeleteDocument, DeleteFields, DropFields, LogMessage, StoreDescription, Upsert

UNKNOWN, INT32, INT64, FLOAT32, FLOAT64, STRING, BYTES, BOOLEAN = range(8)
STORE = StoreDescription(store_name="s", account_id="a", identity="i", primary_key="id", partitioning_key="city")
BYTES_STORE = StoreDescription(
    store_name="s", account_id="a", identity="i", primary_key="id", primary_key_type=FieldType.BYTES
)
SMALL_STORE = StoreDescription(store_name="s", account_id="a", identity="i", primary_key="id", max_event_bytes=40)
KEY = {"id": (STRING, b"alice")}

Raw = Mapping[str, tuple[int, bytes]]


def fill(event: Any, document: Raw) -> None:
    event.SetInParent()
    for name, (number, data) in document.items():
        event.document[name].fieldType = number
        event.document[name].value = data


def raw_upsert(document: Raw, event: Any = None) -> bytes:
    event = IKVDataEvent() if event is None else event
    fill(event.upsertDocumentFieldsEvent.document, document)
    return event.SerializeToString()


def raw_delete(document: Raw) -> bytes:
    event = IKVDataEvent()
    fill(event.deleteDocumentEvent.documentId, document)
    return event.SerializeToString()


def raw_delete_fields(document: Raw, *names: str) -> bytes:
    event = IKVDataEvent()
    fill(event.deleteDocumentFieldsEvent.documentId, document)
    event.deleteDocumentFieldsEvent.fieldsToDelete.extend(names)
    return event.SerializeToString()


def raw_drop(names: tuple[str, ...] = (), prefixes: tuple[str, ...] = (), drop_all: bool = False) -> bytes:
    event = IKVDataEvent()
    event.dropFieldEvent.SetInParent()
    event.dropFieldEvent.field_names.extend(names)
    event.dropFieldEvent.field_name_prefixes.extend(prefixes)
    event.dropFieldEvent.drop_all = drop_all
    return event.SerializeToString()


def decoded(value: bytes | None, store: StoreDescription = STORE, timestamp: int | None = 7) -> Any:
    """What decode_event says; what ingest's decoder says is the same, when it meets an event and when it knows it."""
    message = LogMessage(3, 11, b"key", value, timestamp)
    expected = verdict(lambda: decode_event(message, store))
    decoder = EventDecoder(store)
    for _ in range(2):
        assert verdict(lambda: decoder.decode(message)) == expected
    return decode_event(message, store)


def verdict(decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except BadEvent as exc:
        return f"bad: {exc}"


def header_only() -> bytes:
    event = IKVDataEvent()
    event.eventHeader.SetInParent()
    return event.SerializeToString()


def empty_member(member: str) -> bytes:
    event = IKVDataEvent()
    event.eventHeader.SetInParent()
    getattr(event, member).SetInParent()
    return event.SerializeToString()


# -- bad events --------------------------------------------------------------------------------

BAD = {
    "no protobuf": b"\xff\xff\xff",
    "truncated": raw_upsert({**KEY, "x": (STRING, b"abcdefgh")})[:-3],
    "field name that is not UTF-8": raw_upsert({**KEY, "xyz": (STRING, b"")}).replace(b"xyz", b"x\xffz"),
    "name to delete that is not UTF-8": raw_delete_fields(KEY, "xyz").replace(b"xyz", b"x\xffz"),
    "name to drop that is not UTF-8": raw_drop(("xyz",)).replace(b"xyz", b"x\xffz"),
    "upsert without key": raw_upsert({"x": (STRING, b"1")}),
    "upsert with the partitioning key alone": raw_upsert({"city": (STRING, b"1")}),
    "delete without key": raw_delete({"x": (STRING, b"1")}),
    "delete of fields without key": raw_delete_fields({"x": (STRING, b"1")}, "y"),
    "upsert with empty key": raw_upsert({"id": (STRING, b"")}),
    "delete with empty key": raw_delete({"id": (STRING, b"")}),
    "delete of fields with empty key": raw_delete_fields({"id": (STRING, b"")}, "y"),
    "key of type UNKNOWN": raw_upsert({"id": (UNKNOWN, b"alice")}),
    "key of a type outside the enum": raw_upsert({"id": (99, b"alice")}),
    "delete with key of type UNKNOWN": raw_delete({"id": (UNKNOWN, b"alice")}),
    "delete of fields with key of type UNKNOWN": raw_delete_fields({"id": (UNKNOWN, b"alice")}, "y"),
    "over-long key": raw_upsert({"id": (STRING, b"k" * 65_536)}),
    "delete with over-long key": raw_delete({"id": (STRING, b"k" * 65_536)}),
    "STRING key that is not UTF-8": raw_upsert({"id": (STRING, b"\xff")}),
    "BYTES key that is not UTF-8 in a STRING-keyed store": raw_upsert({"id": (BYTES, b"\xff")}),
    "delete with key that is not UTF-8": raw_delete({"id": (STRING, b"\xff")}),
    "STRING that is not UTF-8": raw_upsert({**KEY, "x": (STRING, b"\xc3")}),
    "STRING of an encoded surrogate": raw_upsert({**KEY, "x": (STRING, b"\xed\xa0\x80")}),
    **{
        f"{name} in {width} bytes": raw_upsert({**KEY, "x": (number, b"\x01" * width)})
        for name, number, widths in (
            ("INT32", INT32, (0, 3, 5, 8)),
            ("INT64", INT64, (0, 4, 7, 9)),
            ("FLOAT32", FLOAT32, (0, 3, 5, 8)),
            ("FLOAT64", FLOAT64, (0, 4, 7, 9)),
            ("BOOLEAN", BOOLEAN, (0, 2, 4)),
        )
        for width in widths
    },
}


@pytest.mark.parametrize("what", BAD)
def test_bad_events(what: str) -> None:
    """Each kind of bad event is told from its bytes and the store's description alone, with a reason."""
    with pytest.raises(BadEvent) as caught:
        decoded(BAD[what])
    assert str(caught.value)


def test_an_event_over_the_size_limit_is_bad() -> None:
    """The limit is the store's, and an event of exactly that size is good."""
    event = raw_upsert({"id": (STRING, b"a" * 20)})
    assert len(event) < 40
    padded = raw_upsert({"id": (STRING, b"a" * (20 + 40 - len(event)))})
    assert len(padded) == 40
    assert isinstance(decoded(padded, SMALL_STORE), Upsert)
    with pytest.raises(BadEvent, match="limit"):
        decoded(raw_upsert({"id": (STRING, b"a" * (20 + 41 - len(event)))}), SMALL_STORE)


def test_a_key_of_the_longest_length_is_good() -> None:
    assert decoded(raw_upsert({"id": (STRING, b"k" * 65_535)})).key == b"k" * 65_535


def test_one_bad_value_spoils_the_event() -> None:
    """An event is applied whole or not at all."""
    with pytest.raises(BadEvent, match="'bad'"):
        decoded(raw_upsert({**KEY, "good": (STRING, b"x"), "bad": (INT32, b"x")}))


# -- no-ops ------------------------------------------------------------------------------------

NOTHING: dict[str, bytes | None] = {
    "no value": None,
    "empty value": b"",
    "header alone": header_only(),
    "upsert without document": empty_member("upsertDocumentFieldsEvent"),
    "delete of fields without document": empty_member("deleteDocumentFieldsEvent"),
    "delete without document": empty_member("deleteDocumentEvent"),
    "drop of nothing": empty_member("dropFieldEvent"),
    "upsert of an empty map": raw_upsert({}),
    "delete of an empty map": raw_delete({}),
    "delete of fields of an empty map": raw_delete_fields({}, "x"),
    "delete of no fields": raw_delete_fields(KEY),
    "delete of no fields, key missing": raw_delete_fields({"x": (STRING, b"1")}),
    "delete of the key fields alone": raw_delete_fields(KEY, "id", "city"),
}


@pytest.mark.parametrize("what", NOTHING)
def test_events_that_mean_nothing(what: str) -> None:
    """What existing producers send without content is a no-op, not an error."""
    assert decoded(NOTHING[what]) is None


# -- good events -------------------------------------------------------------------------------


def test_values_keep_their_bytes() -> None:
    """Every type's valid bytes arrive unchanged: NaN payloads, -0.0, empty strings."""
    fields = {
        "i32": (INT32, b"\x00\x00\x00\x80"),
        "i64": (INT64, b"\x01" * 8),
        "f32": (FLOAT32, b"\x01\x00\xa0\x7f"),  # a signalling NaN
        "f64": (FLOAT64, b"\x00" * 7 + b"\x80"),  # -0.0
        "s": (STRING, b""),
        "b": (BYTES, b"\xff\x00"),
        "t": (BOOLEAN, b"\x01"),
        "f": (BOOLEAN, b"\x00"),
    }
    mutation = decoded(raw_upsert({**KEY, **fields}))
    assert mutation == Upsert(
        3,
        b"alice",
        {"id": (FieldType.STRING, b"alice"), **{n: (FieldType(t), data) for n, (t, data) in fields.items()}},
        7,
    )
    assert all(isinstance(field_type, FieldType) for field_type, _ in mutation.fields.values())


@pytest.mark.parametrize("byte", [1, 2, 0x80, 0xFF])
def test_any_non_zero_boolean_is_true(byte: int) -> None:
    """It is stored in one form, so that two replicas and two records of it are equal."""
    assert decoded(raw_upsert({**KEY, "t": (BOOLEAN, bytes([byte]))})).fields["t"] == (FieldType.BOOLEAN, b"\x01")


@pytest.mark.parametrize("number", [UNKNOWN, 8, 99, 2**31 - 1, -1])
def test_fields_of_unknown_types_are_skipped(number: int) -> None:
    """The old value stays, and the event's other fields are set."""
    mutation = decoded(raw_upsert({**KEY, "x": (number, b"\xff\xff"), "y": (STRING, b"1")}))
    assert mutation.fields == {"id": (FieldType.STRING, b"alice"), "y": (FieldType.STRING, b"1")}


@pytest.mark.parametrize("number", [BYTES, STRING])
@pytest.mark.parametrize(("store", "field_type"), [(STORE, FieldType.STRING), (BYTES_STORE, FieldType.BYTES)])
def test_a_key_of_another_type_counts_by_its_bytes(number: int, store: StoreDescription, field_type: FieldType) -> None:
    """The key reads back as the store's type, whatever type the producer gave."""
    mutation = decoded(raw_upsert({"id": (number, b"alice")}), store)
    assert (mutation.key, mutation.fields) == (b"alice", {"id": (field_type, b"alice")})
    assert decoded(raw_delete({"id": (number, b"alice")}), store).key == b"alice"


def test_a_numeric_key_counts_by_its_bytes() -> None:
    mutation = decoded(raw_upsert({"id": (INT32, b"\x01\x02\x03\x04")}))
    assert mutation.key == b"\x01\x02\x03\x04"
    assert mutation.fields == {"id": (FieldType.STRING, b"\x01\x02\x03\x04")}


@pytest.mark.parametrize(
    ("store", "key"),
    [(STORE, (INT32, b"alice")), (STORE, (BOOLEAN, b"no")), (BYTES_STORE, (STRING, b"\xff")), (STORE, (FLOAT64, b"x"))],
)
def test_upsert_and_delete_judge_a_key_alike(store: StoreDescription, key: tuple[int, bytes]) -> None:
    """A key that documents can be written under can be deleted, and the other way round."""

    def verdict(event: bytes) -> str:
        try:
            decoded(event, store)
        except BadEvent:
            return "bad"
        return "good"

    document = {"id": key}
    assert verdict(raw_upsert(document)) == verdict(raw_delete(document)) == verdict(raw_delete_fields(document, "x"))


def test_a_key_that_is_not_utf8_is_good_in_a_bytes_keyed_store() -> None:
    assert decoded(raw_upsert({"id": (BYTES, b"\xff\x00")}), BYTES_STORE).key == b"\xff\x00"


def test_deletes_skip_the_key_fields() -> None:
    """Of the names to delete, the primary and partitioning keys are passed over."""
    mutation = decoded(raw_delete_fields(KEY, "id", "x", "city", "x"))
    assert mutation == DeleteFields(3, b"alice", frozenset({"x"}), 7)


def test_a_delete_reads_the_primary_key_alone() -> None:
    """What else a document id carries, good or bad, is no part of it."""
    assert decoded(raw_delete({**KEY, "x": (INT32, b"wrong")})) == DeleteDocument(3, b"alice", 7)


# -- drops -------------------------------------------------------------------------------------


def test_drop_all_counts_only_without_names_and_prefixes() -> None:
    keep = frozenset({"id", "city"})
    assert decoded(raw_drop(drop_all=True)) == Clear(3, 7)
    assert decoded(raw_drop(("a",), drop_all=True)) == DropFields(3, frozenset({"a"}), (), keep, 7)
    assert decoded(raw_drop((), ("b",), drop_all=True)) == DropFields(3, frozenset(), ("b",), keep, 7)


def test_names_and_prefixes_are_dropped_together() -> None:
    mutation = decoded(raw_drop(("a", "id"), ("b", "")))
    assert mutation == DropFields(3, frozenset({"a", "id"}), ("b", ""), frozenset({"id", "city"}), 7)


# -- timestamps --------------------------------------------------------------------------------


@pytest.mark.parametrize("timestamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789, -1, -1_500_000_000])
def test_the_source_timestamp_comes_first(timestamp: int) -> None:
    """Also where it is zero, and also before 1970."""
    event = upsert_event({"id": (FieldType.STRING, b"alice")}, timestamp)
    assert decoded(event, timestamp=7).timestamp == timestamp


@pytest.mark.parametrize("value", [raw_upsert(KEY), header_only() + raw_upsert(KEY)])
@pytest.mark.parametrize("timestamp", [None, 0, 7])
def test_without_a_source_timestamp_the_messages_counts(value: bytes, timestamp: int | None) -> None:
    assert decoded(value, timestamp=timestamp).timestamp == timestamp


# -- round trips -------------------------------------------------------------------------------


def test_what_is_written_is_read() -> None:
    """The writer's events decode to the mutations they stand for."""
    key = {"id": (FieldType.STRING, b"alice")}
    fields = {**key, "x": (FieldType.INT64, b"\x01" * 8), "": (FieldType.BYTES, b"")}
    assert decoded(upsert_event(fields, 5)) == Upsert(3, b"alice", fields, 5)
    assert decoded(delete_fields_event(key, ["x", "y"], 5)) == DeleteFields(3, b"alice", frozenset({"x", "y"}), 5)
    assert decoded(delete_document_event(key, 5)) == DeleteDocument(3, b"alice", 5)
    assert decoded(drop_event(5, names=["a"], prefixes=["b"])) == DropFields(
        3, frozenset({"a"}), ("b",), frozenset({"id", "city"}), 5
    )
    assert decoded(drop_event(5, drop_all=True)) == Clear(3, 5)
    assert decoded(drop_event(5)) is None


def test_unknown_fields_of_newer_producers_are_passed_over() -> None:
    """A wire field that this release does not know changes nothing."""
    assert decoded(raw_upsert(KEY) + b"\xfa\x01\x03abc").key == b"alice"  # number 31, length-delimited
