"""report.json, and the same as JUnit XML: what was judged, with what, and what came of each test."""

from __future__ import annotations

import json
import platform
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from ikvcore.models import API_VERSION
from ikvcore.testing.conformance.badge import badge, level
from ikvcore.testing.conformance.verdict import Verdict

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
        "kit": {"name": "ikvcore", "version": metadata.version("ikvcore"), "plugin_api": API_VERSION},
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
        "measured": {test: dict(found.figures) for test, found in verdict.outcomes.items() if found.figures},
        "tests": {state: _tests(verdict, state) for state in ("failed", "skipped", "known deviation", "never run")},
    }


def _tests(verdict: Verdict, state: str) -> dict[str, str]:
    """The tests that came to this, each with the first line of the reason; those that passed are only counted."""
    found = {}
    for test, each in verdict.states.items():
        if each == state:
            outcome = verdict.outcomes.get(test)
            found[test] = _first_line(outcome.reason) if outcome is not None else ""
    return found


def _first_line(reason: str) -> str:
    """Of a failure what pytest marks with an E, after the source that it shows."""
    lines = reason.strip().splitlines() or [""]
    return next((line.removeprefix("E").strip() for line in lines if line.startswith("E   ")), lines[0])


def write_report(directory: Path, verdict: Verdict, content: Mapping[str, Any]) -> None:
    """report.json, junit.xml and badge.json in an existing directory."""
    (directory / "report.json").write_text(_dumped(content), encoding="utf-8")
    (directory / "badge.json").write_text(_dumped(badge(verdict)), encoding="utf-8")
    ET.ElementTree(_junit(verdict)).write(directory / "junit.xml", encoding="utf-8", xml_declaration=True)


def _dumped(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _junit(verdict: Verdict) -> ET.Element:
    """A suite a tier. What JUnit has no word for: a known deviation is skipped, a test that never ran is an error."""
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
        for test in verdict.subject.expected:
            if test.tier == tier.name:
                _junit_case(suite, verdict, test.id)
    return root


def _junit_case(suite: ET.Element, verdict: Verdict, test: str) -> None:
    outcome = verdict.outcomes.get(test)
    place, _, name = test.partition("::")
    case = ET.SubElement(suite, "testcase", classname=place, name=_printable(name))
    if outcome is not None:
        case.set("time", f"{outcome.seconds:.3f}")
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
