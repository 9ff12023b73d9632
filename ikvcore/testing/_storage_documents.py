"""StorageSuite, part one: upserts, deletes, types, projections, keys and values (C3.1 to C3.9)."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from ikvcore.fields import FieldType, decode
from ikvcore.models import Projection, Upsert, storage_key
from ikvcore.protocols import Storage
from ikvcore.testing._storage_base import (
    KEY_FIELD,
    Ingester,
    StorageBase,
    as_document,
    bits,
    clear,
    contents,
    delete,
    delete_fields,
    read,
    upsert,
)

__all__ = ["StorageDocuments"]


class StorageDocuments(StorageBase):
    """One document at a time."""

    def test_empty(self, storage: Storage) -> None:
        """A new storage holds nothing."""
        assert read(storage, b"a") is None
        assert storage.get_many([storage_key(0, b"a")], Projection(["x"])) == [None]
        assert (contents(storage), storage.count()) == ({}, 0)

    def test_upsert_is_a_union(self, ingester: Ingester, storage: Storage) -> None:
        """An upsert sets the fields that it names and leaves the others."""
        ingester.apply(upsert(b"a", x="1", y=2))
        ingester.apply(upsert(b"a", y=3, z=b"4"))
        assert read(storage, b"a") == as_document(x="1", y=3, z=b"4")
        ingester.apply(upsert(b"a", x="5"), upsert(b"a", w=True))
        assert read(storage, b"a") == as_document(x="5", y=3, z=b"4", w=True)
        assert storage.count() == 1

    def test_only_a_key(self, ingester: Ingester, storage: Storage) -> None:
        """A document that holds its key alone exists, is read and is counted."""
        ingester.apply(upsert(b"a"))
        assert read(storage, b"a") == {}
        assert _row(storage, b"a", ["x"]) == [("x", None, None)]
        assert contents(storage) == {(0, b"a"): {}}

    def test_type_change(self, ingester: Ingester, storage: Storage) -> None:
        """The last upsert decides a field's type, in one commit and over several; other documents keep theirs."""
        ingester.apply(upsert(b"a", x="1"), upsert(b"b", x="1"))
        ingester.apply(upsert(b"a", x=2))
        assert read(storage, b"a") == as_document(x=2)
        ingester.apply(upsert(b"a", x=2.5), upsert(b"a", x=b"3"))
        assert read(storage, b"a") == as_document(x=b"3")
        assert read(storage, b"b") == as_document(x="1")
        ingester.apply(upsert(b"a", x=True))
        assert _row(storage, b"a", ["x"]) == [("x", FieldType.BOOLEAN, True)]
        ingester.apply(upsert(b"a", x=(FieldType.INT32, 7)), upsert(b"b", x=(FieldType.FLOAT32, 0.5)))
        assert _row(storage, b"a", ["x"]) == [("x", FieldType.INT32, 7)]
        assert _row(storage, b"b", ["x"]) == [("x", FieldType.FLOAT32, 0.5)]

    def test_delete_fields(self, ingester: Ingester, storage: Storage) -> None:
        """A delete of fields removes them from its document alone; unknown names and missing documents are no-ops."""
        ingester.apply(upsert(b"a", x="1", y="2", z="3"), upsert(b"b", x="1"))
        ingester.apply(delete_fields(b"a", "x", "z", "nope"), delete_fields(b"missing", "x"))
        assert contents(storage) == {(0, b"a"): as_document(y="2"), (0, b"b"): as_document(x="1")}
        ingester.apply(delete_fields(b"a", "y"), delete_fields(b"a", "never-seen"))
        assert contents(storage) == {(0, b"a"): {}, (0, b"b"): as_document(x="1")}

    def test_delete_document(self, ingester: Ingester, storage: Storage) -> None:
        """A deleted document is gone from every call; deleting it again is a no-op; an upsert starts from empty."""
        ingester.apply(upsert(b"a", x="1", y="2"), upsert(b"b", x="1"))
        ingester.apply(delete(b"a"), delete(b"missing"))
        assert contents(storage) == {(0, b"b"): as_document(x="1")}
        assert storage.get_many([storage_key(0, b"a"), storage_key(0, b"missing")], Projection(["x"])) == [None, None]
        ingester.apply(delete(b"a"))
        ingester.apply(upsert(b"a", y="3"))
        assert contents(storage) == {(0, b"a"): as_document(y="3"), (0, b"b"): as_document(x="1")}

    def test_order_within_one_commit(self, ingester: Ingester, storage: Storage) -> None:
        """Mutations of one commit take effect in their order."""
        ingester.apply(
            upsert(b"a", x="1", y="1"),
            delete(b"a"),
            upsert(b"a", y="2"),
            upsert(b"b", x="1"),
            delete_fields(b"b", "x"),
            upsert(b"b", x="2", y="2"),
            delete_fields(b"b", "y"),
            upsert(b"c", x="1"),
            delete(b"c"),
            delete_fields(b"d", "x"),
            upsert(b"d", x="1"),
        )
        assert contents(storage) == {
            (0, b"a"): as_document(y="2"),
            (0, b"b"): as_document(x="2"),
            (0, b"d"): as_document(x="1"),
        }

    def test_partitions_are_apart(self, ingester: Ingester, storage: Storage) -> None:
        """One key in two partitions is two documents, which are written, deleted, cleared and counted apart."""
        ingester.apply(*(upsert(b"a", partition, x=partition) for partition in (0, 1, 255, 256, 65_535)))
        assert storage.count() == 5
        ingester.apply(delete(b"a", 1), delete_fields(b"a", "x", partition=256), clear(65_535))
        assert contents(storage) == {(0, b"a"): as_document(x=0), (255, b"a"): as_document(x=255), (256, b"a"): {}}

    def test_named_projection(self, ingester: Ingester, storage: Storage) -> None:
        """A named projection gives its fields in the order asked, duplicates repeated, None with no type for what is
        absent, and the key where it is asked for."""
        ingester.apply(upsert(b"a", x="1", y=2, e=""))
        expected = [
            ("y", FieldType.INT64, 2),
            ("nope", None, None),
            ("x", FieldType.STRING, "1"),
            ("y", FieldType.INT64, 2),
            (KEY_FIELD, FieldType.BYTES, b"a"),
            ("e", FieldType.STRING, ""),
            ("nope", None, None),
        ]
        assert _row(storage, b"a", [name for name, _, _ in expected]) == expected
        assert _row(storage, b"a", []) == []
        assert storage.get(storage_key(0, b"missing"), Projection(["x"])) is None

    def test_projection_is_reusable(self, ingester: Ingester, storage: Storage) -> None:
        """One projection serves documents of different fields and types, and states before and after a change."""
        projection = Projection(["x", "y"])
        ingester.apply(upsert(b"a", x="1"), upsert(b"b", y=2, x=3))
        keys = [storage_key(0, key) for key in (b"a", b"b", b"a")]
        rows = storage.get_many(keys, projection)
        assert [list(row[2]) if row else None for row in rows] == [["1", None], [3, 2], ["1", None]]
        ingester.apply(upsert(b"a", y=b"new"), delete_fields(b"b", "x"))
        rows = storage.get_many(keys, projection)
        assert [list(row[2]) if row else None for row in rows] == [["1", b"new"], [None, 2], ["1", b"new"]]
        row = storage.get(keys[1], projection)
        assert row is not None
        assert (list(row[1]), list(row[2])) == ([None, FieldType.INT64], [None, 2])

    def test_get_many_aligns(self, ingester: Ingester, storage: Storage) -> None:
        """get_many answers in the order asked over all partitions, repeats duplicates, and holds the place of what is
        missing with None."""
        ingester.apply(upsert(b"a", 0, x="a0"), upsert(b"a", 1, x="a1"), upsert(b"b", 1, y="b1"))
        asked = [(1, b"b"), (0, b"b"), (0, b"a"), (1, b"a"), (1, b"b"), (2, b"a"), (0, b"a")]
        rows = storage.get_many([storage_key(*place) for place in asked], Projection(["x"]))
        values = [None if row is None else list(row[2]) for row in rows]
        assert values == [[None], None, ["a0"], ["a1"], [None], None, ["a0"]]
        assert storage.get_many([], Projection(["x"])) == []

    def test_empty_values(self, ingester: Ingester, storage: Storage) -> None:
        """Empty strings and empty bytes are values, told apart from each other and from what is absent."""
        ingester.apply(upsert(b"a", s="", b=b"", t="x", c=b"\x00"))
        assert read(storage, b"a") == as_document(s="", b=b"", t="x", c=b"\x00")
        assert _row(storage, b"a", ["s", "b", "n"]) == [
            ("s", FieldType.STRING, ""),
            ("b", FieldType.BYTES, b""),
            ("n", None, None),
        ]

    def test_every_type(self, ingester: Ingester, storage: Storage) -> None:
        """Every type comes back as it was, at the ends of its range too."""
        values: dict[str, object] = {
            "i32": (FieldType.INT32, -(2**31)),
            "i32b": (FieldType.INT32, 2**31 - 1),
            "i64": -(2**63),
            "i64b": 2**63 - 1,
            "f32": (FieldType.FLOAT32, 1.5),
            "f64": 5e-324,
            "s": "\x00é\U0001f600e\u0301",
            "b": bytes(range(256)),
            "t": True,
            "f": False,
        }
        ingester.apply(upsert(b"a", **values))
        found = read(storage, b"a")
        assert found == as_document(**values)
        assert {name: type(value) for name, (_, value) in found.items()} == {
            **dict.fromkeys(("i32", "i32b", "i64", "i64b"), int),
            **dict.fromkeys(("f32", "f64"), float),
            "s": str,
            "b": bytes,
            "t": bool,
            "f": bool,
        }

    @pytest.mark.parametrize(
        ("field_type", "data"),
        [
            (FieldType.FLOAT64, struct.pack("<d", -0.0)),
            (FieldType.FLOAT64, struct.pack("<d", float("inf"))),
            (FieldType.FLOAT64, struct.pack("<d", float("-inf"))),
            (FieldType.FLOAT64, bytes.fromhex("efbeadde0000f87f")),
            (FieldType.FLOAT64, bytes.fromhex("000000000000f8ff")),
            (FieldType.FLOAT32, struct.pack("<f", -0.0)),
            (FieldType.FLOAT32, struct.pack("<f", float("-inf"))),
            (FieldType.FLOAT32, bytes.fromhex("efbeddff")),
        ],
    )
    def test_floats_are_bit_equal(
        self, ingester: Ingester, storage: Storage, field_type: FieldType, data: bytes
    ) -> None:
        """NaN with any payload, -0.0 and infinities come back with the bits that they had, after a union too."""
        ingester.apply(Upsert(0, b"a", {KEY_FIELD: (FieldType.BYTES, b"a"), "x": (field_type, data)}, None))
        for _ in range(2):
            found = read(storage, b"a")
            assert found is not None
            assert found["x"][0] is field_type
            assert bits(found["x"][1]) == bits(decode(field_type, data))
            ingester.apply(upsert(b"a", y="other"))

    def test_field_names(self, ingester: Ingester, storage: Storage) -> None:
        """Field names are case-sensitive, of any characters and length, and never confused with each other."""
        names = [
            "x",
            "X",
            "x ",
            " x",
            "é",
            "e\u0301",
            "\x00",
            "x\x00",
            "\U0001f600",
            "n" * 5_000,
            "n" * 5_001,
            "0",
            "id2",
        ]
        names += ["__class__", "SELECT", "a.b", "a/b", '"', "'"]
        ingester.apply(upsert(b"a", **{name: index for index, name in enumerate(names)}))
        assert read(storage, b"a") == as_document(**{name: index for index, name in enumerate(names)})
        assert [value for _, _, value in _row(storage, b"a", names)] == list(range(len(names)))

    @pytest.mark.parametrize(
        "length", [1, 2, 255, 256, 500, 505, 506, 507, 508, 509, 510, 511, 512, 600, 4_096, 65_535]
    )
    def test_key_lengths(self, ingester: Ingester, storage: Storage, length: int) -> None:
        """Keys of 1 to 65,535 bytes, told apart by one byte wherever it stands, are read, scanned and deleted alone."""
        keys = {bytes([65]) * length, b"A" * (length - 1) + b"B", b"B" + b"A" * (length - 1)}
        keys |= {b"A" * (length - 1) + b"\x00"}
        ordered = sorted(keys)
        ingester.apply(*(upsert(key, x=index) for index, key in enumerate(ordered)))
        assert contents(storage) == {(0, key): as_document(x=index) for index, key in enumerate(ordered)}
        rows = storage.get_many([storage_key(0, key) for key in ordered], Projection(["x", KEY_FIELD]))
        assert [list(row[2]) if row else None for row in rows] == [[i, key] for i, key in enumerate(ordered)]
        assert read(storage, ordered[0] + b"\x00") is None
        ingester.apply(delete(ordered[0]), upsert(ordered[-1], y="more"))
        remaining = {(0, key): as_document(x=index) for index, key in enumerate(ordered)}
        del remaining[(0, ordered[0])]
        if len(ordered) > 1:
            remaining[(0, ordered[-1])] = as_document(x=len(ordered) - 1, y="more")
        assert contents(storage) == remaining

    def test_keys_that_look_like_digests(self, ingester: Ingester, storage: Storage) -> None:
        """A short key that equals a digest of a long one, under any tag byte, is another document."""
        long_key = b"k" * 600
        digests = [hashlib.sha256(long_key).digest(), hashlib.blake2b(long_key, digest_size=32).digest()]
        digests += [hashlib.blake2b(long_key, digest_size=16).digest(), hashlib.sha1(long_key).digest()]
        tags = [b"", *(bytes([tag]) for tag in range(256))]
        expected = {tag + digest: index for index, (tag, digest) in enumerate((t, d) for t in tags for d in digests)}
        ingester.apply(upsert(long_key, x="long"), *(upsert(key, x=index) for key, index in expected.items()))
        assert read(storage, long_key) == as_document(x="long")
        assert storage.count() == len(expected) + 1
        assert all(read(storage, key) == as_document(x=index) for key, index in expected.items())

    def test_many_long_keys(self, ingester: Ingester, storage: Storage, directory: Path) -> None:
        """Hundreds of keys with one 600-byte prefix stay distinct in both partitions, also through a new instance."""
        keys = [b"p" * 600 + b"%04d" % i for i in range(200)] + [b"p" * n for n in range(500, 620)]
        ingester.apply(*(upsert(key, partition, x=i) for i, key in enumerate(keys) for partition in (0, 7)))
        expected = {(partition, key): as_document(x=i) for i, key in enumerate(keys) for partition in (0, 7)}
        assert contents(storage, limit=7) == expected
        again = self.reopened(storage, directory)
        try:
            assert contents(again) == expected
        finally:
            again.close()

    def test_huge_values(self, ingester: Ingester, storage: Storage) -> None:
        """Values of 8 MiB are kept beside small ones, in unions and after deletes."""
        text, data = "é" * (4 << 20), bytes(range(256)) * (32 << 10)
        ingester.apply(upsert(b"a", x=text, y=1), upsert(b"b", z="small"))
        ingester.apply(upsert(b"a", w=data))
        assert read(storage, b"a") == as_document(x=text, y=1, w=data)
        ingester.apply(delete_fields(b"a", "x"))
        assert contents(storage) == {(0, b"a"): as_document(y=1, w=data), (0, b"b"): as_document(z="small")}


def _row(storage: Storage, key: bytes, names: list[str]) -> list[tuple[str, FieldType | None, object]]:
    row = storage.get(storage_key(0, key), Projection(names))
    assert row is not None
    return list(zip(*row, strict=True))
