"""The contracts of a store, end to end, on backend memory and transport memory."""

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestMemoryMemory(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "memory"
    transport = "memory"


TestMemoryMemoryMachine = store_machine("memory", "memory", partitions=3, max_examples=30).TestCase
