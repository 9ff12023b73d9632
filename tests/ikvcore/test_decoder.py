"""Ingest's decoder against protobuf's reading of the same bytes: never another mutation, never another verdict (C7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ikvcore import _decoder, _templates
from ikvcore._columns import ColumnFields
from ikvcore._decoder import EventDecoder
from ikvcore._events import BadEvent, decode_event, upsert_event
from ikvcore._proto import IKVDataEvent
from ikvcore._wire import delimited
from ikvcore.fields import FieldType
from ikvcore.models import LogMessage, StoreDescription, Upsert

STORES = [
    StoreDescription(store_name="s", account_id="a", identity="i", primary_key="id", primary_key_type=key_type)
    for key_type in (FieldType.STRING, FieldType.BYTES)
]
NAMES = st.sampled_from(["id", "x", "y", "", "é", "n" * 130])
DATA = st.sampled_from(
    [b"", b"\x00", b"\x01", b"\x02", b"abcd", b"\xc3", "é".encode(), b"12345678", b"v" * 120, b"w" * 300]
)
ENTRIES = st.lists(st.tuples(NAMES, st.sampled_from([0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 99]), DATA), max_size=6)
KEY = ("id", 5, b"alice")


def entry(name: str, number: int, data: bytes) -> bytes:
    """One entry of a document, by protobuf."""
    event = IKVDataEvent()
    event.upsertDocumentFieldsEvent.document.document[name].fieldType = number
    event.upsertDocumentFieldsEvent.document.document[name].value = data
    written: bytes = event.upsertDocumentFieldsEvent.document.SerializeToString()
    return written


def event(tag: bytes, document: bytes) -> bytes:
    """An event of one member: 0x12 an upsert, 0x22 a delete."""
    return delimited(tag, delimited(b"\x0a", document))


def groups(depth: int) -> bytes:
    """An unknown field 31, a group in a group and so on: what a decoder refuses from some depth on."""
    return b"\xfb\x01" * depth + b"\xfc\x01" * depth


HEADERS = st.sampled_from(
    [b"", b"\x0a\x00", b"\x0a\x04\x0a\x02\x08\x05", b"\x0a\x06\x0a\x04\x08\x05\x10\x07", b"\x0a\x02\x0a\x00"]
)
TAGS = st.sampled_from([b"\x12", b"\x12", b"\x12", b"\x22", b"\x1a", b"\x2a"])
MEMBERS = st.builds(event, TAGS, ENTRIES.map(lambda entries: b"".join(entry(*each) for each in (KEY, *entries))))
EVENTS = st.builds(
    lambda header, members: header + b"".join(members), HEADERS, st.lists(MEMBERS, min_size=1, max_size=2)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with a few bytes changed, cut out or put in."""
    value = bytearray(draw(EVENTS))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(value)))
        stop = start + draw(st.integers(0, 3))
        value[start:stop] = draw(st.binary(max_size=3))
    return bytes(value)


def verdict(decoder: EventDecoder | None, store: StoreDescription, value: bytes) -> Any:
    message = LogMessage(3, 11, b"key", value, 7)
    try:
        mutation = decode_event(message, store) if decoder is None else decoder.decode(message)
    except BadEvent as exc:
        return f"bad: {exc}"
    return (mutation, sorted(mutation.fields)) if isinstance(mutation, Upsert) else mutation


def check(value: bytes, *before: bytes) -> None:
    """The verdicts of a decoder that is new to everything, of one that read events before, and of protobuf agree."""
    for store in STORES:
        decoder = EventDecoder(store)
        for each in (*before, value, value):
            assert verdict(decoder, store, each) == verdict(None, store, each)


@given(EVENTS, EVENTS)
def test_events_decode_as_protobuf_reads_them(value: bytes, before: bytes) -> None:
    check(value, before)


@given(damaged(), EVENTS)
@example(event(b"\x12", entry(*KEY) + b"\x0a\x00"), b"")
@example(event(b"\x12", entry(*KEY) + b"\x0a\x01\x0a"), b"")
def test_damaged_events_decode_as_protobuf_reads_them(value: bytes, before: bytes) -> None:
    check(value, before, event(b"\x12", entry(*KEY) + entry("x", 5, b"abcd") + entry("y", 7, b"\x01")))


