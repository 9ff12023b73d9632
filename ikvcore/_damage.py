"""What is wrong with a mount's replica, for all of its processes: damage.json, replaced by rename.

It speaks of one generation: once CURRENT names another, it is of the past.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ikvcore._mount import replace_file
from ikvcore._sealed_json import dump_sealed, load_sealed
from ikvcore.errors import MountError

__all__ = ["Damage"]

_FILE: Final = "damage.json"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A finding, the first one of its generation."""

    generation: str
    """Name of the generation's directory."""
    reason: str
    found: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    def write(self, mount: Path) -> None:
        """Tell the mount's processes, also those of after a power loss. Raises OSError."""
        data = {"generation": self.generation, "reason": self.reason, "found": self.found}
        replace_file(mount / _FILE, dump_sealed(data))

    @classmethod
    def read(cls, mount: Path, generation: str) -> Damage | None:
        """What was found wrong with `generation`; None where nothing was. Raises MountError where nobody can look."""
        try:
            data = load_sealed((mount / _FILE).read_bytes())
            damage = cls(generation=data["generation"], reason=str(data["reason"]), found=float(data["found"]))
        except FileNotFoundError:
            return None
        except OSError as exc:  # too many open files, say: no reason to build a replica anew
            raise MountError(mount, f"its file {_FILE} cannot be read ({exc.strerror or exc})") from exc
        except (ValueError, KeyError, TypeError):
            # It was written about some generation, and nobody can say which: this one, to be safe.
            return cls(generation=generation, reason="what was found wrong with it can no longer be read")
        return damage if damage.generation == generation else None
