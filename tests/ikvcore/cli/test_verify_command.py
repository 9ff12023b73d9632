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
    assert done.stderr.endswith("\nnothing is wrong with the log\n")
    told = json.loads(ikv("verify", "profiles", "--json").stdout)
    assert (told["findings"], told["log_findings"]) == ([], [])


def test_a_damaged_replica_is_three_with_the_findings(ikv: Ikv, data_file: Path) -> None:
    data_file.write_bytes(data_file.read_bytes().replace(b"Reykjavik", b"Reykjavjk"))
    done = ikv("verify", "profiles", code=3)
    assert "the record of key b'Alice'" in done.stdout
    assert "its readers rebuild it" in done.stderr
    told = json.loads(ikv("verify", "profiles", "--json", code=3).stdout)
    assert told["mount_directory"] == str(data_file.parents[1])
    assert any("Alice" in finding for finding in told["findings"])


@pytest.fixture
def log_file(data_file: Path) -> Path:
    """The data file of the store's log."""
    (file,) = Path(os.environ["IKV_HOME"]).glob("accounts/*/stores/*/log/data.mdb")
    return file


def test_a_damaged_log_is_three_with_the_findings(ikv: Ikv, log_file: Path) -> None:
    """Also where the replica is sound."""
    log_file.write_bytes(log_file.read_bytes().replace(b"Reykjavik", b"Reykjavjk"))
    done = ikv("verify", "profiles", code=3)
    assert "position 0 of partition 0 fails its checksum" in done.stdout
    assert "the log is damaged" in done.stderr
    assert "nothing is wrong with the replica in" in done.stderr
    told = json.loads(ikv("verify", "profiles", "--json", code=3).stdout)
    assert told["findings"] == []
    assert len(told["log_findings"]) == 1


def test_a_log_that_cannot_even_be_opened_is_three_too(ikv: Ikv, log_file: Path) -> None:
    """What else could not be looked at is told beside it."""
    log_file.write_bytes(log_file.read_bytes()[:8192])
    told = json.loads(ikv("verify", "profiles", "--json", code=3).stdout)
    assert told["log_findings"]
    assert told["mount_directory"] is None


def test_the_log_and_the_replica_are_looked_at_each_for_itself(ikv: Ikv, data_file: Path) -> None:
    """A log that is out of reach is an error, and no word is lost about the replica."""
    given = ("verify", "profiles", "--mount-directory", str(data_file.parents[1]))
    assert "no store 'profiles'" in ikv(*given, code=1, IKV_ACCOUNT_PASSKEY="wrong").stderr
    data_file.write_bytes(data_file.read_bytes().replace(b"Reykjavik", b"Reykjavjk"))
    done = ikv(*given, code=3, IKV_ACCOUNT_PASSKEY="wrong")
    assert "the record of key b'Alice'" in done.stdout
    assert "no store 'profiles'" in done.stderr


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
