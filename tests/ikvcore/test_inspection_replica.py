"""How a store and a replica of it are told to stand, beside a service and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _store_inspection
from ikvcore._mount import MountLock
from ikvcore.errors import (
    InvalidOptionError,
    MissingOptionError,
    MountError,
    MountMismatchError,
    StoreAccessError,
    TransportError,
)
from ikvcore.factory import create_new_reader
from ikvcore.inspection import StoreInspection, inspect_store, quarantined_events, verify_replica
from ikvcore.testing._live import LiveStore, document

PATIENCE = 30.0
FAST = {"durability": "process-crash"}
BAD = b"\xff\xff"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LiveStore]:
    with LiveStore(
        backend="lmdb",
        transport="local",
        directory=tmp_path,
        backend_options=FAST,
        transport_options=FAST,
        partitions=2,
    ) as store:
        yield store


def write(store: LiveStore, *names: str) -> Any:
    writer = store.writer
    token = None
    for name in names:
        new = writer.upsert_fields(document(id=name, city="Reykjavik"))
        token = new if token is None else token | new
    return token


def damaged(directory: Path, text: bytes) -> None:
    """Flip a bit of every place where `text` is in the data file of a mount that nobody has open."""
    (file,) = directory.glob("mount/**/data.mdb")
    content = file.read_bytes()
    assert text in content
    file.write_bytes(content.replace(text, bytes([text[0] ^ 1]) + text[1:]))


# -- a service ---------------------------------------------------------------------------------


def test_a_service_that_keeps_up_is_ready(store: LiveStore, start_service: Callable[..., Any]) -> None:
    write(store, "a", "b", "c")
    service = start_service(store.options)
    store.publish(b"", partition=0)
    report = inspect_store(store.options, patience=PATIENCE)
    assert (report.state, report.reason, report.ready) == ("ready", "", True)
    assert report.log is not None
    assert report.log.store == store.description
    assert sum(place.end for place in report.log.bounds.values()) == 4
    assert (report.log.bytes or 0) > 0
    replica = report.replica
    assert replica is not None
    assert (replica.backend, replica.held, replica.history, replica.format) == ("lmdb", (0, 1), "complete", 1)
    assert (replica.generation, replica.documents, replica.lag_events) == ("gen-1", 3, 0)
    assert replica.bytes > sum(file.stat().st_size for file in replica.directory.rglob("data.mdb"))
    assert replica.ingester is not None
    assert (replica.ingester.pid, replica.ingester.alive) == (service.pid, True)
    assert 0 <= (replica.ingester.heartbeat_age or 0) < 5
    assert replica.partitions is not None
    assert {each: part.position for each, part in replica.partitions.items()} == {
        each: place.end for each, place in report.log.bounds.items()
    }
    assert sum(part.applied for part in replica.partitions.values()) == 4


def test_what_was_written_just_before_is_waited_for(store: LiveStore, start_service: Callable[..., Any]) -> None:
    """A service under constant writes is not taken for one that is behind."""
    start_service(store.options)
    for n in range(20):
        write(store, f"k{n}")
        assert inspect_store(store.options, patience=PATIENCE).ready


def test_a_service_that_stands_still_is_behind(store: LiveStore, start_service: Callable[..., Any]) -> None:
    service = start_service(store.options)
    assert service.documents(write(store, "a")) == 1
    service.stand_still()
    write(store, "b", "c", "d")
    report = inspect_store(store.options, patience=0)
    assert (report.state, report.ready) == ("catching-up", False)
    assert report.reason == "3 events are not visible yet"
    assert report.replica is not None
    assert report.replica.lag_events == 3
    os.kill(service.pid, signal.SIGCONT)
    assert inspect_store(store.options, patience=PATIENCE).ready


@pytest.mark.parametrize("kill", [True, False])
def test_without_its_service_a_replica_is_stopped(
    store: LiveStore, start_service: Callable[..., Any], kill: bool
) -> None:
    service = start_service(store.options)
    service.documents(write(store, "a"))
    service.end(kill=kill)
    write(store, "b")
    report = inspect_store(store.options)
    assert (report.state, report.ready) == ("stopped", False)
    assert str(service.pid) in report.reason
    assert report.replica is not None
    assert (report.replica.documents, report.replica.lag_events) == (1, 1)
    assert report.replica.ingester is not None
    assert report.replica.ingester.alive is False


def test_a_halt_is_told_with_its_partition_and_reason(store: LiveStore, start_service: Callable[..., Any]) -> None:
    service = start_service(store.options)
    store.publish(BAD, b"", partition=1)
    with StoreInspection(store.options) as inspection:
        while not (report := inspection.report(patience=0)).replica.ingester.halts:  # type: ignore[union-attr]
            assert service.process.poll() is None
        assert report.state == "halted"
        assert report.reason.startswith("partition 1: bad event at position 0")
        assert report.replica is not None
        assert report.replica.lag_events == 2
        service.end()
        report = inspection.report()
        assert report.state == "stopped"
        assert "bad event at position 0" in report.reason


def test_a_store_can_be_looked_at_in_the_process_of_its_reader(store: LiveStore) -> None:
    store.put(id="a")
    report = inspect_store(store.options, patience=PATIENCE)
    assert report.ready
    assert report.replica is not None
    assert report.replica.ingester is not None
    assert report.replica.ingester.pid == os.getpid()
    store.put(id="b")
    assert store.reader.count() == 2


def test_only_held_partitions_count(store: LiveStore, start_service: Callable[..., Any]) -> None:
    """Which ones they are, and with which backend, the mount says and not the options."""
    start_service(store.builder().with_partitions([1]).build())
    store.publish(b"", b"", partition=0)
    store.publish(b"", partition=1)
    report = inspect_store(store.builder().with_backend("memory").build(), patience=PATIENCE)
    assert report.ready
    assert report.replica is not None
    assert report.replica.backend == "lmdb"
    assert report.replica.held == (1,)
    assert list(report.replica.partitions or ()) == [1]


# -- no service, no replica --------------------------------------------------------------------


def test_where_there_is_no_replica_none_is_made(store: LiveStore, tmp_path: Path) -> None:
    report = inspect_store(store.options)
    assert (report.state, report.replica) == ("absent", None)
    assert report.log is not None
    (tmp_path / "mount").mkdir()
    assert inspect_store(store.options).state == "absent"
    assert list((tmp_path / "mount").iterdir()) == []
    for call in (verify_replica, quarantined_events):
        with pytest.raises(MountError, match="no replica"):
            call(store.options)
    assert list((tmp_path / "mount").iterdir()) == []


def test_a_storage_that_was_never_made_is_not_made(store: LiveStore, tmp_path: Path) -> None:
    store.put(id="a")
    store.restart_reader()
    generation = tmp_path / "mount" / "gen-1"
    for file in generation.iterdir():
        file.unlink()
    report = inspect_store(store.options)
    assert report.state == "stopped"
    assert report.replica is not None
    assert (report.replica.documents, report.replica.unread) == (None, "nothing was stored in it yet")
    assert quarantined_events(store.options) == {}
    assert verify_replica(store.options)
    assert list(generation.iterdir()) == []


def test_a_look_takes_no_lock_and_commits_nothing(store: LiveStore, tmp_path: Path, monkeypatch: Any) -> None:
    store.put(id="a")
    store.restart_reader()
    monkeypatch.setattr(MountLock, "__init__", None)
    data = next(tmp_path.glob("mount/**/data.mdb")).read_bytes()
    inspect_store(store.options)
    verify_replica(store.options)
    quarantined_events(store.options)
    assert next(tmp_path.glob("mount/**/data.mdb")).read_bytes() == data


def test_the_engines_files_are_opened_by_the_engine_alone(store: LiveStore) -> None:
    """Opening and closing LMDB's lock file by other means lets another writer reset the table of readers."""
    store.put(id="a")
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from pathlib import Path
from ikvcore.clientoptions import ClientOptions
from ikvcore.inspection import inspect_store, quarantined_events
from ikvcore.models import Secret
account, name, mount = sys.argv[1:]
options = ClientOptions(
    account_id=account, account_passkey=Secret("test-passkey"), store_name=name, mount_directory=Path(mount)
)
assert inspect_store(options).replica.documents == 1
assert quarantined_events(options) == {}
assert any(path.endswith("replica.json") for path in opened)
print([path for path in opened if path.endswith((".mdb", "ingest.lock"))])
"""
    arguments = (store.description.account_id, store.description.store_name, str(store.options.mount_directory))
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# -- what does not belong together -------------------------------------------------------------


def test_another_stores_mount_is_refused(store: LiveStore, tmp_path: Path) -> None:
    store.put(id="a")
    with LiveStore(
        backend="lmdb", transport="local", directory=tmp_path, account_id=store.description.account_id
    ) as other:
        for call in (inspect_store, verify_replica, quarantined_events):
            with pytest.raises(MountMismatchError, match=other.description.store_name):
                call(other.options)


@pytest.mark.parametrize("applied", [True, False])
def test_a_store_that_was_made_anew_is_another_log(store: LiveStore, applied: bool) -> None:
    if applied:
        store.put(id="a")
    assert store.reader.count() == applied
    store.restart_reader()
    store.recreate()
    report = inspect_store(store.options)
    assert report.state == "halted"
    assert "not the one that this replica followed" in report.reason


def test_a_mount_without_its_log_is_looked_at_all_the_same(store: LiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(id="a")
    opened = _store_inspection.open_log

    def fail(options: object) -> Any:
        raise TransportError("the network is down")

    monkeypatch.setattr(_store_inspection, "open_log", fail)
    with StoreInspection(store.options) as inspection:
        report = inspection.report()
        assert (report.state, report.reason) == ("unknown", "the network is down")
        assert (report.log, report.log_error) == (None, "the network is down")
        assert report.replica is not None
        assert (report.replica.documents, report.replica.lag_events) == (1, None)
        monkeypatch.setattr(_store_inspection, "open_log", opened)
        assert inspection.report(patience=PATIENCE).ready


def test_options_that_name_nothing_are_told(store: LiveStore) -> None:
    with pytest.raises(StoreAccessError):
        inspect_store(store.builder().with_account_passkey("wrong").build())
    with pytest.raises(MissingOptionError, match="mount_directory"):
        verify_replica(type(store.options)(store_name="s"))


# -- engines that are not shared ---------------------------------------------------------------


def test_an_engine_that_is_open_elsewhere_is_left_alone(
    store: LiveStore, odd_backends: Path, start_service: Callable[..., Any]
) -> None:
    """What its process says of itself is told, and that the rest cannot be known now."""
    options = store.builder().with_backend("solo", **FAST).build()
    service = start_service(options)
    service.documents(write(store, "a"))
    report = inspect_store(options)
    assert report.state == "unknown"
    assert f"process {service.pid} holds it" in report.reason
    assert report.replica is not None
    assert (report.replica.partitions, report.replica.documents) == (None, None)
    assert report.replica.ingester is not None
    assert report.replica.ingester.alive
    for call in (verify_replica, quarantined_events):
        with pytest.raises(MountError, match=f"process {service.pid} holds it"):
            call(options)
    service.end()
    report = inspect_store(options)
    assert report.state == "stopped"
    assert report.replica is not None
    assert report.replica.documents == 1
    assert verify_replica(options) == []


def test_a_look_does_not_cost_a_reader_of_this_process_its_lock(
    store: LiveStore, odd_backends: Path, start_service: Callable[..., Any]
) -> None:
    """Closing any descriptor of the lock file would give the lock up."""
    options = store.builder().with_backend("solo", **FAST).build()
    with create_new_reader(options):
        report = inspect_store(options)
        assert report.replica is not None
        assert "holds it" in (report.replica.unread or "")
        with pytest.raises(AssertionError, match="did not start"):  # MountBusyError there
            start_service(options)
    start_service(options)


# -- verify ------------------------------------------------------------------------------------


def test_a_sound_replica_is_verified_beside_its_service(store: LiveStore, start_service: Callable[..., Any]) -> None:
    service = start_service(store.options)
    service.documents(write(store, "a", "b"))
    assert verify_replica(store.options) == []


def test_a_flipped_bit_in_a_record_is_found(store: LiveStore, tmp_path: Path) -> None:
    store.put(id="a", city="Reykjavik")
    store.restart_reader()
    damaged(tmp_path, b"Reykjavik")
    findings = verify_replica(store.options)
    assert any("record of key b'a'" in finding for finding in findings)
    assert inspect_store(store.options).state == "damaged"
    assert verify_replica(store.options)  # it is remembered, and not read again


def test_flipped_bits_in_the_positions_are_damage(store: LiveStore, tmp_path: Path) -> None:
    store.put(id="a")
    store.restart_reader()
    damaged(tmp_path, b'{"position":')
    assert verify_replica(store.options)
    report = inspect_store(store.options)
    assert report.state == "damaged"
    assert "fails its checksum" in report.reason


def test_a_cut_file_is_damage(store: LiveStore, tmp_path: Path) -> None:
    store.put(id="a")
    store.restart_reader()
    (file,) = tmp_path.glob("mount/**/data.mdb")
    file.write_bytes(file.read_bytes()[:9_000])
    assert verify_replica(store.options)
    assert inspect_store(store.options).state == "damaged"


def test_pages_of_zeros_are_a_finding(store: LiveStore, tmp_path: Path) -> None:
    """LMDB ends the process that reads them, or says so: this process goes on."""
    store.put(id="a")
    store.restart_reader()
    (file,) = tmp_path.glob("mount/**/data.mdb")
    content = file.read_bytes()
    file.write_bytes(content[:8_192] + bytes(len(content) - 8_192))
    assert verify_replica(store.options)


def test_an_engine_that_dies_of_its_files_is_a_finding(store: LiveStore, odd_backends: Path) -> None:
    options = store.builder().with_backend("fragile", **FAST).build()
    with create_new_reader(options):
        (finding,) = verify_replica(options)
    assert "SIGBUS" in finding


def test_a_backend_that_cannot_tell_is_an_error(store: LiveStore, odd_backends: Path) -> None:
    options = store.builder().with_backend("mute", **FAST).build()
    with create_new_reader(options), pytest.raises(InvalidOptionError, match=r"'mute'.*cannot verify"):
        verify_replica(options)


def test_the_status_file_is_advice(store: LiveStore, tmp_path: Path) -> None:
    """One that cannot be understood, or is of another boot, speaks for nobody."""
    store.put(id="a")
    store.restart_reader()
    file = tmp_path / "mount" / "status.json"
    data = json.loads(file.read_bytes())
    file.write_text(json.dumps({**data, "boot": "another", "ingesting": True, "pid": os.getpid()}))
    replica = inspect_store(store.options).replica
    assert replica is not None
    assert replica.ingester is not None
    assert (replica.ingester.alive, replica.ingester.heartbeat_age) == (False, None)
    file.write_text("{")
    report = inspect_store(store.options)
    assert (report.state, report.reason) == ("stopped", "no process has ingested into it yet")
