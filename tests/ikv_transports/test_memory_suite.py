"""The memory transport keeps the contracts of a log."""

from typing import cast

from ikv_transports import memory
from ikvcore.protocols import Transport
from ikvcore.testing.transport import TransportSuite


class TestMemoryTransport(TransportSuite):
    """One process, no files."""

    info = memory.ikv_transport_info()

    def trim(self, log: Transport, partition: int, before: int) -> None:
        """The memory log can be cut."""
        cast("memory.MemoryTransport", log).trim(partition, before)
