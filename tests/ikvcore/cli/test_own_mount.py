"""The replicas that the tool keeps for itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from ikvcore import admin
from ikvcore.cli._own_mount import own_mount, remove_own_mounts
from ikvcore.clientoptions import ClientOptions
from ikvcore.models import StoreDescription

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

OPTIONS = ClientOptions()
STORE = StoreDescription(store_name="profiles", account_id="demo", identity="0a1b", primary_key="name")


def mounts() -> list[Path]:
    return sorted((Path(os.environ["IKV_HOME"]) / "mounts").glob("*/*/*"))


def test_what_fixes_a_replica_has_a_directory_of_its_own() -> None:
    different = [
        own_mount(STORE, OPTIONS),
        own_mount(replace(STORE, identity="0a1c"), OPTIONS),
        own_mount(replace(STORE, store_name="Profiles"), OPTIONS),
        own_mount(STORE, replace(OPTIONS, backend="a:b")),
        own_mount(STORE, replace(OPTIONS, backend="a-b")),
        own_mount(STORE, replace(OPTIONS, partitions=(0,))),
        own_mount(STORE, replace(OPTIONS, partitions=tuple(range(60_000)))),
        own_mount(STORE, replace(OPTIONS, history="partial")),
    ]
    names = {str(path).lower() for path in different}
    assert len(names) == len(different)
    assert all(len(path.name) < 100 for path in different)
    assert own_mount(STORE, replace(OPTIONS, on_bad_event="quarantine")) == different[0]


def test_an_identity_is_no_path() -> None:
    mount = own_mount(replace(STORE, identity="../.."), OPTIONS)
    assert mount.parent.parent == own_mount(STORE, OPTIONS).parent.parent
    assert ".." not in mount.parts


def test_removal_takes_this_log_s_replicas_alone() -> None:
    other = replace(STORE, identity="0a1b-c")
    kept, *gone = (
        own_mount(other, OPTIONS),
        own_mount(STORE, OPTIONS),
        own_mount(STORE, replace(OPTIONS, backend="x")),
    )
    for mount in (kept, *gone):
        mount.mkdir(parents=True)
    remove_own_mounts(STORE)
    assert mounts() == [kept]
    remove_own_mounts(other)
    assert list((Path(os.environ["IKV_HOME"]) / "mounts").iterdir()) == []
    remove_own_mounts(other)


def test_a_replica_is_kept_between_commands(ikv: Ikv, profiles: None) -> None:
    ikv("put", "profiles", "[red]name=Alice", "x=1")
    ikv("get", "profiles", "Alice")
    (mount,) = mounts()
    made = (mount / "replica.json").stat()
    ikv("put", "profiles", "[red]name=Bob", "x=2")
    assert '"Bob"' in ikv("scan", "profiles", "--json").stdout
    assert mounts() == [mount]
    after = (mount / "replica.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_a_mount_that_was_named_is_the_one(ikv: Ikv, profiles: None, tmp_path: Path) -> None:
    ikv("put", "profiles", "[red]name=Alice")
    ikv("get", "profiles", "Alice", "--mount-directory", str(tmp_path / "mine"))
    assert mounts() == []
    assert (tmp_path / "mine" / "replica.json").exists()


@pytest.mark.parametrize("with_the_tool", [True, False])
def test_a_store_that_was_made_anew_has_a_new_replica(ikv: Ikv, profiles: None, with_the_tool: bool) -> None:
    ikv("put", "profiles", "[red]name=Alice")
    ikv("get", "profiles", "Alice")
    if with_the_tool:
        ikv("store", "delete", "profiles", "--yes")
        assert mounts() == []
    else:
        admin.delete_store("profiles", account_id="demo", account_passkey="secret")
    admin.create_store("profiles", account_id="demo", account_passkey="secret", primary_key="id")
    assert ikv("get", "profiles", "Alice", code=3).stdout == ""


def test_commands_at_the_same_time_share_a_replica(
    ikv: Ikv, start_ikv: Callable[..., subprocess.Popen[str]], profiles: None
) -> None:
    lines = "".join(f'{{"[red]name": "n{n}", "x": {n}}}\n' for n in range(3_000))
    ikv("put", "profiles", "--json", "-", stdin=lines)
    running = [start_ikv("scan", "profiles", "--json") for _ in range(3)]
    shown = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], shown
    assert [sorted(out.splitlines()) for out, _ in shown] == [sorted(lines.splitlines())] * 3
    assert len(mounts()) == 1
