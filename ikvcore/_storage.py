"""What a backend opens, as a Storage."""

from __future__ import annotations

from ikvcore._kvstorage import KeyValueStorage
from ikvcore.models import BackendInfo
from ikvcore.protocols import Follower, OrderedKeyValue, Storage

__all__ = ["as_storage", "catch_up"]


def as_storage(opened: OrderedKeyValue | Storage, backend: BackendInfo) -> Storage:
    """A backend's storage of documents: its own, or the core's over its bytes."""
    if isinstance(opened, OrderedKeyValue):
        return KeyValueStorage(opened, max_key_bytes=backend.max_key_bytes)
    return opened


def catch_up(storage: Storage) -> None:
    """Have later reads show what other processes committed until now, where that does not happen by itself."""
    if isinstance(storage, Follower):
        storage.catch_up()
