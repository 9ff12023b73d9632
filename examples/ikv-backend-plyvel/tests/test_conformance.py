"""The backend keeps its contracts: see docs/how-to/publish-a-backend.md of ikvcore."""

from typing import ClassVar

from ikvcore.testing.conformance import BackendConformance


class TestPlyvel(BackendConformance):
    name = "plyvel"
    transport_options: ClassVar = {"durability": "process-crash"}
