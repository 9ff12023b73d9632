"""Why each test of the core tier is in the kit: it is the only one to find some fault, or reasons.toml says why not.

Only is meant among the tests of the suite that was run, which are the tests of one plugin's own file: a run that ends
with one failure has run them all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from ikvcore.testing.conformance.tiers import TIERS, Kind

__all__ = ["Account", "account", "core_tests", "place", "reasons"]

_REASONS: Final = Path(__file__).with_name("reasons.toml")
_PARTS: Final = {"KeyValue": "TestKeyValue", "Storage": "TestStorage", "Transport": "TestLog"}
"""The ends of the names that plugins' files give to their classes, and the parts of the core tier that these are."""
_KINDS: Final[tuple[Kind, ...]] = ("backend", "transport")


@dataclass(frozen=True, slots=True)
class Account:
    """What there is to say for the tests of the core tier."""

    sole: Mapping[str, Sequence[str]]
    """The faults that a test alone finds, for each that does."""
    reasons: Mapping[str, Sequence[str]]
    """The other tests, by the reason why they are not."""
    without: Sequence[str]
    """Tests with neither."""
    stray: Sequence[str]
    """Patterns of reasons that name no test of the core tier."""
    spare: Sequence[str]
    """Tests that have a reason of their own and do not need it, in this matrix."""


def core_tests() -> list[str]:
    """Class::test of the tests of the core tier, of both kinds."""
    (core,) = (tier for tier in TIERS if tier.name == "core")
    parts = [part for kind in _KINDS for part in core.parts(kind)]
    return list(dict.fromkeys(f"{part.name}::{name}" for part in parts for name in part.tests()))


def place(ran: str) -> str:
    """The kit's name of a test that a plugin's file has: TestKeyValue::test_x of TestMemoryKeyValue.test_x."""
    cls, _, name = ran.partition(".")
    part = next((part for end, part in _PARTS.items() if cls.endswith(end)), cls)
    return f"{part}::{name}"


def reasons() -> dict[str, str]:
    """Patterns of Class::test, each with its reason; the first that fits a test counts."""
    told = tomllib.loads(_REASONS.read_text(encoding="utf-8"))["reason"]
    return {pattern: " ".join(each["why"].split()) for each in told for pattern in each["tests"]}


def account(found: Iterable[tuple[str, Sequence[str]]], tests: Sequence[str], why: Mapping[str, str]) -> Account:
    """found: each fault's name with the tests that found it, as they were run."""
    sole: dict[str, list[str]] = {}
    for fault, failed in found:
        if len(failed) == 1 and place(failed[0]) in tests:
            sole.setdefault(place(failed[0]), []).append(fault)
    explained: dict[str, list[str]] = {}
    without = []
    for test in tests:
        reason = next((reason for pattern, reason in why.items() if fnmatchcase(test, pattern)), None)
        if test not in sole and reason is not None:
            explained.setdefault(reason, []).append(test)
        elif test not in sole:
            without.append(test)
    stray = [pattern for pattern in why if not any(fnmatchcase(test, pattern) for test in tests)]
    return Account(sole, explained, without, stray, spare=[test for test in why if test in sole])
