"""Writes docs/reference/conformance.md from the tiers themselves: `make reference`; with --check only compares."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from ikvcore.testing._announcing import requirement
from ikvcore.testing.conformance.tiers import TIERS, Kind, Part, Tier

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "conformance.md"
HEAD = """\
# The tests of the conformance kit

<!-- made by `make reference` from the kit itself; do not edit -->

What `ikv conformance` runs, tier by tier. [Certify a plugin](../how-to/certify.md) says how, and what the verdict
means. A test is named as in reports and in `deviations`: class, `::`, test. One that is *required from* a release is
announced by the kits before it: they run it, and its failure is a warning.

| Tier | | Tests of a backend | Tests of a transport |
| --- | --- | --- | --- |
"""
SHAPES = {"bytes": "for an engine of bytes (`OrderedKeyValue`)", "documents": "for a storage of documents (`Storage`)"}


def page() -> str:
    """The whole page."""
    rows = "".join(
        f"| [`{tier.name}`](#{tier.name}) | {tier.summary} | {count(tier, 'backend')} | {count(tier, 'transport')} |\n"
        for tier in TIERS
    )
    return HEAD + rows + "".join(section(tier) for tier in TIERS)


def count(tier: Tier, kind: Kind) -> int:
    """How many tests there are; one with parameters counts once."""
    return sum(len(part.tests()) for part in tier.parts(kind))


def section(tier: Tier) -> str:
    """One tier: the classes of both kinds, those that they share once."""
    text = f"\n## {tier.name}\n\n{tier.summary}\n"
    both = [part for part in tier.backend if part in tier.transport]
    for kind, parts in (
        ("A backend and a transport", both),
        ("A backend", [part for part in tier.backend if part not in both]),
        ("A transport", [part for part in tier.transport if part not in both]),
    ):
        for part in parts:
            text += f"\n### {kind}: {part.name}\n{shapes(part)}\n| Test | |\n| --- | --- |\n" + "".join(lines(part))
    return text


def shapes(part: Part) -> str:
    """Which backends it is for, where that is not all."""
    return f"\nOnly {SHAPES[part.shapes[0]]}.\n" if len(part.shapes) == 1 else ""


def lines(part: Part) -> Iterator[str]:
    """Its tests, each with the sentence that it holds the plugin to."""
    for name, function in part.tests().items():
        words = " ".join((inspect.getdoc(function) or "").split()).replace("|", "\\|")
        release = requirement(function)
        yield f"| `{name}` | {f'**Required from {release}.** ' if release else ''}{words} |\n"


def main() -> int:
    """Write the page, or say that it is out of date."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.name} is not what the kit says; write it again with: make reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
