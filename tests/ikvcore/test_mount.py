"""The mount directory (C8): what is refused, and that what is refused is left exactly as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _mount
from ikvcore._mount import FORMAT_VERSION, Manifest, Mount, MountLock, prepare_directory, replace_file
from ikvcore.errors import FormatVersionError, LogDivergedError, MountError, MountMismatchError
from ikvcore.models import StoreDescription

STORE = StoreDescription(store_name="s", account_id="a", identity="log-1", primary_key="id", partitions=3)
MANIFEST = Manifest(description=STORE, backend="lmdb", partitions=(0, 1, 2), history="complete")
PATIENCE = 30.0


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A complete mount of MANIFEST with something in its generation."""
    path = tmp_path / "mount"
    prepare_directory(path)
    mount = Mount.open(path, MANIFEST)
    (mount.generation() / "data").write_bytes(b"precious")
    return path


def picture(path: Path) -> dict[str, Any]:
    """Everything there is to know of a tree: names, modes, times, bytes."""
    found: dict[str, Any] = {}
    for each in [path, *sorted(path.rglob("*"))]:
        status = each.lstat()
        content = each.read_bytes() if each.is_file() else None
        found[str(each)] = (status.st_mode, status.st_mtime_ns, status.st_ino, status.st_size, content)
    return found


def opened(path: Path, manifest: Manifest) -> Mount:
    prepare_directory(path)
    return Mount.open(path, manifest)


def refused(path: Path, manifest: Manifest, error: type[Exception]) -> Exception:
    """The error of opening, after which nothing in the mount has changed."""
    before = picture(path)
    with pytest.raises(error) as caught:
        opened(path, manifest)
    assert picture(path) == before
    assert str(path) in str(caught.value) or isinstance(caught.value, LogDivergedError)
    return caught.value


# -- whose it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(MANIFEST, description=replace(STORE, store_name="other")), "other"),
        (replace(MANIFEST, description=replace(STORE, account_id="other")), "other"),
        (replace(MANIFEST, backend="rocksdb"), "rocksdb"),
        (replace(MANIFEST, partitions=(0, 1)), "[0, 1]"),
        (replace(MANIFEST, history="partial"), "partial"),
    ],
)
def test_another_clients_mount_is_refused_and_left_alone(made: Path, other: Manifest, told: str) -> None:
    """Another store, account, backend, set of partitions or history; what was asked for is named."""
    error = refused(made, other, MountMismatchError)
    assert told in str(error)
    Mount.open(made, MANIFEST)


def test_a_store_made_again_is_another_log(made: Path) -> None:
    error = refused(made, replace(MANIFEST, description=replace(STORE, identity="log-2")), LogDivergedError)
    assert "log-1" in str(error)
    assert "log-2" in str(error)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 99, "2", None])
def test_a_newer_format_is_refused_and_left_alone(made: Path, version: object) -> None:
    data = json.loads((made / "replica.json").read_bytes())
    (made / "replica.json").write_text(json.dumps({**data, "format": version}))
    error = refused(made, MANIFEST, FormatVersionError)
    assert repr(version) in str(error)


def test_a_newer_release_may_lay_its_mount_out_differently(tmp_path: Path) -> None:
    """Nothing but the format number is looked for, and no file of ours is put beside theirs."""
    path = tmp_path / "mount"
    path.mkdir()
    (path / "replica.json").write_text('{"format": 2, "everything": "else"}')
    refused(path, MANIFEST, FormatVersionError)


def test_opening_again_changes_nothing(made: Path) -> None:
    before = picture(made)
    Mount.open(made, MANIFEST)
    assert picture(made) == before


# -- what is no mount --------------------------------------------------------------------------


def test_a_file_is_no_mount(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"precious")
    assert "file" in str(refused(path, MANIFEST, MountError))
    assert path.read_bytes() == b"precious"


