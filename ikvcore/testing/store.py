"""Conformance end to end, through the public client, for a pair of a backend and a transport: design C3 to C7.

A test file:

    class TestMine(StoreSuite):
        backend = "my-backend"
        transport = "local"
"""

from __future__ import annotations

from ikvcore.testing._store_bad_events import StoreBadEvents
from ikvcore.testing._store_documents import StoreDocuments
from ikvcore.testing._store_drops import StoreDrops
from ikvcore.testing._store_partitions import StorePartitions
from ikvcore.testing._store_reads import StoreReads
from ikvcore.testing._store_visibility import StoreVisibility

__all__ = ["StoreSuite"]


class StoreSuite(StoreDocuments, StoreReads, StoreDrops, StorePartitions, StoreVisibility, StoreBadEvents):
    """Subclass it and set `backend` and `transport`, and their options where they need any."""
