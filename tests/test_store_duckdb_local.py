"""The contracts of a store, end to end, on backend duckdb and transport local."""

from typing import ClassVar

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestDuckdbLocal(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "duckdb"
    transport = "local"
    transport_options: ClassVar[dict[str, str]] = {"durability": "process-crash"}


TestDuckdbLocalMachine = store_machine("duckdb", "local", partitions=3, max_examples=4).TestCase
