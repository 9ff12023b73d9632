"""Conformance of a document storage: protocols.Storage, Reclaim and Verify, by the rules of design C3, C5 and C6.

An author's test file:

    class TestMine(StorageSuite):
        info = my_backend.ikv_backend_info()
"""

from __future__ import annotations

from ikvcore.testing._storage_commits import StorageCommits
from ikvcore.testing._storage_documents import StorageDocuments
from ikvcore.testing._storage_drops import StorageDrops
from ikvcore.testing._storage_lives import StorageLives
from ikvcore.testing._storage_model import StorageModelled

__all__ = ["StorageSuite"]


class StorageSuite(StorageDocuments, StorageDrops, StorageCommits, StorageLives, StorageModelled):
    """Subclass it and set `info`; override `open_storage` only where the backend cannot be opened by its name."""
