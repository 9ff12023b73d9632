"""IKV_HOME: accounts and stores as directories and small JSON files, each made whole or not at all.

    IKV_HOME/accounts/<account>/account.json                    its id and the hash of its passkey
    IKV_HOME/accounts/<account>/stores/<store>/store.json       the store's description
                                              /log/             LMDB
                                              /followers/       FIFOs

Directories are named by ikvcore._names.directory_name; those that begin with ~ are being made or removed, and what a
killed process left of them goes with the next provisioning. All of it is its owner's alone (0700, 0600): files of one
user are no security boundary against that user.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import lmdb
import platformdirs

from ikv_backends._lmdb_environment import LmdbEnvironment
from ikv_transports._local_entries import IDENTITY_KEY
from ikv_transports._local_followers import ring_all
from ikvcore._names import directory_name
from ikvcore._passkeys import hash_passkey, verify_passkey
from ikvcore._sealed_json import dump_sealed, load_sealed
from ikvcore.errors import (
    IKVError,
    InvalidOptionError,
    StorageFullError,
    StoreAccessError,
    StoreExistsError,
    TransportError,
)
from ikvcore.models import Secret, StoreDescription

__all__ = ["LocalHome", "LocalProvisioning"]

_FORMAT: Final = 1
_UNFINISHED: Final = "~"
"""First character of what is being made or removed: names of stores and accounts cannot hold it."""
_BEING_MADE: Final = f"{_UNFINISHED}new-"
_BEING_REMOVED: Final = f"{_UNFINISHED}deleted-"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LITTLE_SPACE: Final = 1 << 20
_EXISTS: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})


class LocalHome:
    """Finds and opens what is in IKV_HOME. Errors of the file system become TransportError."""

    def __init__(self, home: str | None) -> None:
        chosen = home or os.environ.get("IKV_HOME") or platformdirs.user_data_dir("ikvcore")
        try:
            self.path: Final = Path(chosen).expanduser().absolute()
        except RuntimeError as exc:  # ~user, of a user that there is not
            raise InvalidOptionError("home", chosen, str(exc)) from exc
        self.accounts: Final = self.path / "accounts"

    def account(self, account_id: str) -> Path:
        """The directory of an account, whether there is one or not."""
        return self.accounts / directory_name(account_id)

    def stores(self, account_id: str) -> Path:
        """The directory of an account's stores."""
        return self.account(account_id) / "stores"

    def store(self, account_id: str, store_name: str) -> Path:
        """The directory of a store, whether there is one or not."""
        return self.stores(account_id) / directory_name(store_name)

    def authenticate(self, account_id: str, passkey: Secret, store_name: str) -> None:
        """Raise StoreAccessError, about `store_name`, unless the account exists and the passkey is its own."""
        path = self.account(account_id) / "account.json"
        content = _read_json(path)
        try:
            stored = None if content is None else content["passkey"]
            right = verify_passkey(passkey.reveal(), stored)
        except (KeyError, TypeError, ValueError) as exc:
            raise _malformed(path, exc) from exc
        if not right:
            raise StoreAccessError(store_name, account_id)

    def describe(self, account_id: str, passkey: Secret, store_name: str) -> StoreDescription:
        """The description of a store. Raises StoreAccessError where passkey, account or store is not there."""
        self.authenticate(account_id, passkey, store_name)
        directory = self.store(account_id, store_name)
        description = _read_description(directory)
        if description is None:
            raise StoreAccessError(store_name, account_id)
        if (description.account_id, description.store_name) != (account_id, store_name):
            raise _malformed(directory / "store.json", "it describes another store")
        return description


