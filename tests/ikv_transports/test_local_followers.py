"""The FIFOs that wake followers: rung after a commit, never lost, stale ones removed, nothing else touched."""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ikv_transports import _local_followers
from ikv_transports import local as local_module
from ikv_transports._local_followers import Doorbell, ring_all
from ikvcore.errors import TransportError
from ikvcore.models import Message, Start

LONG = 60.0
"""Seconds that no test takes unless a wake-up was lost."""


@pytest.fixture
def followers(tmp_path: Path) -> Path:
    directory = tmp_path / "followers"
    directory.mkdir()
    return directory


def rung(bell: Doorbell) -> bool:
    return bool(bell._poll.poll(0))


def test_ringing_wakes_every_follower_and_draining_forgets_it(followers: Path) -> None:
    bells = [Doorbell(followers) for _ in range(3)]
    ring_all(followers)
    assert all(map(rung, bells))
    for bell in bells:
        bell.drain()
    assert not any(map(rung, bells))
    for bell in bells:
        bell.close()
        bell.close()
        bell.ring()
    assert list(followers.iterdir()) == []


def test_a_fifo_is_its_owners_alone_whatever_the_umask(followers: Path) -> None:
    before = os.umask(0o277)
    try:
        bell = Doorbell(followers)
    finally:
        os.umask(before)
    (path,) = followers.iterdir()
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    bell.close()


def test_a_bell_that_is_full_is_already_rung(followers: Path) -> None:
    bell = Doorbell(followers)
    (path,) = followers.iterdir()
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while os.write(fd, b"\0" * 4096):
            pass
    os.close(fd)
    ring_all(followers)
    bell.ring()
    assert path.exists()
    bell.drain()
    assert not rung(bell)
    bell.close()


def test_the_fifo_of_a_killed_follower_is_removed(local_store: Any) -> None:
    follower = local_store.start("""
        subscription = open_log().subscribe({0: Start(0, None)})
        print("following", flush=True)
        poll(subscription, timeout=600)
    """)
    assert follower.stdout.readline() == "following\n"
    follower.kill()
    follower.wait()
    directory = local_store.directory / "followers"
    assert len(list(directory.iterdir())) == 1
    local_store.open().publish([Message(0, b"key", b"value", 1)])
    assert list(directory.iterdir()) == []


def test_nothing_but_fifos_is_touched(followers: Path, tmp_path: Path) -> None:
    """Nor a FIFO elsewhere that a link leads to, nor one whose reader is about to open it."""
    elsewhere = tmp_path / "elsewhere"
    os.mkfifo(elsewhere)
    reader = os.open(elsewhere, os.O_RDONLY | os.O_NONBLOCK)
    (followers / "link").symlink_to(elsewhere)
    (followers / "dangling").symlink_to(tmp_path / "nothing")
    (followers / "file").write_bytes(b"content")
    (followers / "directory").mkdir()
    os.mkfifo(followers / ".unfinished")
    ring_all(followers)
    assert os.read(reader, 10) == b""
    os.close(reader)
    assert (followers / "file").read_bytes() == b"content"
    assert {path.name for path in followers.iterdir()} == {"link", "dangling", "file", "directory", ".unfinished"}


def test_followers_that_are_gone_are_no_error_for_a_writer(local_store: Any) -> None:
    log = local_store.open()
    (local_store.directory / "followers").rmdir()
    log.publish([Message(0, b"key", b"value", 1)])
    with pytest.raises(TransportError, match="cannot wait"):
        log.subscribe({0: Start(0, None)})


def test_a_wake_up_is_never_lost(local_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the slow poll, a commit at any moment of a follower's round still reaches it."""
    monkeypatch.setattr(local_module, "SLOW_POLL", LONG)
    log = local_store.open()
    subscription = log.subscribe({0: Start(0, None)})

    def write() -> None:
        for number in range(500):
            log.publish([Message(0, b"key", b"%d" % number, 1)])

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[bytes] = []
    while len(seen) < 500:
        polled = subscription.poll(max_messages=7, max_bytes=1 << 20, timeout=LONG / 2)
        assert polled.messages, "a wake-up was lost"
        seen += [each.value for each in polled.messages]
    writer.join()
    assert seen == [b"%d" % number for number in range(500)]


def test_a_commit_between_the_look_and_the_wait_wakes(local_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = local_store.open()
    subscription = log.subscribe({0: Start(0, None)})
    take = subscription._log.take

    def then_publish(*places: Any, **limits: Any) -> Any:
        monkeypatch.setattr(subscription._log, "take", take)
        taken = take(*places, **limits)
        log.publish([Message(0, b"key", b"value", 1)])
        return taken

    monkeypatch.setattr(subscription._log, "take", then_publish)
    waits: list[bool] = []
    monkeypatch.setattr(Doorbell, "wait", lambda bell, timeout: waits.append(rung(bell)))
    assert subscription.poll(max_messages=1, max_bytes=1, timeout=LONG).messages
    assert waits == [True]


def test_the_slow_poll_finds_what_no_bell_announced(local_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log = local_store.open()
    subscription = log.subscribe({0: Start(0, None)})
    waiting = threading.Event()
    wait = Doorbell.wait

    def announced(self: Doorbell, timeout: float) -> None:
        waiting.set()
        wait(self, timeout)

    monkeypatch.setattr(Doorbell, "wait", announced)
    monkeypatch.setattr(_local_followers, "_ring", lambda path: None)

    def write() -> None:
        assert waiting.wait(LONG)
        log.publish([Message(0, b"key", b"value", 1)])

    writer = threading.Thread(target=write)
    writer.start()
    assert subscription.poll(max_messages=1, max_bytes=1, timeout=LONG).messages
    writer.join()


def test_a_commit_of_another_process_rings(local_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "SLOW_POLL", LONG)
    log = local_store.open()
    subscription = log.subscribe({0: Start(0, None)})
    writer = local_store.start("""
        log = open_log()
        for line in sys.stdin:
            log.publish([message(line.encode())])
    """)
    for number in range(20):
        writer.stdin.write(f"{number}\n")
        writer.stdin.flush()
        polled = subscription.poll(max_messages=10, max_bytes=1000, timeout=LONG / 2)
        assert [each.value for each in polled.messages] == [b"%d\n" % number]


def test_wake_ends_the_poll_that_waits_or_the_next_one(local_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "SLOW_POLL", LONG)
    subscription = local_store.open().subscribe({0: Start(0, None)})
    subscription.wake()
    assert subscription.poll(max_messages=1, max_bytes=1, timeout=LONG).messages == []
    waker = threading.Timer(0.05, subscription.wake)
    waker.start()
    assert subscription.poll(max_messages=1, max_bytes=1, timeout=LONG).messages == []
    waker.join()


def test_a_bell_that_cannot_be_rung_is_only_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower also looks by itself; closing one must not fail for it."""
    bell = Doorbell(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "of this test")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        patch.setattr(os, "read", fail)
        bell.ring()
        bell.drain()
    bell.close()
