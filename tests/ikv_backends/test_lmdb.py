"""The LMDB backend keeps the contracts of an ordered key-value engine and of the storage over it."""

from ikv_backends import lmdb
from ikvcore.testing.keyvalue import OrderedKeyValueSuite
from ikvcore.testing.storage import StorageSuite

INFO = lmdb.ikv_backend_info()


class TestLmdbKeyValue(OrderedKeyValueSuite):
    """The engine itself."""

    info = INFO


class TestLmdbStorage(StorageSuite):
    """Documents in it."""

    info = INFO
