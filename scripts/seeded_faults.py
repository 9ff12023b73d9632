"""Writes the table of seeded faults in docs/reliability.md: `make reference`; with --check only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from ikvcore.testing.faults.worker import load_file

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- seeded: begin -->", "<!-- seeded: end -->"
HEAD = """\
| Fault | Seeded by | In the scenario | Found by the check |
| --- | --- | --- | --- |
"""


def table() -> str:
    """A line for each fault."""
    seeded = load_file(ROOT / "tests" / "faults" / "seeded.py").SEEDED
    return HEAD + "".join(
        f"| {each.words} | `{each.fault}` | {each.scenario.replace('_', ' ')} | `{each.check}` |\n" for each in seeded
    )


def page(text: str) -> str:
    """The page with the table in its place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


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
