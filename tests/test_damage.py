"""A damaged replica is told, set aside and rebuilt from the log, in every process of its mount (C7, C8)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore import admin
from ikvcore._check import verify_files
from ikvcore._damage import Damage
from ikvcore._opened import Opened
from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import ReplicaDamagedError, WaitTimeoutError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Bounds

PATIENCE = 60.0
DOCUMENTS = 500


@pytest.fixture
def options(tmp_path: Path) -> ClientOptions:
    admin.create_store("s", account_id="a", account_passkey="p", primary_key="id", partitions=2)
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
def mount(options: ClientOptions) -> Path:
    assert options.mount_directory is not None
    return options.mount_directory


@pytest.fixture
def writer(options: ClientOptions) -> Iterator[IKVWriter]:
    with create_new_writer(options) as writer:
        writer.upsert_fields_batch(document(number) for number in range(DOCUMENTS))
        yield writer


@pytest.fixture
def filled(options: ClientOptions, writer: IKVWriter, mount: Path) -> Path:
    """A mount that holds everything and is closed."""
    with create_new_reader(options) as reader:
        assert reader.count() == DOCUMENTS
    return mount


def document(number: int) -> IKVDocument:
    return IKVDocument.from_dict({"id": f"key {number}", "text": f"value {number} " * 4, "number": number})


def flip_a_document(generation: Path, number: int = 7) -> None:
    """Change a bit of a value, where every copy of its page has it."""
    file = generation / "data.mdb"
    data = bytearray(file.read_bytes())
    text = f"value {number} value".encode()
    at = data.find(text)
    assert at >= 0
    while at >= 0:
        data[at] ^= 1
        at = data.find(text, at + 1)
    file.write_bytes(data)


def truncate(generation: Path, number: int = 0) -> None:
    file = generation / "data.mdb"
    file.write_bytes(file.read_bytes()[: 8 * 4096])


def ruin(generation: Path, number: int = 0) -> None:
    file = generation / "data.mdb"
    file.write_bytes(b"\xa5" * file.stat().st_size)


def right(reader: IKVReader) -> bool:
    return reader.count() == DOCUMENTS and all(
        reader.get_value(f"key {number}", "number") == number for number in range(DOCUMENTS)
    )


def another_boot(mount: Path) -> None:
    """As after a power loss: the files were being written in a boot that is over."""
    (mount / "opened.json").write_text(json.dumps({"boot": "an earlier one", "clean": False}))


@pytest.mark.parametrize("damage", [flip_a_document, truncate, ruin])
def test_after_a_power_loss_damaged_files_are_found_and_rebuilt_before_a_read(
    options: ClientOptions, filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled / "gen-1")
    another_boot(filled)
    with create_new_reader(options) as reader:
        assert right(reader)
        assert reader.health().ready
    assert (filled / "CURRENT").read_text() == "gen-2\n"
    assert (filled / "gen-1").is_dir()  # set aside for whoever wants to know


@pytest.mark.parametrize("damage", [truncate, ruin])
def test_files_that_cannot_be_opened_are_rebuilt(
    options: ClientOptions, filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled / "gen-1")
    with create_new_reader(options) as reader:
        assert right(reader)
    assert (filled / "CURRENT").read_text() == "gen-2\n"


def test_a_replica_that_was_closed_in_good_order_is_not_checked(options: ClientOptions, filled: Path) -> None:
    """The mark of the close is what is believed, in whichever boot."""
    mark = json.loads((filled / "opened.json").read_text())
    assert mark["clean"] is True
    (filled / "opened.json").write_text(json.dumps({**mark, "boot": "an earlier one"}))
    flip_a_document(filled / "gen-1")
    with create_new_reader(options):
        assert (filled / "CURRENT").read_text() == "gen-1\n"


def test_while_it_is_open_a_mount_is_marked_as_being_written(options: ClientOptions, filled: Path) -> None:
    with create_new_reader(options):
        eventually(lambda: json.loads((filled / "opened.json").read_text())["clean"] is False)
    assert json.loads((filled / "opened.json").read_text())["clean"] is True


def test_a_process_that_was_killed_leaves_nothing_to_check(options: ClientOptions, filled: Path) -> None:
    """Only a machine that goes down loses what was written: a takeover never waits for a check."""
    Opened.mark(filled, clean=False)
    assert not Opened.suspect(filled)


def test_a_read_that_meets_damage_has_the_replica_rebuilt(options: ClientOptions, filled: Path) -> None:
    flip_a_document(filled / "gen-1", 7)
    with create_new_reader(options) as reader:
        with pytest.raises(ReplicaDamagedError, match="checksum"):
            reader.get_value("key 7", "number")
        eventually(lambda: reader.health().ready)
        assert right(reader)


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.get_value("key 1", "number"),
        lambda reader: list(reader.multiget_values(["key 1"], ["number"])),
        lambda reader: list(reader.scan()),
        lambda reader: reader.count(),
    ],
)
def test_until_it_is_rebuilt_every_read_raises(
    options: ClientOptions, filled: Path, read: Callable[[IKVReader], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = held_back(monkeypatch)
    with create_new_reader(options) as reader:
        Damage(generation="gen-1", reason="of this test").write(filled)
        eventually(lambda: "of this test" in reader.health().reason)
        assert reader.health().state == "catching-up"
        with pytest.raises(ReplicaDamagedError, match="of this test"):
            read(reader)
        go_on.set()
        eventually(lambda: reader.health().ready)
        read(reader)


def test_startup_waits_for_the_rebuild(options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Damage(generation="gen-1", reason="of this test").write(filled)
    go_on = held_back(monkeypatch)
    with pytest.raises(WaitTimeoutError):
        create_new_reader(options).startup(timeout=0.5)
    stale = create_new_reader(options)
    stale.startup(timeout=0.5, allow_stale=True)
    with pytest.raises(ReplicaDamagedError):
        stale.get_value("key 1", "number")
    go_on.set()
    with create_new_reader(options) as reader:
        assert right(reader)
        assert right(stale)
    stale.shutdown()


def test_a_write_is_waited_for_through_a_rebuild(options: ClientOptions, filled: Path, writer: IKVWriter) -> None:
    with create_new_reader(options) as reader:
        Damage(generation="gen-1", reason="of this test").write(filled)
        token = writer.upsert_fields(IKVDocument.from_dict({"id": "new", "number": 1}))
        eventually(lambda: (filled / "CURRENT").read_text() == "gen-2\n")
        reader.wait_for(token, PATIENCE)
        assert reader.get_value("new", "number") == 1


def test_a_log_that_was_cut_cannot_rebuild_and_says_what_to_do(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ikv_transports.local import LocalTransport

    whole = LocalTransport.bounds
    monkeypatch.setattr(
        LocalTransport,
        "bounds",
        lambda self: {p: Bounds(b.first, b.end, complete=False) for p, b in whole(self).items()},
    )
    Damage(generation="gen-1", reason="of this test").write(filled)
    with pytest.raises(ReplicaDamagedError, match="restore the mount directory from a copy"):
        create_new_reader(options).startup(timeout=PATIENCE)
    reader = create_new_reader(options)
    reader.startup(timeout=PATIENCE, allow_stale=True)
    eventually(lambda: reader.health().state == "halted")
    with pytest.raises(ReplicaDamagedError, match="restore the mount directory from a copy"):
        reader.get_value("key 1", "number")
    reader.shutdown()
    assert (filled / "CURRENT").read_text() == "gen-1\n"


def test_a_rebuild_that_was_killed_is_begun_anew(options: ClientOptions, filled: Path) -> None:
    left = filled / "gen-2"
    left.mkdir()
    (left / "data.mdb").write_bytes(b"half of something")
    Damage(generation="gen-1", reason="of this test").write(filled)
    with create_new_reader(options) as reader:
        assert right(reader)


def test_after_two_rebuilds_one_damaged_generation_is_kept(options: ClientOptions, filled: Path) -> None:
    for generation in ("gen-1", "gen-2"):
        Damage(generation=generation, reason="of this test").write(filled)
        with create_new_reader(options) as reader:
            assert right(reader)
    assert sorted(each.name for each in filled.glob("gen-*")) == ["gen-2", "gen-3"]


def test_other_processes_change_over_too(options: ClientOptions, filled: Path) -> None:
    """A follower raises from the moment that it hears of the damage, and reads the new generation afterwards."""
    program = f"""
