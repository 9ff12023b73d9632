"""Whether a mount's files may have lost writes: opened.json says in which boot they were last written, and whether
they were closed in good order.

A process that dies loses nothing that it wrote. A machine that goes down may, so a mount that was being written in
another boot is checked before it is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ikvcore._mount import replace_file
from ikvcore._status import boot_id
from ikvcore.errors import MountError
from ikvcore.models import dump_json

__all__ = ["Opened"]

_FILE: Final = "opened.json"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """When a mount was last written."""

    boot: str
    clean: bool
    """Closed in good order by the process that wrote it."""

    @classmethod
    def mark(cls, mount: Path, *, clean: bool) -> None:
        """Say that this process begins to write the mount, or that it has closed what it wrote. Raises OSError."""
        replace_file(mount / _FILE, dump_json({"boot": boot_id(), "clean": clean}))

    @classmethod
    def suspect(cls, mount: Path) -> bool:
        """Whether the mount was written in another boot and not closed. A mark of nonsense counts as such.

        Raises MountError where nobody can look.
        """
        try:
            data = json.loads((mount / _FILE).read_bytes())
            mark = cls(boot=str(data["boot"]), clean=data["clean"] is True)
        except FileNotFoundError:
            return False  # nobody has written anything yet
        except OSError as exc:
            raise MountError(mount, f"its file {_FILE} cannot be read ({exc.strerror or exc})") from exc
        except (ValueError, KeyError, TypeError):
            return True
        return not mark.clean and mark.boot != boot_id()
