"""An author names a plugin, and the class has the tests of its tiers."""

from __future__ import annotations

import pytest

from ikvcore.testing.conformance import TIERS, BackendConformance, TransportConformance
from ikvcore.testing.conformance.tiers import Kind, Tier, chosen

EXCUSED_OF_ANOTHER_KIND = {
    f"TestHostile::test_{each}" for each in ("damaged_replicas", "damaged_manifests", "changed_logs")
}
"""What the files of a replica and of a log have in common is excused for either kind."""


def nested(cls: type) -> set[str]:
    return {name for name in vars(cls) if name.startswith("Test")}


def test_an_engine_of_bytes_gets_the_tests_of_bytes_and_of_documents() -> None:
    class Mine(BackendConformance):
        name = "memory"

    Mine.expand()
    assert nested(Mine) == {"TestKeyValue", "TestStorage", "TestCapabilities", "TestStore"}
    assert vars(Mine)["TestStore"].backend == "memory"


def test_a_storage_of_documents_gets_no_tests_of_bytes() -> None:
    class Mine(BackendConformance):
        name = "duckdb"

    Mine.expand()
    assert nested(Mine) == {"TestStorage", "TestCapabilities", "TestStore"}


def test_a_transport_gets_the_tests_of_a_log() -> None:
    class Mine(TransportConformance):
        name = "memory"

    Mine.expand()
    assert nested(Mine) == {"TestLog", "TestCapabilities", "TestStore"}
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
@pytest.mark.parametrize("kind", ["backend", "transport"])
def test_every_part_of_every_tier_has_tests_that_tell_what_they_hold_the_plugin_to(tier: Tier, kind: Kind) -> None:
    for part in tier.parts(kind):
        assert part.tests()
        assert [name for name, function in part.tests().items() if not function.__doc__] == []


def test_no_test_hides_another_one_of_its_name() -> None:
    """Of two parts of a suite the first would win, and the second's test never run."""
    for tier in TIERS:
        for part in (*tier.backend, *tier.transport):
            classes = {each for base in part.bases() for each in base.__mro__}
            names = [name for each in classes for name in vars(each) if name.startswith("test_")]
            assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("plugin", ["memory", "lmdb", "sqlite"])
def test_what_a_backends_declarations_are_proved_or_excused_by_are_tests_of_the_kit(plugin: str) -> None:
    class Mine(BackendConformance):
        name = plugin

    claimed = {place for claim in Mine.claims() for place in claim.witnesses}
    assert claimed - set(Mine.places()) == set()
    assert set(Mine.excuses()) - set(Mine.places()) - EXCUSED_OF_ANOTHER_KIND == set()


@pytest.mark.parametrize("plugin", ["memory", "local"])
def test_what_a_transports_declarations_are_proved_or_excused_by_are_tests_of_the_kit(plugin: str) -> None:
    class Mine(TransportConformance):
        name = plugin

    claimed = {place for claim in Mine.claims() for place in claim.witnesses}
    assert claimed - set(Mine.places()) == set()
    assert set(Mine.excuses()) - set(Mine.places()) - EXCUSED_OF_ANOTHER_KIND == set()
