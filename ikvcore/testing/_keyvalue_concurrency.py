"""OrderedKeyValueSuite, part three: threads, processes and forks."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ikvcore.errors import FencedError, ForkedError, StorageError
from ikvcore.models import Durability, Sharing
from ikvcore.protocols import Follower, OrderedKeyValue
from ikvcore.testing._keyvalue_base import KeyValueBase, commit, pairs, value
from ikvcore.testing._parallel import ATTEMPTS, in_fork, run_threads, spawned, started
from ikvcore.testing._plugins import open_backend

__all__ = ["KeyValueConcurrency"]


class KeyValueConcurrency(KeyValueBase):
    """Threads and processes see whole commits, and lose none."""

    @pytest.fixture(autouse=True)
    def short_turns(self) -> Iterator[None]:
        """Threads take turns every few microseconds, so that one is met in the middle of what it does."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        yield
        sys.setswitchinterval(before)

    def test_threads_lose_no_update(self, engine: OrderedKeyValue) -> None:
        """Of many threads that compare-and-set one counter, each success counts once and each failure not at all."""
        run_threads([partial(increment, engine, b"t%d" % i, 40) for i in range(4)])
        assert value(engine, b"counter") == b"160"
        assert [key for key, _ in pairs(engine, b"t", b"u")] == sorted(
            b"t%d/%03d" % (i, n) for i in range(4) for n in range(40)
        )

    def test_readers_see_whole_commits(self, engine: OrderedKeyValue) -> None:
        """While one thread commits, snapshots of others hold one commit's values each, by get, get_many and scan, and
        never go back."""
        keys = [b"k%02d" % i for i in range(16)]
        commit(engine, dict.fromkeys(keys, b"000000"))
        done = threading.Event()

        def write() -> None:
            try:
                for i in range(1, 201):
                    commit(engine, dict.fromkeys(keys, b"%06d" % i), ranges=[(b"k", b"l")])
            finally:
                done.set()

        def read() -> int:
            last, states = b"", 0
            while True:
                finished = done.is_set()
                with engine.snapshot() as snapshot:
                    one = snapshot.get(keys[0])
                    assert one is not None
                    assert engine.get_many(snapshot, keys) == [one] * len(keys)
                    assert [data for _, data in engine.scan(snapshot, b"", None)] == [one] * len(keys)
                    assert snapshot.get(keys[-1]) == one
                assert one >= last
                states += one != last
                last = one
                if finished:
                    assert last == b"000200"
                    return states

        states = run_threads([write, read, read, read])
        assert max(states[1:]) > 1, "the readers never ran beside the writer"

    def test_commit_is_visible_to_other_threads(self, engine: OrderedKeyValue) -> None:
        """What a commit returned for is in every later snapshot, in whichever thread."""
        for i in range(50):
            commit(engine, {b"k": b"%d" % i})
            assert started(lambda: value(engine, b"k")).finish() == b"%d" % i

    def test_two_processes(self, directory: Path) -> None:
        """Where the backend is shared, two processes compare-and-set one counter and lose no update, and each
        sees the other's commits at once."""
        if self.info.sharing is not Sharing.SHARED:
            pytest.skip("not declared shared")
        engine = self.open_engine(directory)
        try:
            commit(engine, {b"counter": b"0", b"parent": b"here"})
            with spawned(process_increments, self.info.name, directory, dict(self.options), b"child", 60) as result:
                increment(engine, b"parent", 60)
                assert result() == b"here"
                assert value(engine, b"counter") == b"120"
                assert len(pairs(engine, b"child/", b"child0")) == 60
        finally:
            engine.close()

    def test_follower(self, directory: Path) -> None:
        """Where others may follow, one that does shows what was committed once it catches up, keeps the state of its
        open snapshots, refuses commits, and makes nothing where there is nothing."""
        if self.info.sharing is not Sharing.FOLLOWERS:
            pytest.skip("declares no followers")
        with pytest.raises(StorageError):
            self.open_follower(directory)
        assert list(directory.iterdir()) == []
        engine = self.open_engine(directory)
        commit(engine, {b"a": b"1", b"b": b"1"})
        follower = self.open_follower(directory)
        try:
            assert isinstance(follower, Follower)
            assert isinstance(engine, Follower)
            assert pairs(follower) == [(b"a", b"1"), (b"b", b"1")]
            with pytest.raises(StorageError):
                commit(follower, {b"a": b"3"})
            with follower.snapshot() as snapshot:
                commit(engine, {b"a": b"2", b"c": b"2"}, ranges=[(b"b", b"c")])
                follower.catch_up()
                engine.catch_up()
                assert [snapshot.get(key) for key in (b"a", b"b", b"c")] == [b"1", b"1", None]
                assert list(follower.scan(snapshot, b"", None)) == [(b"a", b"1"), (b"b", b"1")]
            assert pairs(follower) == pairs(engine) == [(b"a", b"2"), (b"c", b"2")]
            engine.close()
            follower.catch_up()
            assert value(follower, b"c") == b"2"
        finally:
            follower.close()
            engine.close()

    def test_follower_in_another_process(self, directory: Path) -> None:
        """It sees each commit that had returned when it catches up, whole."""
        if self.info.sharing is not Sharing.FOLLOWERS:
            pytest.skip("declares no followers")
        engine = self.open_engine(directory)
        try:
            commit(engine, {b"counter": b"0"})
            with spawned(follow_to, self.info.name, directory, dict(self.options), 60) as result:
                increment(engine, b"owner", 60)
                assert result() == [b"owner/%03d" % n for n in range(60)]
        finally:
            engine.close()

    def test_committed_survives_a_kill(self, directory: Path) -> None:
        """From durability process-crash on, what was committed is there although its process was killed."""
        if self.info.durability < Durability.PROCESS_CRASH:
            pytest.skip("declares no durability")
        arguments = (self.info.name, directory, dict(self.options))
        with spawned(commit_and_die, *arguments) as result, pytest.raises(AssertionError, match="died without"):
            result()
        engine = self.open_engine(directory)
        try:
            assert pairs(engine) == [(b"last", b"words")]
        finally:
            engine.close()

    def test_fork(self, engine: OrderedKeyValue) -> None:
        """Every call in a forked child raises ForkedError within a bounded time, and the parent's reads stay right."""
        expected = {b"%04d" % i: b"v%d" % i for i in range(500)}
        commit(engine, expected)

        def calls() -> str:
            outcomes = [
                _outcome(lambda: value(engine, b"0001")),
                _outcome(lambda: pairs(engine)),
                _outcome(lambda: commit(engine, {b"child": b"1"})),
                _outcome(engine.close),
            ]
            return " ".join(outcomes)

        with engine.snapshot() as snapshot:
            before = list(engine.scan(snapshot, b"", None))
            *calls_before_close, _ = in_fork(calls).split(" ")
            assert calls_before_close == ["ForkedError"] * 3
            for i in range(20):
                commit(engine, {b"%04d" % n: b"new%d" % i for n in range(500)})
            assert list(engine.scan(snapshot, b"", None)) == before
        assert pairs(engine) == [(key, b"new19") for key in sorted(expected)]

    def test_close_in_a_forked_child(self, engine: OrderedKeyValue) -> None:
        """close in a forked child raises ForkedError or does nothing; the parent's engine works on."""
        commit(engine, {b"a": b"1"})
        assert in_fork(lambda: _outcome(engine.close)) in ("ForkedError", "returned")
        commit(engine, {b"a": b"2"}, expect={b"a": b"1"})
        assert value(engine, b"a") == b"2"


