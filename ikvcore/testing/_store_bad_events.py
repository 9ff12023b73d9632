"""StoreSuite, part six: bad events under both policies, and events that mean nothing (C7, wire.md)."""

from __future__ import annotations

import pytest

from ikvcore.errors import IngestHaltedError
from ikvcore.testing._live import LiveStore, document
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._raw_events import (
    BOOLEAN,
    BYTES,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    UNKNOWN,
    raw_delete_document,
    raw_delete_fields,
    raw_upsert,
    without_content,
)
from ikvcore.testing._store_base import MakeStore, StoreBase

__all__ = ["StoreBadEvents"]

KEY = {"id": (STRING, b"bad")}
BAD_EVENTS = {
    "undecodable": b"\xff\xff\xff\xff",
    "truncated": raw_upsert({**KEY, "x": (STRING, b"text")})[:-1],
    "name-not-utf8": raw_upsert({**KEY, "xxxx": (STRING, b"1")}).replace(b"xxxx", b"x\xff\xfex"),
    "key-missing": raw_upsert({"x": (STRING, b"1")}),
    "key-missing-in-delete": raw_delete_document({"x": (STRING, b"1")}),
    "key-missing-in-delete-fields": raw_delete_fields({"x": (STRING, b"1")}, ["y"]),
    "key-empty": raw_upsert({"id": (STRING, b""), "x": (STRING, b"1")}),
    "key-empty-in-delete": raw_delete_document({"id": (STRING, b"")}),
    "key-unknown-typed": raw_upsert({"id": (UNKNOWN, b"bad"), "x": (STRING, b"1")}),
    "key-type-outside-the-list": raw_upsert({"id": (99, b"bad"), "x": (STRING, b"1")}),
    "key-over-long": raw_upsert({"id": (STRING, b"k" * 65_536), "x": (STRING, b"1")}),
    "key-not-utf8": raw_upsert({"id": (STRING, b"\xff"), "x": (STRING, b"1")}),
    "key-bytes-not-utf8": raw_upsert({"id": (BYTES, b"\xc3"), "x": (STRING, b"1")}),
    "int32-width": raw_upsert({**KEY, "x": (INT32, b"123")}),
    "int64-width": raw_upsert({**KEY, "x": (INT64, b"1234")}),
    "float32-width": raw_upsert({**KEY, "x": (FLOAT32, b"12345678")}),
    "float64-width": raw_upsert({**KEY, "x": (FLOAT64, b"")}),
    "boolean-empty": raw_upsert({**KEY, "x": (BOOLEAN, b"")}),
    "boolean-width": raw_upsert({**KEY, "x": (BOOLEAN, b"\x01\x01")}),
    "string-not-utf8": raw_upsert({**KEY, "good": (STRING, b"1"), "x": (STRING, b"\xff\xfe")}),
    "string-surrogate": raw_upsert({**KEY, "x": (STRING, b"\xed\xa0\x80")}),
}
GOOD = raw_upsert({"id": (STRING, b"good"), "x": (STRING, b"1")})
LATER = raw_upsert({"id": (STRING, b"later"), "x": (STRING, b"2")})


