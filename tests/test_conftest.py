"""tests/conftest.py: what did not run is said at the end, and what was promised must run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import os, pathlib, pytest

@pytest.fixture(scope="session")
def broker(requires_part):
    requires_part("kafka", available=False, how="make kafka")

def test_a(broker): pass
def test_b(broker): pass

@pytest.mark.requires_part("strace", available=False, how="apt-get install strace")
def test_c(): pass

@pytest.mark.requires_part("python", available=True, how="")
def test_d(): pass

@pytest.mark.skip(reason="another machine")
def test_e(): pass

def test_home(tmp_path):
    assert pathlib.Path.home().is_relative_to(tmp_path)
    assert pathlib.Path(os.environ["IKV_HOME"]).is_relative_to(tmp_path)
    assert "IKV_STORE_NAME" not in os.environ
"""


def run(directory: Path, required: str) -> tuple[int, list[str]]:
    """The suite above under this project's conftest: pytest's exit status and the lines it printed."""
    shutil.copy(Path(__file__).with_name("conftest.py"), directory)
    (directory / "test_suite.py").write_text(SUITE)
    settings = {"IKV_TEST_REQUIRE": required, "IKV_STORE_NAME": "mine", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-W", "error"],
        env={**os.environ, **settings},
        cwd=directory,
        capture_output=True,
        text=True,
    )
    return process.returncode, process.stdout.splitlines()


def test_missing_parts_are_listed_at_the_end_with_how_to_get_them(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "")
    assert status == pytest.ExitCode.OK, lines
    assert lines[-4:-1] == [
        "NOT RUN: kafka (2 tests): make kafka",
        "NOT RUN: strace (1 test): apt-get install strace",
        "NOT RUN: 1 test: another machine",
    ]
    assert lines[-1].startswith("2 passed, 4 skipped")


def test_a_part_that_was_promised_fails_the_run_when_it_is_missing(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "python, strace")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "strace is required here (IKV_TEST_REQUIRE) and not available; apt-get install strace" in lines
    assert "NOT RUN: kafka (2 tests): make kafka" in lines