@given(st.lists(EVENTS, min_size=1, max_size=6))
def test_a_decoder_that_has_to_forget_decodes_the_same(events: list[bytes]) -> None:
    """What is remembered is bounded, whatever producers send."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_decoder, "_MAX_HEADS", 2)
        patch.setattr(_decoder, "_MAX_SETS", 1)
        decoder = EventDecoder(STORES[0])
        for value in events:
            assert verdict(decoder, STORES[0], value) == verdict(None, STORES[0], value)
            assert len(decoder._heads) <= 2
            assert len(decoder._columns) <= 2
            assert len(decoder._sets) <= 1


@pytest.mark.parametrize("depth", [1, 94, *range(95, 102)])
def test_depth_is_counted_from_the_event(depth: int) -> None:
    """Protobuf refuses what is nested too deeply, wherever in the event it is."""
    key, deep = entry(*KEY), groups(depth)
    check(deep + event(b"\x12", key))
    check(delimited(b"\x0a", deep) + event(b"\x12", key))
    check(delimited(b"\x12", deep + delimited(b"\x0a", key)))
    check(event(b"\x12", key + deep))
    check(event(b"\x12", key + delimited(b"\x0a", entry("x", 5, b"a")[2:] + deep)))
    check(event(b"\x12", key + delimited(b"\x0a", b"\x0a\x01x" + delimited(b"\x12", b"\x08\x05" + deep))))


HIDDEN = {
    "an upsert behind a delete": event(b"\x12", b"\x0a\x01\xff") + event(b"\x22", entry(*KEY)),
    "a delete behind an upsert": event(b"\x22", b"\x0a\x01\xff") + event(b"\x12", entry(*KEY)),
    "a good delete behind an upsert": event(b"\x22", entry(*KEY)) + event(b"\x12", entry(*KEY)),
    "an upsert in two parts": event(b"\x12", entry(*KEY)) + event(b"\x12", entry("x", 5, b"a")),
    "a document in two parts": delimited(b"\x12", 2 * delimited(b"\x0a", entry(*KEY))),
    "a bad value of a name that comes again": event(
        b"\x12", entry(*KEY) + entry("x", 5, b"\xff") + entry("x", 5, b"a")
    ),
    "a good value of a name that comes again": event(b"\x12", entry(*KEY) + entry("x", 5, b"a") + entry("x", 1, b"")),
    "a key that comes again": event(b"\x12", entry("id", 5, b"bob") + entry(*KEY)),
    "an entry's parts the other way round": event(
        b"\x12", entry(*KEY) + delimited(b"\x0a", b"\x12\x05\x08\x05\x12\x01a" + b"\x0a\x01x")
    ),
    "a length in more bytes than it needs": event(b"\x12", entry(*KEY) + b"\x0a\x8a\x00" + entry("x", 5, b"a")[2:]),
    "a value in two parts": event(
        b"\x12", entry(*KEY) + delimited(b"\x0a", entry("x", 5, b"a")[2:] + b"\x12\x03\x12\x01b")
    ),
}


@pytest.mark.parametrize("what", HIDDEN)
def test_what_protobuf_merges_or_hides(what: str) -> None:
    check(HIDDEN[what], event(b"\x12", entry(*KEY) + entry("x", 5, b"a")))


def test_documents_of_the_same_fields_share_them() -> None:
    """Also where values differ in length: that is what makes ingest fast."""
    decoder = EventDecoder(STORES[0])

    def fields(name: bytes, age: bytes) -> Any:
        made = {"id": (FieldType.STRING, name), "age": (FieldType.INT32, age), "note": (FieldType.STRING, name * 50)}
        mutation = decoder.decode(LogMessage(0, 0, b"", upsert_event(made, 1), None))
        assert isinstance(mutation, Upsert)
        assert mutation.fields == made
        return mutation.fields

    one, two = fields(b"a", b"1234"), fields(b"alice", b"\xff\xff\xff\xff")
    assert isinstance(one, ColumnFields)
    assert one.columns is two.columns
    assert repr(one) == repr(dict(one))
    with pytest.raises(KeyError):
        one["nothing"]


def test_what_is_never_looked_up_is_not_remembered() -> None:
    """The lengths of long values are many, and looking them up takes longer than reading them."""
    decoder = EventDecoder(STORES[0])
    decoder.decode(LogMessage(0, 0, b"", event(b"\x12", entry(*KEY) + entry("x", 5, b"a" * 300)), None))
    assert len(decoder._heads) == 1


# -- templates ---------------------------------------------------------------------------------

STAMP = 1_700_000_000_123_456_789


def published(number: int, name: str = "alice", timestamp: int = STAMP) -> bytes:
    """An event as writers publish it, 8 bytes and a text beside the key."""
    fields = {
        "id": (FieldType.STRING, name.encode()),
        "n": (FieldType.INT64, number.to_bytes(8, "little")),
        "on": (FieldType.BOOLEAN, b"\x01"),
    }
    return upsert_event(fields, timestamp)


def test_an_event_laid_out_as_one_before_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = EventDecoder(STORES[0])
    verdict(decoder, STORES[0], published(1))
    verdict(decoder, STORES[0], published(2))  # the header is met
    monkeypatch.setattr(_decoder, "EventOutline", None)
    for value in (published(3), published(4, "carol")):
        assert verdict(decoder, STORES[0], value) == verdict(None, STORES[0], value)


def test_a_byte_that_differs_from_the_template_is_not_passed_over() -> None:
    """Each byte of an event, changed in several ways: what protobuf reads in it is what is read."""
    decoder, whole = EventDecoder(STORES[0]), published(7)
    for place in range(len(whole)):
        for byte in {0, 1, 2, 0x0A, 0x12, 0x7F, 0x80, 0xC3, 0xFF, whole[place] ^ 1, whole[place] ^ 0x80}:
            for each in (whole, whole):
                verdict(decoder, STORES[0], each)
            value = whole[:place] + bytes((byte,)) + whole[place + 1 :]
            assert verdict(decoder, STORES[0], value) == verdict(None, STORES[0], value), (place, byte)


def test_each_event_has_the_time_of_its_own_header() -> None:
    """Or its message's, where it has none."""
    decoder = EventDecoder(STORES[0])
    bare = b"\x0a\x00" + published(1)[2 + published(1)[1] :]
    values = [published(n, timestamp=STAMP + n * 10**9) for n in range(5)]
    for value in [*values, bare, bare, bare, *values]:
        assert verdict(decoder, STORES[0], value) == verdict(None, STORES[0], value)


