"""The contracts of a store, end to end, on backend sqlite and transport local."""

from typing import ClassVar

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite


class TestSqliteLocal(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "sqlite"
    transport = "local"
    backend_options: ClassVar[dict[str, str]] = {"durability": "process-crash"}
    transport_options: ClassVar[dict[str, str]] = {"durability": "process-crash"}


TestSqliteLocalMachine = store_machine("sqlite", "local", partitions=3, max_examples=8).TestCase