import sys
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.factory import create_new_reader
options = (ClientOptionsBuilder().with_store_name("s").with_account_id("a").with_account_passkey("p")
           .with_mount_directory({str(filled)!r}).with_console_logging("error").build())
with create_new_reader(options) as reader:
    print("ready", flush=True)
    for line in sys.stdin:
        print(reader.health().state, reader._replica.storage._engine._directory.name, reader.count(), flush=True)
"""
    with create_new_reader(options) as ours:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            Damage(generation="gen-1", reason="of this test").write(filled)
            eventually(lambda: (filled / "CURRENT").read_text() == "gen-2\n" and ours.health().ready)
            pause()
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"ready gen-2 {DOCUMENTS}\n"
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stdin.close()
        assert right(ours)


@pytest.mark.parametrize("damage", [flip_a_document, truncate, ruin])
def test_a_check_finds_damage_in_a_process_of_its_own(
    filled: Path, options: ClientOptions, damage: Callable[[Path], None]
) -> None:
    def findings() -> list[str]:
        return verify_files(filled / "gen-1", backend="lmdb", options={}, partitions=(0, 1), alone=False)

    assert findings() == []
    damage(filled / "gen-1")
    assert findings()


def held_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Keep rebuilds from ending until the event is set."""
    from ikvcore._rebuild import Rebuild

    go_on = threading.Event()
    step = Rebuild.step
    monkeypatch.setattr(Rebuild, "step", lambda self, timeout: go_on.wait(0.05) and step(self, timeout))
    return go_on


def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is."""
    for _ in range(int(PATIENCE / 0.02)):
        if true():
            return
        pause(0.02)
    raise AssertionError("it never was")


def pause(seconds: float = 0.5) -> None:
    """Give other processes a tick."""
    threading.Event().wait(seconds)