def test_a_path_below_a_file_is_no_mount(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(MountError, match="file"):
        prepare_directory(tmp_path / "file" / "mount")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_dangling_link_is_no_mount(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "at all")
    with pytest.raises(MountError):
        prepare_directory(tmp_path / "link")


@pytest.mark.parametrize("path", ["/proc/ikv-mount", "/proc/self/fdinfo", "/proc/self/fdinfo/mount"])
def test_a_place_where_nothing_can_be_written_is_no_mount(path: str) -> None:
    """Told also to root, who is refused by the file system alone; the error names the way out."""
    if not Path("/proc/self").exists():
        pytest.skip("there is no /proc")
    with pytest.raises(MountError, match="/proc"):
        opened(Path(path), MANIFEST)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_others_is_no_mount(tmp_path: Path) -> None:
    path = tmp_path / "mount"
    path.mkdir(mode=0o500)
    with pytest.raises(MountError, match=r"permission|may not write"):
        prepare_directory(path)


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"1",
        b"null",
        b'{"format": 1}',
        b'{"format": 1, "store": 5, "backend": "lmdb", "partitions": [0], "history": "complete"}',
        b'{"format": 1, "store": {}, "backend": "lmdb", "partitions": [0], "history": "complete"}',
        b'{"format": 1, "store": {"primary_key_type": "NONE"}, "backend": "lmdb", "partitions": [0], "history": ""}',
    ],
)
def test_a_damaged_manifest_is_told_and_left_alone(made: Path, content: bytes) -> None:
    (made / "replica.json").write_bytes(content)
    refused(made, MANIFEST, MountError)


def test_a_manifest_with_a_part_missing_is_told(made: Path) -> None:
    data = json.loads((made / "replica.json").read_bytes())
    for name in ("store", "backend", "partitions", "history"):
        (made / "replica.json").write_text(json.dumps({key: value for key, value in data.items() if key != name}))
        refused(made, MANIFEST, MountError)


def test_a_manifest_that_is_a_directory_is_told(made: Path) -> None:
    (made / "replica.json").unlink()
    (made / "replica.json").mkdir()
    refused(made, MANIFEST, MountError)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"gen-2\n",
        b"gen-1/../gen-1",
        b"../mount/gen-1",
        b"/tmp",
        b"gen-\x00",
        b"gen-\xff",
        b"gen-" + b"9" * 300,
    ],
)
def test_a_damaged_current_is_told(made: Path, content: bytes) -> None:
    (made / "CURRENT").write_bytes(content)
    with pytest.raises(MountError, match="CURRENT"):
        Mount.open(made, MANIFEST).generation()


def test_a_missing_current_is_told(made: Path) -> None:
    (made / "CURRENT").unlink()
    with pytest.raises(MountError, match="CURRENT"):
        Mount.open(made, MANIFEST).generation()


def test_current_must_not_name_a_file(made: Path) -> None:
    (made / "gen-3").write_bytes(b"")
    (made / "CURRENT").write_text("gen-3\n")
    with pytest.raises(MountError, match="gen-3"):
        Mount.open(made, MANIFEST).generation()


# -- making one --------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", range(3))
def test_a_half_made_mount_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A crash between any two steps leaves no manifest, and the next open makes the mount whole."""
    path = tmp_path / "mount"
    prepare_directory(path)
    real: Callable[..., None] = _mount.replace_file
    left = [step]

    def crashing(target: Path, data: bytes, **kwargs: Any) -> None:
        if not left[0]:
            raise Crash
        left[0] -= 1
        real(target, data, **kwargs)

    monkeypatch.setattr(_mount, "replace_file", crashing)
    if step < 2:
        with pytest.raises(Crash):
            Mount.open(path, MANIFEST)
        assert not (path / "replica.json").exists()
    monkeypatch.undo()
    assert Mount.open(path, MANIFEST).generation() == path / "gen-1"
    assert json.loads((path / "replica.json").read_bytes())["store"]["identity"] == "log-1"
    assert not list(path.glob(".*"))


def test_a_killed_makers_temporary_files_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "mount"
    prepare_directory(path)
    (path / f".replica.json.{os.getpid()}").write_bytes(b"{")
    (path / ".CURRENT.1").write_bytes(b"gen")
    assert Mount.open(path, MANIFEST).generation().name == "gen-1"
    Mount.open(path, MANIFEST)


def test_everything_is_its_owners_alone(tmp_path: Path) -> None:
    """0700 and 0600 under the usual umask, those of the engine too."""
    from ikv_backends.lmdb import LmdbOptions, LmdbStorage
    from ikvcore._status import Status

    old = os.umask(0o022)
    try:
        path = tmp_path / "mount"
        prepare_directory(path)
        mount = Mount.open(path, MANIFEST)
        lock = MountLock(path)
        Status().write(path)
        engine = LmdbStorage(mount.generation(), LmdbOptions())
        engine.close()
        lock.close()
    finally:
        os.umask(old)
    modes = {str(each.relative_to(tmp_path)): each.stat().st_mode & 0o777 for each in tmp_path.glob("mount/**/*")}
    modes["mount"] = path.stat().st_mode & 0o777
    assert {name: mode for name, mode in modes.items() if (tmp_path / name).is_dir()} == {
        "mount": 0o700,
        "mount/gen-1": 0o700,
    }
    files = {name: mode for name, mode in modes.items() if (tmp_path / name).is_file()}
    assert set(files.values()) == {0o600}, files
    assert len(files) == 7


def test_replacing_a_file_never_shows_a_part(tmp_path: Path) -> None:
    """A failed replacement leaves the old content and no temporary file."""
    target = tmp_path / "file"
    replace_file(target, b"old")
    with pytest.raises(TypeError):
        replace_file(target, "no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    replace_file(target, b"new")
    assert [each.name for each in tmp_path.iterdir() if not each.name.startswith(".")] == ["file"]
    assert target.read_bytes() == b"new"


# -- processes ---------------------------------------------------------------------------------

FIRST_OPEN = """
import sys
from pathlib import Path
from ikvcore._mount import Manifest, Mount, prepare_directory
from ikvcore.models import StoreDescription
store = StoreDescription(store_name="s", account_id="a", identity="log-1", primary_key="id", partitions=3)
manifest = Manifest(description=store, backend="lmdb", partitions=(0, 1, 2), history="complete")
base = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    path = base / f"mount-{number}"
    prepare_directory(path)
    assert Mount.open(path, manifest).generation() == path / "gen-1"
