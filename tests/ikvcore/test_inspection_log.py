"""Reading a store's log as events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ikvcore.errors import InvalidArgumentError, MissingOptionError, StoreAccessError, TransportError
from ikvcore.fields import FieldType
from ikvcore.inspection import EventStream, LogEvent, read_log
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing._raw_events import STRING, raw_drop, raw_upsert

PATIENCE = 30.0


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest) -> Iterator[LiveStore]:
    with LiveStore(backend="memory", transport=request.param, directory=None, partitions=2) as store:
        yield store


def events(store: LiveStore, **how: Any) -> list[LogEvent]:
    with read_log(store.options, **how) as stream:
        return list(stream)


def places(found: list[LogEvent]) -> list[tuple[int, int]]:
    return sorted((event.partition, event.position) for event in found)


def test_every_kind_of_event_is_told_with_what_it_has(store: LiveStore) -> None:
    writer = store.writer
    (partition,) = writer.upsert_fields(document(id="a", n=1, f=1.5, s="x", b=b"\x00", t=True)).positions
    writer.delete_fields(document(id="a"), ["n", "f"])
    writer.delete_document(document(id="a"))
    writer.drop_fields_by_name(["y", "x"])
    writer.drop_fields_by_name_prefix(["p_"])
    writer.drop_all_fields()
    store.publish(b"", b"\xff\xff", partition=partition)
    found = events(store, partitions=[partition])
    assert [event.kind for event in found] == [
        *("upsert", "delete-fields", "delete-document", "drop-fields", "drop-fields", "clear", "no-op", "bad")
    ]
    assert [event.position for event in found] == list(range(8))
    assert {event.partition for event in found} == {partition}
    assert [event.key for event in found] == ["a", "a", "a", None, None, None, None, None]
    assert dict(found[0].fields) == {
        "id": (FieldType.STRING, "a"),
        "n": (FieldType.INT64, 1),
        "f": (FieldType.FLOAT64, 1.5),
        "s": (FieldType.STRING, "x"),
        "b": (FieldType.BYTES, b"\x00"),
        "t": (FieldType.BOOLEAN, True),
    }
    assert [event.names for event in found[1:5]] == [("f", "n"), (), ("x", "y"), ()]
    assert found[4].prefixes == ("p_",)
    assert found[7].size == 2
    assert "wire format" in (found[7].reason or "")
    assert [event.reason for event in found[:7]] == [None] * 7
    assert (found[0].timestamp or 0) > 1_700_000_000_000_000_000


def test_keys_are_of_the_stores_type() -> None:
    with LiveStore(backend="memory", transport="memory", directory=None, primary_key_type="BYTES") as store:
        store.publish(raw_upsert({"id": (STRING, b"\x00\xff")}))
        (event,) = events(store)
        assert event.key == b"\x00\xff"
        assert event.fields == {"id": (FieldType.BYTES, b"\x00\xff")}


def test_it_ends_where_the_log_ended_when_it_was_opened(store: LiveStore) -> None:
    store.publish(*[raw_drop()] * 700, partition=0)
    store.publish(raw_drop(), partition=1)
    with read_log(store.options) as stream:
        first = next(stream)
        store.publish(*[raw_drop()] * 700, partition=0)
        store.publish(raw_drop(), partition=1)
        found = [first, *stream]
    assert places(found) == [*((0, n) for n in range(700)), (1, 0)]


def test_an_empty_log_has_no_events(store: LiveStore) -> None:
    assert events(store) == []
    assert events(store, start="end") == []


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [(0, 0), (0, 1), (0, 2), (1, 0)]),
        ({"partitions": [0]}, [(0, 0), (0, 1), (0, 2)]),
        ({"partitions": [1, 1]}, [(1, 0)]),
        ({"start": "end"}, []),
        ({"start": {0: 1}}, [(0, 1), (0, 2)]),
        ({"start": {0: 3, 1: 0}}, [(1, 0)]),
        ({"start": {0: 2}, "partitions": [0]}, [(0, 2)]),
        ({"limit": 2, "partitions": [0]}, [(0, 0), (0, 1)]),
        ({"limit": 0}, []),
        ({"limit": 9}, [(0, 0), (0, 1), (0, 2), (1, 0)]),
    ],
)
def test_it_begins_and_ends_where_it_was_asked_to(
    store: LiveStore, how: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    store.publish(*[raw_drop()] * 3, partition=0)
    store.publish(raw_drop(), partition=1)
    assert places(events(store, **how)) == expected


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"partitions": [2]}, "partition 2.*0 to 1"),
        ({"start": {7: 0}}, "partition 7"),
        ({"start": {0: 4}}, "partition 0 has no position 4.*from 0 to 3"),
        ({"start": {0: -1}}, "position -1"),
        ({"start": {0: "1"}}, "position '1'"),
        ({"start": "middle"}, "'middle'"),
        ({"start": {0: 1}, "partitions": [1]}, r"\[0\].*\[1\]"),
        ({"limit": -1}, "-1"),
        ({"partitions": "01"}, "list of partitions"),
    ],
)
def test_what_the_log_does_not_have_is_refused(store: LiveStore, how: dict[str, Any], told: str) -> None:
    store.publish(*[raw_drop()] * 3, partition=0)
    with pytest.raises(InvalidArgumentError, match=told):
        read_log(store.options, **how)


def test_it_follows_the_log_until_it_is_closed_from_another_thread(store: LiveStore) -> None:
    store.publish(raw_drop(), partition=0)
    came = [threading.Event() for _ in range(3)]
    found: list[LogEvent] = []
    stream = read_log(store.options, start="end", follow=True)

    def follow(stream: EventStream) -> None:
        for event in stream:
            found.append(event)
            came[len(found) - 1].set()

    thread = threading.Thread(target=follow, args=(stream,), daemon=True)
    thread.start()
    store.publish(raw_drop(names=["a"]), partition=1)
    assert came[0].wait(PATIENCE)
    store.publish(raw_drop(names=["b"]), partition=0)
    assert came[1].wait(PATIENCE)
    stream.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [(event.partition, event.position, event.names) for event in found] == [(1, 0, ("a",)), (0, 1, ("b",))]
    assert list(stream) == []
    stream.close()


def test_following_ends_after_the_limit(store: LiveStore) -> None:
    store.publish(*[raw_drop()] * 3, partition=0)
    assert len(events(store, follow=True, limit=2)) == 2


def test_a_log_that_fails_while_it_is_read_raises(store: LiveStore) -> None:
    """It never ends early: what came would be taken for all that there is."""
    store.publish(raw_drop(), partition=0)
    stream = read_log(store.options, follow=True)
    next(stream)
    stream._log.close()
    with pytest.raises(TransportError):
        next(stream)
    stream.close()


def test_without_access_nothing_is_read(store: LiveStore) -> None:
    with pytest.raises(StoreAccessError):
        read_log(store.builder().with_account_passkey("wrong").build())
    with pytest.raises(MissingOptionError, match="with_store_name"):
        read_log(type(store.options)())