def increment(engine: OrderedKeyValue, name: bytes, times: int) -> None:
    """Add one to the counter so many times, each in the commit of a key that is `name`'s own."""
    for n in range(times):
        for _ in range(ATTEMPTS):
            found = value(engine, b"counter")
            try:
                commit(
                    engine,
                    {b"counter": b"%d" % (int(found or 0) + 1), b"%s/%03d" % (name, n): b""},
                    expect={b"counter": found},
                )
                break
            except FencedError:
                continue
        else:
            raise AssertionError(f"fenced {ATTEMPTS:,} times, though nobody commits so often")


def commit_and_die(name: str, directory: Path, options: Mapping[str, Any]) -> None:
    """In a child process: commit, and be killed as soon as that has returned."""
    engine = open_backend(name, directory, options)
    assert isinstance(engine, OrderedKeyValue)
    commit(engine, {b"last": b"words"})
    os.kill(os.getpid(), signal.SIGKILL)


def process_increments(name: str, directory: Path, options: Mapping[str, Any], who: bytes, times: int) -> bytes | None:
    """In a child process: increment, and tell what the parent had committed before."""
    engine = open_backend(name, directory, options)
    assert isinstance(engine, OrderedKeyValue)
    try:
        seen = value(engine, b"parent")
        increment(engine, who, times)
        return seen
    finally:
        engine.close()


def follow_to(name: str, directory: Path, options: Mapping[str, Any], end: int) -> list[bytes]:
    """In a child process: catch up until the counter is at `end`; the keys of who counted, which never lag behind."""
    engine = open_backend(name, directory, options, follow=True)
    assert isinstance(engine, OrderedKeyValue)
    assert isinstance(engine, Follower)
    try:
        while True:
            engine.catch_up()
            found = pairs(engine)
            count = int(dict(found)[b"counter"])
            assert len(found) == count + 1
            if count == end:
                return [key for key, _ in found if key != b"counter"]
    finally:
        engine.close()


def _outcome(call: Any) -> str:
    try:
        call()
    except ForkedError:
        return "ForkedError"
    except Exception as exc:
        return type(exc).__name__
    return "returned"
