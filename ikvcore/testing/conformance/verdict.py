"""What a run comes to: pure rules over what was expected and what happened.

- A test that failed fails the run; so does one that was overridden, deselected or never run without a stated reason.
- A known deviation, stated by the author with its reason, is reported; where it passes, it fails the run.
- A skip is never a pass. It is excused where what the plugin declares leaves nothing to test; else it fails the run.
- A tier is verified where all its tests passed but for excused skips, and at least one passed. One that did not run, or
  where nothing applied, is not claimed.
- A declared capability is verified where the tests that use it passed; else it counts as declared alone.
- A test that is required from a later minor release of the kit on is announced: it runs and its end is told, apart from
  the others. It is in no count, fails no run, and neither makes nor unmakes a tier or a capability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ikvcore.testing._announcing import minor
from ikvcore.testing.conformance.tiers import TIERS

__all__ = ["COUNTS", "Announced", "Claim", "Expected", "Outcome", "Subject", "TierVerdict", "Verdict", "judge"]

COUNTS: Final = ("passed", "failed", "skipped", "known deviation", "never run")
"""What a test comes to; each is exactly one of them."""
_MEASURING: Final = {tier.name for tier in TIERS if tier.measures}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A test that belongs to a tier that was asked for."""

    id: str
    """Class::test, with the parameter if it has one."""
    tier: str
    excuse: str = ""
    """Why it may be skipped, by what the plugin declares; "" where it may not."""
    required_from: str = ""
    """The minor release of the kit that requires it; "" where every one does."""

    def announced(self, kit: str) -> bool:
        """Whether a kit of this version does not require it yet."""
        return bool(self.required_from) and minor(kit) < minor(self.required_from)

    @property
    def place(self) -> str:
        """Class::test, without a parameter."""
        return self.id.partition("[")[0]

    def stated(self, deviations: Mapping[str, str]) -> str | None:
        """The reason that the author states for it, by its bare name or by its place; None where there is none."""
        return deviations.get(self.place, deviations.get(self.place.rpartition("::")[2]))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What happened to a test that ran to some end."""

    outcome: str
    """passed, failed, skipped, or deviated: it failed, as was stated."""
    reason: str = ""
    """Of a failure, a skip or a deviation."""
    seconds: float = 0.0
    figures: Mapping[str, Any] | None = None
    """What it measured."""

    @property
    def headline(self) -> str:
        """The reason in a line: of a failure what pytest marks with an E, after the source that it shows."""
        lines = self.reason.strip().splitlines() or [""]
        return next((line.removeprefix("E").strip() for line in lines if line.startswith("E   ")), lines[0])


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that the plugin declares, and the tests that would not pass if it were untrue."""

    what: str
    witnesses: tuple[str, ...]
    """Class::test of each; none where the kit has no test of it."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is judged."""

    kind: str
    name: str
    kit: str
    """Version of the kit that judges."""
    expected: Sequence[Expected]
    claims: Sequence[Claim]
    deviations: Mapping[str, str]
    """By Class::test, or by the test's bare name: why the plugin fails it."""
    places: Sequence[str] = ()
    """Class::test of all that the kit has for it, also in tiers that were not asked for."""
    problems: Sequence[str] = ()
    """What was found wrong with the class itself: overridden tests."""

    @property
    def required(self) -> list[Expected]:
        """What is counted: all but what is announced."""
        return [test for test in self.expected if not test.announced(self.kit)]


@dataclass(frozen=True, kw_only=True)
class TierVerdict:
    """One tier that was asked for."""

    name: str
    state: str
    """verified, deviates, failed, incomplete, not applicable, or measured where it has no mark to pass."""
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What became of a test that a later kit will require."""

    required_from: str
    state: str
    """One of COUNTS."""
    reason: str
    """Of a failure or a skip, in a line; of a known deviation what the author states."""
    ready: bool
    """Whether a kit that requires it would find nothing wrong."""

    @property
    def words(self) -> str:
        """For whoever reads the verdict."""
        verbs = {"passed": "passes", "failed": "fails", "skipped": "is skipped", "never run": "was not run"}
        end = f"{verbs.get(self.state, self.state)}{f': {self.reason}' if self.reason else ''}"
        return f"will be required from {self.required_from}; {end}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The whole."""

    subject: Subject
    tiers: Sequence[TierVerdict]
    states: Mapping[str, str]
    """One of COUNTS for each required test."""
    announced: Mapping[str, Announced]
    """The others that were asked for."""
    outcomes: Mapping[str, Outcome]
    capabilities: Mapping[str, str]
    """For each claim: verified, fails, or declared."""
    problems: Sequence[str]
    """Why it is not clean, a sentence each."""

    @property
    def clean(self) -> bool:
        """Whether everything that was asked for holds, but for what was stated."""
        return not self.problems

    @property
    def verified(self) -> list[str]:
        """The tiers that are verified."""
        return [tier.name for tier in self.tiers if tier.state == "verified"]


