"""`ikv verify`, run as the program that it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def data_file(ikv: Ikv, profiles: None) -> Path:
    """The data file of the tool's own replica, which holds Alice in Reykjavik."""
    ikv("put", "profiles", "[red]name=Alice", "city=Reykjavik")
    ikv("get", "profiles", "Alice")
    (file,) = Path(os.environ["IKV_HOME"]).glob("mounts/**/data.mdb")
    return file


def test_a_sound_replica_is_zero(ikv: Ikv, data_file: Path) -> None:
    done = ikv("verify", "profiles")
    assert done.stdout == ""
    assert done.stderr.startswith("nothing is wrong with the replica in ")
    assert json.loads(ikv("verify", "profiles", "--json").stdout)["findings"] == []


def test_a_damaged_replica_is_three_with_the_findings(ikv: Ikv, data_file: Path) -> None:
    data_file.write_bytes(data_file.read_bytes().replace(b"Reykjavik", b"Reykjavjk"))
    done = ikv("verify", "profiles", code=3)
    assert "the record of key b'Alice'" in done.stdout
    assert "its readers rebuild it" in done.stderr
    told = json.loads(ikv("verify", "profiles", "--json", code=3).stdout)
    assert told["mount_directory"] == str(data_file.parents[1])
    assert any("Alice" in finding for finding in told["findings"])


def test_where_there_is_no_replica_that_is_an_error(ikv: Ikv, profiles: None, tmp_path: Path) -> None:
    done = ikv("verify", "profiles", "--mount-directory", str(tmp_path / "none"), code=1)
    assert "there is no replica in it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_another_stores_replica_is_refused(ikv: Ikv, data_file: Path) -> None:
    ikv("store", "create", "other", "--primary-key", "id")
    done = ikv("verify", "other", "--mount-directory", str(data_file.parents[1]), code=1)
    assert "whose store is 'profiles', not 'other'" in done.stderr
    assert done.stderr.count("\n") == 1
