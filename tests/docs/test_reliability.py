"""docs/reliability.md names the seeded faults and checks that there are, and has a place for the table of faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ikvcore.testing.faults.checker import CHECKS
from ikvcore.testing.faults.table import BEGIN, END

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_seeded_faults_are_those_of_the_tests() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "seeded_faults.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_checks_are_those_of_the_checker() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", PAGE, re.MULTILINE)) == CHECKS


@pytest.mark.parametrize("backend", ["lmdb", "sqlite", "rocksdb", "duckdb", "kafka"])
def test_the_table_of_faults_of_a_backend_has_its_place(backend: str) -> None:
    assert PAGE.index(BEGIN.format(of=backend)) < PAGE.index(END.format(of=backend))
