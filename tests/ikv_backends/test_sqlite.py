"""The SQLite backend keeps the contracts of an ordered key-value engine and of the storage over it."""

from ikv_backends import sqlite
from ikvcore.testing.keyvalue import OrderedKeyValueSuite
from ikvcore.testing.storage import StorageSuite

INFO = sqlite.ikv_backend_info()


class TestSqliteKeyValue(OrderedKeyValueSuite):
    """The engine itself."""

    info = INFO


class TestSqliteStorage(StorageSuite):
    """Documents in it."""

    info = INFO
