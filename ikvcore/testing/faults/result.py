"""What a campaign comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Result", "Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault."""

    fault: str
    times: int
    """How often it was done and counted."""
    happened: str
    """What came of it, in words and figures."""
    violations: int
    seed: int


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
