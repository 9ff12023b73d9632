"""A damaged replica is told, set aside and rebuilt from the log, in every process of its mount (C7, C8)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _ingest, admin
from ikvcore._check import verify_files
from ikvcore._commitplan import COUNT_PREFIX
from ikvcore._damage import Damage
from ikvcore._ingest import Ingester
from ikvcore._loop import ReplicaLoop
from ikvcore._opened import Opened
from ikvcore._rebuild import Rebuild
from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import MountError, ReplicaDamagedError, StorageError, WaitTimeoutError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.inspection import inspect_store, verify_replica
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


def break_pages(generation: Path, number: int = 0) -> None:
    """Have the engine itself find nonsense where it looks for a key: it opens, and says so when it is read."""
    file = generation / "data.mdb"
    data = bytearray(file.read_bytes())
    leaf, kind = 2, 10  # LMDB's P_LEAF, and where a page's head has its flags
    for page in range(2, len(data) // 4096):
        if data[page * 4096 + kind] == leaf:
            data[page * 4096 + kind] = 0x40
    file.write_bytes(data)


def right(reader: IKVReader) -> bool:
    return reader.count() == DOCUMENTS and all(
        reader.get_value(f"key {number}", "number") == number for number in range(DOCUMENTS)
    )


def spoil(environment: Any, prefix: bytes) -> None:
    """Change what a replica keeps under its own keys of a prefix, without a word to anyone."""

    def change(transaction: Any) -> None:
        with transaction.cursor() as cursor:
            assert cursor.set_range(prefix)
            while cursor.key().startswith(prefix):
                cursor.put(cursor.key(), bytes([cursor.value()[0] ^ 1]) + cursor.value()[1:], overwrite=True)
                if not cursor.next():
                    break

    environment.write(change)


def opened(reader: Any) -> Any:
    """The environment that a reader has open."""
    return reader._replica.storage._engine._environment


def another_boot(mount: Path) -> None:
    """As after a power loss: the files were being written in a boot that is over."""
    (mount / "opened.json").write_text(json.dumps({"boot": "an earlier one", "clean": False}))


@pytest.mark.parametrize("damage", [flip_a_document, truncate, ruin, break_pages])
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


@pytest.mark.parametrize("damage", [truncate, ruin, break_pages])
def test_files_that_cannot_be_opened_or_read_are_rebuilt(
    options: ClientOptions, filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled / "gen-1")
    with create_new_reader(options) as reader:
        assert right(reader)
    assert (filled / "CURRENT").read_text() == "gen-2\n"


def empty(generation: Path) -> None:
    (generation / "data.mdb").write_bytes(b"")


def remove(generation: Path) -> None:
    (generation / "data.mdb").unlink()


def remove_all(generation: Path) -> None:
    for file in generation.iterdir():
        file.unlink()


@pytest.mark.parametrize("lose", [empty, remove, remove_all])
def test_files_that_are_gone_are_not_taken_for_new(
    options: ClientOptions, filled: Path, lose: Callable[[Path], None]
) -> None:
    lose(filled / "gen-1")
    with create_new_reader(options) as reader:
        assert right(reader)
    assert (filled / "CURRENT").read_text() == "gen-2\n"
    lose(filled / "gen-2")  # what is built in its place is known to be in use too
    with create_new_reader(options) as reader:
        assert right(reader)
    assert (filled / "CURRENT").read_text() == "gen-3\n"


def test_files_that_are_gone_are_an_error_where_the_log_cannot_bring_them_back(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ikv_transports.local import LocalTransport

    empty(filled / "gen-1")
    bounds = LocalTransport.bounds
    monkeypatch.setattr(
        LocalTransport, "bounds", lambda self: {p: each._replace(complete=False) for p, each in bounds(self).items()}
    )
    reader = create_new_reader(options)
    with pytest.raises(ReplicaDamagedError, match="emptied or removed"):
        reader.startup(timeout=PATIENCE)
    reader.shutdown()


@pytest.mark.parametrize("lose", [empty, remove])
def test_a_check_finds_that_files_are_gone(options: ClientOptions, filled: Path, lose: Callable[[Path], None]) -> None:
    lose(filled / "gen-1")
    assert "emptied or removed" in verify_replica(options)[0]
    assert Damage.read(filled, "gen-1") is not None
    report = inspect_store(options)
    assert report.replica is not None
    assert "emptied or removed" in str(report.replica.damage)


def test_a_replica_is_known_to_be_in_use_before_it_is_closed(options: ClientOptions, writer: IKVWriter) -> None:
    """Whoever ingests may be killed."""
    with create_new_reader(options) as reader:
        assert reader.count() == DOCUMENTS
        assert options.mount_directory is not None
        mount = options.mount_directory
        eventually(lambda: Opened.holds(mount) == "gen-1")


def test_a_replica_that_never_held_anything_is_new(options: ClientOptions, mount: Path) -> None:
    for _ in range(2):
        with create_new_reader(options) as reader:
            assert reader.count() == 0
        empty(mount / "gen-1")
    assert (mount / "CURRENT").read_text() == "gen-1\n"


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


def test_a_count_that_meets_damage_has_the_replica_rebuilt(options: ClientOptions, filled: Path) -> None:
    with create_new_reader(options) as reader:
        spoil(opened(reader), COUNT_PREFIX)
        with pytest.raises(ReplicaDamagedError):
            reader.count()
        eventually(lambda: reader.health().ready)
        assert right(reader)


def test_a_startup_beside_an_ingester_that_rests_waits_for_the_rebuild_of_damaged_positions(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What startup itself finds is as good as what ingest finds: which of them comes first is chance."""
    from ikv_backends._lmdb_table import close_environment, open_environment

    environment = open_environment(filled / "gen-1", sync=True)
    spoil(environment, b"\x00mp")
    close_environment(environment)
    with monkeypatch.context() as patch:
        patch.setattr(ReplicaLoop, "_ingest", lambda self: self._stopped.wait(0.01))  # until startup has looked
        with create_new_reader(options) as reader:
            assert right(reader)


