"""What the ingester of a mount says of itself, for the other processes: status.json, replaced by rename.

It is advice, never truth: positions are read from the replica, and who may commit is decided by the compare-and-set.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ikvcore._mount import replace_file
from ikvcore.models import dump_json

__all__ = ["SILENCE", "Status", "boot_id"]

SILENCE: Final = 5.0
"""Seconds without a heartbeat after which an ingester is taken for silent, and replaced."""


@functools.cache
def boot_id() -> str:
    """The kernel's id of this boot; "" where it has none. Monotonic times compare only within one boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, kw_only=True)
class Status:
    """One process's word on its ingest."""

    pid: int = field(default_factory=os.getpid)
    boot: str = field(default_factory=boot_id)
    heartbeat: float = field(default_factory=time.monotonic)
    ingesting: bool = True
    """False once the process has given the ingest up in good order."""
    halts: Mapping[int, str] = field(default_factory=dict)
    """Halted partition -> reason."""
    failure: tuple[str, str] | None = None
    """(error class, message) of what stops the ingest of all partitions."""
    last_error: str | None = None

    def fresh(self) -> bool:
        """Whether this speaks for an ingester that is alive: same boot, not silent, process there."""
        return self.ingesting and time.monotonic() - self.heartbeat <= SILENCE and self.alive()

    def alive(self) -> bool:
        """Whether the process is there, silent or not."""
        if self.boot != boot_id():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def write(self, mount: Path) -> None:
        """Replace the mount's status. Raises OSError."""
        data = {
            "pid": self.pid,
            "boot": self.boot,
            "heartbeat": self.heartbeat,
            "ingesting": self.ingesting,
            "halts": {str(partition): reason for partition, reason in self.halts.items()},
            "failure": self.failure,
            "last_error": self.last_error,
        }
        replace_file(mount / "status.json", dump_json(data), durable=False)

    @classmethod
    def read(cls, mount: Path) -> Status | None:
        """The mount's status; None where there is none, or none that can be understood."""
        try:
            data = json.loads((mount / "status.json").read_bytes())
            failure = data["failure"]
            return cls(
                pid=int(data["pid"]),
                boot=str(data["boot"]),
                heartbeat=float(data["heartbeat"]),
                ingesting=bool(data["ingesting"]),
                halts={int(partition): str(reason) for partition, reason in data["halts"].items()},
                failure=None if failure is None else (str(failure[0]), str(failure[1])),
                last_error=data["last_error"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
