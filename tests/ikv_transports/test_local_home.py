"""IKV_HOME: who may read it, what its directories are called, and that everything is made or removed whole."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ikv_transports import _local_home
from ikvcore.errors import InvalidNameError, StoreAccessError, StoreExistsError, TransportError
from ikvcore.models import Message, Start

Fixture = Any
"""tests/ikv_transports/conftest.py cannot be imported by name."""


def names(store: Fixture) -> list[str]:
    return [each.store_name for each in store.provisioning().list_stores()]


def stores_directory(store: Fixture) -> Path:
    (directory,) = store.home.glob("accounts/demo-*/stores")
    assert isinstance(directory, Path)
    return directory


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o177])
def test_everything_is_its_owners_alone_whatever_the_umask(tmp_path: Path, local_store: Fixture, umask: int) -> None:
    local_store.home = tmp_path / "new" / "home"
    (tmp_path / "new").mkdir()
    before = os.umask(umask)
    try:
        local_store.create()
        log = local_store.open()
        log.publish([Message(0, b"key", b"value", 1)])
        subscription = log.subscribe({0: Start(0, None)})
    finally:
        os.umask(before)
    found = [local_store.home, *local_store.home.rglob("*")]
    assert {path.name for path in found} >= {"account.json", "store.json", "data.mdb", "lock.mdb"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in found}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in found}
    subscription.close()


def test_names_that_differ_in_case_alone_are_two_stores_on_any_file_system(local_store: Fixture) -> None:
    local_store.create(store_name="Profiles", identity="log-2")
    assert local_store.open("Profiles").describe().identity == "log-2"
    assert local_store.open("profiles").describe().identity == "log-1"
    directories = [path.name.casefold() for path in stores_directory(local_store).iterdir()]
    assert len(set(directories)) == 2


@pytest.mark.parametrize("name", ["...", ".hidden", "-", "x" * 249, ".new-0123", ".deleted-0123"])
def test_odd_names_are_names(local_store: Fixture, name: str) -> None:
    """None is taken for a store that is being made or removed."""
    local_store.create(store_name=name, identity="log-2")
    local_store.create(store_name="other", identity="log-3")
    local_store.provisioning().delete_store("other")
    assert names(local_store) == sorted([name, "profiles"])


def test_a_home_that_is_a_file_is_an_error_that_names_it(local_store: Fixture, tmp_path: Path) -> None:
    local_store.home = tmp_path / "file"
    local_store.home.write_text("")
    with pytest.raises(TransportError, match=str(local_store.home)):
        local_store.create()


# -- what a killed process leaves ------------------------------------------------------------------

MAKER = """
import sys
import ikvcore.admin
from ikv_transports import _local_home

write = _local_home._write_durably

def slow(path, content):
    if path.name == "store.json":
        print(path.parent, flush=True)
        sys.stdin.readline()
    write(path, content)

