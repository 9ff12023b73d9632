"""OrderedKeyValueSuite, part one: keys, values, order, scans and snapshots."""

from __future__ import annotations

import pytest

from ikvcore.protocols import OrderedKeyValue
from ikvcore.testing._keyvalue_base import KeyValueBase, commit, pairs, value

__all__ = ["KeyValueReads"]

AWKWARD_KEYS = [
    b"\x00",
    b"\x00\x00",
    b"\x00\x00\xff",
    b"\x00\x01",
    b"\x01",
    b"A",
    b"a",
    b"a\x00",
    b"a\x00\x00",
    b"a\x00b",
    b"aa",
    b"a\x7f",
    b"a\x80",
    b"a\xff",
    b"a\xff\x00",
    b"b",
    b"\x7f",
    b"\x80",
    b"\xc3\xa9",
    b"\xfe",
    b"\xff",
    b"\xff\x00",
    b"\xff\xff",
    b"\xff\xff\xff",
]
"""NUL and 0xFF bytes, bytes above 0x7F, and prefixes of each other."""


class KeyValueReads(KeyValueBase):
    """What was committed is read back, in order, from one state."""

    def test_empty_engine(self, engine: OrderedKeyValue) -> None:
        """A new engine holds nothing: gets give None, scans end at once."""
        with engine.snapshot() as snapshot:
            assert snapshot.get(b"a") is None
            assert engine.get_many(snapshot, [b"a", b"b"]) == [None, None]
            assert list(engine.scan(snapshot, b"", None)) == []

    def test_scan_ascends_by_unsigned_bytes(self, engine: OrderedKeyValue) -> None:
        """A scan gives every pair in unsigned byte order of the keys, NUL, 0xFF and prefixes of each other included."""
        for index, key in enumerate(reversed(AWKWARD_KEYS)):
            commit(engine, {key: b"%d" % index})
        expected = {key: b"%d" % index for index, key in enumerate(reversed(AWKWARD_KEYS))}
        assert pairs(engine) == sorted(expected.items())

    def test_awkward_keys_are_distinct(self, engine: OrderedKeyValue) -> None:
        """Keys with NUL and 0xFF bytes, and prefixes of each other, keep their own values and are deleted alone."""
        commit(engine, {key: b"v" + key for key in AWKWARD_KEYS})
        for key in AWKWARD_KEYS:
            assert value(engine, key) == b"v" + key
        for position, key in enumerate(AWKWARD_KEYS):
            commit(engine, deletes={key})
            assert [k for k, _ in pairs(engine)] == sorted(AWKWARD_KEYS[position + 1 :])

    def test_absent_neighbours(self, engine: OrderedKeyValue) -> None:
        """A prefix or an extension of a key that is there is absent itself."""
        commit(engine, {b"abc": b"1"})
        for key in (b"ab", b"abc\x00", b"abcd", b"abb\xff", b"\x00abc", b"ABC"):
            assert value(engine, key) is None

    @pytest.mark.parametrize("data", [b"", b"\x00", b"\x00" * 9, b"\xff" * 9, bytes(range(256))])
    def test_any_bytes_are_values(self, engine: OrderedKeyValue, data: bytes) -> None:
        """Empty values, NULs and any other bytes come back as they were, from get, get_many and scan."""
        commit(engine, {b"k": data})
        with engine.snapshot() as snapshot:
            assert snapshot.get(b"k") == data
            assert engine.get_many(snapshot, [b"k"]) == [data]
            assert list(engine.scan(snapshot, b"", None)) == [(b"k", data)]

    def test_big_value(self, engine: OrderedKeyValue) -> None:
        """A value of 8 MiB, or of the declared limit where that is lower, is kept whole."""
        size = min(8 << 20, self.info.max_value_bytes or 8 << 20)
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        commit(engine, {b"big": data, b"small": b"s"})
        assert value(engine, b"big") == data
        assert pairs(engine) == [(b"big", data), (b"small", b"s")]

    def test_longest_keys(self, engine: OrderedKeyValue) -> None:
        """Keys of the declared largest size are told apart by their last byte, and sort there too."""
        stem = b"k" * (self.max_key_bytes - 1)
        keys = [stem, stem + b"\x00", stem + b"a", stem + b"b", stem + b"\xff"]
        commit(engine, {key: key[-1:] + b"!" for key in reversed(keys)})
        assert pairs(engine) == [(key, key[-1:] + b"!") for key in keys]
        commit(engine, deletes={keys[2]})
        assert [value(engine, key) is None for key in keys] == [False, False, True, False, False]

    def test_put_replaces(self, engine: OrderedKeyValue) -> None:
        """A second put of a key replaces its value, whatever their lengths."""
        for data in (b"long value", b"", b"x", b"y" * 10_000, b"z"):
            commit(engine, {b"k": data})
            assert pairs(engine) == [(b"k", data)]

    def test_get_many_aligns(self, engine: OrderedKeyValue) -> None:
        """get_many answers in the order asked, repeats duplicates, and holds the place of what is absent with None."""
        commit(engine, {b"a": b"1", b"b": b"", b"c": b"3"})
        with engine.snapshot() as snapshot:
            asked = [b"c", b"nope", b"a", b"c", b"b", b"nope", b"a"]
            assert engine.get_many(snapshot, asked) == [b"3", None, b"1", b"3", b"", None, b"1"]
            assert engine.get_many(snapshot, []) == []
            assert engine.get_many(snapshot, tuple(asked)) == [b"3", None, b"1", b"3", b"", None, b"1"]

    def test_get_many_of_many(self, engine: OrderedKeyValue) -> None:
        """get_many takes thousands of keys at once, in any order."""
        expected = {b"%05d" % i: b"v%d" % i for i in range(0, 5_000, 2)}
        commit(engine, expected)
        asked = [b"%05d" % (i * 7 % 5_000) for i in range(5_000)]
        with engine.snapshot() as snapshot:
            assert engine.get_many(snapshot, asked) == [expected.get(key) for key in asked]

    @pytest.mark.parametrize(
        ("start", "stop", "expected"),
        [
            (b"", None, b"abcd"),
            (b"b", None, b"bcd"),
            (b"b", b"d", b"bc"),
            (b"b", b"d\x00", b"bcd"),
            (b"b\x00", b"d", b"c"),
            (b"", b"a", b""),
            (b"", b"b", b"a"),
            (b"b", b"b", b""),
            (b"c", b"b", b""),
            (b"d\x00", None, b""),
            (b"d", b"\xff", b"d"),
        ],
    )
    def test_scan_bounds(self, engine: OrderedKeyValue, start: bytes, stop: bytes | None, expected: bytes) -> None:
        """A scan includes its start, excludes its stop, goes to the end where stop is None, and may be empty."""
        commit(engine, {b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"})
        assert b"".join(key for key, _ in pairs(engine, start, stop)) == expected

    def test_scan_of_keys_that_begin_alike(self, engine: OrderedKeyValue) -> None:
        """Wherever a scan has to stop and go on, it leaves out no key that is the last one and a NUL byte more."""
        keys = [b"k%03d" % i + b"\x00" * j for i in range(300) for j in range(7)]
        commit(engine, dict.fromkeys(keys, b"v"))
        assert [key for key, _ in pairs(engine)] == keys

    def test_two_scans_interleave(self, engine: OrderedKeyValue) -> None:
        """Two scans and gets of one snapshot do not disturb each other."""
        commit(engine, {b"%03d" % i: b"v%d" % i for i in range(300)})
        with engine.snapshot() as snapshot:
            seen = []
            for (left, _), (right, _) in zip(
                engine.scan(snapshot, b"000", b"100"), engine.scan(snapshot, b"100", b"200"), strict=True
            ):
                assert snapshot.get(b"250") == b"v250"
                seen.append((left, right))
        assert seen == [(b"%03d" % i, b"%03d" % (i + 100)) for i in range(100)]

    def test_snapshot_does_not_move(self, engine: OrderedKeyValue) -> None:
        """A snapshot shows its own state, by every call, while commits go on beside it."""
        before = {b"%03d" % i: b"old" for i in range(200)}
        commit(engine, before)
        with engine.snapshot() as snapshot:
            commit(engine, {b"000": b"new", b"500": b"new"}, deletes={b"001"}, ranges=[(b"100", b"200")])
            assert snapshot.get(b"000") == b"old"
            assert snapshot.get(b"500") is None
            assert engine.get_many(snapshot, [b"001", b"150", b"500"]) == [b"old", b"old", None]
            assert list(engine.scan(snapshot, b"", None)) == sorted(before.items())
        after = {b"%03d" % i: b"old" for i in range(2, 100)} | {b"000": b"new", b"500": b"new"}
        assert pairs(engine) == sorted(after.items())

    def test_scan_does_not_move(self, engine: OrderedKeyValue) -> None:
        """A scan that began before a commit ends in the state of its snapshot."""
        before = {b"%03d" % i: b"old" for i in range(200)}
        commit(engine, before)
        with engine.snapshot() as snapshot:
            scan = engine.scan(snapshot, b"", None)
            seen = [next(scan) for _ in range(50)]
            commit(engine, {b"150": b"new", b"1505": b"new"}, deletes={b"060"}, ranges=[(b"190", b"300")])
            seen.extend(scan)
        assert seen == sorted(before.items())

    def test_snapshot_ids(self, engine: OrderedKeyValue) -> None:
        """A snapshot's id stays the same for its life, and no two states have the same id."""
        ids = []
        for i in range(20):
            with engine.snapshot() as snapshot:
                first = snapshot.id()
                commit(engine, {b"k": b"%d" % i})
                assert snapshot.id() == first
                ids.append(first)
        with engine.snapshot() as snapshot:
            ids.append(snapshot.id())
        assert len(set(ids)) == len(ids)

    def test_nested_snapshots(self, engine: OrderedKeyValue) -> None:
        """Several snapshots may be open at once, each with its state."""
        commit(engine, {b"k": b"1"})
        with engine.snapshot() as first:
            commit(engine, {b"k": b"2"})
            with engine.snapshot() as second:
                commit(engine, deletes={b"k"})
                with engine.snapshot() as third:
                    assert (first.get(b"k"), second.get(b"k"), third.get(b"k")) == (b"1", b"2", None)
                assert second.get(b"k") == b"2"
            assert first.get(b"k") == b"1"
