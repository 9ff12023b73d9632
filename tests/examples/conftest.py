"""The plugins of examples/, each installed as a distribution of its own, and their tests run as their authors do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 600


@pytest.fixture
def run_example_tests(tmp_path: Path) -> Callable[[str], str]:
    """`run_example_tests("ikv-backend-plyvel")`: install it, run its tests in a process of theirs; what that prints.

    Its certification is one of them: the core tier.
    """

    def run(name: str) -> str:
        site, tests = tmp_path / "site", tmp_path / "tests"
        install = ["--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--target", site]
        _run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", *install, EXAMPLES / name])
        shutil.copytree(EXAMPLES / name / "tests", tests, ignore=shutil.ignore_patterns("__py*"))
        arguments = ["-p", "no:cacheprovider", "--basetemp", tmp_path / "t", "-q", "-W", "error"]
        return _run([sys.executable, "-m", "pytest", tests, *arguments], PYTHONPATH=str(site))

    return run


def _run(command: list[object], **environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [str(each) for each in command], env=own | environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{done.stdout[-4_000:]}\n{done.stderr[-2_000:]}"
    return done.stdout
