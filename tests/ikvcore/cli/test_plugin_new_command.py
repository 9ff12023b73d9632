"""`ikv plugin new`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Ikv = Callable[..., subprocess.CompletedProcess[str]]
SECONDS = 300
KINDS = pytest.mark.parametrize("kind", ["backend", "transport"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@KINDS
def test_a_new_plugin_installs_and_passes_the_core_tier(ikv: Ikv, here: Path, tmp_path: Path, kind: str) -> None:
    """As it was written, by its own test file."""
    ikv("plugin", "new", kind, "my_own")
    package, site = here / f"ikv-{kind}-my_own", str(tmp_path / "site")
    install = ["--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--target", site]
    _run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", *install, str(package)])
    listed = json.loads(ikv("plugins", "--json", PYTHONPATH=site).stdout)
    assert [each["state"] for each in listed if each["distribution"] == f"ikv-{kind}-my_own"] == ["ready"]
    ikv("plugin", "new", kind, "my_own", "--directory", "other", code=2, PYTHONPATH=site)  # its name is taken
    tests = [str(package / "tests"), "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"), "-q", "-W", "error"]
    _run([sys.executable, "-m", "pytest", *tests], PYTHONPATH=site)


@KINDS
@pytest.mark.parametrize("name", ["", "memory", "A", "a-b", "1a", "a_", "a/b", "ä", "a" * 41])
def test_a_name_that_cannot_be_is_refused(ikv: Ikv, here: Path, name: str, kind: str) -> None:
    """By its form, or for being taken; and nothing is written."""
    refused = ikv("plugin", "new", kind, name, code=2).stderr
    assert repr(name) in refused
    assert f"a {kind}" in refused
    assert list(here.iterdir()) == []


def test_a_name_may_be_taken_by_the_other_kind(ikv: Ikv, here: Path) -> None:
    """A backend and a transport may share one, as `memory` does."""
    ikv("plugin", "new", "transport", "lmdb")
    assert [each.name for each in here.iterdir()] == ["ikv-transport-lmdb"]


def test_a_directory_that_exists_is_left_alone(ikv: Ikv, here: Path) -> None:
    """Even an empty one."""
    (here / "mine").mkdir()
    assert "'mine' exists" in ikv("plugin", "new", "backend", "own", "--directory", "mine", code=2).stderr
    assert list((here / "mine").iterdir()) == []


def _run(command: list[str], **environment: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{done.stdout[-4_000:]}\n{done.stderr[-2_000:]}"
