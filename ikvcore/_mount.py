"""The mount directory: whose replica it holds, which generation is current, and who ingests (design, Mount and C8).

replica.json   the store, its log's identity, the backend, the partitions held; written once, last
CURRENT        the name of the current generation's directory
gen-N/         one storage's directory; the storage sees nothing else
gen-(N+1)/     one that is being built in its place; gen-(N-1)/, one that was damaged, until the next is built
damage.json    what is wrong with the current generation; see _damage.py
quarantine     there if bad events may have been passed over here
opened.json    whether the files may have lost writes, and which were in use; see _opened.py
ingest.lock    lockf: held by the process that ingests (or, for backends that are not shared, that has it open)
open.lock      lockf: held for a moment while a mount is made or checked
status.json    what the ingester last said of itself; see _status.py
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from ikvcore._sealed_json import dump_sealed, load_sealed
from ikvcore.errors import FormatVersionError, LogDivergedError, MountError, MountMismatchError
from ikvcore.models import StoreDescription

__all__ = ["FORMAT_VERSION", "Manifest", "Mount", "MountLock", "prepare_directory", "replace_file"]

FORMAT_VERSION: Final = 1
_MANIFEST: Final = "replica.json"
_CURRENT: Final = "CURRENT"
_LOCK: Final = "ingest.lock"
_FIRST_GENERATION: Final = "gen-1"
_QUARANTINE: Final = "quarantine"
_REBUILD: Final = "remove the directory to rebuild the replica"
_GENERATION: Final = re.compile(r"gen-([0-9]{1,9})")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a mount was made for."""

    description: StoreDescription
    backend: str
    partitions: tuple[int, ...]
    history: str

    def to_json(self) -> dict[str, Any]:
        """The content of replica.json."""
        return {
            "format": FORMAT_VERSION,
            "store": self.description.to_json(),
            "backend": self.backend,
            "partitions": list(self.partitions),
            "history": self.history,
        }


