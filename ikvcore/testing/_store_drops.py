"""StoreSuite, part three: drops (C3.4, C3.11)."""

from __future__ import annotations

import pytest

from ikvcore.testing._live import LiveStore, document, documents
from ikvcore.testing._raw_events import STRING, raw_drop, raw_upsert
from ikvcore.testing._store_base import MakeStore, StoreBase

__all__ = ["StoreDrops"]


class StoreDrops(StoreBase):
    """Fields of all documents at once, or all documents."""

    @pytest.fixture(params=[1, 4])
    def spread(self, make: MakeStore, request: pytest.FixtureRequest) -> LiveStore:
        """A store of one partition, and one of several, with documents in them."""
        store = make(partitions=request.param)
        rows = [{"id": str(n), "x": n, "X": n, "tmp_a": "1", "tmp_b": n, "y": "kept"} for n in range(12)]
        store.shown(store.writer.upsert_fields_batch(documents(rows)))
        return store

    def test_c3_4_by_name(self, spread: LiveStore) -> None:
        """A drop by name is for all documents, case-sensitive; unknown names and the key are passed over."""
        spread.shown(spread.writer.drop_fields_by_name(["x", "tmp_a", "unknown", "id"]))
        expected = {str(n): {"id": str(n), "X": n, "tmp_b": n, "y": "kept"} for n in range(12)}
        assert dict(spread.reader.scan()) == expected
        assert list(spread.reader.multiget_values(["3", "7"], ["x", "X", "id"])) == [None, 3, "3", None, 7, "7"]

    def test_c3_4_by_prefix(self, spread: LiveStore) -> None:
        """A drop by prefix is for every field that begins with one of them, case-sensitive."""
        spread.shown(spread.writer.drop_fields_by_name_prefix(["tmp", "Y", "i", "X"]))
        assert dict(spread.reader.scan()) == {str(n): {"id": str(n), "x": n, "y": "kept"} for n in range(12)}

    def test_c3_4_every_field(self, spread: LiveStore) -> None:
        """The prefix "" means every field but the key: the documents stay."""
        spread.shown(spread.writer.drop_fields_by_name_prefix([""]))
        assert dict(spread.reader.scan()) == {str(n): {"id": str(n)} for n in range(12)}
        assert spread.reader.count() == 12
        spread.put(id="3", x="again")
        assert spread.reader.get_document("3") == {"id": "3", "x": "again"}

    def test_c3_4_drop_all_fields(self, spread: LiveStore) -> None:
        """drop_all_fields removes every document, keys included; what is written after it starts from empty."""
        spread.shown(spread.writer.drop_all_fields())
        assert (list(spread.reader.scan()), spread.reader.count()) == ([], 0)
        assert spread.reader.get_document("3") is None
        spread.put(id="3", y="new")
        assert list(spread.reader.scan()) == [("3", {"id": "3", "y": "new"})]

    def test_c3_4_written_again(self, spread: LiveStore) -> None:
        """A dropped field that is written again brings no old value back, on any document, and not after a restart."""
        spread.shown(spread.writer.drop_fields_by_name(["x"]))
        spread.put(id="3", x="new")
        spread.put(id="5", other=1)
        for _ in range(2):
            found = {key: fields.get("x") for key, fields in spread.reader.scan()}
            assert found == {str(n): "new" if n == 3 else None for n in range(12)}
            assert spread.reader.get_value("5", "x") is None
            spread.restart_reader()

    def test_c3_4_partitioning_key_is_kept(self, make: MakeStore) -> None:
        """Drops and deletes of fields pass the partitioning key over too."""
        store = make(partitioning_key="region", partitions=3)
        store.put(id="a", region="eu", x=1)
        store.writer.drop_fields_by_name(["region", "id", "x"])
        store.writer.delete_fields(document(id="a", region="eu"), ["region", "id"])
        store.shown(store.writer.drop_fields_by_name_prefix(["", "reg"]))
        assert dict(store.reader.scan()) == {"a": {"id": "a", "region": "eu"}}

    def test_c3_11_each_partition_at_its_place(self, make: MakeStore) -> None:
        """A drop takes effect per partition at its place in that partition's log: a value written after it in one
        partition survives its later arrival in another, whichever comes first."""
        store = make(partitions=2)
        for first, second in ((0, 1), (1, 0)):
            store.shown(store.publish(_upsert("a", "old"), _upsert("b", "old"), partition=first))
            store.shown(store.publish(_upsert("c", "old"), _upsert("d", "old"), partition=second))
            for dropped in (raw_drop(names=["x"]), raw_drop(prefixes=["x", "y"]), raw_drop(prefixes=[""])):
                store.shown(
                    store.publish(_upsert("a", "old"), partition=first)
                    | store.publish(_upsert("d", "old"), partition=second)
                )
                store.shown(store.publish(dropped, _upsert("c", "new"), partition=second))
                found = _found(store)
                assert (found["a"], found["c"]) == ("old", "new")
                store.shown(store.publish(dropped, _upsert("b", "new"), partition=first))
                assert _found(store) == {"a": None, "b": "new", "c": "new", "d": None}
                store.shown(store.publish(raw_drop(names=["x"]), partition=first))
            store.shown(store.publish(raw_drop(drop_all=True), _upsert("c", "new"), partition=second))
            store.shown(store.publish(raw_drop(drop_all=True), partition=first))
            assert _found(store) == {"c": "new"}
            store.shown(store.publish(raw_drop(drop_all=True), partition=second))
            assert store.reader.count() == 0

    def test_names_and_prefixes_together(self, store: LiveStore) -> None:
        """A drop event with names and prefixes applies both; its drop_all counts only where both lists are empty."""
        store.put(id="a", x=1, y=2, tmp1=3, z=4)
        store.shown(store.publish(raw_drop(names=["x"], prefixes=["tmp"], drop_all=True)))
        assert store.reader.get_document("a") == {"id": "a", "y": 2, "z": 4}
        store.shown(store.publish(raw_drop(prefixes=["y"], drop_all=True)))
        assert store.reader.get_document("a") == {"id": "a", "z": 4}
        store.shown(store.publish(raw_drop(drop_all=True)))
        assert store.reader.count() == 0


def _found(store: LiveStore) -> dict[object, object]:
    """Field x by key; no key may be in both partitions."""
    found = [(key, fields.get("x")) for key, fields in store.reader.scan()]
    assert len(found) == len(dict(found)) == store.reader.count()
    return dict(found)


def _upsert(key: str, x: str) -> bytes:
    return raw_upsert({"id": (STRING, key.encode()), "x": (STRING, x.encode())})
