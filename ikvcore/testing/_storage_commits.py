"""StorageSuite, part three: metadata, compare-and-set, scans, many fields (C5, C6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore.errors import FencedError
from ikvcore.models import Cursor, Projection, storage_key
from ikvcore.protocols import Storage
from ikvcore.testing._parallel import ATTEMPTS, run_threads
from ikvcore.testing._storage_base import (
    ALL,
    Ingester,
    StorageBase,
    as_document,
    clear,
    contents,
    delete,
    drop,
    read,
    row_document,
    upsert,
)

__all__ = ["StorageCommits"]


class StorageCommits(StorageBase):
    """Commits, and what they are seen as."""

    # -- metadata ------------------------------------------------------------------------------

    def test_meta(self, storage: Storage) -> None:
        """Metadata is read back aligned, duplicates repeated, None where absent; None deletes it; empty is a value."""
        storage.apply([], meta={b"a": b"1", b"b": b"", b"\x00\xff": b"\x00"}, expect={})
        assert storage.read_meta([b"b", b"nope", b"a", b"b", b"\x00\xff"]) == [b"", None, b"1", b"", b"\x00"]
        assert storage.read_meta([]) == []
        storage.apply([], meta={b"a": None, b"b": b"2", b"nope": None}, expect={b"a": b"1"})
        assert storage.read_meta([b"a", b"b"]) == [None, b"2"]

    def test_scan_meta(self, storage: Storage) -> None:
        """scan_meta gives all metadata with a prefix, in ascending byte order of keys."""
        meta = {
            b"p/\xff": b"5",
            b"p/": b"0",
            b"p/a": b"2",
            b"p/\x00": b"1",
            b"p/ab": b"3",
            b"p": b"x",
            b"p0": b"y",
            b"o": b"",
        }
        storage.apply([upsert(b"p/doc", x=1)], meta=meta, expect={})
        keys = [b"p/", b"p/\x00", b"p/a", b"p/ab", b"p/\xff"]
        assert storage.scan_meta(b"p/") == [(key, meta[key]) for key in keys]
        assert storage.scan_meta(b"q") == []
        assert storage.scan_meta(b"") == sorted(meta.items())

    def test_meta_and_documents_are_apart(self, ingester: Ingester, storage: Storage) -> None:
        """Metadata under a document's key is no document, and outlives clears and drops."""
        key = storage_key(0, b"a")
        ingester.apply(upsert(b"a", x=1), meta={key: b"meta"})
        ingester.apply(clear(), drop(prefixes=("",)))
        assert storage.read_meta([key]) == [b"meta"]
        assert contents(storage) == {}
        ingester.apply(meta={key: None})
        assert storage.read_meta([key]) == [None]

    # -- compare-and-set -----------------------------------------------------------------------

    def test_fenced_commit_changes_nothing(self, ingester: Ingester, storage: Storage) -> None:
        """A commit whose expectation fails raises FencedError; documents, counts, drops, field names and metadata are
        as before, and later commits are right."""
        ingester.apply(upsert(b"a", x=1), upsert(b"b", x=2))
        before = contents(storage)
        for expect in ({Ingester.COMMIT: b"wrong"}, {Ingester.COMMIT: None}, {b"nope": b"1"}):
            with pytest.raises(FencedError):
                storage.apply(
                    [upsert(b"a", new1="1", new2=2), upsert(b"c", new2=b"3"), drop("x"), delete(b"b"), clear(1)],
                    meta={b"lost": b"1", Ingester.COMMIT: b"9"},
                    expect=expect,
                )
            assert contents(storage) == before
            assert storage.read_meta([b"lost", Ingester.COMMIT]) == [None, b"1"]
        ingester.apply(upsert(b"d", new2="other type", new1=5), upsert(b"a", other=1))
        ingester.apply(upsert(b"c", new3=7))
        assert contents(storage) == {
            (0, b"a"): as_document(x=1, other=1),
            (0, b"b"): as_document(x=2),
            (0, b"c"): as_document(new3=7),
            (0, b"d"): as_document(new2="other type", new1=5),
        }

    def test_fenced_clear_changes_nothing(self, ingester: Ingester, storage: Storage) -> None:
        """A clear that is fenced clears nothing, and a later one all."""
        ingester.apply(*(upsert(b"%d" % i, x=i) for i in range(10)))
        with pytest.raises(FencedError):
            storage.apply([clear(), upsert(b"new", y=1)], meta={}, expect={Ingester.COMMIT: None})
        assert len(contents(storage)) == 10
        ingester.apply(clear(), upsert(b"new", y=1))
        assert contents(storage) == {(0, b"new"): as_document(y=1)}

    def test_threads_lose_no_update(self, storage: Storage) -> None:
        """Threads that commit on one expectation lose nothing, and new fields of one never take the values of
        another's."""

        def write(thread: int) -> None:
            ingester = Ingester(storage)
            for n in range(25):
                for _ in range(ATTEMPTS):
                    try:
                        ingester.apply(upsert(b"%d/%d" % (thread, n), **{f"f{thread}_{n}": f"{thread}.{n}"}))
                        break
                    except FencedError:
                        continue
                else:
                    raise AssertionError(f"fenced {ATTEMPTS:,} times, though nobody commits so often")

        run_threads([lambda: write(0), lambda: write(1), lambda: write(2)])
        assert contents(storage) == {
            (0, b"%d/%d" % (thread, n)): as_document(**{f"f{thread}_{n}": f"{thread}.{n}"})
            for thread in range(3)
            for n in range(25)
        }
        assert storage.read_meta([Ingester.COMMIT]) == [b"75"]

    def test_reads_beside_commits_are_of_one_state(self, ingester: Ingester, storage: Storage) -> None:
        """While commits change types, fields and drops, every read shows one committed state: fields of one document,
        documents of one get_many and of one page."""
        keys = [storage_key(0, b"%d" % i) for i in range(5)]
        ingester.apply(*(upsert(key[2:], x=0, y=0) for key in keys))
        done = [False]

        def write() -> None:
            try:
                for n in range(1, 121):
                    value: object = str(n) if n % 2 else n
                    extra = {f"field{n}": n} if n % 10 == 0 else {}
                    dropped = [drop("y")] if n % 3 == 0 else []
                    ingester.apply(*dropped, *(upsert(key[2:], x=value, y=value, **extra) for key in keys))
            finally:
                done[0] = True

        def reader() -> int:
            projection, seen = Projection(["x", "y", "x"]), set()
            while not done[0]:
                row = storage.get(keys[0], projection)
                rows = storage.get_many(keys, projection)
                page = storage.scan(projection, after=None, limit=10)
                for group in ([row], rows, [row for _, row in page.rows]):
                    values = {value for row in group if row for value in row[2]}
                    types = {field_type for row in group if row for field_type in row[1]}
                    assert all(row is not None for row in group)
                    assert len(values) == 1, f"values of several commits in one read: {values}"
                    assert len(types) == 1
                    seen |= values
            return len(seen)

        results = run_threads([write, reader, reader])
        assert max(results[1:]) > 1, "the readers never ran beside the writer"

    # -- scans ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("limit", [1, 3, 10, 99, 100, 101, 10_000])
    def test_scan_gives_everything_once(self, ingester: Ingester, storage: Storage, limit: int) -> None:
        """Page by page, a scan gives every document exactly once, whatever the limit."""
        expected = {}
        for partition in (0, 1, 300):
            for i in range(33):
                expected[partition, b"k" * (i * 37 % 700 + 1) + b"%d" % i] = as_document(x=i)
        expected[2, b"\x00"] = as_document(x=-1)
        ingester.apply(*(upsert(key, partition, x=document["x"][1]) for (partition, key), document in expected.items()))
        assert contents(storage, limit) == expected

    def test_scan_of_named_fields(self, ingester: Ingester, storage: Storage) -> None:
        """A scan of a named projection gives all documents, also those that have none of its fields."""
        ingester.apply(upsert(b"a", x=1), upsert(b"b", y=2), upsert(b"c"))
        page = storage.scan(Projection(["y", "nope"]), after=None, limit=10)
        assert {key: list(row[2]) for key, row in page.rows} == {
            storage_key(0, b"a"): [None, None],
            storage_key(0, b"b"): [2, None],
            storage_key(0, b"c"): [None, None],
        }
        assert page.cursor is None

    def test_scan_beside_writes(self, ingester: Ingester, storage: Storage) -> None:
        """With writes between its pages, a scan still gives every document that was there throughout, once, as it was
        at its page."""
        stable = {(p, b"s%03d" % i + b"x" * (600 * (i % 2))) for i in range(40) for p in (0, 1)}
        ingester.apply(*(upsert(key, partition, x="s") for partition, key in stable))
        ingester.apply(*(upsert(b"t%03d" % i, x="t") for i in range(40)))
        cursor: Cursor | None = None
        seen: list[bytes] = []
        for turn in range(10_000):
            page = storage.scan(ALL, after=cursor, limit=5)
            for key, row in page.rows:
                document = row_document(row, key[2:])
                assert document is not None
                assert document["x"][1] in ("s", "t", "new")
                seen.append(key)
            cursor = page.cursor
            if cursor is None:
                break
            if turn < 40:
                last = page.rows[-1][0][2:] if page.rows else b"s"
                ingester.apply(
                    delete(b"t%03d" % turn),
                    *([delete(last)] if last.startswith(b"n") else []),
                    upsert(b"n%03d" % turn, x="new"),
                    upsert(b"zz%03d" % turn, 1, x="new"),
                    upsert(b"s%03d" % turn + b"x" * (600 * (turn % 2)), **{f"y{turn}": turn}),
                    drop("y3"),
                )
        assert cursor is None, "the scan does not end"
        assert len(seen) == len(set(seen))
        assert {storage_key(*place) for place in stable} <= set(seen)

    # -- many fields, many shapes --------------------------------------------------------------

    def test_ten_thousand_names(self, ingester: Ingester, storage: Storage, directory: Path) -> None:
        """10,000 field names in one document, then again spread over a hundred, are all kept, also through a new
        instance."""
        names = [f"field_{i}" for i in range(10_000)]
        ingester.apply(upsert(b"all", **{name: i for i, name in enumerate(names)}))
        for start in range(0, 10_000, 2_500):
            ingester.apply(
                *(
                    upsert(b"part%d" % first, **{name: name.encode() for name in names[first : first + 100]})
                    for first in range(start, start + 2_500, 100)
                )
            )
        again = self.reopened(storage, directory)
        try:
            assert read(again, b"all") == as_document(**{name: i for i, name in enumerate(names)})
            for first in range(0, 10_000, 100):
                expected = as_document(**{name: name.encode() for name in names[first : first + 100]})
                assert read(again, b"part%d" % first) == expected
            row = again.get(storage_key(0, b"all"), Projection(list(reversed(names))))
            assert row is not None
            assert list(row[2]) == list(range(9_999, -1, -1))
        finally:
            again.close()

    def test_sparse_documents(self, ingester: Ingester, storage: Storage, directory: Path) -> None:
        """3,000 documents, each with another set of fields, in mixed types, are all read back, also after a drop and
        through a new instance."""
        expected = {}
        for i in range(1, 3_001):
            expected[0, b"%d" % i] = {f"f{bit}": _mixed(bit, i) for bit in range(12) if i >> bit & 1}
        for start in range(1, 3_001, 300):
            ingester.apply(*(upsert(b"%d" % i, **expected[0, b"%d" % i]) for i in range(start, start + 300)))
        assert contents(storage, 1_000) == {place: as_document(**fields) for place, fields in expected.items()}
        ingester.apply(drop("f3"), *(upsert(b"%d" % i, f11=i) for i in range(1, 301)))
        for (_, key), fields in expected.items():
            fields.pop("f3", None)
            if int(key) <= 300:
                fields["f11"] = int(key)
        again = self.reopened(storage, directory)
        try:
            assert contents(again, 1_000) == {place: as_document(**fields) for place, fields in expected.items()}
        finally:
            again.close()


def _mixed(bit: int, i: int) -> object:
    return (i, str(i), float(i), i % 3 == 0, b"%d" % i)[(bit + i % 2) % 5]