class LocalProvisioning:
    """Accounts and stores of one account, see ikvcore.protocols.Provisioning."""

    def __init__(self, home: LocalHome, account_id: str, passkey: Secret) -> None:
        self._home = home
        self._account_id = account_id
        self._passkey = passkey

    def create_account(self) -> None:
        self._make_home()
        if self._account_exists():
            raise StoreExistsError("account", self._account_id)
        content = self._account_content(self._passkey.reveal())
        with _made_whole(self._home.account(self._account_id), "account", self._account_id) as unfinished:
            _make_directory(unfinished / "stores")
            _write_durably(unfinished / "account.json", content)

    def rotate_passkey(self, new_passkey: str) -> None:
        directory = self._home.account(self._account_id)
        self._home.authenticate(self._account_id, self._passkey, "*")
        with _translated(directory), _locked(directory):
            # Again, now that nobody else can rotate: of two at once, the second has the wrong passkey.
            self._home.authenticate(self._account_id, self._passkey, "*")
            _write_durably(directory / "account.json", self._account_content(new_passkey))

    def create_store(self, description: StoreDescription) -> StoreDescription:
        if not self._account_exists():
            with suppress(StoreExistsError):  # someone else may make it at the same moment
                self.create_account()
        self._home.authenticate(self._account_id, self._passkey, description.store_name)
        self._remove_leftovers()
        target = self._home.store(self._account_id, description.store_name)
        with _made_whole(target, "store", description.store_name) as unfinished:
            _make_directory(unfinished / "followers")
            _make_directory(unfinished / "log")
            _make_log(unfinished / "log", description.identity)
            _sync(unfinished / "log")
            _write_durably(unfinished / "store.json", {"format": _FORMAT, **description.to_json()})
        return description

    def list_stores(self) -> list[StoreDescription]:
        self._home.authenticate(self._account_id, self._passkey, "*")
        with _translated(self._home.path):
            directories = [path for path in self._stores.iterdir() if not path.name.startswith(_UNFINISHED)]
        found = [_read_description(directory) for directory in directories]
        return sorted((store for store in found if store is not None), key=lambda store: store.store_name)

    def delete_store(self, store_name: str) -> None:
        self._home.describe(self._account_id, self._passkey, store_name)
        removed = self._stores / f"{_BEING_REMOVED}{secrets.token_hex(8)}"
        with _translated(self._stores):
            try:
                self._home.store(self._account_id, store_name).rename(removed)
            except FileNotFoundError as exc:  # someone else deleted it at the same moment
                raise StoreAccessError(store_name, self._account_id) from exc
            _sync(self._stores)
        ring_all(removed / "followers")
        self._remove_leftovers()

    @property
    def _stores(self) -> Path:
        return self._home.stores(self._account_id)

    def _account_exists(self) -> bool:
        return (self._home.account(self._account_id) / "account.json").exists()

    def _account_content(self, passkey: str) -> dict[str, Any]:
        return {"format": _FORMAT, "account_id": self._account_id, "passkey": hash_passkey(passkey)}

    def _make_home(self) -> None:
        with _translated(self._home.path):
            for directory in reversed(self._home.path.parents):
                if not directory.is_dir():
                    directory.mkdir(exist_ok=True)  # not ours, so the umask decides
                    _sync(directory.parent)
            for directory in (self._home.path, self._home.accounts):
                if not directory.is_dir():
                    with suppress(FileExistsError):
                        _make_directory(directory)
                # Also what another process has just made. A parent that is not ours to read cannot be synced.
                with suppress(PermissionError):
                    _sync(directory.parent)

    def _remove_leftovers(self) -> None:
        """Finish the removal of stores, also those whose remover was killed."""
        for directory in self._stores.glob(f"{_BEING_REMOVED}*"):
            shutil.rmtree(directory, ignore_errors=True)


def _make_log(directory: Path, identity: str) -> None:
    """An empty log that knows whose it is."""
    try:
        LmdbEnvironment.create(directory, {IDENTITY_KEY: identity.encode()})
    except lmdb.Error as exc:
        space = os.statvfs(directory)
        if space.f_bavail * space.f_frsize < _LITTLE_SPACE:  # LMDB makes an input/output error of it
            raise StorageFullError(directory, exc) from exc
        raise TransportError(f"a log could not be made at {str(directory)!r}: {exc}") from exc


def _read_description(directory: Path) -> StoreDescription | None:
    path = directory / "store.json"
    content = _read_json(path)
    if content is None:
        return None
    try:
        description = StoreDescription.from_json(content)
        if not (isinstance(description.identity, str) and description.partitions >= 1):
            raise ValueError("it has no identity or no partitions")
        return description
    except (KeyError, TypeError, ValueError) as exc:
        raise _malformed(path, exc) from exc


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file of this module's, None where there is no such file."""
    try:
        content = load_sealed(path.read_bytes(), _FORMAT)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise TransportError(f"{str(path)!r} cannot be read: {exc}") from exc
    except ValueError as exc:
        raise _malformed(path, exc) from exc
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise _malformed(path, "it has no format number")
    if content["format"] > _FORMAT:
        raise TransportError(
            f"{str(path)!r} has format {content['format']}, this release knows up to {_FORMAT}: upgrade ikvcore"
        )
    return content


def _malformed(path: Path, reason: object) -> TransportError:
    return TransportError(f"{str(path)!r} is malformed ({reason}); restore it from a copy")


# -- files -------------------------------------------------------------------------------------


@contextmanager
def _made_whole(target: Path, what: str, name: str) -> Iterator[Path]:
    """A new directory to fill, which then appears at `target` in one step. StoreExistsError if something is there."""
    with _translated(target):
        if target.exists():
            raise StoreExistsError(what, name)
        _sweep(target.parent)
        unfinished, lock = _claim(target.parent)
        try:
            yield unfinished
            _sync(unfinished)
            try:
                unfinished.rename(target)
            except OSError as exc:
                if exc.errno in _EXISTS:  # someone else made it at the same moment
                    raise StoreExistsError(what, name) from exc
                raise
            _sync(target.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            os.close(lock)


def _claim(parent: Path) -> tuple[Path, int]:
    """A new directory for what is being made, and a descriptor that keeps it from being swept while it is open."""
    while True:
        unfinished = parent / f"{_BEING_MADE}{secrets.token_hex(8)}"
        unfinished.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            unfinished.chmod(0o700)  # whatever the umask
            lock = _open_directory(unfinished)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if unfinished.exists():  # nobody swept it before it was locked
                    return unfinished, lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove what was being made by processes that were killed. Who still makes something holds its lock."""
    for unfinished in parent.glob(f"{_BEING_MADE}*"):
        with suppress(OSError):
            lock = _open_directory(unfinished)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(unfinished, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except IKVError:  # some of them are an OSError too
        raise
    except OSError as exc:
        if exc.errno in _FULL:
            raise StorageFullError(path, exc) from exc
        raise TransportError(f"{str(path)!r} cannot be used: {exc}") from exc


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # whatever the umask


def _write_durably(path: Path, content: dict[str, Any]) -> None:
    """Make or replace a file: at any moment, a power loss included, it is the old one or the new one."""
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(dump_sealed(content))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    fd = _open_directory(directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Whoever else locks this directory waits."""
    fd = _open_directory(directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
