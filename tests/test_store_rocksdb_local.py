"""The contracts of a store, end to end, on backend rocksdb and transport local."""

from typing import ClassVar

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestRocksdbLocal(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "rocksdb"
    transport = "local"
    backend_options: ClassVar[dict[str, str]] = {"durability": "process-crash"}
    transport_options: ClassVar[dict[str, str]] = {"durability": "process-crash"}


TestRocksdbLocalMachine = store_machine("rocksdb", "local", partitions=3, max_examples=8).TestCase
