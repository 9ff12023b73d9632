"""What a verdict counts as what."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ikvcore.testing.conformance.badge import badge, level, message
from ikvcore.testing.conformance.tiers import TIERS
from ikvcore.testing.conformance.verdict import COUNTS, Claim, Expected, Outcome, Subject, Verdict, judge

PASSED = Outcome(outcome="passed")
FAILED = Outcome(outcome="failed", reason="it is wrong")
SKIPPED = Outcome(outcome="skipped", reason="not today")
DEVIATED = Outcome(outcome="deviated", reason="the engine is slow")
KIT = "0.2.3"
ONE, TWO = "TestStorage::test_one", "TestStorage::test_two[2]"


def verdict(
    outcomes: Mapping[str, Outcome],
    *,
    tiers: Mapping[str, str] | None = None,
    deviations: Mapping[str, str] | None = None,
    excuses: Mapping[str, str] | None = None,
    required: Mapping[str, str] | None = None,
    claims: tuple[Claim, ...] = (),
    **more: object,
) -> Verdict:
    """On two tests of the core tier, or on those of `tiers`."""
    tests = tiers or {ONE: "core", TWO: "core"}
    subject = Subject(
        kind="backend",
        name="mine",
        kit=KIT,
        expected=[
            Expected(
                id=test,
                tier=tier,
                excuse=(excuses or {}).get(test, ""),
                required_from=(required or {}).get(test, ""),
            )
            for test, tier in tests.items()
        ],
        claims=claims,
        deviations=deviations or {},
    )
    return judge(subject, outcomes, **more)  # type: ignore[arg-type]  # ended


def counts(found: Verdict) -> dict[str, int]:
    (tier,) = found.tiers
    assert tuple(tier.counts) == COUNTS
    return {name: count for name, count in tier.counts.items() if count}


def test_what_passed_is_verified() -> None:
    found = verdict({ONE: PASSED, TWO: PASSED})
    assert (found.clean, found.verified, counts(found)) == (True, ["core"], {"passed": 2})


def test_a_failure_fails() -> None:
    found = verdict({ONE: PASSED, TWO: FAILED})
    assert (found.clean, found.verified, counts(found)) == (False, [], {"passed": 1, "failed": 1})
    assert found.problems == [f"{TWO} failed"]


def test_a_skip_is_never_a_pass() -> None:
    found = verdict({ONE: PASSED, TWO: SKIPPED})
    assert (found.clean, found.verified, counts(found)) == (False, [], {"passed": 1, "skipped": 1})
    assert found.problems == [f"{TWO} was skipped (not today), and nothing that is declared excuses that"]


def test_a_skip_that_the_declarations_excuse_is_no_failure_and_is_counted_as_skipped() -> None:
    found = verdict({ONE: PASSED, TWO: SKIPPED}, excuses={TWO: "not declared shared"})
    assert (found.clean, found.verified, counts(found)) == (True, ["core"], {"passed": 1, "skipped": 1})


def test_a_tier_of_which_nothing_applies_is_not_claimed() -> None:
    tiers = {ONE: "core", TWO: "crash"}
    found = verdict({ONE: PASSED, TWO: SKIPPED}, tiers=tiers, excuses={TWO: "volatile"})
    assert (found.clean, found.verified) == (True, ["core"])
    assert [tier.state for tier in found.tiers] == ["verified", "not applicable"]


def test_nothing_but_skips_is_nothing_verified() -> None:
    found = verdict({ONE: SKIPPED}, tiers={ONE: "crash"}, excuses={ONE: "volatile"})
    assert found.problems == ["nothing was verified: no test passed"]


def test_a_test_that_never_ran_fails() -> None:
    found = verdict({ONE: PASSED})
    assert (found.clean, found.verified, counts(found)) == (False, [], {"passed": 1, "never run": 1})
    assert found.problems == [f"{TWO} was not run, without a stated reason"]


@pytest.mark.parametrize("key", ["TestStorage::test_two", "test_two"])
def test_a_stated_deviation_is_reported_and_its_tier_is_not_verified(key: str) -> None:
    found = verdict({ONE: PASSED, TWO: DEVIATED}, deviations={key: "the engine is slow"})
    assert (found.clean, found.verified, counts(found)) == (True, [], {"passed": 1, "known deviation": 1})
    assert [tier.state for tier in found.tiers] == ["deviates"]
    assert message(found) == "not certified; 1 known deviation"


def test_a_stated_deviation_that_was_left_out_is_one_too() -> None:
    assert counts(verdict({ONE: PASSED}, deviations={"test_two": "it kills the process"}))["known deviation"] == 1


@pytest.mark.parametrize("outcome", [PASSED, FAILED])
def test_a_stated_deviation_that_passes_fails(outcome: Outcome) -> None:
    """pytest tells a strict xfail that passed as failed."""
    found = verdict({ONE: PASSED, TWO: outcome}, deviations={"test_two": "the engine is slow"})
    assert (found.clean, counts(found)) == (False, {"passed": 1, "failed": 1})
    assert "state it no more" in found.problems[0]


def test_a_deviation_that_nobody_stated_fails() -> None:
    """As where somebody marks the kit's tests with xfail."""
    assert counts(verdict({ONE: PASSED, TWO: DEVIATED})) == {"passed": 1, "failed": 1}


def test_a_deviation_needs_a_test_and_a_reason() -> None:
    found = verdict({ONE: PASSED, TWO: DEVIATED}, deviations={"test_two": " ", "test_too": "typo"})
    assert found.problems == [
        "the deviation 'test_two' is stated without a reason",
        "the deviation 'test_too' names no test of the kit for this plugin",
    ]


