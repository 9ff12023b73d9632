"""The RocksDB backend keeps the contracts of an ordered key-value engine and of the storage over it."""

from ikv_backends import rocksdb
from ikvcore.testing.keyvalue import OrderedKeyValueSuite
from ikvcore.testing.storage import StorageSuite

INFO = rocksdb.ikv_backend_info()


class TestRocksdbKeyValue(OrderedKeyValueSuite):
    """The engine itself."""

    info = INFO


class TestRocksdbStorage(StorageSuite):
    """Documents in it."""

    info = INFO
