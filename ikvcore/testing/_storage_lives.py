"""StorageSuite, part four: closing, reopening, sharing and verifying (C5, C7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore import protocols
from ikvcore._kvstorage import KeyValueStorage
from ikvcore._storage import catch_up
from ikvcore.errors import FencedError, QueryError, StorageError
from ikvcore.models import Durability, Mutation, Projection, Sharing, storage_key
from ikvcore.protocols import Follower, Query, Reclaim, Storage, Verify
from ikvcore.testing._storage_base import (
    ALL,
    KEY_FIELD,
    Ingester,
    StorageBase,
    as_document,
    clear,
    contents,
    delete,
    drop,
    read,
    upsert,
)
from ikvcore.testing._storage_drops import fill_and_drop

__all__ = ["StorageLives"]


class StorageLives(StorageBase):
    """Instances come and go, and may be several."""

    def test_declarations(self, directory: Path) -> None:
        """C9: the plugin's own object has the capabilities that its info names and no others; what is volatile
        declares no durability and no sharing."""
        assert self.info.capabilities <= set(protocols.__all__)
        storage = self.open_storage(directory)
        own = storage._engine if isinstance(storage, KeyValueStorage) else storage
        try:
            for capability in (
                Query,
                Reclaim,
                Verify,
                Follower,
                *(getattr(protocols, name) for name in self.info.capabilities),
            ):
                assert isinstance(own, capability) == (capability.__name__ in self.info.capabilities), capability
        finally:
            storage.close()
        assert ("Follower" in self.info.capabilities) == (self.info.sharing is Sharing.FOLLOWERS)
        if self.info.volatile:
            assert (self.info.durability, self.info.sharing) == (Durability.NONE, Sharing.ONE_PROCESS)

    def test_close(self, directory: Path) -> None:
        """close is idempotent, and calls after it raise StorageError."""
        storage = self.open_storage(directory)
        Ingester(storage).apply(upsert(b"a", x=1))
        storage.close()
        storage.close()
        for call in (
            lambda: storage.get(storage_key(0, b"a"), ALL),
            lambda: storage.get_many([storage_key(0, b"a")], ALL),
            lambda: storage.scan(ALL, after=None, limit=1),
            storage.count,
            lambda: storage.read_meta([b"a"]),
            lambda: storage.scan_meta(b"a"),
            lambda: storage.apply([upsert(b"a", x=2)], meta={}, expect={}),
        ):
            with pytest.raises(StorageError):
                call()

    def test_reopen(self, directory: Path) -> None:
        """A new instance finds documents, drops, counts and metadata as they were, and goes on from there; a volatile
        backend begins empty."""
        storage = self.open_storage(directory)
        expected = fill_and_drop(Ingester(storage))
        storage.close()
        storage = self.open_storage(directory)
        try:
            if self.info.volatile:
                assert (contents(storage), storage.scan_meta(b"")) == ({}, [])
                return
            assert contents(storage) == expected
            ingester = Ingester(storage)
            ingester.apply(upsert(b"000", f="again", brand_new=1))
            expected[0, b"000"] |= as_document(f="again", brand_new=1)
            assert contents(storage) == expected
        finally:
            storage.close()

    def test_two_instances(self, directory: Path) -> None:
        """Where the backend is shared, a second instance sees new fields, shapes, types, drops and clears of the first
        at once, and may write in turn; where it may be followed, one that follows sees them once it catches up."""
        if self.info.sharing is Sharing.ONE_PROCESS:
            pytest.skip("not declared shared")
        follows = self.info.sharing is Sharing.FOLLOWERS
        first, second = self.open_storage(directory), self.open_storage(directory, follow=follows)
        try:
            projection = Projection(["x", "y", "late"])
            steps: tuple[tuple[Mutation, ...], ...] = (
                (upsert(b"a", x=1), upsert(b"b", x="text", y=b"1")),
                (upsert(b"a", late=2.5),),
                (upsert(b"c", late="other", x=True, **{f"n{i}": i for i in range(50)}),),
                (drop("late"),),
                (upsert(b"a", late="again"),),
                (drop(prefixes=("n", "y")), upsert(b"b", late=b"b", y="2")),
                (delete(b"c"), clear(1), upsert(b"z", 1, z=1)),
                (clear(), upsert(b"a", y=1)),
            )
            for turn, mutations in enumerate(steps):
                writer, other = (first, second) if turn % 2 or follows else (second, first)
                Ingester(writer).apply(*mutations)
                catch_up(other)
                assert other.get_many([storage_key(0, k) for k in (b"a", b"b", b"c")], projection) == writer.get_many(
                    [storage_key(0, k) for k in (b"a", b"b", b"c")], projection
                )
                assert contents(other) == contents(writer)
            assert contents(second) == {(0, b"a"): as_document(y=1), (1, b"z"): as_document(z=1)}
        finally:
            first.close()
            second.close()

    def test_two_ingesters(self, directory: Path) -> None:
        """C5: of two instances that plan on one state, one is fenced; when it tries again, its new fields get ids that
        the other's did not take."""
        if self.info.sharing is not Sharing.SHARED:
            pytest.skip("not declared shared")
        first, second = self.open_storage(directory), self.open_storage(directory)
        try:
            Ingester(first).apply(upsert(b"a", x=1))
            for turn in range(10):
                one, two = Ingester(first), Ingester(second)
                stale_meta, stale_expect = two.step()
                one.apply(upsert(b"a", 0, **{f"first{turn}": turn}))
                with pytest.raises(FencedError):
                    second.apply([upsert(b"a", 1, **{f"second{turn}": "s"})], meta=stale_meta, expect=stale_expect)
                two.apply(upsert(b"a", 1, **{f"second{turn}": f"s{turn}"}))
            for storage in (first, second):
                assert contents(storage) == {
                    (0, b"a"): as_document(x=1, **{f"first{turn}": turn for turn in range(10)}),
                    (1, b"a"): as_document(**{f"second{turn}": f"s{turn}" for turn in range(10)}),
                }
                assert storage.read_meta([Ingester.COMMIT]) == [b"21"]
        finally:
            first.close()
            second.close()

    def test_verify(self, ingester: Ingester, storage: Storage) -> None:
        """verify finds nothing wrong after upserts, deletes, drops, clears, overwritten leftovers, fenced commits and
        reclaims."""
        if not isinstance(storage, Verify):
            pytest.skip("the storage has no Verify")
        assert storage.verify() == []
        fill_and_drop(ingester)
        assert storage.verify() == []
        ingester.apply(upsert(b"002", 1, x=1), delete(b"003", 1), upsert(b"k" * 700, x=1), delete(b"002", 0))
        with pytest.raises(FencedError):
            storage.apply([upsert(b"lost", x=1), clear()], meta={}, expect={Ingester.COMMIT: None})
        assert storage.verify() == []
        if isinstance(storage, Reclaim):
            for _ in range(3):
                meta, expect = ingester.step()
                storage.reclaim(max_records=10, meta=meta, expect=expect)
                assert storage.verify() == []
                ingester.apply(upsert(b"004", 1, y=2), upsert(b"k" * 700, x=1))
            ingester.reclaim()
            assert storage.verify() == []
        ingester.apply(clear(0), clear(1), clear(2))
        assert (storage.verify(), storage.count()) == ([], 0)

    def test_query(self, ingester: Ingester, storage: Storage) -> None:
        """One SELECT sees the fields of all partitions under their names, and drops at once; all else is refused and
        changes nothing."""
        if not isinstance(storage, Query):
            pytest.skip("the storage has no Query")
        ingester.apply(upsert(b"a", x=1, name="ann"), upsert(b"b", 1, x=2), upsert(b"c", name="eve"))
        found = storage.query("SELECT name, x FROM documents ORDER BY x NULLS LAST")
        assert found.to_pylist() == [{"name": n, "x": x} for n, x in (("ann", 1), (None, 2), ("eve", None))]
        assert storage.query("SELECT x FROM documents WHERE x > ?", [1]).to_pylist() == [{"x": 2}]
        assert storage.query("SELECT x FROM documents WHERE x < $most", {"most": 2}).to_pylist() == [{"x": 1}]
        ingester.apply(drop("name"), delete(b"b", 1))
        assert storage.query("SELECT count(*) AS n, count(name) AS names FROM documents").to_pylist() == [
            {"n": 2, "names": 0}
        ]
        before = contents(storage)
        for sql in ("", "SELECT 1; SELECT 2", "DELETE FROM documents", "SELECT nothing FROM documents", "nonsense"):
            with pytest.raises(QueryError):
                storage.query(sql)
        assert contents(storage) == before

    def test_the_key_is_a_field(self, ingester: Ingester, storage: Storage) -> None:
        """The primary key is read like any field, by name and among all, from whatever kind of key."""
        for key in (b"short", b"\x00", b"k" * 65_535):
            ingester.apply(upsert(key, x=1))
            row = storage.get(storage_key(0, key), Projection([KEY_FIELD]))
            assert row is not None
            assert list(row[2]) == [key]
            assert read(storage, key) == as_document(x=1)
