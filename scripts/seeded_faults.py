"""Writes the tables of seeded faults in docs/reliability.md: `make reference`; with --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from ikvcore.testing.faults.worker import load_file

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FAULTS = ROOT / "tests" / "faults"


def table() -> str:
    """A line for each fault."""
    return "| Fault | Seeded by | In the scenario | Found by the check |\n| --- | --- | --- | --- |\n" + "".join(
        f"| {each.words} | `{each.fault}` | {each.scenario.replace('_', ' ')} | `{each.check}` |\n"
        for each in load_file(FAULTS / "seeded.py").SEEDED
    )


def table_of_kafka() -> str:
    """The same of the transport's."""
    return "| Fault | Seeded by | Found by the campaign |\n| --- | --- | --- |\n" + "".join(
        f"| {each.words} | `{each.fault}` | `{each.campaign}` |\n"
        for each in load_file(FAULTS / "seeded_kafka.py").SEEDED
    )


def page(text: str) -> str:
    """The page with the tables in their places."""
    for name, found in {"seeded": table(), "seeded in kafka": table_of_kafka()}.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise SystemExit(f"{PAGE.name} has no {begin} and {end}")
        text = f"{before}{begin}\n\n{found}\n{end}{after}"
    return text


def main() -> int:
    """Write the table, or say that it is out of date."""
    text = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        PAGE.write_text(page(text), encoding="utf-8")
        return 0
    if page(text) != text:
        print(
            f"{PAGE.name} has other seeded faults than the tests; write it again with: make reference", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
