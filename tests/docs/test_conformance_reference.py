"""docs/reference/conformance.md lists the tests that the kit has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_reference_lists_the_tests_of_the_kit() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "conformance_reference.py", "--check"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
