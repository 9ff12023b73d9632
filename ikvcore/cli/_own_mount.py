"""The replicas that the tool keeps for itself, for commands that read a store and were given no mount directory.

    IKV_HOME/mounts/<store>/<log's identity>-<backend>

Kept between commands, so that only the first one reads the whole log. A log's identity is never used again, so a store
that was deleted and made anew gets a replica of its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from ikvcore._names import directory_name
from ikvcore.clientoptions import ClientOptions
from ikvcore.models import StoreDescription

__all__ = ["own_mount", "remove_own_mounts"]


def own_mount(store: StoreDescription, options: ClientOptions) -> Path:
    """Where the tool's replica of `store` is, with the backend and partitions of `options`; it need not exist."""
    held = "" if options.partitions is None else "-" + "-".join(map(str, options.partitions))
    return _mounts_of(store.store_name) / f"{store.identity}-{re.sub('[^a-z0-9]', '-', options.backend)}{held}"


def remove_own_mounts(store: StoreDescription) -> None:
    """Remove the tool's replicas of a store that was deleted."""
    for mount in _found(store):
        shutil.rmtree(mount, ignore_errors=True)


def _found(store: StoreDescription) -> Iterator[Path]:
    yield from _mounts_of(store.store_name).glob(f"{store.identity}-*")


def _mounts_of(store_name: str) -> Path:
    home = os.environ.get("IKV_HOME") or platformdirs.user_data_dir("ikvcore")
    return Path(home).expanduser() / "mounts" / directory_name(store_name)