print("done", flush=True)
"""

LOCK = """
import sys
from pathlib import Path
from ikvcore._mount import MountLock
lock = MountLock(Path(sys.argv[1]))
print(lock.try_acquire(), flush=True)
for line in sys.stdin:
    if line.strip() == "release":
        lock.release()
    else:
        lock.try_acquire()
    print(lock.held, flush=True)
"""


class Child:
    """A process that answers lines."""

    def __init__(self, program: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def test_processes_that_open_at_once_make_one_mount(tmp_path: Path) -> None:
    """Four processes, forty fresh mounts: each is made once and opened by all."""
    children = [Child(FIRST_OPEN, tmp_path) for _ in range(4)]
    try:
        assert [child.answer() for child in children] == ["ready"] * 4
        for child in children:
            child.tell("go")
        assert [child.answer() for child in children] == ["done"] * 4
    finally:
        for child in children:
            child.end(kill=True)
    for number in range(40):
        names = {each.name for each in (tmp_path / f"mount-{number}").iterdir()}
        assert names == {"CURRENT", "gen-1", "open.lock", "replica.json"}


def test_the_lock_is_one_processs_at_a_time(made: Path) -> None:
    """Held, it is refused elsewhere; given up by release, by close and by death, it is free at once."""
    lock = MountLock(made)
    assert lock.try_acquire()
    assert lock.try_acquire(), "it is held already"
    child = Child(LOCK, made)
    try:
        assert child.answer() == "False"
        lock.release()
        lock.release()
        assert not lock.held
        assert child.ask("acquire") == "True"
        assert not lock.try_acquire()
        assert child.ask("release") == "False"
        assert lock.try_acquire()
        lock.close()
        lock.close()
        assert not lock.held
        assert child.ask("acquire") == "True"
        lock = MountLock(made)
        assert not lock.try_acquire()
        child.end(kill=True)
        assert lock.try_acquire()
    finally:
        child.end(kill=True)
        lock.close()


def test_a_forked_child_neither_has_nor_drops_the_lock(made: Path) -> None:
    """lockf is not inherited: a child's release and close leave it with the parent, and a living child does not keep
    it from others once the parent has given it up.
    """
    lock = MountLock(made)
    assert lock.try_acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        lock.close()
        os._exit(0)
    os.waitpid(child, 0)
    read_end, write_end = os.pipe()
    living = os.fork()
    if living == 0:
        os.close(write_end)
        os.read(read_end, 1)  # until the parent closes its end
        os._exit(0)
    os.close(read_end)
    other = Child(LOCK, made)
    try:
        assert other.answer() == "False"
        lock.close()
        assert other.ask("acquire") == "True"
    finally:
        os.close(write_end)
        os.waitpid(living, 0)
        other.end(kill=True)


def test_checking_the_mount_again_keeps_the_lock(made: Path) -> None:
    """Closing any descriptor of a locked file drops the lock, so a second client's check must not touch that file."""
    lock = MountLock(made)
    assert lock.try_acquire()
    Mount.open(made, MANIFEST)
    other = Child(LOCK, made)
    try:
        assert other.answer() == "False"
    finally:
        other.end(kill=True)
        lock.close()


def test_the_lock_file_is_not_inherited_by_programs(made: Path) -> None:
    """A program that the process starts must not hold descriptors of the mount."""
    lock = MountLock(made)
    try:
        assert not os.get_inheritable(lock._file)
    finally:
        lock.close()
