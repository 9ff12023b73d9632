"""The contracts of a store, end to end, on backend lmdb and transport kafka."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ikvcore.testing.machine import store_machine
from ikvcore.testing.store import StoreSuite

OPTIONS: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def _broker(kafka: str) -> None:
    OPTIONS.update(bootstrap_servers=kafka)


class TestLmdbKafka(StoreSuite):
    """One test for every point of C3 to C7."""

    backend = "lmdb"
    transport = "kafka"
    transport_options: ClassVar[dict[str, Any]] = OPTIONS
    carries_no_value = True


TestLmdbKafkaMachine = store_machine("lmdb", "kafka", partitions=3, max_examples=4, transport_options=OPTIONS).TestCase