def judge(subject: Subject, outcomes: Mapping[str, Outcome], *, ended: str = "") -> Verdict:
    """The verdict on a run. ended: how its process ended, where that was not as it should."""
    states = {test.id: _state(test, outcomes.get(test.id), subject.deviations) for test in subject.required}
    problems = [*subject.problems, *([ended] if ended else []), *_problems(subject, states, outcomes)]
    tiers = [_tier(name, subject, states) for name in dict.fromkeys(test.tier for test in subject.required)]
    if not any(state == "passed" for state in states.values()):
        problems.append("nothing was verified: no test passed")
    return Verdict(
        subject=subject,
        tiers=tiers,
        states=states,
        announced=dict(_announced(subject, outcomes)),
        outcomes=dict(outcomes),
        capabilities={claim.what: _claimed(claim, subject, states) for claim in subject.claims},
        problems=problems,
    )


def _state(test: Expected, found: Outcome | None, deviations: Mapping[str, str]) -> str:
    stated = test.stated(deviations) is not None
    if found is None:
        return "known deviation" if stated else "never run"
    if found.outcome == "deviated":
        return "known deviation" if stated else "failed"
    if stated:  # it was to fail, and came to another end
        return "skipped" if found.outcome == "skipped" else "failed"
    return found.outcome


def _announced(subject: Subject, outcomes: Mapping[str, Outcome]) -> Iterator[tuple[str, Announced]]:
    """A failure that is stated beforehand is a known deviation already; one that passes is no problem yet."""
    for test in subject.expected:
        if not test.announced(subject.kit):
            continue
        found, stated = outcomes.get(test.id), test.stated(subject.deviations)
        state, reason = ("never run", "") if found is None else (found.outcome, found.headline)
        if state == "failed" and stated is not None:
            state, reason = "known deviation", stated
        ready = state in ("passed", "known deviation") or (state == "skipped" and bool(test.excuse))
        yield test.id, Announced(required_from=test.required_from, state=state, reason=reason, ready=ready)


def _problems(subject: Subject, states: Mapping[str, str], outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    places = {test.place for test in subject.expected} | set(subject.places)
    names = places | {place.rpartition("::")[2] for place in places}
    for name, reason in subject.deviations.items():
        if not reason.strip():
            yield f"the deviation {name!r} is stated without a reason"
        if name not in names:
            yield f"the deviation {name!r} names no test of the kit for this plugin"
    for test in subject.required:
        yield from _problem(test, states[test.id], outcomes.get(test.id), subject.deviations)


def _problem(test: Expected, state: str, found: Outcome | None, deviations: Mapping[str, str]) -> Iterator[str]:
    if state == "failed":
        if test.stated(deviations) is not None and found is not None and found.outcome != "deviated":
            yield f"{test.id} is stated as a known deviation, and passed or broke in another way: state it no more"
        else:
            yield f"{test.id} failed"
    elif state == "never run":
        yield f"{test.id} was not run, without a stated reason"
    elif state == "skipped" and not test.excuse:
        reason = found.reason if found is not None else ""
        yield f"{test.id} was skipped ({reason}), and nothing that is declared excuses that"


def _tier(name: str, subject: Subject, states: Mapping[str, str]) -> TierVerdict:
    tests = [test for test in subject.required if test.tier == name]
    counts = Counter(states[test.id] for test in tests)
    unexcused = any(states[test.id] == "skipped" and not test.excuse for test in tests)
    if counts["failed"]:
        state = "failed"
    elif counts["never run"] or unexcused:
        state = "incomplete"
    elif counts["known deviation"]:
        state = "deviates"
    elif not counts["passed"]:
        state = "not applicable"
    else:
        state = "measured" if name in _MEASURING else "verified"
    return TierVerdict(name=name, state=state, counts={each: counts[each] for each in COUNTS})


def _claimed(claim: Claim, subject: Subject, states: Mapping[str, str]) -> str:
    announced = {test.place for test in subject.expected if test.announced(subject.kit)}
    found = {test: state for test, state in states.items() if test.partition("[")[0] in claim.witnesses}
    if any(state in ("failed", "known deviation") for state in found.values()):
        return "fails"
    # Each witness says its own part: one that was skipped or never run leaves the claim unproved.
    complete = {test.partition("[")[0] for test in found} == set(claim.witnesses) - announced
    proved = complete and bool(found) and all(state == "passed" for state in found.values())
    return "verified" if proved else "declared"
