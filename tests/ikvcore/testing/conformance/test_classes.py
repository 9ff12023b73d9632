"""An author names a plugin, and the class has the tests of its tiers."""

from __future__ import annotations

import pytest

from ikvcore.testing.conformance import TIERS, BackendConformance, TransportConformance
from ikvcore.testing.conformance.tiers import chosen


def nested(cls: type) -> set[str]:
    return {name for name in vars(cls) if name.startswith("Test")}


def test_an_engine_of_bytes_gets_the_tests_of_bytes_and_of_documents() -> None:
    class Mine(BackendConformance):
        name = "memory"

    Mine.expand()
    assert nested(Mine) == {"TestKeyValue", "TestStorage", "TestStore"}
    assert vars(Mine)["TestStore"].backend == "memory"


def test_a_storage_of_documents_gets_no_tests_of_bytes() -> None:
    class Mine(BackendConformance):
        name = "duckdb"

    Mine.expand()
    assert nested(Mine) == {"TestStorage", "TestStore"}


def test_a_transport_gets_the_tests_of_a_log() -> None:
    class Mine(TransportConformance):
        name = "memory"

    Mine.expand()
    assert nested(Mine) == {"TestLog", "TestStore"}
    assert vars(Mine)["TestLog"].info.name == "memory"


def test_two_authors_classes_share_nothing() -> None:
    class One(BackendConformance):
        name = "memory"

    class Two(BackendConformance):
        name = "memory"

    One.expand()
    Two.expand()
    assert vars(One)["TestStore"] is not vars(Two)["TestStore"]
    assert vars(One)["TestStore"].__name__ != vars(Two)["TestStore"].__name__


def test_a_tier_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="no tier 'cor'; the tiers are core"):
        chosen(["cor"])


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_every_part_of_every_tier_has_tests(tier: object) -> None:
    for kind in ("backend", "transport"):
        for part in tier.parts(kind):  # type: ignore[attr-defined]  # a Tier, by its parameter
            assert part.tests()
