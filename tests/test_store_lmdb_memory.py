"""The contracts of a store, end to end, on backend lmdb and transport memory."""

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestLmdbMemory(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "lmdb"
    transport = "memory"


TestLmdbMemoryMachine = store_machine("lmdb", "memory", partitions=3, max_examples=30).TestCase