def test_templates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their number, and the times and the fields that they remember."""
    monkeypatch.setattr(_templates, "_MAX_TEMPLATES", 3)
    monkeypatch.setattr(_decoder, "_MAX_TIMES", 3)
    decoder = EventDecoder(STORES[0])
    for number in range(1, 20):
        for _ in range(2):
            verdict(decoder, STORES[0], published(number, "a" * number, STAMP + number))
        assert len(decoder._templates.by_length) <= 3
        assert len(decoder._times) <= 3
    monkeypatch.setattr(_templates, "_MAX_FIELDS", 2)
    decoder = EventDecoder(STORES[0])
    verdict(decoder, STORES[0], published(1))
    assert not decoder._templates.by_length


def test_a_template_that_does_not_fit_for_long_gives_way() -> None:
    decoder, other = EventDecoder(STORES[0]), published(1).replace(b"\x01n", b"\x01m")
    verdict(decoder, STORES[0], published(1))
    learned = decoder._templates.by_length[len(other)]
    for _ in range(_templates._PATIENCE - 1):
        verdict(decoder, STORES[0], other)
        assert decoder._templates.by_length[len(other)] is learned
    verdict(decoder, STORES[0], other)
    assert decoder._templates.by_length[len(other)].columns.names == ("id", "m", "on")
