"""The contracts of a store, end to end, on backend lmdb and transport local."""

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestLmdbLocal(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "lmdb"
    transport = "local"


TestLmdbLocalMachine = store_machine("lmdb", "local", partitions=3, max_examples=15).TestCase