def test_what_ingest_and_a_read_find_together_is_found_once(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is first, the replica is rebuilt, and nobody is told that waiting for that is vain."""
    failures: list[object] = []
    failed = ReplicaLoop._failed
    monkeypatch.setattr(
        ReplicaLoop, "_failed", lambda self, exc, *, fatal: (failures.append(exc), failed(self, exc, fatal=fatal))
    )
    with create_new_reader(options) as reader:
        meet = threading.Event()
        step = Ingester.step

        def damaged(self: Ingester, timeout: float) -> bool:
            if not meet.is_set():
                return step(self, timeout)
            monkeypatch.setattr(Ingester, "step", step)
            with pytest.raises(ReplicaDamagedError):
                reader.get_value("key 7", "number")
            raise ReplicaDamagedError("of this test")

        monkeypatch.setattr(Ingester, "step", damaged)
        flip_a_document(filled / "gen-1", 7)
        meet.set()
        eventually(lambda: reader.health().ready and (filled / "CURRENT").read_text() == "gen-2\n")
        assert right(reader)
    assert failures == []


def test_a_rebuild_leaves_one_subscription(options: ClientOptions, filled: Path) -> None:
    """That of the ingest into the damaged generation ends when a read finds the damage."""

    def followers() -> int:
        return len(list(Path(os.environ["IKV_HOME"]).rglob("followers/*")))

    with create_new_reader(options) as reader:
        eventually(lambda: followers() == 1)
        flip_a_document(filled / "gen-1", 7)
        with pytest.raises(ReplicaDamagedError):
            reader.get_value("key 7", "number")
        eventually(lambda: reader.health().ready)
        assert followers() == 1


def test_files_that_could_not_be_synced_are_not_called_clean(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmdb

    from ikv_backends._lmdb_environment import LmdbEnvironment

    def sync(_: object) -> None:
        raise lmdb.Error("of this test")

    quick = replace(options, backend_options={"durability": "process-crash"})
    monkeypatch.setattr(LmdbEnvironment, "_sync", staticmethod(sync))
    with create_new_reader(quick):
        eventually(lambda: json.loads((filled / "opened.json").read_text())["clean"] is False)
    assert json.loads((filled / "opened.json").read_text())["clean"] is False


def test_a_check_whose_result_cannot_be_noted_is_an_error_of_ours(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_boot(filled)

    def mark(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Opened, "mark", mark)
    with pytest.raises(MountError, match="No space left"):
        create_new_reader(options).startup()


def test_a_check_that_cannot_open_the_files_knows_nothing(filled: Path) -> None:
    """That they belong to somebody else, say, is no damage."""
    (filled / "gen-1" / "data.mdb").rename(filled / "data.mdb")
    (filled / "gen-1" / "data.mdb").mkdir()
    with pytest.raises(StorageError):
        verify_files(filled / "gen-1", backend="lmdb", options={}, partitions=(0, 1), alone=False)


def test_a_check_without_an_answer_is_an_error_of_ours(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ikvcore._apart._CHILD", "pass")
    with pytest.raises(StorageError, match="no answer"):
        verify_files(filled / "gen-1", backend="lmdb", options={}, partitions=(0, 1), alone=False)


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
        eventually(lambda: damaged(reader, read))  # its readers are told a moment after health knows
        with pytest.raises(ReplicaDamagedError, match="of this test"):
            read(reader)
        go_on.set()
        eventually(lambda: reader.health().ready)
        read(reader)


def test_a_rebuild_takes_many_steps_and_shows_none_of_them(
    options: ClientOptions, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of some size is not applied in one: the generation that takes the other's place holds all that it held."""
    monkeypatch.setattr(_ingest, "_MAX_MESSAGES", 40)
    steps, shown, step = list[int](), list[int](), Rebuild.step

    def watched(self: Rebuild, timeout: float) -> bool:
        done = step(self, timeout)
        steps.append(sum(self.reached.values()))
        if done:
            shown.append(self._storage.count())
        return done

    monkeypatch.setattr(Rebuild, "step", watched)
    with create_new_reader(options) as reader:
        Damage(generation="gen-1", reason="of this test").write(filled)
        eventually(lambda: (filled / "CURRENT").read_text() == "gen-2\n")
        eventually(lambda: reader.health().ready)
        assert right(reader)
    assert len([reached for reached in steps if 0 < reached < DOCUMENTS]) > 5
    assert shown == [DOCUMENTS]


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


def test_a_rebuild_does_not_halt_before_what_was_passed_over(options: ClientOptions, filled: Path) -> None:
    """Documents that were read after a quarantined event must not be gone; one policy or the other has to be chosen."""
    from ikvcore.models import Message
    from ikvcore.testing._plugins import open_transport

    log = open_transport("local", "s", "a", "p", {})
    log.publish([Message(0, b"", b"\xff", 0)])
    log.close()
    with create_new_writer(options) as writer:
        writer.upsert_fields_batch([IKVDocument.from_dict({"id": f"later {n}", "number": n}) for n in range(20)])
    quarantining = replace(options, on_bad_event="quarantine")
    with create_new_reader(quarantining) as reader:
        assert reader.count() == DOCUMENTS + 20
    Damage(generation="gen-1", reason="of this test").write(filled)
    with pytest.raises(ReplicaDamagedError, match=r"with_on_bad_event\('quarantine'\)"):
        create_new_reader(options).startup(timeout=PATIENCE)
    with create_new_reader(quarantining) as reader:
        assert reader.count() == DOCUMENTS + 20


def test_a_rebuild_halts_where_nothing_was_ever_passed_over(options: ClientOptions, filled: Path) -> None:
    from ikvcore.models import Message
    from ikvcore.testing._plugins import open_transport

    log = open_transport("local", "s", "a", "p", {})
    log.publish([Message(0, b"", b"\xff", 0)])
    log.close()
    Damage(generation="gen-1", reason="of this test").write(filled)
    reader = create_new_reader(options)
    reader.startup(timeout=PATIENCE, allow_stale=True)
    eventually(lambda: (filled / "CURRENT").read_text() == "gen-2\n" and reader.health().state == "halted")
    assert right(reader)
    reader.shutdown()


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


def test_a_finding_that_cannot_be_read_counts_once(options: ClientOptions, filled: Path) -> None:
    """It is taken to speak of the current generation, and not of the one that was built for that."""
    (filled / "damage.json").write_text("half of a")
    with create_new_reader(options) as reader:
        assert right(reader)
        reader._replica._generations.refresh()  # type: ignore[attr-defined]  # what each tick does
        assert right(reader)
    assert (filled / "CURRENT").read_text() == "gen-2\n"


@pytest.mark.parametrize("name", ["replica.json", "damage.json"])
def test_a_small_file_that_was_changed_is_not_believed(options: ClientOptions, filled: Path, name: str) -> None:
    """Valid JSON, and another content: its checksum tells."""
    Damage(generation="gen-0", reason="of this test").write(filled)
    data = (filled / name).read_bytes()
    changed = data.replace(b"lmdb", b"lmdc").replace(b"gen-0", b"gen-2")
    assert json.loads(changed) != json.loads(data)
    (filled / name).write_bytes(changed)
    if name == "replica.json":
        with pytest.raises(MountError, match=r"checksum.*remove the directory"):
            create_new_reader(options).startup(timeout=PATIENCE)
    else:
        with create_new_reader(options) as reader:
            assert right(reader)
        assert (filled / "CURRENT").read_text() == "gen-2\n"


def test_other_processes_change_over_too(options: ClientOptions, filled: Path) -> None:
    """A follower raises from the moment that it hears of the damage, and reads the new generation afterwards."""
    program = f"""
import sys
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.errors import ReplicaDamagedError
from ikvcore.inspection import inspect_store, verify_replica
from ikvcore.factory import create_new_reader
options = (ClientOptionsBuilder().with_store_name("s").with_account_id("a").with_account_passkey("p")
           .with_mount_directory({str(filled)!r}).with_console_logging("error").build())
with create_new_reader(options) as reader:
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(reader.health().state, reader._replica.storage._engine._directory.name, reader.count(), flush=True)
        except ReplicaDamagedError:
            print("damaged", flush=True)
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
            eventually(lambda: answer(process) == f"ready gen-2 {DOCUMENTS}\n")
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stdin.close()
        assert right(ours)


@pytest.mark.parametrize("damage", [flip_a_document, truncate, ruin, break_pages])
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


def damaged(reader: IKVReader, read: Callable[[IKVReader], Any]) -> bool:
    """Whether a read raises ReplicaDamagedError."""
    try:
        read(reader)
    except ReplicaDamagedError:
        return True
    return False


def answer(process: subprocess.Popen[str]) -> str:
    """What a process says of its reader when it is asked."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is."""
    for _ in range(int(PATIENCE / 0.02)):
        if true():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it never was")
