"""A verdict as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ikvcore.testing.conformance.badge import message
from ikvcore.testing.conformance.verdict import COUNTS, Verdict

__all__ = ["lines"]

_SHOWN: Final = 50
"""Problems."""


def lines(verdict: Verdict) -> Iterator[str]:
    """The tiers with their counts, the capabilities, what deviates or is to come, what is wrong, what it comes to."""
    width = max([len("tier"), *(len(tier.name) for tier in verdict.tiers)])
    yield f"{'tier':{width}}  {'':14}" + "".join(f"{each:>17}" for each in COUNTS)
    for tier in verdict.tiers:
        yield f"{tier.name:{width}}  {tier.state:14}" + "".join(f"{tier.counts[each]:>17,}" for each in COUNTS)
    yield ""
    for what, state in verdict.capabilities.items():
        yield f"{what}: {state if state != 'declared' else 'declared, not verified'}"
    for test, state in verdict.states.items():
        if state == "known deviation":
            yield f"known deviation: {test}: {_reason(verdict, test)}"
    for test, announced in verdict.announced.items():
        yield f"{'announced' if announced.ready else 'WARNING'}: {test} {announced.words}"
    yield from (f"PROBLEM: {each}" for each in verdict.problems[:_SHOWN])
    if len(verdict.problems) > _SHOWN:
        yield f"PROBLEM: and {len(verdict.problems) - _SHOWN:,} more"
    yield f"verdict: {message(verdict)}"


def _reason(verdict: Verdict, test: str) -> str:
    found = next(each for each in verdict.subject.expected if each.id == test)
    return found.stated(verdict.subject.deviations) or ""
