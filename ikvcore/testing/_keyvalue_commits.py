"""OrderedKeyValueSuite, part two: batches, expectations, closing and reopening."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore.errors import FencedError, StorageError
from ikvcore.models import Meta, WriteBatch
from ikvcore.protocols import OrderedKeyValue
from ikvcore.testing._keyvalue_base import KeyValueBase, commit, pairs, value

__all__ = ["KeyValueCommits"]


class KeyValueCommits(KeyValueBase):
    """A commit is all or nothing, and a compare-and-set."""

    def test_batch_order(self, engine: OrderedKeyValue) -> None:
        """Range deletes come first, then deletes, then puts: a put inside a range of its own batch stays."""
        commit(engine, {b"a": b"1", b"b": b"1", b"c": b"1", b"d": b"1"})
        commit(engine, {b"b": b"2", b"bb": b"2"}, deletes={b"d"}, ranges=[(b"a", b"d")])
        assert pairs(engine) == [(b"b", b"2"), (b"bb", b"2")]

    def test_range_bounds(self, engine: OrderedKeyValue) -> None:
        """A range delete takes start <= key < stop and nothing else; an empty range takes nothing."""
        keys = [b"a", b"b", b"b\x00", b"c", b"c\x00", b"d"]
        commit(engine, dict.fromkeys(keys, b"v"))
        commit(engine, ranges=[(b"b", b"b"), (b"d", b"a")])
        assert [key for key, _ in pairs(engine)] == keys
        commit(engine, ranges=[(b"b", b"c")])
        assert [key for key, _ in pairs(engine)] == [b"a", b"c", b"c\x00", b"d"]
        commit(engine, ranges=[(b"c", b"c\x00\x00")])
        assert [key for key, _ in pairs(engine)] == [b"a", b"d"]

    def test_several_ranges(self, engine: OrderedKeyValue) -> None:
        """Ranges of one batch may overlap, touch and be empty of keys; together they may take everything."""
        commit(engine, {b"%03d" % i: b"v" for i in range(100)})
        commit(engine, ranges=[(b"010", b"020"), (b"015", b"030"), (b"030", b"031"), (b"200", b"300")])
        assert [key for key, _ in pairs(engine)] == [b"%03d" % i for i in range(100) if not 10 <= i < 31]
        commit(engine, ranges=[(b"\x00", b"\xff" * 8)])
        assert pairs(engine) == []

    def test_range_over_many(self, engine: OrderedKeyValue) -> None:
        """A range delete over thousands of keys leaves its neighbours alone."""
        commit(engine, {b"k%05d" % i: b"v" * 50 for i in range(5_000)} | {b"j": b"1", b"l": b"2"})
        commit(engine, ranges=[(b"k", b"l")])
        assert pairs(engine) == [(b"j", b"1"), (b"l", b"2")]

    def test_deletes(self, engine: OrderedKeyValue) -> None:
        """A delete takes its key alone; an absent key is no error."""
        commit(engine, {b"a": b"1", b"aa": b"2"})
        commit(engine, deletes={b"a", b"nope"})
        assert pairs(engine) == [(b"aa", b"2")]

    def test_empty_batch(self, engine: OrderedKeyValue) -> None:
        """An empty batch changes nothing, but its expectations are still compared."""
        commit(engine, {b"a": b"1"})
        commit(engine, expect={b"a": b"1"})
        with pytest.raises(FencedError):
            commit(engine, expect={b"a": b"2"})
        assert pairs(engine) == [(b"a", b"1")]

    def test_batch_is_not_changed(self, engine: OrderedKeyValue) -> None:
        """A batch belongs to its caller: committing it leaves it as it was, so that it can be given again."""
        batch = WriteBatch(puts={b"a": b"1"}, deletes={b"b"}, ranges=[(b"x", b"z")])
        engine.commit(batch, expect={})
        assert batch == WriteBatch(puts={b"a": b"1"}, deletes={b"b"}, ranges=[(b"x", b"z")])
        batch.puts[b"c"] = b"2"
        assert pairs(engine) == [(b"a", b"1")]

    @pytest.mark.parametrize(
        "expect",
        [
            {b"version": b"1"},
            {b"nope": None},
            {b"empty": b""},
            {b"version": b"1", b"nope": None, b"empty": b""},
        ],
    )
    def test_expectations_that_hold(self, engine: OrderedKeyValue, expect: Meta) -> None:
        """A commit whose expectations all hold is carried out, and may change what it expected."""
        commit(engine, {b"version": b"1", b"empty": b""})
        commit(engine, {b"version": b"2"}, expect=expect)
        assert pairs(engine) == [(b"empty", b""), (b"version", b"2")]

    @pytest.mark.parametrize(
        "expect",
        [
            {b"version": b"2"},
            {b"version": None},
            {b"version": b""},
            {b"version": b"1\x00"},
            {b"nope": b"1"},
            {b"nope": b""},
            {b"empty": None},
            {b"version": b"1", b"nope": b"1"},
            {b"nope": None, b"version": b"0"},
        ],
    )
    def test_expectations_that_fail(self, engine: OrderedKeyValue, expect: Meta) -> None:
        """A commit with one expectation that does not hold raises FencedError and changes nothing at all."""
        before = {b"version": b"1", b"empty": b"", b"a": b"1", b"b": b"1"}
        commit(engine, before)
        with pytest.raises(FencedError):
            commit(engine, {b"c": b"2", b"version": b"2"}, deletes={b"a"}, ranges=[(b"b", b"c")], expect=expect)
        assert pairs(engine) == sorted(before.items())

    def test_expectation_precedes_the_batch(self, engine: OrderedKeyValue) -> None:
        """Expectations are about the state before the batch, also for keys that the batch removes or makes."""
        commit(engine, {b"a": b"1"})
        commit(engine, {b"b": b"1"}, deletes={b"a"}, expect={b"a": b"1", b"b": None})
        commit(engine, {b"a": b"2"}, ranges=[(b"b", b"c")], expect={b"a": None, b"b": b"1"})
        assert pairs(engine) == [(b"a", b"2")]

    def test_commit_after_a_failed_one(self, engine: OrderedKeyValue) -> None:
        """After FencedError the engine goes on: the next good commit is carried out alone."""
        commit(engine, {b"v": b"1"})
        for _ in range(3):
            with pytest.raises(FencedError):
                commit(engine, {b"lost": b"x"}, expect={b"v": b"0"})
        commit(engine, {b"v": b"2"}, expect={b"v": b"1"})
        assert pairs(engine) == [(b"v", b"2")]

    def test_a_batch_that_fails(self, engine: OrderedKeyValue) -> None:
        """A batch that the engine refuses, for a key over the declared limit, leaves no part of itself behind."""
        if self.info.max_key_bytes is None:
            pytest.skip("declares no limit of keys, so nothing is there to refuse")
        commit(engine, {b"a": b"1", b"z": b"1"})
        with pytest.raises(StorageError):
            commit(engine, {b"a": b"2", b"m" * 100_000: b"2", b"n": b"2"}, deletes={b"z"}, ranges=[(b"x", b"zz")])
        assert pairs(engine) == [(b"a", b"1"), (b"z", b"1")]
        commit(engine, {b"a": b"3"})
        assert pairs(engine) == [(b"a", b"3"), (b"z", b"1")]

    def test_close(self, directory: Path) -> None:
        """close is idempotent, and every call after it raises StorageError."""
        engine = self.open_engine(directory)
        commit(engine, {b"a": b"1"})
        engine.close()
        engine.close()
        with pytest.raises(StorageError):
            value(engine, b"a")
        with pytest.raises(StorageError):
            pairs(engine)
        with pytest.raises(StorageError) as raised:
            commit(engine, {b"a": b"2"})
        assert not isinstance(raised.value, FencedError)

    def test_reopen(self, directory: Path) -> None:
        """What was committed is there after closing and opening again; a volatile backend begins empty instead."""
        expected = {key: b"v" + key for key in (b"\x00", b"a", b"\xff" * 9)} | {b"empty": b""}
        engine = self.open_engine(directory)
        commit(engine, {**expected, b"gone": b"1"})
        commit(engine, deletes={b"gone"})
        engine.close()
        for _ in range(2):
            engine = self.open_engine(directory)
            try:
                assert pairs(engine) == ([] if self.info.volatile else sorted(expected.items()))
            finally:
                engine.close()

    def test_two_directories(self, engine: OrderedKeyValue, tmp_path: Path) -> None:
        """Engines of two directories share nothing."""
        other_directory = tmp_path / "other"
        other_directory.mkdir()
        other = self.open_engine(other_directory)
        try:
            commit(engine, {b"a": b"1"})
            commit(other, {b"b": b"2"})
            assert (pairs(engine), pairs(other)) == ([(b"a", b"1")], [(b"b", b"2")])
        finally:
            other.close()
        assert pairs(engine) == [(b"a", b"1")]
