"""What is particular to the local transport's clients: options, sharing within a process, deletion, other processes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from ikv_transports._local_home import LocalHome
from ikv_transports.local import LocalTransportOptions
from ikvcore.errors import InvalidOptionError, TransportError
from ikvcore.models import Message

Fixture = Any
"""tests/ikv_transports/conftest.py cannot be imported by name."""


def poll(subscription: Any, timeout: float = 30, **limits: int) -> list[bytes]:
    polled = subscription.poll(**{"max_messages": 1000, "max_bytes": 1 << 20, **limits}, timeout=timeout)
    return [each.value for each in polled.messages]


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["none", "Power-Loss", "fsync", "", None, 3])
def test_durability_has_two_words(word: Any) -> None:
    with pytest.raises(InvalidOptionError, match="use power-loss or process-crash"):
        LocalTransportOptions(durability=word)


@pytest.mark.parametrize("home", ["", "a\0b", 3])
def test_a_home_is_a_path(home: Any) -> None:
    with pytest.raises(InvalidOptionError, match="home"):
        LocalTransportOptions(home=home)


def test_the_home_is_the_option_then_the_variable_then_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKV_HOME", "/from/variable")
    assert LocalHome("/from/option").path == Path("/from/option")
    assert LocalHome(None).path == Path("/from/variable")
    monkeypatch.delenv("IKV_HOME")
    assert LocalHome(None).path == Path(platformdirs.user_data_dir("ikvcore"))


def test_the_home_of_no_user_is_an_error() -> None:
    with pytest.raises(InvalidOptionError, match="nobody-of-this-name"):
        LocalHome("~nobody-of-this-name/x")


@pytest.mark.parametrize(("options", "synced"), [({}, True), ({"durability": "process-crash"}, False)])
def test_commits_are_synced_unless_process_crash_is_enough(
    local_store: Fixture, options: dict[str, str], synced: bool
) -> None:
    """C4: what "power-loss" declares is LMDB's own doing, data and meta pages both; no test here can cut the power."""
    flags = local_store.open(**options)._log._engine._env.flags()
    assert (flags["sync"], flags["metasync"]) == (synced, synced)


# -- sharing -----------------------------------------------------------------------------------


def test_two_clients_of_one_process_share_the_log(local_store: Fixture, message: Fixture, from_start: Fixture) -> None:
    first, second = local_store.open(), local_store.open()
    subscription = second.subscribe(from_start(0))
    first.publish([message(b"1")])
    first.close()
    second.publish([message(b"2")])
    assert poll(subscription) == [b"1", b"2"]


def test_one_process_uses_one_durability_for_a_log(local_store: Fixture) -> None:
    log = local_store.open()
    with pytest.raises(InvalidOptionError, match=r"process-crash.*power-loss"):
        local_store.open(durability="process-crash")
    log.close()
    local_store.open(durability="process-crash").close()
    local_store.open()


def test_many_threads_may_open_and_close_at_once(local_store: Fixture, message: Fixture) -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(20):
                log = local_store.open()
                log.publish([message(b"1")])
                log.close()
                log.close()
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert local_store.open().bounds()[0].end == 160


def test_a_log_that_was_closed_says_so(local_store: Fixture, message: Fixture, from_start: Fixture) -> None:
    log = local_store.open()
    subscription = log.subscribe(from_start(0))
    other = local_store.open()  # the shared environment stays open
    log.close()
    log.close()
    calls = (log.describe, log.bounds, log.size, lambda: log.publish([message(b"1")]), lambda: log.subscribe({}))
    for call in (*calls, lambda: poll(subscription)):
        with pytest.raises(TransportError, match="closed"):
            call()
    subscription.wake()
    subscription.close()
    other.publish([message(b"1")])


def test_closing_the_client_ends_a_poll_that_waits(local_store: Fixture, from_start: Fixture) -> None:
    log = local_store.open()
    subscription = log.subscribe(from_start(0))
    ended = threading.Event()

    def follow() -> None:
        with pytest.raises(TransportError, match="closed"):
            poll(subscription, timeout=60)
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    log.close()
    assert ended.wait(10)
    thread.join()
    assert list((local_store.directory / "followers").iterdir()) == []


# -- reading -----------------------------------------------------------------------------------


def test_a_busy_partition_starves_no_other(local_store: Fixture, message: Fixture, from_start: Fixture) -> None:
    log = local_store.open()
    log.publish([message(b"busy", 0) for _ in range(100)] + [message(b"second", 1), message(b"third", 2)])
    subscription = log.subscribe(from_start(0, 1, 2))
    first_polls = [value for _ in range(3) for value in poll(subscription, max_messages=2)]
    assert {b"second", b"third"} <= set(first_polls)
    assert len(first_polls) == 6


