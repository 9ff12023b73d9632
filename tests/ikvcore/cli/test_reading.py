"""What the commands that read documents share."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from ikvcore.cli._reading import _progress, asked_fields, shown_order
from ikvcore.fields import FieldType

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

STRING, INT32, BYTES = FieldType.STRING, FieldType.INT32, FieldType.BYTES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_startup_that_takes_long_shows_how_it_gets_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with _progress() as show:
        assert show is not None
        assert terminal.getvalue() == ""
        show(1, 4)
    assert "reading the log" in terminal.getvalue()
    assert "25%" in terminal.getvalue()


def test_where_nobody_watches_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with _progress() as show:
        assert show is None


def test_on_a_terminal_a_quick_get_shows_its_value_alone(
    on_terminal: Callable[..., tuple[int, str]], ikv: Ikv, profiles: None
) -> None:
    ikv("put", "profiles", "[red]name=Alice", "age:int32=31")
    assert on_terminal("", "get", "profiles", "Alice", "--raw", "--field", "age") == (0, "31\r\n")


def test_a_row_is_shown_key_first_and_then_by_name() -> None:
    order = shown_order("m")
    row = (("z", "m", "a"), (STRING, INT32, BYTES), ["1", 2, b"3"])
    assert order(row) == (("m", "a", "z"), (INT32, BYTES, STRING), [2, b"3", "1"])
    assert order((("z", "a"), (STRING, None), ["1", None])) == (("a", "z"), (None, STRING), [None, "1"])


def test_the_fields_asked_for_are_read_once_each_with_the_key() -> None:
    assert asked_fields("id", ["b", "a", "b", "id"]) == ["id", "b", "a"]
    assert asked_fields("id", None) is None
    assert asked_fields("id", []) is None


def test_where_the_log_was_put_back_the_replica_to_remove_is_named(ikv: Ikv, profiles: None, tmp_path: Path) -> None:
    home = Path(os.environ["IKV_HOME"])
    shutil.copytree(home / "accounts", tmp_path / "backup")
    ikv("put", "profiles", "[red]name=Alice")
    ikv("get", "profiles", "Alice")
    shutil.rmtree(home / "accounts")
    shutil.move(tmp_path / "backup", home / "accounts")
    told = ikv("get", "profiles", "Alice", code=1).stderr
    (mount,) = home.glob("mounts/*/*/*")
    assert f"the replica is in {mount}\nerror: " in told  # perhaps after what the log says of it
    assert "remove the mount directory" in told
    shutil.rmtree(mount)
    ikv("get", "profiles", "Alice", code=3)
