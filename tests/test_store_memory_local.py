"""The contracts of a store, end to end, on backend memory and transport local."""

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestMemoryLocal(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "memory"
    transport = "local"


TestMemoryLocalMachine = store_machine("memory", "local", partitions=3, max_examples=15).TestCase
