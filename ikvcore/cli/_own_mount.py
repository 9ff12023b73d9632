"""The replicas that the tool keeps for itself, for commands that read a store and were given no mount directory.

    IKV_HOME/mounts/<store>/<log's identity>/<backend>-<digest of what else fixes a replica>

Kept between commands, so that only the first one reads the whole log. A log's identity is never used again, so a store
that was deleted and made anew gets a replica of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import platformdirs

from ikvcore._names import directory_name
from ikvcore.clientoptions import ClientOptions
from ikvcore.models import StoreDescription

__all__ = ["own_mount", "remove_own_mounts"]


def own_mount(store: StoreDescription, options: ClientOptions) -> Path:
    """Where the tool's replica of `store` is, with the backend and partitions of `options`; it need not exist."""
    return _mounts_of(store) / _directory(options.backend, (options.backend, options.partitions, options.history))


def remove_own_mounts(store: StoreDescription) -> None:
    """Remove the tool's replicas of a store that was deleted."""
    mounts = _mounts_of(store)
    shutil.rmtree(mounts, ignore_errors=True)
    try:
        mounts.parent.rmdir()
    except OSError:  # another account's store of this name has some too, or there never was one
        return


def _mounts_of(store: StoreDescription) -> Path:
    home = Path(os.environ.get("IKV_HOME") or platformdirs.user_data_dir("ikvcore")).expanduser()
    return home / "mounts" / directory_name(store.store_name) / _directory(store.identity, store.identity)


def _directory(readable: str, exact: object) -> str:
    """A name that tells something, and is distinct for whatever `exact` is: plugins choose their own identities."""
    digest = hashlib.sha256(repr(exact).encode()).hexdigest()[:16]
    return f"{re.sub('[^a-z0-9]', '-', readable.lower())[:40]}-{digest}"
