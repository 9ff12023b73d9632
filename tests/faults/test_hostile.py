"""What somebody else made: bytes, names, and a passkey that must not be found anywhere."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikvcore import admin
from ikvcore._damage import Damage
from ikvcore._opened import Opened
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.document import IKVDocument
from ikvcore.errors import IKVError, InvalidNameError, InvalidTokenError, StoreAccessError
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Secret, TransportContext
from ikvcore.testing.faults import syscalls
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.target import Pair
from ikvcore.tokens import Token

CANARY = "canary-7f3a9c51e0"
PATIENCE = 60.0
PACKAGES = {"ikvcore", "ikv_backends", "ikv_transports", "ikv_load"}


def test_hostile_bytes_are_refused_as_declared(tmp_path: Path) -> None:
    campaign = CAMPAIGNS["hostile-bytes"]
    campaign.load()(directory=tmp_path / "run", seed=1, pair=Pair(), **campaign.short).require()


@given(st.text() | st.from_regex(r"ikv1:[0-9a-z]{0,40}:([0-9]{1,9}=[0-9]{1,6000},?){0,3}"))
@settings(max_examples=300, deadline=None)
def test_whatever_is_parsed_as_a_token_is_one_or_refused(text: str) -> None:
    try:
        token = Token.parse(text)
    except InvalidTokenError:
        return
    assert Token.parse(str(token)) == token


# -- names -----------------------------------------------------------------------------------------

HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc",
    "a\0b",
    "\0",
    "a\n",
    "x" * 250,
    "~new-1",
    "~",
    "\u0430bc",  # a Cyrillic look-alike
    "\uff41",
    "e\u0301",
    "a b",
    "a:b",
    "\ud800",
    b"bytes",
    None,
    7,
]
FINE_NAMES = [
    "a",
    "A",
    "...",
    ".a",
    "-",
    "--",
    "con",
    "CON",
    "nul.txt",
    "x" * 249,
    "X" * 249,
    "x" * 248,
    "a.",
    "a-",
    "_",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_a_hostile_name_makes_nothing(name: Any, tmp_path: Path, faults_home: Path) -> None:
    before = tree(faults_home)
    with pytest.raises(InvalidNameError):
        admin.create_store(name, account_id="a", account_passkey="p", primary_key="id")
    with pytest.raises(InvalidNameError):
        admin.create_store("s", account_id=name, account_passkey="p", primary_key="id")
    assert tree(faults_home) == before


def test_names_that_are_alike_are_stores_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults_home: Path
) -> None:
    """Also where a file system takes capitals for small letters; all of it lies under the home, with short names."""
    monkeypatch.setenv("IKV_HOME", str(tmp_path / "in" / "home"))
    for name in FINE_NAMES:
        admin.create_store(name, account_id="Acc", account_passkey="p", primary_key="id")
    found = {store.store_name: store.identity for store in admin.list_stores(account_id="Acc", account_passkey="p")}
    assert sorted(found) == sorted(FINE_NAMES)
    assert len(set(found.values())) == len(FINE_NAMES)
    directories = [path.name for path in (tmp_path / "in" / "home").glob("accounts/*/stores/*")]
    assert len({name.casefold() for name in directories}) == len(FINE_NAMES)
    assert max(map(len, directories)) <= 60
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"home"}


# -- secrets and permissions -----------------------------------------------------------------------


def tree(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IKV_HOME", str(tmp_path / "place" / "home"))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture(params=[0o022, 0o000, 0o077])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def options(place: Path, passkey: str) -> ClientOptions:
    return (
        ClientOptionsBuilder()
        .with_store_name("s")
        .with_account_id("a")
        .with_account_passkey(passkey)
        .with_mount_directory(place / "mount")
        .with_console_logging("TRACE")
        .with_file_logging("TRACE", place / "log.txt")
        .build()
    )


def use(place: Path, passkey: str) -> None:
    """All that a process does in its life, a rebuild and checks of replica and log among it."""
    chosen = options(place, passkey)
    with create_new_writer(chosen) as writer:
        writer.upsert_fields(IKVDocument.from_dict({"id": "a", "n": 1}))
    with create_new_reader(chosen) as reader:
        assert reader.get_value("a", "n") == 1
    mark = '{"boot": "an earlier one", "clean": false}'
    (place / "mount" / "opened.json").write_text(mark)
    (place / "mount" / "opened.json").chmod(0o600)
    with create_new_reader(chosen) as reader:
        assert reader.get_value("a", "n") == 1
    Damage(generation="gen-1", reason="of this test").write(place / "mount")
    with create_new_reader(chosen) as reader:
        assert reader.get_value("a", "n") == 1
    assert (place / "mount" / "CURRENT").read_text() == "gen-2\n"
    assert admin.verify_log("s", account_id="a", account_passkey=passkey) == []


@pytest.mark.usefixtures("_umask")
def test_directories_and_files_are_their_owners_alone(place: Path) -> None:
    admin.create_store("s", account_id="a", account_passkey="p", primary_key="id")
    use(place, "p")
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in place.rglob("*")}
    wrong = {
        str(path.relative_to(place)): oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if path.is_dir() else 0o600) and path.name != "log.txt"
    }
    assert wrong == {}
    assert {"gen-2", "data.mdb", "lock.mdb", "status.json", "account.json"} <= {path.name for path in modes}


def test_a_passkey_is_found_nowhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in files, logs at their finest, output, errors, what shows or pickles an object, nor with child processes."""
    monkeypatch.setenv("IKV_ACCOUNT_PASSKEY", CANARY)
    caplog.set_level(1)
    logging.getLogger("ikvcore").setLevel(1)
    said: list[str] = []

    class Spied(subprocess.Popen[Any]):
        def __init__(self, command: Any, *, env: Any = None, **more: Any) -> None:
            said.append(repr((command, dict(os.environ) if env is None else env, more)))
            super().__init__(command, env=env, **more)

    monkeypatch.setattr(subprocess, "Popen", Spied)
    admin.create_store("s", account_id="a", account_passkey=CANARY, primary_key="id")
    use(place, CANARY)
    assert len(said) == 2  # the checks of the replica and of the log
    chosen = options(place, CANARY)
    said += [repr(chosen), str(chosen), f"{chosen!r:>10}", repr(vars(chosen)) if hasattr(chosen, "__dict__") else ""]
    with create_new_reader(chosen), create_new_writer(chosen):
        said += [repr(each) for each in gc.get_objects() if str(type(each).__module__).partition(".")[0] in PACKAGES]
    asked = TransportContext(store_name="s", account_id="a", passkey=Secret(CANARY), options=None)
    for each in (chosen, Secret(CANARY), asked, create_new_reader(chosen), create_new_writer(chosen)):
        said += [repr(each), str(each), f"{each}"]
        try:
            said.append(repr(pickle.dumps(each)))
        except Exception as exc:
            said.append("".join(traceback.format_exception(exc)))
    with pytest.raises(StoreAccessError) as refused:
        create_new_reader(options(place, CANARY + "!")).startup(timeout=PATIENCE)
    with pytest.raises(IKVError) as impossible:
        admin.rotate_passkey("", account_id="a", account_passkey=CANARY)
    said += ["".join(traceback.format_exception(impossible.value))]
    said += ["".join(traceback.format_exception(refused.value)), repr(refused.value), str(refused.value.args)]
    said.append("".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format()))
    said += [caplog.text, *capfd.readouterr(), *(repr(record.__dict__) for record in caplog.records)]
    assert not [text for text in said if CANARY in without_test(text)]
    found = [path for path in place.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []
    assert (place / "log.txt").stat().st_size > 0


def test_the_command_tells_nobody_its_passkey(place: Path, tmp_path: Path, requires_part: Callable[..., None]) -> None:
    """Given in a variable or in a file: not by what it prints, in no file, and not to the processes that it starts."""
    requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    (tmp_path / "passkey").write_text(CANARY)
    ways: list[dict[str, str]] = [
        {"IKV_ACCOUNT_PASSKEY": CANARY},
        {"IKV_ACCOUNT_PASSKEY_FILE": str(tmp_path / "passkey"), "IKV_FILE_LOGGING": f"TRACE:{place / 'log.txt'}"},
    ]
    common = {"IKV_ACCOUNT_ID": "a", "IKV_CONSOLE_LOGGING": "TRACE"}
    commands = [
        ("store create s --primary-key id", 0),
        ("put s id=a", 0),
        ("get s a", 0),
        ("--debug store create s --primary-key id", 1),
        ("verify s", 0),
    ]
    for number, (command, code) in enumerate(commands):
        trace = tmp_path / f"trace-{number}"
        strace = ["strace", "-f", "-qq", "-v", "-s", "100000", "-e", "trace=execve", "-o", str(trace)]
        done = subprocess.run(
            [*strace, Path(sys.executable).with_name("ikv"), *command.split()],
            env={**os.environ, **common, **ways[number % 2]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stderr
        assert CANARY not in done.stdout + done.stderr
        calls = trace.read_text().splitlines()
        itself = calls[0].split()[0]  # may become another program: where a path has a space, a script is a shell's
        others = [call for call in calls if call.split()[0] != itself]
        assert not [call for call in others if CANARY in call]
        assert others or command != "verify s"
    found = [path for path in place.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []


def without_test(text: str) -> str:
    """The lines of this test's own frame show its constant by name and by value."""
    return "\n".join(line for line in text.splitlines() if "CANARY" not in line and "place = " not in line)


def test_a_mark_of_this_boot_is_not_suspect(place: Path) -> None:
    Opened.mark(place, clean=False)
    assert not Opened.suspect(place)
    assert sys.executable
