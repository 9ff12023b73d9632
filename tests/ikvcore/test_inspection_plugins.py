"""What is installed, as a listing that no broken plugin can spoil."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ikvcore import _plugin_list
from ikvcore.inspection import PluginReport, list_plugins
from ikvcore.models import Durability


def listed() -> dict[tuple[str, str], PluginReport]:
    return {(report.kind, report.name): report for report in list_plugins()}


def test_built_in_plugins_tell_of_themselves() -> None:
    found = listed()
    assert {("backend", "lmdb"), ("backend", "memory"), ("transport", "local"), ("transport", "memory")} <= set(found)
    assert [report.kind for report in list_plugins()] == sorted(report.kind for report in list_plugins())
    lmdb = found["backend", "lmdb"]
    assert (lmdb.state, lmdb.problem, lmdb.distribution) == ("ready", None, "ikvcore")
    assert lmdb.info is not None
    assert lmdb.info.durability is Durability.POWER_LOSS
    (durability,) = lmdb.options
    assert (durability.name, durability.type, durability.required) == ("durability", "str", False)
    assert durability.default == "power-loss"


def test_a_broken_and_an_incomplete_plugin_hide_no_other(odd_backends: Path) -> None:
    found = listed()
    broken, absent = found["backend", "broken"], found["backend", "absent"]
    assert (broken.state, broken.info, broken.options) == ("broken", None, ())
    assert broken.problem == "backend 'broken' of odd 1.0 is installed but broken: ValueError: this breaks"
    assert (absent.state, absent.info) == ("not installed", None)
    assert absent.problem == "no-such-driver is missing; install it with: pip install 'odd[absent]'"
    assert found["backend", "solo"].state == found["backend", "lmdb"].state == "ready"


@dataclass(frozen=True, kw_only=True)
class Options:
    servers: str
    tags: list[str] = field(default_factory=list)
    password: str = field(default="hidden", repr=False)


def test_options_are_told_without_secrets() -> None:
    told = {name: _plugin_list._option(each) for name, each in Options.__dataclass_fields__.items()}
    assert {name: (each.required, each.default) for name, each in told.items()} == {
        "servers": (True, None),
        "tags": (False, []),
        "password": (False, None),
    }