_local_home._write_durably = slow
ikvcore.admin.create_store(
    "half", account_id="demo", account_passkey="secret", primary_key="id", transport_options={"home": sys.argv[1]}
)
"""


@pytest.fixture
def maker(local_store: Fixture) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process in the midst of making a store, which goes on at a line of input, and the store's directory so far."""
    command = [sys.executable, "-c", MAKER, str(local_store.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            unfinished = Path(process.stdout.readline().strip())
            assert unfinished.name.startswith("~new-")
            yield process, unfinished
        finally:
            process.kill()


def test_what_a_killed_maker_left_goes_with_the_next_store(
    local_store: Fixture, maker: tuple[subprocess.Popen[str], Path]
) -> None:
    process, unfinished = maker
    process.kill()
    process.wait()
    assert (unfinished / "log" / "data.mdb").exists()
    local_store.create(store_name="other", identity="log-2")
    assert not unfinished.exists()
    local_store.create(store_name="half", identity="log-3")
    assert names(local_store) == ["half", "other", "profiles"]


def test_a_store_that_is_being_made_is_left_alone(
    local_store: Fixture, maker: tuple[subprocess.Popen[str], Path]
) -> None:
    process, unfinished = maker
    local_store.create(store_name="other", identity="log-2")
    local_store.provisioning().delete_store("other")
    assert unfinished.exists()
    process.communicate("go on\n")
    assert process.returncode == 0
    assert local_store.open("half").describe().store_name == "half"


def test_a_store_that_was_swept_before_it_was_locked_is_begun_anew(
    local_store: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Path] = []
    open_directory = _local_home._open_directory

    def sweeping(path: Path) -> int:
        lock = open_directory(path)
        if path.name.startswith("~new-") and len(swept) < 2:
            swept.append(path)
            path.rmdir()
        return lock

    monkeypatch.setattr(_local_home, "_open_directory", sweeping)
    local_store.create(store_name="other", identity="log-2")
    assert len(swept) == 2
    assert names(local_store) == ["other", "profiles"]


# -- access ------------------------------------------------------------------------------------


def test_what_is_not_there_and_what_is_not_yours_cannot_be_told_apart(local_store: Fixture) -> None:
    wrong = [
        {"passkey": "wrong"},
        {"account": "nobody"},
        {"store": "unknown"},
        {"store": "unknown", "passkey": "wrong"},
    ]
    messages = set()
    for each in wrong:
        with pytest.raises(StoreAccessError) as caught:
            local_store.open(**{"store": "profiles", **each})
        text = str(caught.value)
        messages.add(text.replace("unknown", "profiles").replace("nobody", "demo"))
        assert "secret" not in text
    assert len(messages) == 1


def test_another_accounts_store_is_an_unknown_store(local_store: Fixture) -> None:
    local_store.provisioning(account="other").create_account()
    with pytest.raises(StoreAccessError):
        local_store.open(account="other")
    with pytest.raises(StoreAccessError):
        local_store.provisioning(account="other").delete_store("profiles")
    assert names(local_store) == ["profiles"]


@pytest.mark.parametrize("name", ["..", "a/b", "", None])
def test_a_name_that_breaks_the_rules_reaches_no_file(local_store: Fixture, name: Any) -> None:
    with pytest.raises(InvalidNameError):
        local_store.open(name)
    with pytest.raises(InvalidNameError):
        local_store.provisioning(account=name)


def test_a_rotated_passkey_replaces_the_old_one(local_store: Fixture) -> None:
    log = local_store.open()
    local_store.provisioning().rotate_passkey("newer")
    with pytest.raises(StoreAccessError):
        local_store.open()
    with pytest.raises(StoreAccessError):
        local_store.provisioning().rotate_passkey("newest")
    log.publish([Message(0, b"key", b"open clients go on", 1)])
    assert local_store.open(passkey="newer").bounds()[0].end == 1


# -- all or nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["_write_durably", "_sync"])
def test_a_store_whose_making_fails_does_not_exist(
    local_store: Fixture, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_local_home, step, fail)
        with pytest.raises(TransportError, match="Input/output"):
            local_store.create(store_name="second")
    assert names(local_store) == ["profiles"]
    assert len(list(stores_directory(local_store).iterdir())) == 1
    local_store.create(store_name="second")


def test_what_is_made_is_on_the_disk_when_the_call_returns(
    local_store: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each directory is synced after the last name in it, from the home's own on: a power loss takes nothing away."""
    local_store.home = tmp_path / "above" / "home"
    disk = _Disk(monkeypatch)
    local_store.create()
    synced = disk.synced
    assert disk.waiting() == set()
    assert (local_store.directory / "log").stat().st_ino in synced  # its files are LMDB's to make
    local_store.provisioning().rotate_passkey("newer")
    local_store.provisioning(passkey="newer").delete_store("profiles")
    assert disk.waiting() == set()


class _Disk:
    """Notes in which directories Python has made or moved names since they were synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed: dict[int, str] = {}
        self.synced: set[int] = set()
        open_, fsync = os.open, os.fsync

        def opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & os.O_CREAT:
                self._change(path)
            return open_(path, flags, *args, **more)

        def synced(fd: int) -> None:
            fsync(fd)
            self.synced.add(os.fstat(fd).st_ino)
            self._changed.pop(os.fstat(fd).st_ino, None)

        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(os, "fsync", synced)
        for name in ("mkdir", "rename", "replace"):
            monkeypatch.setattr(os, name, self._changing(getattr(os, name)))

    def _changing(self, call: Any) -> Any:
        def changed(*paths: Any, **more: Any) -> None:
            call(*paths, **more)
            for path in paths:
                if not isinstance(path, int):  # a mode
                    self._change(path)

        return changed

    def _change(self, path: Any) -> None:
        directory = Path(path).parent
        if directory.exists():
            self._changed[directory.stat().st_ino] = str(directory)

    def waiting(self) -> set[str]:
        """Directories that are there, and not on the disk as they are."""
        return {path for path in self._changed.values() if Path(path).exists()}


def test_of_those_who_make_one_store_at_once_one_succeeds(local_store: Fixture) -> None:
    outcomes: list[str] = []

    def make(number: int) -> None:
        try:
            local_store.create(store_name="contested", identity=f"log-of-{number}")
            outcomes.append(f"log-of-{number}")
        except StoreExistsError:
            outcomes.append("exists")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("exists") == 7
    assert local_store.open("contested").describe().identity in outcomes
    assert len(list(stores_directory(local_store).iterdir())) == 2


def test_a_store_that_exists_is_left_as_it_is(local_store: Fixture) -> None:
    with pytest.raises(StoreExistsError, match="profiles"):
        local_store.create(identity="log-2")
    with pytest.raises(StoreExistsError, match="demo"):
        local_store.provisioning().create_account()
    assert local_store.open().describe() == local_store.description


def test_a_store_whose_maker_or_remover_was_killed_is_not_there(local_store: Fixture) -> None:
    stores = stores_directory(local_store)
    (stores / "~new-1").mkdir()
    (stores / "~deleted-1" / "log").mkdir(parents=True)
    assert names(local_store) == ["profiles"]
    local_store.create(store_name="second", identity="log-2")
    assert not (stores / "~deleted-1").exists()


def test_a_deleted_store_leaves_nothing_behind(local_store: Fixture) -> None:
    local_store.provisioning().delete_store("profiles")
    assert list(stores_directory(local_store).iterdir()) == []
    for call in (local_store.open, lambda: local_store.provisioning().delete_store("profiles")):
        with pytest.raises(StoreAccessError):
            call()


# -- files that are not as they should be ------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": 1}', '{"format": "1"}', '{"format": 1, "passkey": "secret"}', "\udcff"],
)
def test_a_malformed_account_is_an_error_that_names_the_file(local_store: Fixture, content: str) -> None:
    (path,) = local_store.home.glob("accounts/*/account.json")
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(TransportError, match=r"account\.json"):
        local_store.open()


@pytest.mark.parametrize(
    "changes",
    [
        {"primary_key": None, "identity": None},
        {"partitions": "three"},
        {"partitions": 0},
        {"primary_key_type": "DATE"},
        {"store_name": "another"},
    ],
)
def test_a_malformed_description_is_an_error_that_names_the_file(local_store: Fixture, changes: dict[str, Any]) -> None:
    path = local_store.directory / "store.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(TransportError, match=r"store\.json"):
        local_store.open()


def test_a_description_that_was_changed_is_not_believed(local_store: Fixture) -> None:
    """With other names or numbers writers would write where nobody looks: its checksum tells."""
    path = local_store.directory / "store.json"
    changed = path.read_bytes().replace(b'"partitions":3', b'"partitions":7')
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(TransportError, match=r"store\.json.*checksum.*restore it from a copy"):
        local_store.open()


@pytest.mark.parametrize("name", ["account.json", "store.json"])
def test_a_file_of_a_newer_release_is_refused(local_store: Fixture, name: str) -> None:
    (path,) = local_store.home.rglob(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(TransportError, match="upgrade ikvcore"):
        local_store.open()
