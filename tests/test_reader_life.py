"""A reader's life when things go wrong: logs restored from a copy, shutdowns at a bad moment, failing loops."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore import admin
from ikvcore._generations import Generation
from ikvcore._loop import ReplicaLoop
from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import (
    IngestHaltedError,
    InvalidArgumentError,
    LogDivergedError,
    ReplicaDamagedError,
    ShutDownError,
    TransportError,
)
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.tokens import Token

PATIENCE = 30.0


@pytest.fixture
def options(tmp_path: Path) -> ClientOptions:
    admin.create_store("s", account_id="a", account_passkey="p", primary_key="id")
    return (
        ClientOptionsBuilder()
        .with_store_name("s")
        .with_account_id("a")
        .with_account_passkey("p")
        .with_mount_directory(tmp_path / "mount")
        .with_console_logging("error")
        .build()
    )


@pytest.fixture
def writer(options: ClientOptions) -> Iterator[IKVWriter]:
    with create_new_writer(options) as writer:
        yield writer


@pytest.fixture
def reader(options: ClientOptions, writer: IKVWriter) -> Iterator[IKVReader]:
    with create_new_reader(options) as reader:
        yield reader


def put(options: ClientOptions, key: str) -> Token:
    with create_new_writer(options) as writer:
        return writer.upsert_fields(IKVDocument.from_dict({"id": key}))


def log_directory() -> Path:
    (log,) = Path(os.environ["IKV_HOME"]).glob("accounts/*/stores/*/log")
    return log


def test_a_log_restored_from_an_older_copy_is_refused(options: ClientOptions, tmp_path: Path) -> None:
    """C7: the replica is ahead of its log, or at its end with another last message; neither is current in silence."""
    put(options, "a")
    log = log_directory()
    shutil.copytree(log, tmp_path / "copy")
    put(options, "b")
    with create_new_reader(options) as reader:
        assert reader.count() == 2
    shutil.rmtree(log)
    (tmp_path / "copy").rename(log)
    with pytest.raises(LogDivergedError, match="ends at 1"):
        create_new_reader(options).startup(PATIENCE)
    token = put(options, "c")
    with pytest.raises(LogDivergedError, match="another one"):
        create_new_reader(options).startup(PATIENCE)
    stale: Any = create_new_reader(options)
    stale.startup(PATIENCE, allow_stale=True)
    try:
        while stale.health().state != "halted":
            with stale._replica.loop.changed:
                stale._replica.loop.changed.wait(0.05)
        with pytest.raises(LogDivergedError):
            stale.wait_for(token, PATIENCE)
        assert stale.count() == 2, "reads go on"
    finally:
        stale.shutdown()


def test_a_signal_handler_may_shut_down_a_reader_that_starts(tmp_path: Path) -> None:
    """startup gives up with ShutDownError, and the process does not hang."""
    program = """
        import os, signal, sys, threading
        from ikvcore import admin
        from ikvcore._ingest import Ingester
        from ikvcore.clientoptions import ClientOptionsBuilder
        from ikvcore.document import IKVDocument
        from ikvcore.errors import ShutDownError
        from ikvcore.factory import create_new_reader, create_new_writer
        admin.create_store("s", account_id="a", account_passkey="p", primary_key="id")
        options = (ClientOptionsBuilder().with_store_name("s").with_account_id("a").with_account_passkey("p")
                   .with_mount_directory(sys.argv[1]).build())
        with create_new_writer(options) as writer:
            writer.upsert_fields(IKVDocument.from_dict({"id": "a"}))
        ready = threading.Event()
        def step(self, timeout):  # a catch-up that never ends
            ready.wait(timeout)
            os.kill(os.getpid(), signal.SIGTERM)
            return False
        Ingester.step = step
        reader = create_new_reader(options)
        signal.signal(signal.SIGTERM, lambda *_: reader.shutdown())
        try:
            reader.startup()
        except ShutDownError:
            print("gave up")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "mount")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.endswith("gave up\n"), done.stderr


def test_health_asks_no_log(reader: Any) -> None:
    """It answers from what is known, however long the log's servers take; so it does not wait for them."""

    class Silent:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"health asked the log: {name}")

    log, reader._replica.transport = reader._replica.transport, Silent()
    try:
        assert reader.health().ready
    finally:
        reader._replica.transport = log


