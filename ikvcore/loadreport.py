"""What `IKVWriter.load` tells: of its end, and on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ikvcore.tokens import Token

__all__ = ["LoadProgress", "LoadReport"]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a load did, or has done so far."""

    rows: int = 0
    """Rows that were read and let through by `where`: `loaded` and the refused ones."""
    loaded: int = 0
    """Rows that are in the log, durably."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Rows that were left out, by reason."""
    token: Token = field(default_factory=Token)
    """The token of all writes, for `IKVReader.wait_for`."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """A form that json can write."""
        return {
            "rows": self.rows,
            "loaded": self.loaded,
            "refused": dict(self.refused),
            "token": str(self.token),
            "seconds": round(self.seconds, 3),
        }


LoadProgress: TypeAlias = Callable[[LoadReport, "float | None"], None]
"""Called with the report so far and the part of the source that was read, 0.0 to 1.0, or None where that is unknown."""
