"""What a campaign comes to: rows of one table, written between two marks in a document."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Final

from ikvcore.testing.faults.target import Pair

__all__ = ["BEGIN", "END", "Result", "Row", "of_pair", "table", "versions", "write_table"]

BEGIN: Final = "<!-- faults of {backend}: begin -->"
END: Final = "<!-- faults of {backend}: end -->"
_HEAD: Final = ("Fault", "Times", "What happened", "Violations", "Seed")
_PACKAGES: Final = ("lmdb",)
_ENGINES: Final = {"rocksdb": "rocksdict", "duckdb": "duckdb"}
"""Packages of backends, whose versions belong into their rows; the log is kept in LMDB whatever the backend."""


def versions(packages: Sequence[str] = _PACKAGES) -> str:
    """Python's version, the system's, and those of `packages`."""
    release = platform.release().partition("-")[0]
    parts = [f"Python {platform.python_version()}", f"{platform.system()} {release}"]
    return ", ".join([*parts, *(f"{name} {metadata.version(name)}" for name in packages)])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault."""

    fault: str
    times: int
    """How often it was done and counted; 0 where it was not run."""
    happened: str
    """What came of it, in words and figures."""
    violations: int
    seed: int
    versions: str = field(default_factory=versions)

    def cells(self) -> tuple[str, ...]:
        """The row as the table shows it, but for the versions."""
        return (self.fault, f"{self.times:,}", self.happened, str(self.violations), str(self.seed))


def of_pair(row: Row, pair: Pair) -> Row:
    """The row with the version of the backend's engine, which belongs to it too."""
    engine = _ENGINES.get(pair.backend)
    told = row.versions
    if engine is not None:
        told += f", {engine} {metadata.version(engine)}"
    elif pair.backend == "sqlite":
        told += f", SQLite {sqlite3.sqlite_version}"
    return replace(row, versions=told)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One campaign."""

    rows: Sequence[Row]
    violations: Sequence[str] = ()
    """A sentence for each, as far as they are told apart."""
    not_run: Sequence[str] = ()
    """What could not be run here, each with its reason."""

    @property
    def good(self) -> bool:
        """Nothing was violated."""
        return not self.violations and not any(row.violations for row in self.rows)

    def require(self) -> None:
        """Raise AssertionError that tells the violations, if there are any."""
        if not self.good:
            shown = [*self.violations[:20], *(f"{row.fault}: {row.violations}" for row in self.rows if row.violations)]
            raise AssertionError("\n".join(shown))


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, below a line with the versions where they are the same for all rows, as they are in one run."""
    different = {row.versions for row in rows}
    if len(different) == 1:
        return f"Versions: {different.pop()}.\n\n" + _table(_HEAD, [row.cells() for row in rows])
    return _table((*_HEAD, "Versions"), [(*row.cells(), row.versions) for row in rows])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_line(head), _line(["---"] * len(head)), *map(_line, rows)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def write_table(path: Path, rows: Sequence[Row], *, backend: str, command: str) -> None:
    """Replace what stands between a backend's marks in a document by the table, and the command that made it.

    Marks that are missing are added at the end.
    """
    begin, end = BEGIN.format(backend=backend), END.format(backend=backend)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    told = f"Written by `{command}`. {table(rows)}"
    path.write_text(f"{before}{begin}\n\n{told}\n{end}{after}", encoding="utf-8")