@pytest.mark.parametrize("shared", [False, True])
def test_waiting_ends_when_its_reader_is_shut_down(reader: IKVReader, options: ClientOptions, shared: bool) -> None:
    """Whether or not another reader of the process keeps the mount open."""
    other = create_new_reader(options)
    if shared:
        other.startup(PATIENCE)
    ends: list[BaseException] = []
    waiting = threading.Event()
    position = Token(admin.describe_store("s", account_id="a", account_passkey="p").identity, {0: 99})

    def wait() -> None:
        waiting.set()
        try:
            reader.wait_for(position)
        except BaseException as exc:
            ends.append(exc)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    waiting.wait(PATIENCE)
    reader.shutdown()
    thread.join(PATIENCE)
    other.shutdown()
    assert [type(end) for end in ends] == [ShutDownError]


def test_a_startup_that_fails_at_its_end_leaves_nothing_open(
    options: ClientOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ikvcore import _replica_table
    from ikvcore._kvstorage import KeyValueStorage

    def damaged(self: object) -> int:
        raise ReplicaDamagedError("it was damaged by this test")

    reader = create_new_reader(options)
    with monkeypatch.context() as patched:
        patched.setattr(KeyValueStorage, "count", damaged)
        with pytest.raises(ReplicaDamagedError):
            reader.startup(PATIENCE)
    assert reader.health().state == "stopped"
    assert _replica_table._table._open == {}
    reader.startup(PATIENCE)
    reader.shutdown()


def test_a_read_that_a_shutdown_overtakes_says_so(reader: Any) -> None:
    """It is in the engine when that is closed under it: still it was the reader that was shut down."""
    lookup = reader._lookup
    reader.shutdown()
    with pytest.raises(ShutDownError):
        lookup.row("a", "id")
    with pytest.raises(ShutDownError):
        lookup.rows(["a"], None)


@pytest.mark.parametrize("timeout", [float("nan"), -1, "5", b"", [1]])
def test_impossible_timeouts_are_refused(reader: IKVReader, options: ClientOptions, timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout"):
        reader.wait_for(Token(), timeout)
    with pytest.raises(InvalidArgumentError, match="timeout"):
        create_new_reader(options).startup(timeout)


class _FailingIngester:
    """Raises what it is told to, and counts its steps."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.halts: dict[int, str] = {}
        self.errors = list(errors)
        self.idle = threading.Event()

    def step(self, timeout: float) -> bool:
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
            return True
        self.idle.set()
        self.idle.wait(timeout)
        return False

    def forget(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class _Sound:
    """Generations of which nothing ever changes."""

    damage = None
    storage = None
    current = Generation()

    def refresh(self) -> bool:
        return False


def _loop(ingester: Any) -> ReplicaLoop:
    generations: Any = _Sound()
    return ReplicaLoop(generations, generations, lambda _: ingester, partitions=[0])


def test_the_loop_outlives_any_number_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage of hours ends like one of seconds."""
    ingester: Any = _FailingIngester(TransportError("no log"), None)
    loop = _loop(ingester)
    loop._failures = 5_000
    monkeypatch.setattr("ikvcore._loop._LONGEST_PAUSE", 0.01)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert ingester.idle.wait(PATIENCE)
    assert loop.failure is None
    loop.stop()
    thread.join(PATIENCE)


def test_the_loop_outlives_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where telling of a failure fails: the next turn may do better, and meanwhile the failure is told."""
    ingester: Any = _FailingIngester()
    loop = _loop(ingester)
    turns: list[int] = []

    def beat() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise RuntimeError("no heartbeat")

    monkeypatch.setattr(loop, "_beat", beat)
    monkeypatch.setattr("ikvcore._loop._LONGEST_PAUSE", 0.01)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert ingester.idle.wait(PATIENCE)
    assert "no heartbeat" in (loop.last_error or "")
    loop.stop()
    thread.join(PATIENCE)


def test_advice_fits_the_halt() -> None:
    """Quarantine is for bad events; it does not help against a full disk."""
    assert "quarantine" in str(IngestHaltedError({0: "bad event at position 1: no key"}))
    assert "quarantine" not in str(IngestHaltedError({0: "no space left"}))