def prepare_directory(path: Path) -> None:
    """Make the mount directory, 0700, unless it is there. Raises MountError where it cannot be used."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise MountError(path, "it is a file, not a directory") from exc
    except NotADirectoryError as exc:
        raise MountError(path, "part of the path is a file") from exc
    except OSError as exc:
        raise MountError(
            path, f"it cannot be made ({exc.strerror}); choose a directory that this user may write"
        ) from exc
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise MountError(path, "this user may not write there; choose another directory or change its permissions")


class Mount:
    """A mount directory that exists and is this client's to use."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path, manifest: Manifest) -> Mount:
        """Check the mount against `manifest`, making it first where there is none. `path` must exist.

        Raises MountMismatchError, FormatVersionError, LogDivergedError, MountError; then nothing was touched.
        """
        try:
            # Without the lock first: what is not ours to use is refused before even a lock file is made there.
            stored = cls._stored(path)
            if stored is None:
                with _locked(path / "open.lock"):
                    stored = cls._stored(path)
                    if stored is None:
                        cls._make(path, manifest)
            if stored is not None:
                cls._check(path, stored, manifest)
        except OSError as exc:
            if isinstance(exc, MountError):
                raise
            raise MountError(path, f"{exc.strerror or exc}") from exc
        return cls(path, manifest)

    @classmethod
    def existing(cls, path: Path) -> Mount | None:
        """The mount at `path`, whatever it was made for, with its own manifest; None where there is none.

        Touches nothing. Raises FormatVersionError, MountError.
        """
        try:
            stored = cls._stored(path)
        except OSError as exc:
            if isinstance(exc, MountError):
                raise
            raise MountError(path, f"{exc.strerror or exc}") from exc
        return None if stored is None else cls(path, cls._parsed(path, stored))

    def generation(self) -> Path:
        """The directory of the current generation. Raises MountError where CURRENT does not name one."""
        try:
            name = (self.path / _CURRENT).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as exc:
            raise MountError(self.path, f"its file {_CURRENT} cannot be read ({exc}); {_REBUILD}") from exc
        directory = self.path / name
        if not _GENERATION.fullmatch(name) or not directory.is_dir():
            raise MountError(self.path, f"its file {_CURRENT} names {name[:40]!r}, which is no generation; {_REBUILD}")
        return directory

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold open.lock: others that open the mount wait."""
        with _locked(self.path / "open.lock"):
            yield

    def make_next_generation(self) -> Path:
        """An empty directory for the generation after the current one. Only the current one is kept beside it.

        Raises MountError. Called by the mount's ingester alone.
        """
        current = self.generation()
        following = f"gen-{int(current.name.removeprefix('gen-')) + 1}"
        try:
            for other in self.path.iterdir():
                if _GENERATION.fullmatch(other.name) and other != current:
                    shutil.rmtree(other)
            (self.path / following).mkdir(mode=0o700)
        except OSError as exc:
            raise MountError(self.path, f"generation {following} cannot be made: {exc.strerror or exc}") from exc
        return self.path / following

    @property
    def may_have_passed_bad_events(self) -> bool:
        """Whether an ingester that quarantines bad events has ever worked here."""
        return (self.path / _QUARANTINE).exists()

    def note_quarantine(self) -> None:
        """Say, before it does, that an ingester here may pass over bad events. Raises OSError."""
        if not self.may_have_passed_bad_events:
            replace_file(self.path / _QUARANTINE, b"")

    def make_current(self, directory: Path) -> None:
        """Have CURRENT name a generation, durably. Raises MountError."""
        try:
            _sync_directory(directory)
            _sync_directory(self.path)
            replace_file(self.path / _CURRENT, f"{directory.name}\n".encode())
        except OSError as exc:
            raise MountError(self.path, f"its file {_CURRENT} cannot be replaced: {exc.strerror or exc}") from exc

    @staticmethod
    def _stored(path: Path) -> dict[str, Any] | None:
        try:
            data = load_sealed((path / _MANIFEST).read_bytes(), FORMAT_VERSION)
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise MountError(path, f"{_MANIFEST} is damaged ({exc}); {_REBUILD}") from exc
        if not isinstance(data, dict):
            raise MountError(path, f"{_MANIFEST} is damaged; {_REBUILD}")
        return data

    @staticmethod
    def _make(path: Path, manifest: Manifest) -> None:
        (path / _FIRST_GENERATION).mkdir(mode=0o700, exist_ok=True)
        replace_file(path / _CURRENT, f"{_FIRST_GENERATION}\n".encode())
        # Last: a mount with a manifest is complete, and what a crash left without one is made again.
        replace_file(path / _MANIFEST, dump_sealed(manifest.to_json()))

    @staticmethod
    def _parsed(path: Path, stored: dict[str, Any]) -> Manifest:
        version = stored.get("format")
        if version != FORMAT_VERSION:
            raise FormatVersionError(path, version, FORMAT_VERSION)
        try:
            return Manifest(
                description=StoreDescription.from_json(stored["store"]),
                backend=stored["backend"],
                partitions=tuple(stored["partitions"]),
                history=stored["history"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise MountError(path, f"{_MANIFEST} is damaged ({exc!r}); {_REBUILD}") from exc

    @classmethod
    def _check(cls, path: Path, stored: dict[str, Any], wanted: Manifest) -> None:
        found = cls._parsed(path, stored)
        description = found.description
        store = (description.account_id, description.store_name)
        wanted_store = (wanted.description.account_id, wanted.description.store_name)
        for what, stored_value, asked in (
            ("store (account, name)", store, wanted_store),
            ("backend", found.backend, wanted.backend),
            ("partitions", list(found.partitions), list(wanted.partitions)),
            ("history", found.history, wanted.history),
        ):
            if stored_value != asked:
                raise MountMismatchError(path, what, stored_value, asked)
        if description.identity != wanted.description.identity:
            raise LogDivergedError(
                None,
                f"its identity is {wanted.description.identity!r}, that of the replica's log was "
                f"{description.identity!r} (was the store deleted and made again?)",
            )


class MountLock:
    """The lock of a mount's ingester.

    lockf, not flock, which a forked child would share. Closing any descriptor of the file gives a lockf lock up, so a
    process opens this file once, here, and nowhere else; who only visits a mount asks `is_open_here` first.
    """

    _open_here: ClassVar[set[tuple[int, int]]] = set()

    def __init__(self, mount: Path) -> None:
        self._file = os.open(mount / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.held = False
        status = os.fstat(self._file)
        self._key = (status.st_dev, status.st_ino)
        self._open_here.add(self._key)

    @classmethod
    def is_open_here(cls, mount: Path) -> bool:
        """Whether this process has the mount's lock file open; found out without opening it."""
        try:
            status = (mount / _LOCK).stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in cls._open_here

    def try_acquire(self) -> bool:
        """Take the lock if no other process has it; whether it is held now."""
        if not self.held:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            self.held = True
        return True

    def release(self) -> None:
        """Give the lock up; no-op where it is not held."""
        if self.held:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
            self.held = False

    def close(self) -> None:
        """Give up lock and file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._open_here.discard(self._key)
            self._file, self.held = -1, False


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file of mode 0600 so that readers and a crash see the old content or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(data)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file across processes; within a process the caller keeps others out."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
