"""The pytest plugin that `pip install ikvcore[testing]` brings: fixture and marker `ikv_store`.

pytest imports it in every run of every project that has ikvcore installed, so it imports nothing that it can put off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ikvcore.testing.fixtures import EphemeralStore

__all__ = ["ikv_store", "pytest_configure", "pytest_pycollect_makeitem"]

MARKER = (
    'ikv_store(primary_key="id", primary_key_type="STRING", partitioning_key=None, partitioning_key_type="STRING", '
    "partitions=1): how the fixture ikv_store makes its store"
)

# The suites' own asserts explain themselves like those of test files.
pytest.register_assert_rewrite(
    "ikvcore.testing._keyvalue_base",
    "ikvcore.testing._keyvalue_commits",
    "ikvcore.testing._keyvalue_concurrency",
    "ikvcore.testing._keyvalue_reads",
    "ikvcore.testing._parallel",
    "ikvcore.testing._storage_base",
    "ikvcore.testing._storage_commits",
    "ikvcore.testing._storage_documents",
    "ikvcore.testing._storage_drops",
    "ikvcore.testing._storage_lives",
    "ikvcore.testing._storage_model",
    "ikvcore.testing._store_base",
    "ikvcore.testing._store_bad_events",
    "ikvcore.testing._store_documents",
    "ikvcore.testing._store_drops",
    "ikvcore.testing._store_partitions",
    "ikvcore.testing._store_reads",
    "ikvcore.testing._store_visibility",
    "ikvcore.testing._transport_base",
    "ikvcore.testing._transport_concurrency",
    "ikvcore.testing._transport_log",
    "ikvcore.testing._transport_provisioning",
    "ikvcore.testing._transport_starts",
    "ikvcore.testing.conformance",
    "ikvcore.testing.machine",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that --strict-markers takes it."""
    config.addinivalue_line("markers", MARKER)


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: Any) -> None:
    """Where pytest comes to a class that certifies a plugin, give it its tests."""
    if isinstance(obj, type) and getattr(obj, "ikv_conformance", None) is True and name.startswith("Test"):
        from ikvcore.testing.conformance._collecting import prepare

        prepare(collector.config, obj)


@pytest.fixture
def ikv_store(request: pytest.FixtureRequest) -> Iterator[EphemeralStore]:
    """A fresh store with a started writer and reader, in memory alone; see ikvcore.testing.fixtures.EphemeralStore."""
    from ikvcore.testing.fixtures import EphemeralStore

    marker = request.node.get_closest_marker("ikv_store")
    with EphemeralStore(**(marker.kwargs if marker is not None else {})) as store:
        yield store
