"""What is installed, as a listing that no broken plugin can spoil."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _plugin_list
from ikvcore.errors import InvalidArgumentError, PluginNotFoundError
from ikvcore.inspection import PluginReport, list_plugins, try_plugin
from ikvcore.models import Durability


def listed() -> dict[tuple[str, str], PluginReport]:
    return {(report.kind, report.name): report for report in list_plugins()}


def test_built_in_plugins_tell_of_themselves() -> None:
    found = listed()
    assert {("backend", "lmdb"), ("backend", "memory"), ("transport", "local"), ("transport", "memory")} <= set(found)
    assert list(dict.fromkeys(report.kind for report in list_plugins())) == ["backend", "transport", "observer"]
    metrics = found["observer", "metrics"]
    assert (metrics.state, metrics.info) == ("ready", None)
    assert set(metrics.hooks) == {"reader_started", "batch_applied", "events_published"}
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


@pytest.mark.parametrize(
    ("kind", "name", "options", "tried"),
    [
        ("backend", "lmdb", {"durability": "process-crash"}, "keeps what a killed process had committed"),
        ("backend", "memory", {}, "compares and sets, all or nothing"),
        ("transport", "ikvcore:local", {}, "capability VerifyLog"),
        ("transport", "memory", {}, "wakes a poll that waits"),
    ],
)
def test_everything_of_the_built_in_plugins_works(
    tmp_path: Path, kind: Any, name: str, options: dict[str, Any], tried: str
) -> None:
    results = {result.what: result for result in try_plugin(kind, name, options)}
    assert results[tried].works
    assert [result for result in results.values() if result.works is False] == []
    assert not (tmp_path / "h").exists()  # nothing went to where this user's stores are


def test_a_plugin_that_hangs_has_failed_where_it_does(installed_wheels: str) -> None:
    code = (
        "from ikvcore.inspection import try_plugin\n"
        "for result in try_plugin('backend', 'hanging', patience=1):\n"
        "    print(result.works, result.what, result.detail)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": installed_wheels},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "False reads many keys in the order asked it was not done within 1 s"


def test_a_trial_that_is_given_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    results = try_plugin("backend", "lmdb")
    assert next(results).works
    assert list(tmp_path.glob("ikv-trial-*"))
    results.close()  # type: ignore[attr-defined]  # a generator, as its user need not know
    assert list(tmp_path.glob("ikv-trial-*")) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("observer", "metrics"), InvalidArgumentError),
        (("backend", "lmbd"), PluginNotFoundError),
        (("backend", "lmdb", {"durability": object()}), InvalidArgumentError),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        try_plugin(*arguments)