class StoreBadEvents(StoreBase):
    """Loud, never silent."""

    @pytest.mark.parametrize("kind", BAD_EVENTS)
    def test_c7_raise(self, store: LiveStore, kind: str) -> None:
        """With "raise" ingest halts before the bad event: reads go on with what came before; health and stats say
        so; wait_for and startup raise IngestHaltedError, startup not with allow_stale."""
        reader = store.reader
        good = store.publish(GOOD)
        later = store.publish(BAD_EVENTS[kind], LATER)
        with pytest.raises(IngestHaltedError) as halted:
            reader.wait_for(later, timeout=PATIENCE)
        assert set(halted.value.halts) == {0}
        reader.wait_for(good, timeout=PATIENCE)
        assert dict(reader.scan()) == {"good": {"id": "good", "x": "1"}}
        health, stats = reader.health(), reader.stats()
        assert health.state == "halted"
        assert "0" in health.reason
        assert (stats.events_applied, stats.bad_events) == (1, 0)
        assert stats.partitions[0].position == good.positions[0]
        assert stats.partitions[0].lag_events >= 2
        store.restart_reader()
        with pytest.raises(IngestHaltedError):
            store.unstarted_reader().startup(timeout=PATIENCE)
        stale = store.new_reader(allow_stale=True)
        with pytest.raises(IngestHaltedError):
            stale.wait_for(later, timeout=PATIENCE)
        assert [key for key, _ in stale.scan()] == ["good"]
        assert stale.health().state == "halted"

    def test_c7_a_halt_is_the_last_error(self, store: LiveStore) -> None:
        """stats().last_error tells what ingest last complained of: a halt, with its place."""
        later = store.publish(GOOD, BAD_EVENTS["int32-width"], LATER)
        reader = store.new_reader(allow_stale=True)
        with pytest.raises(IngestHaltedError):
            reader.wait_for(later, timeout=PATIENCE)
        assert reader.stats().last_error

    def test_c7_quarantine(self, store: LiveStore) -> None:
        """With "quarantine" every kind of bad event is passed over whole and counted, and what follows is applied."""
        reader = store.new_reader(store.builder("q").with_on_bad_event("quarantine"))
        for number, kind in enumerate(BAD_EVENTS, 1):
            event = raw_upsert({"id": (STRING, kind.encode()), "x": (STRING, b"1")})
            reader.wait_for(store.publish(BAD_EVENTS[kind], event), timeout=PATIENCE)
            stats = reader.stats()
            assert (kind, stats.bad_events, stats.events_applied) == (kind, number, 2 * number)
            assert reader.get_document(kind) == {"id": kind, "x": "1"}
            assert reader.get_document("bad") is None
        assert reader.health().state == "ready"
        assert {key for key, _ in reader.scan()} == set(BAD_EVENTS)

    def test_c7_the_policy_may_change(self, store: LiveStore) -> None:
        """A halted replica goes on when it is opened with "quarantine", and "raise" may come back afterwards."""
        later = store.publish(GOOD, BAD_EVENTS["int32-width"], LATER)
        store.new_reader(allow_stale=True).shutdown()
        quarantining = store.new_reader(store.builder().with_on_bad_event("quarantine"))
        quarantining.wait_for(later, timeout=PATIENCE)
        assert (quarantining.count(), quarantining.stats().bad_events) == (2, 1)
        quarantining.shutdown()
        if self.backend_info.volatile:
            return  # nothing outlives the instance: the bad event comes again
        store.put(id="more", x=1)
        assert (store.reader.count(), store.reader.stats().bad_events) == (3, 1)
        assert store.reader.health().state == "ready"
        later = store.publish(BAD_EVENTS["undecodable"])
        with pytest.raises(IngestHaltedError):
            store.reader.wait_for(later, timeout=PATIENCE)

    def test_c7_other_partitions_go_on(self, make: MakeStore) -> None:
        """A bad event halts its own partition alone."""
        store = make(partitions=2)
        reader = store.reader
        bad = store.publish(BAD_EVENTS["undecodable"], partition=0)
        with pytest.raises(IngestHaltedError):
            reader.wait_for(bad, timeout=PATIENCE)
        for n in range(5):
            event = raw_upsert({"id": (STRING, b"%d" % n)})
            reader.wait_for(store.publish(event, partition=1), timeout=PATIENCE)
            assert reader.count() == n + 1
        with pytest.raises(IngestHaltedError):
            reader.wait_for(bad | store.publish(b"", partition=1), timeout=PATIENCE)
        assert reader.health().state == "halted"

    @pytest.mark.parametrize("kind", without_content())
    def test_c7_no_ops(self, store: LiveStore, kind: str) -> None:
        """An event that means nothing is passed over and counted, and is not a bad one."""
        store.put(id="a", x=1)
        store.shown(store.publish(without_content()[kind]))
        assert dict(store.reader.scan()) == {"a": {"id": "a", "x": 1}}
        stats = store.reader.stats()
        assert (stats.events_applied, stats.bad_events) == (2, 0)
        assert store.reader.health().state == "ready"

    def test_c7_a_message_without_value(self, store: LiveStore) -> None:
        """A message without value is passed over and counted, and is not a bad one."""
        if not self.carries_no_value:
            pytest.skip("the transport's own messages always have a value")
        store.put(id="a", x=1)
        store.shown(store.publish(None))  # type: ignore[arg-type]  # beyond what the core sends
        stats = store.reader.stats()
        assert (stats.documents, stats.events_applied, stats.bad_events) == (1, 2, 0)

    def test_unknown_fields_are_skipped(self, store: LiveStore) -> None:
        """A field of type UNKNOWN, or of a number outside the list, is skipped: its old value stays."""
        store.put(id="a", x="old", y="old")
        store.shown(
            store.publish(
                raw_upsert({"id": (STRING, b"a"), "x": (UNKNOWN, b"new"), "y": (99, b"new"), "z": (STRING, b"new")}),
                raw_upsert({"id": (STRING, b"b"), "x": (UNKNOWN, b"new")}),
            )
        )
        assert store.reader.get_document("a") == {"id": "a", "x": "old", "y": "old", "z": "new"}
        assert store.reader.get_document("b") == {"id": "b"}
        assert store.reader.stats().bad_events == 0

    def test_keys_count_by_their_bytes(self, store: LiveStore) -> None:
        """A primary key of another type than the store's counts by its bytes, in upserts and deletes, and reads back as
        the store's type."""
        one = (1).to_bytes(4, "little")
        store.shown(
            store.publish(
                raw_upsert({"id": (BYTES, b"a"), "x": (STRING, b"1")}),
                raw_upsert({"id": (STRING, b"a"), "y": (STRING, b"2")}),
                raw_upsert({"id": (INT32, one), "x": (STRING, b"int")}),
            )
        )
        assert store.reader.get_document("a") == {"id": "a", "x": "1", "y": "2"}
        assert store.reader.get_document(one) == {"id": one.decode(), "x": "int"}
        store.shown(
            store.publish(
                raw_delete_fields({"id": (BYTES, b"a")}, ["x", "id"]), raw_delete_document({"id": (BYTES, one)})
            )
        )
        assert dict(store.reader.scan()) == {"a": {"id": "a", "y": "2"}}

    def test_any_non_zero_boolean_is_true(self, store: LiveStore) -> None:
        """A BOOLEAN of any byte but zero is True."""
        fields = {f"b{n}": (BOOLEAN, bytes([n])) for n in (0, 1, 2, 255)}
        store.shown(store.publish(raw_upsert({"id": (STRING, b"a"), **fields})))
        assert [store.reader.get_bool_value("a", f"b{n}") for n in (0, 1, 2, 255)] == [False, True, True, True]

    def test_a_delete_names_the_primary_key_only(self, make: MakeStore) -> None:
        """A delete event carries the primary key only, also where another field routes, and concerns its partition."""
        store = make(partitioning_key="region", partitions=2)
        (partition,) = store.put(id="a", region="eu", x=1).positions
        store.shown(store.publish(raw_delete_fields({"id": (STRING, b"a")}, ["x"]), partition=partition))
        assert store.reader.get_document("a") == {"id": "a", "region": "eu"}
        store.shown(store.publish(raw_delete_document({"id": (STRING, b"a")}), partition=1 - partition))
        assert store.reader.count() == 1
        store.shown(store.publish(raw_delete_document({"id": (STRING, b"a")}), partition=partition))
        assert store.reader.count() == 0
        store.shown(store.writer.upsert_fields(document(id="a", region="us")))
        assert store.reader.get_document("a") == {"id": "a", "region": "us"}
