"""StoreSuite, part one: what writes mean (C3.1 to C3.3, C3.5 to C3.9)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.errors import (
    FieldNameError,
    FieldTypeError,
    InvalidDocumentError,
    InvalidKeyError,
    KeyTypeError,
)
from ikvcore.testing._live import LiveStore, document, documents
from ikvcore.testing._store_base import MakeStore, StoreBase
from ikvcore.tokens import Token

__all__ = ["StoreDocuments"]


class StoreDocuments(StoreBase):
    """Documents from the writer to the reader."""

    def test_c3_1_upsert_is_a_union(self, store: LiveStore) -> None:
        """An upsert sets the fields that it names and leaves the others."""
        store.put(id="a", x="1", y=2)
        store.put(id="a", y=3, z=b"4")
        assert store.reader.get_document("a") == {"id": "a", "x": "1", "y": 3, "z": b"4"}

    def test_c3_2_keys_are_required(self, store: LiveStore) -> None:
        """A document without the primary key is refused by every call, and nothing of the call is published."""
        store.put(id="a", x=1)
        before = store.log.bounds()
        nameless = document(x=1)
        writer = store.writer
        calls: tuple[Callable[[], object], ...] = (
            lambda: writer.upsert_fields(nameless),
            lambda: writer.upsert_fields(document()),
            lambda: writer.delete_fields(nameless, ["x"]),
            lambda: writer.delete_document(nameless),
            lambda: writer.upsert_fields_batch([document(id="b", x=1), nameless]),
            lambda: writer.delete_fields_batch([document(id="a"), nameless], ["x"]),
            lambda: writer.delete_document_batch([document(id="a"), nameless]),
        )
        for call in calls:
            with pytest.raises(InvalidDocumentError, match="'id'"):
                call()
        assert store.log.bounds() == before
        assert store.reader.count() == 1

    def test_c3_2_the_key_is_a_field(self, store: LiveStore) -> None:
        """The primary key is a readable field, and a document that holds it alone exists and is counted."""
        store.put(id="a")
        reader = store.reader
        assert reader.count() == 1
        assert (reader.get_string_value("a", "id"), reader.get_value("a", "id")) == ("a", "a")
        assert reader.get_document("a") == {"id": "a"}
        assert list(reader.multiget_string_values(str_primary_keys=["a", "b"], field_names=["id"])) == ["a", None]
        assert list(reader.scan()) == [("a", {"id": "a"})]

    def test_c3_3_delete_fields(self, store: LiveStore) -> None:
        """delete_fields removes fields of its document; unknown names, missing documents and the key stay out of it."""
        store.put(id="a", x=1, y=2, z=3)
        store.put(id="b", x=1)
        writer = store.writer
        writer.delete_fields(document(id="a", ignored=1), ["x", "z", "nope", "id"])
        store.shown(writer.delete_fields(document(id="missing"), ["x"]))
        assert store.reader.get_document("a") == {"id": "a", "y": 2}
        assert store.reader.get_document("b") == {"id": "b", "x": 1}
        assert store.reader.get_document("missing") is None
        assert writer.delete_fields(document(id="a"), ["id"]) == Token()
        assert store.reader.count() == 2

    def test_c3_3_delete_document(self, store: LiveStore) -> None:
        """A deleted document is gone; deleting it again is a no-op; a later upsert starts from empty."""
        store.put(id="a", x=1, y=2)
        store.put(id="b", x=1)
        store.writer.delete_document(document(id="a", x=5))
        store.shown(store.writer.delete_document(document(id="a")))
        assert (store.reader.get_document("a"), store.reader.count()) == (None, 1)
        store.put(id="a", y=3)
        assert store.reader.get_document("a") == {"id": "a", "y": 3}

    def test_batches(self, store: LiveStore) -> None:
        """Batches do what their single forms do, in their order."""
        writer = store.writer
        writer.upsert_fields_batch(documents({"id": str(n % 5), f"f{n}": n, "x": n} for n in range(20)))
        writer.delete_fields_batch(documents({"id": key} for key in "01"), ["x", "f0"])
        store.shown(writer.delete_document_batch(documents({"id": key} for key in "34")))
        assert dict(store.reader.scan()) == {
            "0": {"id": "0", "f5": 5, "f10": 10, "f15": 15},
            "1": {"id": "1", "f1": 1, "f6": 6, "f11": 11, "f16": 16},
            "2": {"id": "2", "f2": 2, "f7": 7, "f12": 12, "f17": 17, "x": 17},
        }

    def test_c3_5_nothing_to_do(self, store: LiveStore) -> None:
        """Empty lists of names, prefixes, fields or documents are no-ops: the empty token, and nothing published."""
        store.put(id="a", x=1)
        before, writer = store.log.bounds(), store.writer
        for token in (
            writer.delete_fields(document(id="a"), []),
            writer.delete_fields_batch([document(id="a")], []),
            writer.delete_fields_batch([], ["x"]),
            writer.upsert_fields_batch([]),
            writer.delete_document_batch([]),
            writer.drop_fields_by_name([]),
            writer.drop_fields_by_name_prefix([]),
        ):
            assert token == Token()
            store.reader.wait_for(token, timeout=0)
        assert store.log.bounds() == before
        assert store.reader.get_document("a") == {"id": "a", "x": 1}

    def test_c3_6_the_last_event_wins(self, store: LiveStore) -> None:
        """The log's order decides, also where it changes a field's type."""
        store.writer.upsert_fields_batch([document(id="a", x=value) for value in (1, "two", 3.0, b"four")])
        store.put(id="b", x="text")
        assert store.reader.get_document("a") == {"id": "a", "x": b"four"}
        store.put(id="a", x=True)
        assert store.reader.get_bool_value("a", "x") is True
        with pytest.raises(FieldTypeError):
            store.reader.get_bytes_value("a", "x")
        assert store.reader.get_string_value("b", "x") == "text"

    def test_c3_7_str_and_bytes_are_one_key(self, store: LiveStore) -> None:
        """The str key "é" and its UTF-8 bytes are one key, and it reads back as the store's type."""
        store.put(id="é", x=1)
        store.put(id="é".encode(), y=2)
        for key in ("é", "é".encode(), bytearray("é".encode())):
            assert store.reader.get_document(key) == {"id": "é", "x": 1, "y": 2}
            assert store.reader.get_string_value(key, "id") == "é"
        assert (store.reader.count(), [key for key, _ in store.reader.scan()]) == (1, ["é"])
        store.shown(store.writer.delete_document(document(id="é".encode())))
        assert store.reader.count() == 0

    def test_c3_7_bytes_keyed_store(self, make: MakeStore) -> None:
        """In a BYTES-keyed store any bytes are a key, and keys read back as bytes."""
        store = make(primary_key="k", primary_key_type="BYTES")
        for key in (b"\xff\xfe", b"\x00", b"abc"):
            store.put(k=key, x=1)
        store.put(k="abc", y=2)
        assert store.reader.get_document("abc") == {"k": b"abc", "x": 1, "y": 2}
        assert store.reader.get_bytes_value(b"\xff\xfe", "k") == b"\xff\xfe"
        assert sorted(key for key, _ in store.reader.scan()) == [b"\x00", b"abc", b"\xff\xfe"]

    @pytest.mark.parametrize(
        "key", ["\x00", "a\x00b", "k" * 510, "k" * 600, "é" * 300, "k" * 65_535, " ", "\U0001f600"]
    )
    def test_c3_7_any_key(self, store: LiveStore, key: str) -> None:
        """Keys of 1 to 65,535 bytes are kept whole, NUL included, and told apart from those that are alike."""
        alike = key[:-1] + "~"
        store.put(id=key, x=1)
        store.put(id=alike, x=2)
        assert store.reader.get_document(key) == {"id": key, "x": 1}
        assert store.reader.get_document(key.encode()) == {"id": key, "x": 1}
        for each, x in ((key, 1), (alike, 2)):
            assert store.reader.get_int64_value(each, "x") == store.reader.get_int64_value(each.encode(), "x") == x
        assert store.reader.get_document(key[:-1] + "!") is None
        assert dict(store.reader.scan()) == {key: {"id": key, "x": 1}, alike: {"id": alike, "x": 2}}
        store.shown(store.writer.delete_document(document(id=key)))
        assert [each for each, _ in store.reader.scan()] == [alike]

    @pytest.mark.parametrize("key", ["", b"", b"\xff", b"a\xc3", "k" * 65_536, "é" * 32_768])
    def test_c3_7_impossible_keys(self, store: LiveStore, key: Any) -> None:
        """An empty, over-long or undecodable key is refused by writer and reader, and nothing is published."""
        before = store.log.bounds()
        for call in (
            lambda: store.writer.upsert_fields(document(id=key, x=1)),
            lambda: store.writer.delete_document(document(id=key)),
            lambda: store.writer.delete_fields(document(id=key), ["x"]),
            lambda: store.reader.get_value(key, "x"),
            lambda: store.reader.get_document(key),
            lambda: store.reader.multiget_documents([key]),
        ):
            with pytest.raises(InvalidKeyError):
                call()
        assert store.log.bounds() == before

    @pytest.mark.parametrize("key", [1, 1.5, None, True, ("a",)])
    def test_c3_7_keys_of_other_types(self, store: LiveStore, key: Any) -> None:
        """A key that is no str, bytes or bytearray raises KeyTypeError; a document's key of another type is refused."""
        with pytest.raises(KeyTypeError):
            store.reader.get_value(key, "x")
        with pytest.raises(KeyTypeError):
            store.reader.multiget_values([key], ["x"])
        if isinstance(key, (int, float)):
            before = store.log.bounds()
            with pytest.raises(InvalidKeyError):
                store.writer.upsert_fields(document(id=key))
            assert store.log.bounds() == before

    def test_c3_8_empty_values(self, store: LiveStore) -> None:
        """Empty strings and bytes come back as "" and b"" from every call."""
        store.put(id="a", s="", b=b"")
        reader, fields = store.reader, ["s", "b", "n"]
        assert (reader.get_string_value("a", "s"), reader.get_bytes_value("a", "b")) == ("", b"")
        assert (reader.get_value("a", "s"), reader.get_value("a", "b"), reader.get_value("a", "n")) == ("", b"", None)
        assert reader.get_bytes_value("a", "s") == b""
        assert reader.get_document("a", fields) == {"s": "", "b": b""}
        assert list(reader.multiget_values(["a"], fields)) == ["", b"", None]
        assert list(reader.multiget_string_values(str_primary_keys=["a"], field_names=["s", "n"])) == ["", None]
        assert list(reader.multiget_bytes_values(str_primary_keys=["a"], field_names=["b", "s"])) == [b"", b""]
        assert list(reader.multiget_documents(["a"])) == [{"id": "a", "s": "", "b": b""}]
        assert list(reader.scan()) == [("a", {"id": "a", "s": "", "b": b""})]

    def test_c3_8_floats_are_bit_equal(self, store: LiveStore) -> None:
        """NaN with its payload, -0.0 and infinities come back bit-equal."""
        nan = struct.unpack("<d", bytes.fromhex("efbeadde0000f87f"))[0]
        values = {"nan": nan, "zero": -0.0, "inf": math.inf, "minus": -math.inf, "tiny": 5e-324}
        store.put(id="a", **values)
        store.put(id="a", other=1)
        for name, value in values.items():
            found = store.reader.get_float64_value("a", name)
            assert found is not None
            assert struct.pack("<d", found) == struct.pack("<d", value)

    def test_every_type(self, store: LiveStore) -> None:
        """Each type is written by its put method and read by its getter."""
        store.shown(store.writer.upsert_fields(every_type("a")))
        reader = store.reader
        assert reader.get_string_value("a", "string") == "text é\x00"
        assert reader.get_bytes_value("a", "bytes") == b"\x00\xff"
        assert (reader.get_int32_value("a", "int32"), reader.get_int64_value("a", "int64")) == (-(2**31), 2**63 - 1)
        assert (reader.get_float32_value("a", "float32"), reader.get_float64_value("a", "float64")) == (0.5, 0.1)
        assert (reader.get_bool_value("a", "bool"), reader.get_bool_value("a", "nope")) == (False, None)
        assert reader.get_document("a") == every_type("a").to_dict()

    def test_c3_9_missing_is_none(self, store: LiveStore) -> None:
        """A missing document or field reads as None from every getter."""
        store.put(id="a", x=1)
        reader = store.reader
        for key, name in (("a", "nope"), ("missing", "x")):
            for getter in _getters(reader).values():
                assert getter(key, name) is None
            assert reader.get_value(key, name) is None
        assert reader.get_document("missing") is None
        assert reader.get_document("missing", ["x"]) is None
        assert reader.get_document("a", ["nope"]) == {}
        assert reader.get_document("a", []) == {}

    def test_c3_9_type_errors(self, store: LiveStore) -> None:
        """Reading a field as another type raises FieldTypeError that names the field and both types; get_bytes_value of
        a STRING alone gives its UTF-8 bytes."""
        store.shown(store.writer.upsert_fields(every_type("a")))
        for actual in _getters(store.reader):
            for wanted, getter in _getters(store.reader).items():
                if (actual, wanted) == ("string", "bytes"):
                    assert getter("a", actual) == "text é\x00".encode()
                elif actual != wanted:
                    with pytest.raises(FieldTypeError) as raised:
                        getter("a", actual)
                    said = str(raised.value)
                    assert f"'{actual}'" in said
                    assert TYPE_NAMES[actual] in said
                    assert TYPE_NAMES[wanted] in said

    @pytest.mark.parametrize("name", ["", 1, None, b"x"])
    def test_impossible_field_names(self, store: LiveStore, name: Any) -> None:
        """A field name that is empty or no str raises FieldNameError, and nothing is published."""
        before = store.log.bounds()
        for call in (
            lambda: document({"id": "a", name: 1}),
            lambda: store.writer.delete_fields(document(id="a"), [name]),
            lambda: store.writer.drop_fields_by_name([name]),
            lambda: store.reader.get_value("a", name),
        ):
            with pytest.raises(FieldNameError):
                call()
        assert store.log.bounds() == before


TYPE_NAMES = {
    "string": "STRING",
    "bytes": "BYTES",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FLOAT32",
    "float64": "FLOAT64",
    "bool": "BOOLEAN",
}


def every_type(key: str) -> IKVDocument:
    """A document with a field of each type, named after it."""
    return (
        IKVDocumentBuilder()
        .put_string_field("id", key)
        .put_string_field("string", "text é\x00")
        .put_bytes_field("bytes", b"\x00\xff")
        .put_int32_field("int32", -(2**31))
        .put_int64_field("int64", 2**63 - 1)
        .put_float32_field("float32", 0.5)
        .put_float64_field("float64", 0.1)
        .put_bool_field("bool", False)
        .build()
    )


def _getters(reader: Any) -> dict[str, Any]:
    return {name: getattr(reader, f"get_{name}_value") for name in TYPE_NAMES}
