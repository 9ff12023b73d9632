"""The duckdb backend keeps the contracts of a document storage."""

from ikv_backends import duckdb
from ikvcore.testing.storage import StorageSuite


class TestDuckdbStorage(StorageSuite):
    """Documents in it."""

    info = duckdb.ikv_backend_info()
