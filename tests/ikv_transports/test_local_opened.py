"""A log that is written without syncs says so beside itself, and is checked where the machine went down meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ikv_transports import _local_opened
from ikvcore import _opened, admin
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import TransportError
from ikvcore.factory import create_new_reader, create_new_writer

PATIENCE = 60.0
WRITER = """
import os, sys
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_writer
options = (ClientOptionsBuilder().with_store_name("s").with_account_id("a").with_account_passkey("p")
           .with_transport("local", durability="process-crash").with_console_logging("error").build())
with create_new_writer(options) as writer:
    for line in sys.stdin:
        writer.upsert_fields(IKVDocument.from_dict({"id": line.strip()}))
        print("written", flush=True)
"""


@pytest.fixture
def store() -> Path:
    """The directory of a store."""
    admin.create_store("s", account_id="a", account_passkey="p", primary_key="id", partitions=2)
    (found,) = Path(os.environ["IKV_HOME"]).glob("accounts/*/stores/*")
    return found


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The logs that were checked."""
    checked: list[Path] = []
    verify_log = _local_opened.verify_log

    def spy(directory: Path, identity: str) -> list[str]:
        checked.append(directory)
        return verify_log(directory, identity)

    monkeypatch.setattr(_local_opened, "verify_log", spy)
    return checked


def options(durability: str = "process-crash", **more: Any) -> ClientOptions:
    builder = ClientOptionsBuilder().with_store_name("s").with_account_id("a").with_account_passkey("p")
    if "mount" in more:
        builder = builder.with_mount_directory(more["mount"])
    return builder.with_transport("local", durability=durability).with_console_logging("error").build()


def write(count: int, durability: str = "process-crash") -> None:
    with create_new_writer(options(durability)) as writer:
        writer.upsert_fields_batch(IKVDocument.from_dict({"id": f"{number}", "n": number}) for number in range(count))


def clean(store: Path) -> bool:
    return json.loads((store / "opened.json").read_text())["clean"] is True


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_opened, "boot_id", lambda: "a later boot")


class Writer:
    """In a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def write(self, key: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{key}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "written\n"

    def end(self, number: int | None = None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if number is not None:
            self.process.send_signal(number)
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def damage(store: Path) -> None:
    """As where the newest meta page arrived, and what it leads to did not."""
    file = store / "log" / "data.mdb"
    data = bytearray(file.read_bytes())
    data[2 * 4096 :] = bytes(len(data) - 2 * 4096)
    file.write_bytes(data)


def test_it_is_marked_from_the_first_write_to_the_close(store: Path) -> None:
    with create_new_writer(options()) as writer:
        assert not (store / "opened.json").exists()
        writer.upsert_fields(IKVDocument.from_dict({"id": "a"}))
        assert not clean(store)
    assert clean(store)


def test_a_log_that_is_synced_and_one_that_is_only_read_are_not_marked(store: Path, tmp_path: Path) -> None:
    write(3, "power-loss")
    with create_new_reader(options(mount=tmp_path / "mount")) as reader:
        assert reader.count() == 3
    assert not (store / "opened.json").exists()


def test_the_last_of_several_processes_to_close_says_that_it_is_whole(store: Path) -> None:
    other = Writer()
    try:
        other.write("theirs")
        write(3)
        assert not clean(store)
    finally:
        other.end()
    assert clean(store)


def test_a_killed_process_leaves_the_mark_and_nothing_to_check(store: Path, checks: list[Path]) -> None:
    """The system still has all that it wrote, until the machine goes down."""
    other = Writer()
    other.write("theirs")
    other.end(signal.SIGKILL)
    assert not clean(store)
    write(3)
    assert checks == []


def test_after_a_power_loss_a_whole_log_is_checked_once_and_goes_on(
    store: Path, checks: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Writer()
    other.write("theirs")
    other.end(signal.SIGKILL)
    another_boot(monkeypatch)
    with create_new_reader(options("power-loss", mount=tmp_path / "mount")) as reader:
        assert reader.count() == 1
    write(3)
    assert checks == [store / "log"]
    assert admin.verify_log("s", account_id="a", account_passkey="p") == []


def test_after_a_power_loss_a_damaged_log_is_refused_for_good(
    store: Path, checks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Writer()
    other.write("theirs")
    other.end(signal.SIGKILL)
    damage(store)
    another_boot(monkeypatch)
    for _ in range(2):
        with pytest.raises(TransportError, match="restore it from a copy, or delete the store"):
            write(1)
    assert admin.verify_log("s", account_id="a", account_passkey="p")
    assert len(checks) == 2
    admin.delete_store("s", account_id="a", account_passkey="p")


def test_a_log_that_was_closed_in_good_order_is_not_checked(
    store: Path, checks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(3)
    another_boot(monkeypatch)
    write(3)
    assert checks == []


def test_a_mark_that_cannot_be_read_has_the_log_checked(store: Path, checks: list[Path]) -> None:
    write(3)
    (store / "opened.json").write_text("half a")
    write(3)
    assert checks == [store / "log"]
    assert clean(store)


def test_a_forked_child_keeps_nobody_from_writing(store: Path) -> None:
    """It holds the parent's lock as long as it lives: the parent gives that up when it closes."""
    ours, theirs = os.pipe()
    with create_new_writer(options()) as writer:
        writer.upsert_fields(IKVDocument.from_dict({"id": "a"}))
        pid = os.fork()
        if pid == 0:
            os.close(theirs)
            os.read(ours, 1)
            os._exit(0)
        os.close(ours)
    try:
        assert clean(store)
        other = Writer()
        other.write("theirs")
        other.end()
        assert clean(store)
    finally:
        os.close(theirs)
        os.waitpid(pid, 0)


def test_verify_finds_a_message_that_is_gone(store: Path) -> None:
    """And a page that is: in a process of its own, of a log that may be in use."""
    import lmdb

    write(40)
    with create_new_writer(options()):
        assert admin.verify_log("s", account_id="a", account_passkey="p") == []
    with lmdb.open(str(store / "log"), map_size=1 << 24) as environment, environment.begin(write=True) as txn:
        txn.delete(b"\0\0" + (3).to_bytes(8, "big"))
    (found,) = admin.verify_log("s", account_id="a", account_passkey="p")
    assert found == "the message at position 3 of partition 0 fails its checksum or is missing"
    damage(store)
    assert len(admin.verify_log("s", account_id="a", account_passkey="p")) == 1
