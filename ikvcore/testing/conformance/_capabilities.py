"""What a plugin declares beyond the contract's core, called once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore.inspection import verify_log
from ikvcore.protocols import Verify
from ikvcore.testing._plugins import open_backend
from ikvcore.testing._storage_base import Ingester, StorageBase, upsert
from ikvcore.testing._store_base import MakeStore, StoreBase

__all__ = ["BackendCapabilities", "TransportCapabilities"]


class BackendCapabilities(StorageBase):
    """Of a backend."""

    def test_verify_finds_nothing_wrong_in_what_was_written(self, directory: Path) -> None:
        """The plugin's own verify, beside what the core verifies over an engine of bytes."""
        if "Verify" not in self.info.capabilities:
            pytest.skip("declares no Verify")
        storage = self.open_storage(directory)
        Ingester(storage).apply(*(upsert(b"%d" % n, x=n) for n in range(300)))
        storage.close()
        opened = open_backend(self.info.name, directory, self.options)
        try:
            assert isinstance(opened, Verify)
            assert opened.verify() == []
        finally:
            opened.close()


class TransportCapabilities(StoreBase):
    """Of a transport."""

    def test_verify_log_finds_nothing_wrong_in_what_was_published(self, make: MakeStore) -> None:
        """While the log is in use."""
        if "VerifyLog" not in self.transport_info.capabilities:
            pytest.skip("declares no VerifyLog")
        store = make(partitions=2)
        for n in range(50):
            store.put(id=str(n), x=n)
        assert verify_log(store.options) == []
