"""The end of DuckDB's log file after a power loss in the middle of a commit.

A commit is one write of several pages, which a disk may hold in part. DuckDB takes a log that ends too early, but
refuses to open one with a hole in it, and every commit before that with it. So the log is cut at the entry that it
names.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

__all__ = ["cut_at_hole"]

_log = logging.getLogger(__name__)

_HOLE: Final = re.compile(r"Corrupt WAL file: entry at byte position (\d+)")


def cut_at_hole(log: Path, exc: BaseException | None) -> bool:
    """Cut the log at the entry that DuckDB could not read, if its error names one; whether it is worth another try.

    What is left are whole commits: DuckDB drops one that lacks its end. If some are lost that were whole, by damage
    rather than a torn write, the state is that of an earlier commit, with its positions, and ingest goes on from there.
    """
    found = _HOLE.search(str(exc))
    if found is None:
        return False
    place = int(found[1])
    file = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    try:
        length = os.fstat(file).st_size
        if place >= length:
            return False
        os.ftruncate(file, place)
        os.fsync(file)
    finally:
        os.close(file)
    _log.warning("%s could be read to byte %d of %d; what came after is applied again", log, place, length)
    return True
