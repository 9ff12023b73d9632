"""StoreSuite, part two: reading many, scanning, and the life of clients (C3.10, C6)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ikvcore.client import Key
from ikvcore.document import IKVDocumentBuilder
from ikvcore.errors import FieldTypeError, NotStartedError, ShutDownError, StoreAccessError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.fields import FieldType
from ikvcore.models import Row
from ikvcore.testing._live import LiveStore, document, documents
from ikvcore.testing._parallel import run_threads, started
from ikvcore.testing._store_base import StoreBase

__all__ = ["StoreReads"]


class StoreReads(StoreBase):
    """Many values at once, each call of one state."""

    def test_c3_10_multiget_order(self, store: LiveStore) -> None:
        """multiget gives all bytes keys, then all str keys; per key the fields in the order asked; duplicates repeat,
        and None holds the place of what is missing."""
        for key in ("a", "b", "c"):
            store.put(id=key, x=f"{key}x", y=f"{key}y")
        asked: dict[str, Any] = {
            "bytes_primary_keys": [b"c", b"nope", bytearray(b"a"), b"c"],
            "str_primary_keys": ["b", "a", "nope", "b"],
            "field_names": ["y", "missing", "x", "y"],
        }
        expected: list[str | None] = []
        for key in ("c", "nope", "a", "c", "b", "a", "nope", "b"):
            there = key != "nope"
            expected += [f"{key}y" if there else None, None, f"{key}x" if there else None, f"{key}y" if there else None]
        assert list(store.reader.multiget_string_values(**asked)) == expected
        encoded = [None if value is None else value.encode() for value in expected]
        assert list(store.reader.multiget_bytes_values(**asked)) == encoded
        mixed: list[Key] = [b"c", "nope", bytearray(b"a"), b"c", "b", b"a", b"nope", "b"]
        assert list(store.reader.multiget_values(mixed, asked["field_names"])) == expected

    def test_c3_10_nothing_asked(self, store: LiveStore) -> None:
        """No keys or no fields give an empty iterator."""
        store.put(id="a", x="1")
        reader = store.reader
        for found in (
            reader.multiget_string_values(),
            reader.multiget_string_values(str_primary_keys=["a"]),
            reader.multiget_string_values(field_names=["x"]),
            reader.multiget_bytes_values(bytes_primary_keys=[b"a"], field_names=[]),
            reader.multiget_values([], ["x"]),
            reader.multiget_values(["a"], []),
            reader.multiget_documents([]),
        ):
            assert list(found) == []
            assert next(found, "end") == "end"

    def test_c3_10_read_before_it_returns(self, store: LiveStore) -> None:
        """multiget is evaluated before it returns: later writes do not show, and errors come from the call."""
        store.put(id="a", x="old", n=1)
        store.put(id="b", x=5)
        reader = store.reader
        strings = reader.multiget_string_values(str_primary_keys=["a", "a"], field_names=["x"])
        values, whole = reader.multiget_values(["a"], ["x", "n"]), reader.multiget_documents(["a"], ["x"])
        store.put(id="a", x="new")
        with pytest.raises(FieldTypeError, match="'x'"):
            reader.multiget_string_values(str_primary_keys=["a", "b"], field_names=["x"])
        with pytest.raises(FieldTypeError, match="'n'"):
            reader.multiget_bytes_values(str_primary_keys=["a"], field_names=["x", "n"])
        store.restart_reader()
        assert (list(strings), list(values), list(whole)) == (["old", "old"], ["old", 1], [{"x": "old"}])

    def test_multiget_documents(self, store: LiveStore) -> None:
        """multiget_documents gives what get_document gives, for each key in order."""
        store.put(id="a", x=1, y="2")
        store.put(id="b")
        keys: list[Key] = ["b", b"a", "nope", bytearray(b"b"), "a"]
        assert list(store.reader.multiget_documents(keys)) == [
            {"id": "b"},
            {"id": "a", "x": 1, "y": "2"},
            None,
            {"id": "b"},
            {"id": "a", "x": 1, "y": "2"},
        ]
        assert list(store.reader.multiget_documents(keys, ["y", "id"])) == [
            {"id": "b"},
            {"y": "2", "id": "a"},
            None,
            {"id": "b"},
            {"y": "2", "id": "a"},
        ]

    def test_scan(self, store: LiveStore) -> None:
        """A scan gives every document once, with all fields or the named ones, also over many pages."""
        assert list(store.reader.scan()) == []
        rows = [{"id": f"{n:05d}" + "k" * (n % 3 * 400), "x": n, f"f{n % 7}": str(n)} for n in range(3_000)]
        store.shown(store.writer.upsert_fields_batch(documents(rows)))
        found = list(store.reader.scan())
        assert len(found) == 3_000
        assert dict(found) == {row["id"]: row for row in rows}
        assert dict(store.reader.scan(["x", "nope"])) == {row["id"]: {"x": row["x"]} for row in rows}
        assert {key: len(fields) for key, fields in store.reader.scan([])} == {row["id"]: 0 for row in rows}

    def test_rows_tell_types(self, store: LiveStore) -> None:
        """get_rows and scan_rows give each value with its exact type; of named fields in the order asked, duplicates
        repeated and None for what is absent; of all fields only what is there."""
        builder = IKVDocumentBuilder().put_string_field("id", "a").put_int32_field("n", 7).put_float32_field("f", 0.5)
        store.shown(store.writer.upsert_fields(builder.put_bytes_field("b", b"").put_bool_field("t", False).build()))
        store.put(id="b", n=7, f=0.5)
        a = {
            "id": (FieldType.STRING, "a"),
            "n": (FieldType.INT32, 7),
            "f": (FieldType.FLOAT32, 0.5),
            "b": (FieldType.BYTES, b""),
            "t": (FieldType.BOOLEAN, False),
        }
        b = {"id": (FieldType.STRING, "b"), "n": (FieldType.INT64, 7), "f": (FieldType.FLOAT64, 0.5)}
        keys: list[Key] = ["b", b"a", "nope", bytearray(b"b")]
        assert [row and _typed(row) for row in store.reader.get_rows(keys)] == [b, a, None, b]
        assert {key: _typed(row) for key, row in store.reader.scan_rows()} == {"a": a, "b": b}
        int32, int64, boolean = FieldType.INT32, FieldType.INT64, FieldType.BOOLEAN
        names = ("n", "t", "nope", "n")
        assert [row and (*row[:2], list(row[2])) for row in store.reader.get_rows(["b", "a"], names)] == [
            (names, (int64, None, None, int64), [7, None, None, 7]),
            (names, (int32, boolean, None, int32), [7, False, None, 7]),
        ]
        assert [(key, list(row[2])) for key, row in sorted(store.reader.scan_rows(["t", "n"]))] == [
            ("a", [False, 7]),
            ("b", [None, 7]),
        ]
        assert store.reader.get_rows([]) == []
        assert [row and row[0] for row in store.reader.get_rows(["a", "nope"], [])] == [(), None]

    def test_c6_scan_beside_writes(self, store: LiveStore) -> None:
        """With writes while it goes on, a scan gives every document that was there throughout, once."""
        stable = [{"id": f"s{n:04d}", "x": n} for n in range(2_500)]
        store.shown(store.writer.upsert_fields_batch(documents(stable)))
        found: list[Any] = []
        for turn, (key, _) in enumerate(store.reader.scan()):
            found.append(key)
            if turn % 250 == 0:
                store.writer.upsert_fields_batch(documents({"id": f"t{turn}-{n}", "y": n} for n in range(5)))
                store.writer.upsert_fields(document(id=f"s{turn * 7 % 2_500:04d}", extra=turn))
                store.shown(store.writer.delete_document(document(id=f"t{turn}-0")))
        assert len(found) == len(set(found))
        assert {row["id"] for row in stable} <= set(found)

    def test_c6_scan_holds_no_snapshot(self, store: LiveStore) -> None:
        """A scan that pauses holds no old state: its later pages are read when they are asked for."""
        rows = [{"id": f"s{n:04d}", "x": 1} for n in range(2_500)]
        store.shown(store.writer.upsert_fields_batch(documents(rows)))
        scan = store.reader.scan()
        found = [next(scan)]
        store.shown(store.writer.upsert_fields_batch(documents({**row, "x": 2} for row in rows)))
        found.extend(scan)
        assert sorted(key for key, _ in found) == [row["id"] for row in rows]
        assert found[-1][1]["x"] == 2

    def test_c6_reads_are_of_one_state(self, store: LiveStore) -> None:
        """While a writer works, every read shows one state: a document's fields of one event, a drop of all fields or
        of none, documents no further apart than the log had them."""
        keys, done = ["a", "b"], threading.Event()

        def write() -> None:
            try:
                for n in range(1, 46):
                    batch = [document(id=key, x=n, y=n, **{f"z{n}": n}) for key in keys]
                    token = store.writer.upsert_fields_batch(batch)
                    if n % 3 == 0:
                        store.shown(token)
                    if n % 5 == 0:
                        store.shown(store.writer.drop_fields_by_name(["x", "y"]))
            finally:
                done.set()

        def read() -> int:
            seen = set()
            while not done.is_set():
                one = store.reader.get_document("a", ["x", "y"]) or {}
                assert one.get("x") == one.get("y")
                ax, ay, bx, by = store.reader.multiget_values(keys, ["x", "y"])
                assert (ax, bx) == (ay, by)
                if ax is not None and bx is not None:
                    assert int(ax) - int(bx) in (0, 1), "b is written right after a"
                else:
                    assert bx is None, "a is written before b"
                seen.add(ax)
            return len(seen)

        _ = store.reader, store.writer
        _, *states = run_threads([write, read, read])
        assert max(states) > 1, "the readers never ran beside the writer"

    def test_threads_share_clients(self, store: LiveStore) -> None:
        """One writer and one reader serve many threads: every write arrives, and each thread reads its own."""

        def work(who: int) -> None:
            for n in range(20):
                key = f"{who}-{n}"
                store.shown(store.writer.upsert_fields(document(id=key, x=n, who=str(who))))
                assert store.reader.get_document(key) == {"id": key, "x": n, "who": str(who)}

        _ = store.reader, store.writer
        run_threads([lambda: work(0), lambda: work(1), lambda: work(2), lambda: work(3)])
        assert store.reader.count() == 80

    def test_one_reader_in_several_threads(self, store: LiveStore) -> None:
        """A reader that one thread started serves another."""
        store.put(id="a", x=1)
        assert started(lambda: store.reader.get_int64_value("a", "x")).finish() == 1

    # -- lives ---------------------------------------------------------------------------------

    def test_reader_life(self, store: LiveStore) -> None:
        """Before startup calls raise NotStartedError, after shutdown ShutDownError; both may be repeated, and
        a reader may start again."""
        store.put(id="a", x=1)
        reader = create_new_reader(store.builder("other").build())
        calls = (
            lambda: reader.get_value("a", "x"),
            lambda: reader.get_int64_value("a", "x"),
            lambda: reader.get_document("a"),
            lambda: reader.multiget_values(["a"], ["x"]),
            lambda: reader.get_rows(["a"]),
            lambda: next(reader.scan(), None),
            lambda: next(reader.scan_rows(), None),
            reader.count,
            reader.stats,
        )
        assert reader.health().state == "stopped"
        for call in calls:
            with pytest.raises(NotStartedError):
                call()
        reader.shutdown()
        reader.startup()
        reader.startup()
        assert reader.get_value("a", "x") == 1
        assert reader.health().state == "ready"
        reader.shutdown()
        reader.shutdown()
        assert reader.health().state == "stopped"
        for call in calls:
            with pytest.raises(ShutDownError):
                call()
        with reader:
            assert reader.get_value("a", "x") == 1
        with pytest.raises(ShutDownError):
            reader.count()

    def test_writer_life(self, store: LiveStore) -> None:
        """The same for writers."""
        writer = create_new_writer(store.options)
        with pytest.raises(NotStartedError):
            writer.upsert_fields(document(id="a"))
        writer.shutdown()
        with writer:
            writer.startup()
            store.shown(writer.upsert_fields(document(id="a", x=1)))
        writer.shutdown()
        with pytest.raises(ShutDownError):
            writer.upsert_fields(document(id="b"))
        assert [key for key, _ in store.reader.scan()] == ["a"]

    def test_readers_of_one_mount(self, store: LiveStore) -> None:
        """Two readers of one mount both serve; shutting one down leaves the other."""
        store.put(id="a", x=1)
        other = store.new_reader()
        assert other.get_value("a", "x") == 1
        store.restart_reader()
        other.wait_for(store.writer.upsert_fields(document(id="b", x=2)), timeout=60)
        assert (other.get_value("b", "x"), other.count()) == (2, 2)

    def test_wrong_passkey(self, store: LiveStore) -> None:
        """A wrong passkey, where the transport keeps them, and an unknown store are refused alike at startup."""
        builders = [
            store.builder("x").with_store_name("no-such-store"),
            store.builder("x").with_account_id("no-such-account"),
        ]
        if self.transport_info.keeps_passkeys:
            builders.append(store.builder("x").with_account_passkey("wrong"))
        for builder in builders:
            options = builder.build()
            told = str(StoreAccessError(str(options.store_name), str(options.account_id)))
            for client in (create_new_reader(options), create_new_writer(options)):
                with pytest.raises(StoreAccessError) as refused:
                    client.startup()
                assert str(refused.value) == told


def _typed(row: Row) -> dict[str, Any]:
    """Type and value of each field of a row, none of which may repeat."""
    names, types, values = row
    assert len(set(names)) == len(names)
    return dict(zip(names, zip(types, values, strict=True), strict=True))
