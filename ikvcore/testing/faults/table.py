"""The table of a document that says what campaigns came to, written between two marks.

Campaigns can be run one at a time: each replaces its own rows, and those of others stay, with the commit of the code
that they were run on. Rows that another command made, or other versions, go.
"""

from __future__ import annotations

import platform
import re
import sqlite3
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from ikvcore.testing.faults.result import Result

__all__ = ["BEGIN", "END", "Line", "code", "lines", "markdown", "versions", "write_table"]

BEGIN: Final = "<!-- faults of {of}: begin -->"
END: Final = "<!-- faults of {of}: end -->"
_ENGINES: Final = {"rocksdb": "rocksdict", "duckdb": "duckdb", "kafka": "confluent-kafka"}
"""Packages of plugins. LMDB's is always told: the default log is kept in it whatever the backend."""


class Line(NamedTuple):
    """One fault, as the table shows it."""

    campaign: str
    fault: str
    times: str
    happened: str
    violations: str
    seed: str
    code: str
    """The commit of the code, and whether it was changed since."""


_HEAD: Final = Line("Campaign", "Fault", "Times", "What happened", "Violations", "Seed", "Code")


def lines(campaign: str, result: Result, seed: int) -> list[Line]:
    """A campaign's lines: its rows, and what could not be run."""
    made = code()
    rows = [
        Line(campaign, row.fault, f"{row.times:,}", row.happened, str(row.violations), str(row.seed), made)
        for row in result.rows
    ]
    left = [Line(campaign, campaign, "0", f"NOT RUN: {why}", "0", str(seed), made) for why in result.not_run]
    return [*rows, *left]


def code() -> str:
    """The commit that this package is of, with a + where code was changed since; "unknown" outside of a checkout."""
    commit = _git("rev-parse", "--short=7", "HEAD")
    changed = _git("status", "--porcelain", "--", ":(top)*.py")
    return f"{commit}{'+' if changed else ''}" if commit else "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def versions(plugin: str) -> str:
    """Python's version, the system's, LMDB's, and that of a plugin's engine."""
    release = platform.release().partition("-")[0]
    parts = [
        f"Python {platform.python_version()}",
        f"{platform.system()} {release}",
        f"lmdb {metadata.version('lmdb')}",
    ]
    if plugin in _ENGINES:
        parts.append(f"{_ENGINES[plugin]} {metadata.version(_ENGINES[plugin])}")
    elif plugin == "sqlite":
        parts.append(f"SQLite {sqlite3.sqlite_version}")
    return ", ".join(parts)


def markdown(table: Iterable[Line]) -> str:
    """The table itself."""
    return "\n".join([_line(_HEAD), _line(["---"] * len(_HEAD)), *map(_line, table)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def write_table(path: Path, new: Sequence[Line], *, of: str, command: str, campaigns: Sequence[str]) -> None:
    """Replace the lines of `new`'s campaigns in the table between the marks of `of`. Missing marks come at the end.

    command: what makes the whole table. campaigns: all that it may hold, in their order.
    """
    begin, end = BEGIN.format(of=of), END.format(of=of)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    old, _, after = rest.partition(end)
    told = f"Written by `{command}`. Versions: {versions(of)}."
    replaced = {line.campaign for line in new}
    kept = [line for line in _read(old) if line.campaign not in replaced] if told in old else []
    shown = [line for name in campaigns for line in (*kept, *new) if line.campaign == name]
    path.write_text(f"{before}{begin}\n\n{told}\n\n{markdown(shown)}\n{end}{after}", encoding="utf-8")


def _read(text: str) -> list[Line]:
    """The lines of a table that `markdown` made."""
    found = []
    for row in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        if len(cells) == len(_HEAD) and set(cells) != {"---"} and cells != list(_HEAD):
            found.append(Line(*cells))
    return found
