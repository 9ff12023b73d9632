"""Who holds the write lock of an LMDB environment and was stopped with it; see _writer_watch.py.

The lock is a mutex in lock.mdb. It is read from our own mapping of that file, by LMDB's struct MDB_txninfo (mdb.c, lock
version 1) and glibc's pthread_mutex_t on 64-bit x86. On other machines nobody is ever found, and so nobody is killed.
"""

from __future__ import annotations

import os
import platform
import struct
from pathlib import Path
from typing import ClassVar, Final

from ikv_backends._maps import mapping
from ikv_backends._writer_watch import Sight, Stopped, stopped

__all__ = ["LmdbSight"]

_KNOWN: Final = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
_MAGIC: Final = 0xBEEFC0DE
_LOCK_VERSION: Final = 1
_HEAD: Final = struct.Struct("<II")
_WRITER_MUTEX: Final = 64  # after MDB_txbody, padded to a cache line
_OWNER: Final = struct.Struct("<8xi")  # of pthread_mutex_t: lock, count, owner


class LmdbSight(Sight):
    """The looks at one environment's write mutex."""

    possible: ClassVar[bool] = _KNOWN

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._file = directory / "lock.mdb"
        self._mutex: int | None = None

    def find(self) -> Stopped | None:
        try:
            if self._mutex is None:
                mapped = mapping(os.getpid(), self._file) if _KNOWN else None
                if mapped is None:
                    return None
                self._mutex = mapped[0]
            owner = _owner(self._mutex)
            return stopped(owner, self._file) if owner else None
        except ProcessLookupError:  # whoever held it has died
            return None
        except (OSError, ValueError, LookupError, struct.error):
            self._mutex = None  # it may be somewhere else now
            return None

    def find_afresh(self) -> Stopped | None:
        self._mutex = None  # where it was, another environment's may be by now
        return self.find()


def _owner(address: int) -> int:
    """The thread that holds the write mutex of the lock.mdb mapped there, 0 where nobody does. Raises ValueError."""
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        page = memory.read(_WRITER_MUTEX + _OWNER.size)
    magic, version = _HEAD.unpack_from(page)
    if magic != _MAGIC or version & 0xFFFF != _LOCK_VERSION:
        raise ValueError("this is no lock file of LMDB's")
    owner: int = _OWNER.unpack_from(page, _WRITER_MUTEX)[0]
    return owner
