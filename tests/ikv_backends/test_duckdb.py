"""The duckdb backend keeps the contracts of a document storage."""

from __future__ import annotations

from hypothesis import settings

from ikv_backends import duckdb
from ikvcore.testing.storage import StorageSuite


class TestDuckdbStorage(StorageSuite):
    """Documents in it."""

    info = duckdb.ikv_backend_info()

    # A commit takes tens of milliseconds; the state machine of test_store_duckdb_local.py plays random batches too.
    test_random_batches = settings(StorageSuite.test_random_batches, max_examples=8)
