"""Golden files: what a released version of a plugin wrote, kept in an archive that every later one has to open.

An archive is a zip with golden.json, the log's home under home/, and for a backend the replica under mount/. Its log is
the default transport's for a backend, and the plugin's own for a transport. What is in it are the documents of
_documents.py, which therefore never change. It opens in any directory of any machine. Of the one that wrote it there
are the boot's and the process's ids, and what an engine puts into its files: RocksDB's tables name the host.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from ikvcore._registry import load_backend, load_transport
from ikvcore.clientoptions import DEFAULT_BACKEND, DEFAULT_TRANSPORT, ClientOptions, ClientOptionsBuilder
from ikvcore.errors import InvalidArgumentError
from ikvcore.inspection import read_log
from ikvcore.testing._live import PASSKEY, LiveStore
from ikvcore.testing.conformance._documents import fill
from ikvcore.testing.conformance.tiers import Kind

__all__ = ["NONE_NAMED", "Golden", "archives", "built_in", "places", "write_golden"]

NONE_NAMED: Final = "names no golden files"
"""Why there is nothing to open."""
_ABOUT: Final = "golden.json"
_OF_THE_MACHINE: Final = ("LOG", "LOG.old*")
"""What LevelDB and its kin note about themselves: names of hosts and directories, and nothing that they read."""
_BUILT_IN: Final = Path(__file__).with_name("golden")


def built_in(kind: Kind, name: str) -> Path | None:
    """The directory of the archives of a plugin that ikvcore itself brings; None for all others."""
    plugin = load_backend(name) if kind == "backend" else load_transport(name)
    directory = _BUILT_IN / f"{kind}-{plugin.name}"
    return directory if plugin.distribution == "ikvcore" and directory.is_dir() else None


def archives(directory: Path) -> list[Path]:
    """Those in a directory that an author names; it must have one."""
    found = sorted(directory.glob("*.zip"))
    assert found, f"there is no golden file (*.zip) in {directory}"
    return found


@dataclass(frozen=True, kw_only=True)
class Golden:
    """An archive's content, unpacked."""

    directory: Path
    store_name: str
    account_id: str
    transport: str
    places: list[list[Any]]
    """Partition, position and key of every event of the log."""
    made_with: Mapping[str, str]
    """Versions of what wrote it, by distribution."""

    @classmethod
    def unpacked(cls, archive: Path, directory: Path) -> Golden:
        """Unpack an archive into a new directory, private to its owner as homes and mounts are."""
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(directory)
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        return cls(directory=directory, **json.loads((directory / _ABOUT).read_text(encoding="utf-8")))

    @property
    def home(self) -> Path:
        """IKV_HOME of its log."""
        return self.directory / "home"

    @property
    def mount(self) -> Path:
        """The mount directory of its replica, the directory of an empty one where it has none."""
        return self.directory / "mount"

    def options(
        self, backend: str, backend_options: Mapping[str, Any], transport_options: Mapping[str, Any] | None = None
    ) -> ClientOptions:
        """Options for its readers and writers."""
        builder = (
            ClientOptionsBuilder()
            .with_store_name(self.store_name)
            .with_account_id(self.account_id)
            .with_account_passkey(PASSKEY)
            .with_backend(backend, **backend_options)
            .with_transport(self.transport, **(transport_options or {}))
            .with_console_logging("ERROR")
        )
        volatile = load_backend(backend).info.volatile
        return (builder if volatile else builder.with_mount_directory(self.mount)).build()


def places(options: ClientOptions) -> list[list[Any]]:
    """Partition, position and key of every event of a log."""
    with read_log(options) as events:
        return [[event.partition, event.position, event.key] for event in events]


def write_golden(kind: Kind, name: str, options: Mapping[str, Any], directory: Path) -> Path:
    """Write an archive of what the plugin writes now into a directory, which is made; its path.

    Named for the plugin and the version of its distribution. Raises InvalidArgumentError where that is there already,
    or the plugin keeps no files that could be kept; PluginError and its kin.
    """
    plugin = load_backend(name) if kind == "backend" else load_transport(name)
    archive = directory / f"{plugin.name}-{plugin.version}.zip"
    if archive.exists():
        raise InvalidArgumentError(f"{archive} is there: golden files are written once for each version")
    if kind == "backend" and load_backend(name).info.volatile:
        raise InvalidArgumentError(f"the backend {name!r} is volatile: it keeps no files")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ikv-golden-") as place, _home(Path(place) / "home"):
        store = _store(kind, name, options, Path(place))
        try:
            golden = _filled(store, Path(place), {plugin.distribution: plugin.version})
            if not golden.home.exists():
                raise InvalidArgumentError(f"the transport {name!r} keeps no files under IKV_HOME")
            _pack(golden, archive, mounts=kind == "backend")
        finally:
            store.close()
    return archive


def _store(kind: Kind, name: str, options: Mapping[str, Any], place: Path) -> LiveStore:
    backend = kind == "backend"
    return LiveStore(
        backend=name if backend else DEFAULT_BACKEND,
        transport=DEFAULT_TRANSPORT if backend else name,
        directory=place,
        backend_options=options if backend else {},
        transport_options={} if backend else options,
        account_id="golden",
    )


def _filled(store: LiveStore, place: Path, made_with: Mapping[str, str]) -> Golden:
    """With the kit's documents, and closed: its files are whole."""
    fill(store)
    found = places(store.options)
    store.restart_reader()
    store.restart_writer()
    return Golden(
        directory=place,
        store_name=store.description.store_name,
        account_id=store.description.account_id,
        transport=store.transport,
        places=found,
        made_with=made_with,
    )


def _pack(golden: Golden, archive: Path, *, mounts: bool) -> None:
    about = {key: value for key, value in asdict(golden).items() if key != "directory"}
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        packed.writestr(_ABOUT, json.dumps(about, indent=1))
        for directory in (golden.home, *([golden.mount] if mounts else [])):
            for path in sorted(directory.rglob("*")):
                if path.is_dir() or (path.is_file() and not any(fnmatch(path.name, each) for each in _OF_THE_MACHINE)):
                    packed.write(path, path.relative_to(golden.directory))


@contextmanager
def _home(directory: Path) -> Iterator[None]:
    """IKV_HOME for as long as this lasts."""
    before = os.environ.get("IKV_HOME")
    os.environ["IKV_HOME"] = str(directory)
    try:
        yield
    finally:
        del os.environ["IKV_HOME"]
        if before is not None:
            os.environ["IKV_HOME"] = before
