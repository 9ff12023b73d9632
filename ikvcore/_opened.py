"""Whether a mount's files may have lost writes: opened.json says in which boot they were last written, whether they
were closed in good order, and which generation had been committed to.

A process that dies loses nothing that it wrote. A machine that goes down may, so a mount that was being written in
another boot is checked before it is used. And a generation that had a commit and is empty now has lost all: an engine
makes a new one where its files are gone, and would answer from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ikvcore._mount import replace_file
from ikvcore._progress import COMMIT_KEY
from ikvcore._status import boot_id
from ikvcore.errors import MountError, ReplicaDamagedError
from ikvcore.models import dump_json
from ikvcore.protocols import Storage

__all__ = ["Opened"]

_FILE: Final = "opened.json"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """When a mount was last written."""

    boot: str
    clean: bool
    """Closed in good order by the process that wrote it."""

    @classmethod
    def mark(cls, mount: Path, *, clean: bool, holds: str | None = None) -> None:
        """Say that this process begins to write the mount, or that it has closed what it wrote. Raises OSError.

        `holds`: the generation that has a commit; what was known of that stays.
        """
        data = {"boot": boot_id(), "clean": clean, "holds": holds or cls.holds(mount)}
        replace_file(mount / _FILE, dump_json(data))

    @classmethod
    def holds(cls, mount: Path) -> str | None:
        """The generation that has a commit, as far as it is known."""
        try:
            held = json.loads((mount / _FILE).read_bytes())["holds"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return held if isinstance(held, str) else None

    @classmethod
    def refuse_emptied(cls, generation: Path, storage: Storage) -> None:
        """Raise ReplicaDamagedError where the storage in a generation is empty that is known to have held something."""
        # In this order: what another process notes from here on was committed from here on.
        held = cls.holds(generation.parent)
        if held == generation.name and storage.read_meta([COMMIT_KEY]) == [None]:
            raise ReplicaDamagedError("its files were emptied or removed: it had been filled, and nothing is in it")

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
