"""What a campaign harms: one store on a backend and a transport, and the directory of everything that it leaves."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from ikvcore import _passkeys
from ikvcore._registry import LoadedPlugin, load_backend, load_transport
from ikvcore.admin import create_store
from ikvcore.clientoptions import DEFAULT_BACKEND, DEFAULT_TRANSPORT, ClientOptions, ClientOptionsBuilder
from ikvcore.models import StoreDescription
from ikvcore.protocols import Transport
from ikvcore.testing._plugins import open_transport

__all__ = ["ACCOUNT", "PASSKEY", "Pair", "Target"]

ACCOUNT: Final = "faults"
PASSKEY: Final = "faults-passkey"
_making: Final = threading.Lock()
_LOCKS: Final = ("lock.mdb",)
"""Files that say who reads and writes at this moment. Nothing of a replica is in them, however large they are."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The plugins under test and their options."""

    backend: str = DEFAULT_BACKEND
    transport: str = DEFAULT_TRANSPORT
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    transport_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Whether the backend is the default one: on its turn the campaigns are run in which a replica has no part."""
        return self.backend == DEFAULT_BACKEND

    def with_durability(self, word: str) -> Pair:
        """The same with this durability on both sides, for plugins that have such an option."""
        return replace(
            self,
            backend_options=_with_durability(load_backend(self.backend), self.backend_options, word),
            transport_options=_with_durability(load_transport(self.transport), self.transport_options, word),
        )

    def to_json(self) -> dict[str, Any]:
        """The constructor's arguments, for a process of its own."""
        return asdict(self)


def _with_durability(plugin: LoadedPlugin[Any], options: Mapping[str, Any], word: str) -> Mapping[str, Any]:
    has_it = any(option.name == "durability" for option in fields(plugin.info.options))
    return {**options, "durability": word} if has_it else options


@dataclass(frozen=True, kw_only=True)
class Target:
    """One store. Its home is where the process's IKV_HOME says; `directory` holds mounts, records and marks."""

    directory: Path
    pair: Pair
    description: StoreDescription

    @classmethod
    def make(cls, directory: Path, pair: Pair, *, partitions: int = 2) -> Target:
        """Make a store of the harness's one account."""
        directory.mkdir(parents=True)
        with _quickly_verified():
            description = create_store(
                # A server's stores outlive a home, and harness after harness in a process of its own may come to it.
                f"faults-{uuid.uuid4().hex[:16]}",
                account_id=ACCOUNT,
                account_passkey=PASSKEY,
                primary_key="id",
                partitions=partitions,
                transport=pair.transport,
                transport_options=pair.transport_options,
            )
        return cls(directory=directory, pair=pair, description=description)

    def mount(self, name: str = "mount") -> Path:
        """A mount directory of this name."""
        return self.directory / name

    def replica_files(self, mount: str = "mount") -> list[Path]:
        """The files of the first generation's storage that hold something of the replica, largest first. By stat alone:
        to open them beside an engine could harm its locks."""
        files = [path for path in (self.mount(mount) / "gen-1").iterdir() if path.is_file() and path.name not in _LOCKS]
        sizes = {path: path.stat().st_size for path in files}
        return sorted((path for path in files if sizes[path]), key=lambda path: (-sizes[path], path.name))

    def options(self, mount: str = "mount", **more: Any) -> ClientOptions:
        """Options for readers of that mount and for writers; `more` is what ClientOptions takes."""
        pair = self.pair
        built = (
            ClientOptionsBuilder()
            .with_store_name(self.description.store_name)
            .with_account_id(ACCOUNT)
            .with_account_passkey(PASSKEY)
            .with_backend(pair.backend, **pair.backend_options)
            .with_transport(pair.transport, **pair.transport_options)
            .with_mount_directory(self.mount(mount))
            .with_console_logging("ERROR")
            .build()
        )
        return replace(built, **more) if more else built

    def open_log(self) -> Transport:
        """The store's log; the caller closes it."""
        return open_transport(
            self.pair.transport, self.description.store_name, ACCOUNT, PASSKEY, self.pair.transport_options
        )

    def to_json(self) -> dict[str, Any]:
        """A form that a worker can be given."""
        return {
            "directory": str(self.directory),
            "pair": self.pair.to_json(),
            "description": self.description.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """The inverse of to_json."""
        return cls(
            directory=Path(data["directory"]),
            pair=Pair(**data["pair"]),
            description=StoreDescription.from_json(data["description"]),
        )

    def save(self) -> Path:
        """Write target.json into the directory, for `python -m ikvcore.testing.faults.worker`."""
        path = self.directory / "target.json"
        path.write_text(json.dumps(self.to_json()))
        return path


@contextmanager
def _quickly_verified() -> Iterator[None]:
    """An account that is made meanwhile has a passkey that takes no time to verify, as thousands of processes do."""
    with _making:  # of two threads in here the one would put back what the other has put there
        before = _passkeys._NOBODY  # its parameters are those of a new hash
        vars(_passkeys)["_NOBODY"] = before._replace(log_n=6)
        try:
            yield
        finally:
            vars(_passkeys)["_NOBODY"] = before
