"""The duckdb backend keeps the contracts of a document storage."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from ikv_backends import duckdb
from ikvcore.models import Mutation
from ikvcore.testing._storage_model import BATCHES
from ikvcore.testing.storage import StorageSuite


class TestDuckdbStorage(StorageSuite):
    """Documents in it."""

    info = duckdb.ikv_backend_info()

    # A commit takes some 10 ms: fewer runs than the suite's own.
    @settings(max_examples=8, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(batches=BATCHES)
    def test_random_batches(self, batches: list[tuple[list[Mutation], bool]]) -> None:
        self.follow(batches)