def test_a_process_that_died_fails_whatever_passed() -> None:
    found = verdict({ONE: PASSED, TWO: PASSED}, ended="the process ended with SIGSEGV")
    assert found.problems == ["the process ended with SIGSEGV"]


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ({ONE: PASSED, TWO: PASSED}, "verified"),
        ({ONE: PASSED, TWO: SKIPPED}, "declared"),
        ({ONE: PASSED}, "declared"),
        ({ONE: PASSED, TWO: FAILED}, "fails"),
    ],
)
def test_a_capability_is_verified_by_every_test_of_it_and_by_no_fewer(outcomes: dict[str, Outcome], state: str) -> None:
    claim = Claim(what="power-loss", witnesses=("TestStorage::test_one", "TestStorage::test_two"))
    assert verdict(outcomes, claims=(claim,)).capabilities == {"power-loss": state}


def test_a_capability_that_no_test_of_the_run_uses_stays_declared() -> None:
    claims = (Claim(what="a", witnesses=()), Claim(what="b", witnesses=("TestStorage::test_one", "TestX::test_y")))
    assert verdict({ONE: PASSED, TWO: PASSED}, claims=claims).capabilities == {"a": "declared", "b": "declared"}


# -- a test that is to come ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "excuse", "state", "ready"),
    [
        (PASSED, "", "passed", True),
        (FAILED, "", "failed", False),
        (SKIPPED, "", "skipped", False),
        (SKIPPED, "not declared shared", "skipped", True),
        (None, "", "never run", False),
    ],
)
def test_what_is_announced_is_told_and_counts_for_nothing(
    outcome: Outcome | None, excuse: str, state: str, ready: bool
) -> None:
    outcomes = {ONE: PASSED} | ({TWO: outcome} if outcome is not None else {})
    found = verdict(outcomes, required={TWO: "0.3"}, excuses={TWO: excuse})
    assert (found.clean, found.verified, counts(found), list(found.states)) == (True, ["core"], {"passed": 1}, [ONE])
    (told,) = found.announced.values()
    assert (told.required_from, told.state, told.ready) == ("0.3", state, ready)


@pytest.mark.parametrize("release", ["0.2", "0.1"])
def test_from_its_release_on_a_test_is_required_like_any_other(release: str) -> None:
    found = verdict({ONE: PASSED, TWO: FAILED}, required={TWO: release})
    assert (found.problems, counts(found), found.announced) == ([f"{TWO} failed"], {"passed": 1, "failed": 1}, {})


@pytest.mark.parametrize(
    ("kit", "announced"), [("0.2.9", True), ("0.9", True), ("0.10.0", False), ("0.10.0rc1", False), ("1.0", False)]
)
def test_releases_are_compared_by_their_numbers(kit: str, announced: bool) -> None:
    assert Expected(id=ONE, tier="core", required_from="0.10").announced(kit) == announced


def test_a_deviation_may_be_stated_before_its_test_is_required() -> None:
    found = verdict({ONE: PASSED, TWO: FAILED}, required={TWO: "0.3"}, deviations={"test_two": "the engine is slow"})
    assert (found.clean, found.announced[TWO].state, found.announced[TWO].reason) == (
        *(True, "known deviation", "the engine is slow"),
    )
    assert message(found) == "core"


def test_nothing_but_what_is_announced_is_nothing_verified() -> None:
    found = verdict({ONE: PASSED, TWO: PASSED}, required={ONE: "0.3", TWO: "0.3"})
    assert found.problems == ["nothing was verified: no test passed"]


@pytest.mark.parametrize("outcome", [PASSED, FAILED])
def test_a_capability_does_not_wait_for_what_is_announced(outcome: Outcome) -> None:
    claim = Claim(what="power-loss", witnesses=("TestStorage::test_one", "TestStorage::test_two"))
    found = verdict({ONE: PASSED, TWO: outcome}, claims=(claim,), required={TWO: "0.3"})
    assert found.capabilities == {"power-loss": "verified"}


# -- the badge -----------------------------------------------------------------------------------


def of_tiers(**states: Outcome | None) -> Verdict:
    """One test a tier; None: it was not asked for."""
    tests = {f"TestX::test_{name}": name for name, outcome in states.items() if outcome is not None}
    outcomes = {f"TestX::test_{name}": outcome for name, outcome in states.items() if outcome is not None}
    return verdict(outcomes, tiers=tests, excuses={"TestX::test_crash": "volatile"})


EVERYTHING = {tier.name: PASSED for tier in TIERS}


def test_complete_is_every_tier_but_the_one_that_measures() -> None:
    assert level(of_tiers(**EVERYTHING)) == "complete"
    assert level(of_tiers(**{**EVERYTHING, "profile": None})) == "complete"
    nothing_to_crash = of_tiers(**{**EVERYTHING, "crash": SKIPPED})
    assert (nothing_to_crash.clean, level(nothing_to_crash)) == (True, "core")


def test_a_tier_that_did_not_run_is_never_claimed() -> None:
    found = of_tiers(**{**EVERYTHING, "crash": None})
    assert level(found) == "core"
    assert message(found) == "core, stateful, concurrency, format, hostile, resources"
    assert message(of_tiers(core=PASSED)) == "core"


def test_the_profile_is_measured_and_never_certified() -> None:
    found = of_tiers(core=PASSED, profile=PASSED)
    assert (found.verified, message(found)) == (["core"], "core")
    assert [tier.state for tier in found.tiers] == ["verified", "measured"]


def test_without_the_core_nothing_is_certified() -> None:
    assert message(of_tiers(**{**EVERYTHING, "core": None})) == "not certified"


def test_a_failed_run_has_a_badge_that_says_so() -> None:
    assert badge(of_tiers(core=PASSED, crash=FAILED)) == {
        "schemaVersion": 1,
        "label": "ikvcore conformance",
        "message": "failed",
        "color": "red",
    }
