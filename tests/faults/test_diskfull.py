"""Full disks, in the short form: StorageFullError, nothing lost, work goes on by itself, no signal."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from ikvcore.testing.faults import diskfull
from ikvcore.testing.faults.target import Pair


def test_full_disks(tmp_path: Path, requires_part: Callable[..., None]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    available = diskfull.tmpfs_command(place, 1 << 20) is not None
    result = diskfull.run(times=1, seed=1, directory=tmp_path / "run", pair=Pair())
    result.require()  # a limit on file sizes is everywhere
    requires_part("tmpfs", available=available, how=diskfull.TMPFS_HOW)
    assert not result.not_run
    assert len(result.rows) == 5


def test_the_lock_file_of_lmdb_has_its_space_on_the_disk(tmp_path: Path) -> None:
    """It is mapped: a page without space would end the process by SIGBUS, on a disk that has filled up since."""
    from ikv_backends._lmdb_environment import LmdbEnvironment
    from ikvcore.errors import StorageError

    environment = LmdbEnvironment(tmp_path, sync=False, create=True, what="replica", error=StorageError)
    environment.close()
    status = (tmp_path / "lock.mdb").stat()
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_size >= 4096 * 64
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert os.access(tmp_path / "data.mdb", os.R_OK)
