"""Where a file is mapped in a process's memory, as Linux tells it, and giving up pages of our own mapping."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["forget_pages", "mapping"]

_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ 00000000 \S+ (\d+) +(.*)")
_MADV_DONTNEED: Final = 4


def mapping(process: int, file: Path) -> tuple[int, int] | None:
    """First and last address of a file's mapping, None where it has none. Raises OSError."""
    inode = file.stat().st_ino
    for line in Path(f"/proc/{process}/maps").read_text(errors="replace").splitlines():
        match = _MAPPING.fullmatch(line)
        if match is not None and int(match[3]) == inode and match[4].endswith(file.name):
            return int(match[1], 16), int(match[2], 16)
    return None


def forget_pages(file: Path) -> None:
    """Take a mapped file's pages out of this process's memory; they stay in the system's cache, and come back when they
    are read.

    The kernel maps 16 pages around each one that is touched, so a process that only appends would seem to grow with its
    file. The mapping must not change meanwhile: what lay there then would be lost.
    """
    with suppress(OSError, AttributeError):
        found = mapping(os.getpid(), file)
        if found is not None:
            start, end = found
            madvise = ctypes.CDLL(None).madvise
            madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
            madvise(start, end - start, _MADV_DONTNEED)
