"""Two minor releases of the kit and one plugin: how a new required test arrives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ikvcore.testing._announcing import kit_version

ROOT = Path(__file__).parents[4]
PACKED = ("ikvcore", "ikv_backends", "ikv_load", "ikv_metrics", "ikv_transports", "pyproject.toml", "README.md")
NAME = "test_nothing_temporary_is_left"
NEW = f"TestFormat::{NAME}"
NEW_TEST = f'''\
    @required_from("0.2")
    def {NAME}(self, make: MakeStore) -> None:
        """A replica that is closed leaves no temporary file in its mount."""
        store = self._filled(make)
        store.restart_reader()
        assert [path.name for path in self._mount(store).rglob("*.tmp")] == []

'''
OTHERS = ("from ikvcore.testing._live ", "    def _filled(")
"""Lines of the format tier before which something new is put."""
IKV = "import sys; from ikvcore.cli import main; sys.argv[0] = 'ikv'; main()"


@pytest.fixture(scope="module", params=["0.1.9", "0.2.0"], ids=["announced", "required"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A release of the kit with one test that is new, required from 0.2: its version, and where pip has put it."""
    sources = copied(tmp_path_factory.mktemp("sources"))
    project = sources / "pyproject.toml"
    edit(project, f'\nversion = "{kit_version()}"\n', f'\nversion = "{request.param}"\n')
    format_tier = sources / "ikvcore" / "testing" / "conformance" / "_formats.py"
    edit(format_tier, OTHERS[0], "from ikvcore.testing._announcing import required_from\n" + OTHERS[0])
    edit(format_tier, OTHERS[1], NEW_TEST + OTHERS[1])
    run(sources, "-m", "hatchling", "build", "-t", "wheel")
    (wheel,) = (sources / "dist").glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--no-compile")
    run(sources, *pip, "--target", str(site), str(wheel))
    return request.param, site


def copied(directory: Path) -> Path:
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, directory / name)
    return directory


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) >= 1, f"{file.name} has no {old!r} any more"
    file.write_text(text.replace(old, new, 1))


def run(place: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def certified(
    kit: tuple[str, Path], faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Callable[[str, int], tuple[str, Any]]]:
    """The kit's version, and `certified(backend, code)`: what `ikv conformance` of it says, and its report."""
    version, site = kit
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(faulty)]))

    def certified(backend: str, code: int) -> tuple[str, Any]:
        out = tmp_path / backend
        asked = ("conformance", "backend", backend, "--tier", "format", "--output", str(out))
        said = run(tmp_path, "-c", IKV, *asked, code=code)
        return said, json.loads((out / "report.json").read_text())

    return version, certified


def test_a_plugin_that_fails_it_is_warned_for_a_release_and_fails_from_the_next_one_on(
    certified: tuple[str, Callable[[str, int], tuple[str, Any]]], run_pytest: Callable[..., Any]
) -> None:
    version, certify = certified
    said, report = certify("untidy", 0 if version == "0.1.9" else 3)
    written = run_pytest("class TestMine(BackendConformance):\n    name, tiers = 'untidy', ('format',)\n")
    assert report["kit"]["version"] == version
    why = "assert ['left.tmp'] == []"
    if version == "0.1.9":
        warning = f"WARNING: {NEW} will be required from 0.2; fails: AssertionError: {why}"
        assert warning in said
        assert warning in written.stdout
        assert written.returncode == 0, written.stdout
        assert (report["clean"], report["verified"], report["tests"]["failed"]) == (True, ["format"], {})
        assert report["tiers"][0]["counts"]["passed"] == 2  # and no golden files
        (told,) = report["announced"].values()
        assert (told["required_from"], told["state"], told["ready"]) == ("0.2", "failed", False)
    else:
        assert f"PROBLEM: {NEW} failed" in said
        assert f"PROBLEM: {NEW} failed" in written.stdout
        assert written.returncode == 1
        assert (report["clean"], report["verified"], report["announced"]) == (False, [], {})
        assert list(report["tests"]["failed"]) == [NEW]


def test_a_plugin_that_passes_it_is_clean_with_both(
    certified: tuple[str, Callable[[str, int], tuple[str, Any]]],
) -> None:
    version, certify = certified
    said, report = certify("sqlite", 0)
    assert (report["clean"], report["verified"]) == (True, ["format"])
    passed = report["tiers"][0]["counts"]["passed"]
    if version == "0.1.9":
        assert f"announced: {NEW} will be required from 0.2; passes" in said
        assert (passed, report["announced"][NEW]["ready"]) == (3, True)
    else:
        assert "announced" not in said
        assert (passed, report["announced"]) == (4, {})
