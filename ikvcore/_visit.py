"""A visit to a mount: its storage opened for a moment, beside the service that keeps it fresh or without one.

A visitor never ingests: it starts no loop and makes no mount. Which backend, and which partitions, the mount says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ikvcore._mount import Mount, MountLock
from ikvcore._opened import Opened
from ikvcore._registry import build_options, load_backend
from ikvcore._status import Status
from ikvcore._storage import as_storage
from ikvcore.clientoptions import ClientOptions
from ikvcore.errors import MissingOptionError, MountBusyError, MountError, MountMismatchError
from ikvcore.models import BackendContext, Sharing
from ikvcore.protocols import Storage

__all__ = ["backend_name", "existing_mount", "is_blank", "opened_storage", "visited_mount"]


def existing_mount(options: ClientOptions) -> Mount | None:
    """The mount that `options` name, None where there is none.

    The store's name and account are compared; its log, which may be out of reach, is not. Raises MissingOptionError,
    MountMismatchError, MountError.
    """
    path = options.mount_directory
    if path is None:
        raise MissingOptionError({"mount_directory": "ClientOptionsBuilder.with_mount_directory"})
    mount = Mount.existing(path)
    if mount is not None:
        store = mount.manifest.description
        for what, found, asked in (
            ("store", store.store_name, options.store_name),
            ("account", store.account_id, options.account_id),
        ):
            if asked is not None and asked != found:
                raise MountMismatchError(path, what, found, asked)
    return mount


def visited_mount(options: ClientOptions) -> Mount:
    """As existing_mount, where none is an error."""
    mount = existing_mount(options)
    if mount is None:
        raise MountError(
            options.mount_directory, "there is no replica in it; name the directory of a reader that was started"
        )
    return mount


def is_blank(mount: Mount) -> bool:
    """Whether no storage was ever made in the mount's generation: opening one would make it."""
    return not any(mount.generation().iterdir())


def backend_name(mount: Mount, options: ClientOptions) -> str:
    """What to load the mount's backend by: `options` may say which distribution's."""
    own = mount.manifest.backend
    return options.backend if options.backend.rpartition(":")[2] == own else own


@contextmanager
def opened_storage(
    path: Path,
    generation: Path,
    backend: str,
    options: Mapping[str, Any],
    *,
    alone: bool = False,
    writes: bool = False,
) -> Iterator[Storage]:
    """The storage in a mount's generation. `alone`: somebody holds the mount for us, where it cannot be shared.
    `writes`: the visitor changes it.

    Raises MountBusyError where it is open elsewhere and not shared, ReplicaDamagedError, StorageError, PluginError,
    OptionsError.
    """
    plugin = load_backend(backend)
    sharing = plugin.info.sharing
    follow = sharing is Sharing.FOLLOWERS and not writes  # beside whoever writes, or nobody
    context = BackendContext(
        directory=generation,
        options=build_options(f"backend {backend!r}", plugin.info.options, options),
        follow=follow,
    )
    with _alone(path, backend, shared=sharing is Sharing.SHARED or follow or alone):
        storage = as_storage(plugin.hook.ikv_open_backend(context=context), plugin.info)
        try:
            Opened.refuse_emptied(generation, storage)
            yield storage
        finally:
            storage.close()


@contextmanager
def _alone(path: Path, backend: str, *, shared: bool) -> Iterator[None]:
    """Where the engine allows one process only, the mount's lock says which: hold it while the storage is open."""
    if shared:
        yield
        return
    busy = MountLock.is_open_here(path)
    lock = None if busy else MountLock(path)
    try:
        if lock is None or not lock.try_acquire():
            status = Status.read(path)
            raise MountBusyError(path, backend, status.pid if status else None)
        yield
    finally:
        if lock is not None:
            lock.close()