def test_a_message_is_given_whatever_its_size_and_no_second_one(
    local_store: Fixture, message: Fixture, from_start: Fixture
) -> None:
    log = local_store.open()
    log.publish([message(b"x" * 5000), message(b"y" * 5000), message(b"z")])
    subscription = log.subscribe(from_start(0))
    assert [len(value) for value in poll(subscription, max_bytes=10)] == [5000]
    assert [len(value) for value in poll(subscription, max_bytes=5100)] == [5000, 1]


def test_the_size_is_that_of_the_file(local_store: Fixture, message: Fixture) -> None:
    log = local_store.open()
    log.publish([message(b"x" * 100_000)])
    assert log.size() == (local_store.directory / "log" / "data.mdb").stat().st_size > 100_000


# -- deletion ----------------------------------------------------------------------------------


def test_a_deleted_store_ends_its_followers_and_refuses_its_writers(
    local_store: Fixture, message: Fixture, from_start: Fixture
) -> None:
    log = local_store.open()
    subscription = log.subscribe(from_start(0))
    ended = threading.Event()

    def follow() -> None:
        with pytest.raises(TransportError, match="deleted"):
            poll(subscription, timeout=60)
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    local_store.provisioning().delete_store("profiles")
    assert ended.wait(10)
    thread.join()
    for call in (log.bounds, lambda: log.publish([message(b"1")]), lambda: log.subscribe(from_start(0))):
        with pytest.raises(TransportError, match="deleted"):
            call()


def test_a_store_made_again_is_another_log_also_for_old_clients(local_store: Fixture, message: Fixture) -> None:
    old = local_store.open()
    old.publish([message(b"old")])
    local_store.provisioning().delete_store("profiles")
    local_store.create(identity="log-2")
    new = local_store.open()
    assert new.describe().identity == "log-2"
    assert new.bounds()[0].end == 0
    with pytest.raises(TransportError, match="deleted"):
        old.publish([message(b"lost")])
    new.publish([message(b"new")])
    assert new.bounds()[0].end == 1


@pytest.mark.parametrize("restored", [True, False])
def test_a_file_that_takes_the_place_of_the_open_one_is_told_and_nothing_is_written_to_the_old_one(
    local_store: Fixture, message: Fixture, from_start: Fixture, tmp_path: Path, restored: bool
) -> None:
    """As when a log is restored from a copy, or its file removed, under those who write and follow it."""
    log = local_store.open()
    log.publish([message(b"1")])
    log.close()
    data = local_store.directory / "log" / "data.mdb"
    shutil.copy(data, tmp_path / "copy")
    log = local_store.open()
    log.publish([message(b"2")])
    subscription = log.subscribe(from_start(0))
    assert poll(subscription) == [b"1", b"2"]
    data.unlink()
    if restored:
        (tmp_path / "copy").rename(data)
    for call in (
        lambda: log.publish([message(b"lost")]),
        lambda: poll(subscription),
        lambda: log.subscribe(from_start(0)),
        log.bounds,
    ):
        with pytest.raises(TransportError, match="removed, emptied or replaced while it was open"):
            call()


# -- other processes ---------------------------------------------------------------------------


def test_processes_write_one_log_without_losing_or_mixing_anything(local_store: Fixture, from_start: Fixture) -> None:
    program = """
        log = open_log()
        for number in range(50):
            log.publish([message(f"{sys.argv[-1]} {number}".encode(), number % 3), message(b"pair", number % 3)])
        log.close()
    """
    writers = [local_store.start(program) for _ in range(4)]
    log = local_store.open()
    subscription = log.subscribe(from_start(0, 1, 2))
    seen: list[Any] = []
    while len(seen) < 4 * 50 * 2:
        polled = subscription.poll(max_messages=1000, max_bytes=1 << 20, timeout=30)
        assert polled.messages
        seen += polled.messages
    for writer in writers:
        writer.communicate(timeout=30)
        assert writer.returncode == 0
    for partition in range(3):
        mine = [each for each in seen if each.partition == partition]
        assert [each.position for each in mine] == list(range(len(mine)))
        assert [each.value for each in mine[1::2]] == [b"pair"] * (len(mine) // 2)


def test_what_was_acknowledged_survives_a_kill(local_store: Fixture) -> None:
    writer = local_store.start("""
        log = open_log(durability="process-crash")
        while True:
            token = log.publish([message(b"x")])
            print(token.positions[0], flush=True)
    """)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)][-1]
    writer.kill()
    writer.communicate()
    log = local_store.open()
    assert log.bounds()[0].end >= acknowledged
    log.publish([Message(0, b"key", b"still works", 1)])
