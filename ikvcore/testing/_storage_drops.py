"""StorageSuite, part two: drops, clears, and what reclaiming them may change: nothing visible (C3.4, C3.11)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore.errors import FencedError
from ikvcore.models import Clear, DropFields, Mutation, Projection, storage_key
from ikvcore.protocols import Reclaim, Storage
from ikvcore.testing._storage_base import (
    KEY_FIELD,
    Document,
    Ingester,
    StorageBase,
    as_document,
    clear,
    contents,
    delete,
    delete_fields,
    drop,
    modelled,
    read,
    upsert,
)
from ikvcore.testing.model import StoreModel

__all__ = ["StorageDrops"]


class StorageDrops(StorageBase):
    """Fields of all documents of a partition at once, or all its documents."""

    def test_drop_by_name(self, ingester: Ingester, storage: Storage) -> None:
        """A drop removes the named fields from every document of its partition, case-sensitively, and nothing else."""
        ingester.apply(upsert(b"a", x=1, X=2, xx=3), upsert(b"b", x="1"), upsert(b"c", y=1))
        ingester.apply(drop("x", "unknown"))
        assert contents(storage) == {(0, b"a"): as_document(X=2, xx=3), (0, b"b"): {}, (0, b"c"): as_document(y=1)}
        rows = storage.get_many([storage_key(0, key) for key in (b"a", b"b")], Projection(["x", "X"]))
        assert [list(row[2]) if row else None for row in rows] == [[None, 2], [None, None]]
        assert [row[1][0] if row else None for row in rows] == [None, None]

    def test_drop_by_prefix(self, ingester: Ingester, storage: Storage) -> None:
        """A drop by prefix removes every field whose name begins with one of the prefixes, case-sensitively."""
        ingester.apply(upsert(b"a", user_a=1, user_b=2, user=3, User_c=4, x_user_=5, tmp1=6), upsert(b"b", user_z=1))
        ingester.apply(drop(prefixes=("user_", "tmp", "unknown")))
        assert contents(storage) == {(0, b"a"): as_document(user=3, User_c=4, x_user_=5), (0, b"b"): {}}
        ingester.apply(drop("user", prefixes=("U",)))
        assert contents(storage) == {(0, b"a"): as_document(x_user_=5), (0, b"b"): {}}

    def test_drop_everything_but_keys(self, ingester: Ingester, storage: Storage) -> None:
        """The prefix "" means every field but those to keep; documents stay, and are counted."""
        ingester.apply(upsert(b"a", x=1, route="r"), upsert(b"b", y=1))
        ingester.apply(DropFields(0, frozenset({KEY_FIELD}), ("", KEY_FIELD), frozenset({KEY_FIELD, "route"}), None))
        assert contents(storage) == {(0, b"a"): as_document(route="r"), (0, b"b"): {}}

    def test_keep_wins(self, ingester: Ingester, storage: Storage) -> None:
        """A field to keep stays even where the drop names it or its prefix."""
        ingester.apply(upsert(b"a", x=1))
        ingester.apply(drop(KEY_FIELD, prefixes=("i", KEY_FIELD)))
        assert read(storage, b"a") == as_document(x=1)

    def test_drop_of_unknown_names(self, ingester: Ingester, storage: Storage) -> None:
        """Dropping what no document has changes nothing, also for documents and fields that come later."""
        ingester.apply(drop("x", prefixes=("y", "")))
        ingester.apply(upsert(b"a", x=1, y1=2))
        assert read(storage, b"a") == as_document(x=1, y1=2)
        ingester.apply(drop("z", prefixes=("zz",)), upsert(b"b", z=1, zz1=2))
        ingester.apply(upsert(b"a", zz2=3))
        assert contents(storage) == {(0, b"a"): as_document(x=1, y1=2, zz2=3), (0, b"b"): as_document(z=1, zz1=2)}

    def test_empty_drop(self, ingester: Ingester, storage: Storage) -> None:
        """A drop of no names and no prefixes changes nothing."""
        ingester.apply(upsert(b"a", x=1))
        ingester.apply(drop())
        assert contents(storage) == {(0, b"a"): as_document(x=1)}

    def test_written_again(self, ingester: Ingester, storage: Storage, directory: Path) -> None:
        """A dropped field that is written again never brings old values back: not on other documents, and not on a
        document that is rewritten for another field."""
        ingester.apply(upsert(b"a", f="old", g=1), upsert(b"b", f="old", g=1), upsert(b"c", f="old"))
        ingester.apply(drop("f"))
        ingester.apply(upsert(b"a", f="new"))
        expected = {(0, b"a"): as_document(f="new", g=1), (0, b"b"): as_document(g=1), (0, b"c"): {}}
        assert contents(storage) == expected
        ingester.apply(upsert(b"b", g=2), upsert(b"c", h=1), upsert(b"d", f="fresh"))
        expected |= {(0, b"b"): as_document(g=2), (0, b"c"): as_document(h=1), (0, b"d"): as_document(f="fresh")}
        assert contents(storage) == expected
        again = self.reopened(storage, directory)
        try:
            assert contents(again) == expected
        finally:
            again.close()

    def test_written_again_after_a_prefix_drop(self, ingester: Ingester, storage: Storage) -> None:
        """The same for a drop by prefix, and for a field that changes its type when it is written again."""
        ingester.apply(upsert(b"a", f1="old", f2="old"), upsert(b"b", f1="old", g=1))
        ingester.apply(drop(prefixes=("f",)))
        ingester.apply(upsert(b"a", f1=5), upsert(b"c", f2=6))
        ingester.apply(delete_fields(b"b", "g"), upsert(b"b", h=1))
        assert contents(storage) == {
            (0, b"a"): as_document(f1=5),
            (0, b"b"): as_document(h=1),
            (0, b"c"): as_document(f2=6),
        }

    def test_dropped_twice(self, ingester: Ingester, storage: Storage) -> None:
        """Each drop takes what was written before it, however often a field comes and goes."""
        for turn in range(5):
            ingester.apply(upsert(b"a", f=turn), upsert(b"b%d" % turn, f=turn, g=turn))
            assert read(storage, b"a") == as_document(f=turn)
            ingester.apply(drop("f"))
            assert read(storage, b"a") == {}
        assert storage.count() == 6
        assert all(read(storage, b"b%d" % turn) == as_document(g=turn) for turn in range(5))

    def test_drops_take_effect_in_order_within_one_commit(self, ingester: Ingester, storage: Storage) -> None:
        """Within one commit a drop takes the upserts before it and leaves those after it, on any document."""
        ingester.apply(upsert(b"old", f="old", g="old"))
        ingester.apply(
            upsert(b"a", f=1, g=1),
            upsert(b"b", f=1),
            drop("f"),
            upsert(b"b", f=2),
            upsert(b"c", f=2, g=2),
            upsert(b"a", h=2),
            drop("g"),
            upsert(b"d", f=3, g=3),
            drop(prefixes=("h",)),
            upsert(b"old", i=3),
        )
        assert contents(storage) == {
            (0, b"old"): as_document(i=3),
            (0, b"a"): {},
            (0, b"b"): as_document(f=2),
            (0, b"c"): as_document(f=2),
            (0, b"d"): as_document(f=3, g=3),
        }

    def test_names_and_partitions_within_one_commit(self, ingester: Ingester, storage: Storage) -> None:
        """Within one commit a drop takes fields whose names were never seen before, by name and by prefix, and only in
        its own partition."""
        ingester.apply(
            upsert(b"a", 0, new1=1, new2=1),
            upsert(b"a", 1, new1=1, new2=1),
            drop("new1", partition=0),
            upsert(b"b", 0, new1=2, other1=2),
            drop(prefixes=("other",), partition=1),
            upsert(b"b", 1, other1=3),
            drop(prefixes=("new2",), partition=1),
        )
        assert contents(storage) == {
            (0, b"a"): as_document(new2=1),
            (0, b"b"): as_document(new1=2, other1=2),
            (1, b"a"): as_document(new1=1),
            (1, b"b"): as_document(other1=3),
        }

    def test_clear(self, ingester: Ingester, storage: Storage) -> None:
        """A clear removes every document of its partition, keys included; later writes start from empty."""
        ingester.apply(*(upsert(b"%03d" % i, partition, x=i) for i in range(50) for partition in (0, 1)))
        ingester.apply(clear(0))
        assert storage.count() == 50
        assert contents(storage) == {(1, b"%03d" % i): as_document(x=i) for i in range(50)}
        ingester.apply(upsert(b"007", y="new"), delete(b"008"), delete_fields(b"009", "x"), drop("x"))
        assert read(storage, b"007") == as_document(y="new")
        assert storage.count() == 51
        ingester.apply(clear(1), clear(1), clear(2))
        assert contents(storage) == {(0, b"007"): as_document(y="new")}

    def test_clear_within_one_commit(self, ingester: Ingester, storage: Storage) -> None:
        """Within one commit a clear takes what comes before it and leaves what comes after."""
        ingester.apply(upsert(b"old", x=1), upsert(b"a", x=1))
        ingester.apply(upsert(b"a", y=1), upsert(b"b", x=1), clear(), upsert(b"a", z=1), upsert(b"c", x=1))
        assert contents(storage) == {(0, b"a"): as_document(z=1), (0, b"c"): as_document(x=1)}
        ingester.apply(clear(), upsert(b"a", x=2), clear())
        assert contents(storage) == {}
        ingester.apply(upsert(b"d", w=1), drop("w"), clear(), upsert(b"d", w=2), delete(b"d"), upsert(b"e"))
        assert contents(storage) == {(0, b"e"): {}}

    def test_a_drop_reaches_partitions_one_by_one(self, ingester: Ingester, storage: Storage) -> None:
        """C3.11: a value written after its partition's drop survives the later arrival of that drop in another
        partition."""
        ingester.apply(upsert(b"a", 0, f="old", g=0), upsert(b"a", 1, f="old", g=1), upsert(b"b", 1, f="old"))
        ingester.apply(drop("f", partition=1))
        assert read(storage, b"a", 0) == as_document(f="old", g=0)
        ingester.apply(upsert(b"a", 1, f="new"), upsert(b"c", 1, f="new"))
        ingester.apply(upsert(b"c", 0, f="old"), drop("f", partition=0))
        expected = {
            (0, b"a"): as_document(g=0),
            (0, b"c"): {},
            (1, b"a"): as_document(f="new", g=1),
            (1, b"b"): {},
            (1, b"c"): as_document(f="new"),
        }
        assert contents(storage) == expected

    def test_a_prefix_drop_and_a_clear_reach_partitions_one_by_one(self, ingester: Ingester, storage: Storage) -> None:
        """C3.11 for drops by prefix, for the prefix "" and for clears."""
        for partition in (0, 1):
            ingester.apply(upsert(b"a", partition, f1="old", g="old"), upsert(b"b", partition, g="old"))
        ingester.apply(drop(prefixes=("f",), partition=1), upsert(b"a", 1, f1="new", f2="new"))
        ingester.apply(drop(prefixes=("f",), partition=0))
        assert read(storage, b"a", 1) == as_document(f1="new", f2="new", g="old")
        assert read(storage, b"a", 0) == as_document(g="old")
        ingester.apply(drop(prefixes=("",), partition=0), upsert(b"a", 0, g="new"))
        ingester.apply(drop(prefixes=("",), partition=1))
        assert contents(storage) == {
            (0, b"a"): as_document(g="new"),
            (0, b"b"): {},
            (1, b"a"): {},
            (1, b"b"): {},
        }
        ingester.apply(clear(1), upsert(b"a", 1, x=1), clear(0))
        assert contents(storage) == {(1, b"a"): as_document(x=1)}

    def test_drop_of_fields_seen_elsewhere(self, ingester: Ingester, storage: Storage) -> None:
        """A drop in one partition touches nothing of a field that only another partition has."""
        ingester.apply(upsert(b"a", 0, f=1))
        ingester.apply(drop("f", prefixes=("f",), partition=1))
        ingester.apply(upsert(b"b", 1, f=2))
        ingester.apply(drop("f", partition=0))
        assert contents(storage) == {(0, b"a"): {}, (1, b"b"): as_document(f=2)}

    # -- reclaim -------------------------------------------------------------------------------

    @pytest.mark.parametrize("max_records", [1, 7, 100_000])
    def test_reclaim_changes_nothing_visible(self, ingester: Ingester, storage: Storage, max_records: int) -> None:
        """Reclaiming after drops and clears ends, and leaves values, documents and counts as they were."""
        self._needs_reclaim(storage)
        expected = fill_and_drop(ingester)
        assert contents(storage) == expected
        ingester.reclaim(max_records)
        assert contents(storage) == expected
        meta, expect = ingester.step()
        assert storage.reclaim(max_records=max_records, meta=meta, expect=expect) is False  # type: ignore[attr-defined]
        ingester.apply(upsert(b"000", f="again"), upsert(b"000", 2, f="again"))
        expected |= {(0, b"000"): expected[0, b"000"] | as_document(f="again"), (2, b"000"): as_document(f="again")}
        assert contents(storage) == expected

    def test_reclaim_beside_writes(self, ingester: Ingester, storage: Storage) -> None:
        """Writes, drops and clears between the steps of a reclaim keep their meaning."""
        self._needs_reclaim(storage)
        assert isinstance(storage, Reclaim)
        expected = fill_and_drop(ingester)
        for turn in range(30):
            meta, expect = ingester.step()
            storage.reclaim(max_records=3, meta=meta, expect=expect)
            key = b"%03d" % (turn * 7 % 40)
            ingester.apply(upsert(key, g="late", f=turn), drop("h"), upsert(b"new%d" % turn, 2, h=turn))
            expected[0, key] = expected.get((0, key), {}) | as_document(g="late", f=turn)
            expected[2, b"new%d" % turn] = as_document(h=turn)
            for place, document in expected.items():
                if place[0] == 0:
                    document.pop("h", None)
        assert contents(storage) == expected
        ingester.reclaim(5)
        assert contents(storage) == expected

    @pytest.mark.parametrize("steps", [0, 1, 4, 9, 16, 25])
    @pytest.mark.parametrize("mutation", [drop("g"), drop(prefixes=("h", "k")), clear(0), clear(1)])
    def test_a_drop_during_a_reclaim(
        self, ingester: Ingester, storage: Storage, steps: int, mutation: DropFields | Clear
    ) -> None:
        """A drop or a clear that comes while a reclaim is under way stays in force to its end and beyond."""
        self._needs_reclaim(storage)
        assert isinstance(storage, Reclaim)
        model = StoreModel()
        model.apply(filling())
        fill_and_drop(ingester)
        for _ in range(steps):
            meta, expect = ingester.step()
            storage.reclaim(max_records=3, meta=meta, expect=expect)
        ingester.apply(mutation)
        model.apply([mutation])
        expected = modelled(model)
        assert contents(storage) == expected
        ingester.reclaim(3)
        assert contents(storage) == expected
        ingester.apply(upsert(b"039", 0, z=1), upsert(b"035", 1, z=1))
        model.apply([upsert(b"039", 0, z=1), upsert(b"035", 1, z=1)])
        assert contents(storage) == modelled(model)

    def test_reclaim_is_a_compare_and_set(self, ingester: Ingester, storage: Storage) -> None:
        """A reclaim whose expectation fails raises FencedError and changes nothing; at the end it commits nothing."""
        self._needs_reclaim(storage)
        assert isinstance(storage, Reclaim)
        expected = fill_and_drop(ingester)
        before = storage.read_meta([Ingester.COMMIT])
        with pytest.raises(FencedError):
            storage.reclaim(max_records=1_000, meta={Ingester.COMMIT: b"x"}, expect={Ingester.COMMIT: b"wrong"})
        assert storage.read_meta([Ingester.COMMIT]) == before
        assert contents(storage) == expected
        ingester.reclaim()
        before = storage.read_meta([Ingester.COMMIT])
        meta, expect = ingester.step()
        assert storage.reclaim(max_records=1_000, meta=meta, expect=expect) is False
        assert storage.read_meta([Ingester.COMMIT]) == before
        assert contents(storage) == expected

    @staticmethod
    def _needs_reclaim(storage: Storage) -> None:
        if not isinstance(storage, Reclaim):
            pytest.skip("the storage has no Reclaim")


def filling() -> list[Mutation]:
    """Forty documents in each of three partitions, then drops, a clear, and writes after them."""
    documents = [(p, b"%03d" % i, {"f": f"f{i}", "g": i, "h": b"h" * i}) for p in range(3) for i in range(40)]
    return [
        *(upsert(key, partition, **fields) for partition, key, fields in documents),
        drop("f", partition=0),
        clear(1),
        drop(prefixes=("",), partition=2),
        *(upsert(b"%03d" % i, 0, f="new") for i in range(0, 40, 4)),
        *(upsert(b"%03d" % i, 1, k=i) for i in range(0, 40, 5)),
        delete(b"001", 0),
        delete(b"001", 2),
    ]


def fill_and_drop(ingester: Ingester) -> dict[tuple[int, bytes], Document]:
    """Commit the filling in several commits; the documents that must be left."""
    mutations = filling()
    for start in range(0, len(mutations), 40):
        ingester.apply(*mutations[start : start + 40])
    model = StoreModel()
    model.apply(mutations)
    return modelled(model)
