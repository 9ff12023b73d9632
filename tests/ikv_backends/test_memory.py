"""The memory backend keeps the contracts of an ordered key-value engine and of the storage over it."""

from ikv_backends import memory
from ikvcore.testing.keyvalue import OrderedKeyValueSuite
from ikvcore.testing.storage import StorageSuite

INFO = memory.ikv_backend_info()


class TestMemoryKeyValue(OrderedKeyValueSuite):
    """The engine itself."""

    info = INFO


class TestMemoryStorage(StorageSuite):
    """Documents in it."""

    info = INFO
