"""The local log's commits and entries: shared commits, failing ones, damage, and full disks."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ikv_transports._local_entries import entry_key
from ikvcore.errors import (
    EventTooLargeError,
    InvalidArgumentError,
    OutcomeUnknownError,
    TransportError,
)
from ikvcore.models import Bounds, Message, Start
from ikvcore.tokens import Token

Fixture = Any
"""tests/ikv_transports/conftest.py cannot be imported by name."""


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run `work(number)` in threads that begin together; what they raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        together.wait()
        try:
            work(number)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


# -- shared commits ----------------------------------------------------------------------------


def test_concurrent_writers_share_commits_and_each_gets_its_own_token(local_store: Fixture, message: Fixture) -> None:
    log = local_store.open()
    tokens: list[Token] = []

    def write(number: int) -> None:
        for _ in range(500):
            tokens.append(log.publish([message(b"%d" % number, number % 3)]))

    before = log._log.last_commit()
    assert in_threads(16, write) == []
    assert log._log.last_commit() - before <= 16 * 500 / 6
    reached = [next(iter(token.positions.items())) for token in tokens]
    assert len(set(reached)) == 16 * 500
    assert sum(place.end for place in log.bounds().values()) == 16 * 500


def test_a_writer_by_itself_commits_once_a_call(local_store: Fixture, message: Fixture) -> None:
    log = local_store.open()
    before = log._log.last_commit()
    for _ in range(5):
        log.publish([message(b"1", 0), message(b"2", 1), message(b"3", 0)])
    assert log._log.last_commit() - before == 5


def test_nothing_to_publish_is_no_commit(local_store: Fixture) -> None:
    log = local_store.open()
    before = log._log.last_commit()
    assert log.publish([]) == Token()
    assert log._log.last_commit() == before


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Message(3, b"key", b"value", 1), InvalidArgumentError),
        (Message(-1, b"key", b"value", 1), InvalidArgumentError),
        (Message(0, b"key", b"value", 1 << 63), InvalidArgumentError),
        (Message(0, b"key", b"x" * 1001, 1), EventTooLargeError),
    ],
)
def test_a_call_that_is_refused_takes_no_other_down_and_appends_nothing(
    local_store: Fixture, message: Fixture, wrong: Message, error: type[Exception]
) -> None:
    local_store.create(store_name="small", identity="log-2", max_event_bytes=1000)
    log = local_store.open("small")

    def write(number: int) -> None:
        for _ in range(20):
            if number:
                log.publish([message(b"right")])
            else:
                with pytest.raises(error):
                    log.publish([message(b"with it", 1), wrong])

    assert in_threads(4, write) == []
    assert log.bounds() == {
        0: Bounds(0, 60, complete=True),
        1: Bounds(0, 0, complete=True),
        2: Bounds(0, 0, complete=True),
    }


def test_a_failed_commit_fails_each_of_its_callers_with_an_error_of_its_own(
    local_store: Fixture, message: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = local_store.open()
    with monkeypatch.context() as patch:
        patch.setattr(log._log._engine, "write", failing(TransportError("broken")))
        errors = in_threads(8, lambda number: log.publish([message(b"1")]))
    assert [str(error) for error in errors] == ["broken"] * 8
    assert len(set(map(id, errors))) == 8
    log.publish([message(b"2")])


def test_whatever_interrupts_a_commit_does_not_leave_the_others_waiting(
    local_store: Fixture, message: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = local_store.open()
    with monkeypatch.context() as patch:
        patch.setattr(log._log._engine, "write", failing(KeyboardInterrupt()))
        errors = in_threads(8, lambda number: log.publish([message(b"1")]))
    assert len(errors) == 8
    assert {type(error) for error in errors} <= {KeyboardInterrupt, OutcomeUnknownError}
    assert log.publish([message(b"2")]).positions == {0: 1}


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


# -- commits that fail in the engine -----------------------------------------------------------


class FailingTransaction:
    """A write transaction whose commit reports an I/O error, having taken effect or not."""

    def __init__(self, txn: Any, takes_effect: bool) -> None:
        self._txn = txn
        self._takes_effect = takes_effect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    def commit(self) -> None:
        if self._takes_effect:
            self._txn.commit()
        else:
            self._txn.abort()
        raise lmdb.Error("mdb_txn_commit", errno.EIO)


@pytest.mark.parametrize(("took_effect", "error"), [(False, TransportError), (True, OutcomeUnknownError)])
def test_a_failed_commit_is_looked_up_and_the_log_goes_on(
    local_store: Fixture, message: Fixture, monkeypatch: pytest.MonkeyPatch, took_effect: bool, error: type[Exception]
) -> None:
    log = local_store.open()
    engine = log._log._engine
    environment, begin = engine._env, engine._begin

    def begin_failing(*, write: bool) -> Any:
        txn = begin(write=write)
        return FailingTransaction(txn, took_effect) if write else txn

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_begin", begin_failing)
        with pytest.raises(TransportError) as caught:
            log.publish([message(b"1")])
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, lmdb.Error)
    assert engine._env is not environment  # LMDB refuses everything after such an error, until it is opened anew
    assert log.publish([message(b"2")]).positions == {0: 2 if took_effect else 1}


def test_a_full_disk_is_told_and_outlived(local_store: Fixture) -> None:
    """A limit on the size of files stands in for the disk: LMDB reports both as an I/O error of the commit."""
    local_store.run("""
        import resource
        log = open_log()
        size = log.size()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + (3 << 20), resource.RLIM_INFINITY))
        taken = 0
        try:
            while taken < 100:
                taken = log.publish([message(os.urandom(1 << 18))]).positions[0]
        except StorageFullError as exc:
            assert "nothing was changed" in str(exc), exc
        assert taken < 100
        assert log.bounds()[0].end == taken
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert log.publish([message(b"on")]).positions == {0: taken + 1}
    """)


def test_little_address_space_is_enough_for_a_log(local_store: Fixture) -> None:
    local_store.run("""
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
        log = open_log()
        assert log.publish([message(b"1")]).positions == {0: 1}
    """)


def test_a_map_that_another_process_outgrew_is_taken_over(
    local_store: Fixture, message: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ikv_backends import _lmdb_environment

    monkeypatch.setattr(_lmdb_environment, "_RESERVE", 1 << 20)
    log = local_store.open()
    local_store.run("open_log().publish([message(b'x' * (1 << 21))])")
    assert log.bounds()[0].end == 1
    log.publish([message(b"2")])


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture
def written(local_store: Fixture, message: Fixture) -> Fixture:
    """The store with messages b"0" to b"4" in partition 1, closed."""
    log = local_store.open()
    log.publish([message(b"%d" % number, 1) for number in range(5)])
    log.close()
    return local_store


def change(store: Fixture, work: Callable[[Any], object]) -> None:
    """Change the closed log behind its back."""
    with lmdb.open(str(store.directory / "log")) as env, env.begin(write=True) as txn:
        work(txn)


def flip(txn: Any) -> None:
    stored = bytearray(txn.get(entry_key(1, 2)))
    stored[-6] ^= 1
    txn.put(entry_key(1, 2), bytes(stored))


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda txn: txn.put(entry_key(1, 2), b"short"),
        lambda txn: txn.put(entry_key(1, 2), txn.get(entry_key(1, 3))),
        lambda txn: txn.delete(entry_key(1, 2)),
    ],
    ids=["a flipped bit", "too short", "another entry's content", "missing"],
)
def test_a_damaged_entry_is_named_after_what_comes_before_it(written: Fixture, damage: Callable[[Any], object]) -> None:
    change(written, damage)
    subscription = written.open().subscribe({1: Start(0, None)})
    polled = subscription.poll(max_messages=10, max_bytes=1000, timeout=0)
    assert [each.value for each in polled.messages] == [b"0", b"1"]
    for _ in range(2):
        with pytest.raises(TransportError, match="position 2 of partition 1"):
            subscription.poll(max_messages=10, max_bytes=1000, timeout=0)


def test_a_log_of_another_store_is_refused(written: Fixture) -> None:
    from ikv_transports._local_entries import IDENTITY_KEY

    change(written, lambda txn: txn.put(IDENTITY_KEY, b"log-of-another"))
    with pytest.raises(TransportError, match="log-of-another"):
        written.open()


@pytest.mark.parametrize("size", [0, 1000, 8192])
def test_a_truncated_file_is_refused_and_never_taken_for_a_new_log(written: Fixture, size: int) -> None:
    data: Path = written.directory / "log" / "data.mdb"
    data.write_bytes(data.read_bytes()[:size])
    with pytest.raises(TransportError, match="log"):
        written.open()
    assert data.stat().st_size == size


def test_a_missing_file_is_refused_and_none_is_made(written: Fixture) -> None:
    data: Path = written.directory / "log" / "data.mdb"
    data.unlink()
    with pytest.raises(TransportError, match="lost its data file"):
        written.open()
    assert not data.exists()


def test_a_file_that_is_removed_while_it_is_open_takes_no_more_events(written: Fixture) -> None:
    """They would be acknowledged, and gone with the last process that has it open."""
    log = written.open()
    subscription = log.subscribe({2: Start(0, None)})
    (written.directory / "log" / "data.mdb").unlink()
    with pytest.raises(TransportError, match="removed, emptied or replaced"):
        log.publish([Message(0, b"key", b"value", 1)])
    with pytest.raises(TransportError, match="removed, emptied or replaced"):
        subscription.poll(max_messages=10, max_bytes=1 << 20, timeout=0.0)
    subscription.close()


def test_a_log_whose_beginning_is_gone_is_not_complete(written: Fixture) -> None:
    change(written, lambda txn: [txn.delete(entry_key(1, position)) for position in (0, 1)])
    assert written.open().bounds()[1] == Bounds(2, 5, complete=False)
