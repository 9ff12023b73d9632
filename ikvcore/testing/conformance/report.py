"""report.json, and the same as JUnit XML: what was judged, with what, and what came of each test."""

from __future__ import annotations

import json
import platform
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ikvcore.models import API_VERSION
from ikvcore.testing.conformance.badge import badge, level
from ikvcore.testing.conformance.verdict import Outcome, Verdict

__all__ = ["FORMAT", "report", "write_report"]

FORMAT: Final = 1
"""Of report.json; raised where an entry changes its meaning."""


def report(
    verdict: Verdict, *, distribution: tuple[str, str], declared: Mapping[str, Any], seed: int, seconds: float
) -> dict[str, Any]:
    """The content of report.json.

    distribution: name and version of what brings the plugin. declared: what it says of itself. seconds: how long the
    run took.
    """
    subject = verdict.subject
    return {
        "format": FORMAT,
        "kind": subject.kind,
        "name": subject.name,
        "distribution": {"name": distribution[0], "version": distribution[1]},
        "kit": {"name": "ikvcore", "version": subject.kit, "plugin_api": API_VERSION},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "seconds": round(seconds, 1),
        "clean": verdict.clean,
        "level": level(verdict),
        "verified": verdict.verified,
        "problems": list(verdict.problems),
        "declared": dict(declared),
        "observed": dict(verdict.capabilities),
        "deviations": dict(subject.deviations),
        "tiers": [{"name": each.name, "state": each.state, "counts": dict(each.counts)} for each in verdict.tiers],
        "announced": {test: asdict(each) for test, each in verdict.announced.items()},
        "measured": {test: dict(found.figures) for test, found in verdict.outcomes.items() if found.figures},
        "tests": {state: _tests(verdict, state) for state in ("failed", "skipped", "known deviation", "never run")},
    }


def _tests(verdict: Verdict, state: str) -> dict[str, str]:
    """The tests that came to this, each with the first line of the reason; those that passed are only counted."""
    found = {}
    for test, each in verdict.states.items():
        if each == state:
            outcome = verdict.outcomes.get(test)
            found[test] = outcome.headline if outcome is not None else ""
    return found


def write_report(directory: Path, verdict: Verdict, content: Mapping[str, Any]) -> None:
    """report.json, junit.xml and badge.json in an existing directory."""
    (directory / "report.json").write_text(_dumped(content), encoding="utf-8")
    (directory / "badge.json").write_text(_dumped(badge(verdict)), encoding="utf-8")
    ET.ElementTree(_junit(verdict)).write(directory / "junit.xml", encoding="utf-8", xml_declaration=True)


def _dumped(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _junit(verdict: Verdict) -> ET.Element:
    """A suite a tier, and one of what is announced, where nothing fails. What JUnit has no word for: a known deviation
    is skipped, a test that never ran is an error.
    """
    root = ET.Element("testsuites", name=f"{verdict.subject.kind} {verdict.subject.name}")
    for tier in verdict.tiers:
        counts = tier.counts
        suite = ET.SubElement(
            root,
            "testsuite",
            name=tier.name,
            tests=str(sum(counts.values())),
            failures=str(counts["failed"]),
            errors=str(counts["never run"]),
            skipped=str(counts["skipped"] + counts["known deviation"]),
        )
        for test in verdict.subject.required:
            if test.tier == tier.name:
                _junit_case(suite, verdict, test.id)
    if verdict.announced:
        _junit_announced(root, verdict)
    return root


def _junit_announced(root: ET.Element, verdict: Verdict) -> None:
    """What does not pass is skipped."""
    skipped = {test: each for test, each in verdict.announced.items() if each.state != "passed"}
    counts = {"tests": str(len(verdict.announced)), "failures": "0", "errors": "0", "skipped": str(len(skipped))}
    suite = ET.SubElement(root, "testsuite", {"name": "announced", **counts})
    for test in verdict.announced:
        case = _junit_named(suite, test, verdict.outcomes.get(test))
        if test in skipped:
            ET.SubElement(case, "skipped", message=_printable(skipped[test].words))


def _junit_named(suite: ET.Element, test: str, outcome: Outcome | None) -> ET.Element:
    place, _, name = test.partition("::")
    case = ET.SubElement(suite, "testcase", classname=place, name=_printable(name))
    if outcome is not None:
        case.set("time", f"{outcome.seconds:.3f}")
    return case


def _junit_case(suite: ET.Element, verdict: Verdict, test: str) -> None:
    outcome = verdict.outcomes.get(test)
    case = _junit_named(suite, test, outcome)
    reason = _printable(outcome.reason) if outcome is not None else ""
    match verdict.states[test]:
        case "failed":
            ET.SubElement(case, "failure", message=reason.partition("\n")[0]).text = reason
        case "skipped":
            ET.SubElement(case, "skipped", message=reason)
        case "known deviation":
            ET.SubElement(case, "skipped", message=f"known deviation: {reason}")
        case "never run":
            ET.SubElement(case, "error", message="never run")


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(
        each if each in "\t\n" or (each >= " " and not 0xD800 <= ord(each) < 0xE000) else "?" for each in text
    )
