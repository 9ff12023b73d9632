"""The faults that the kit has to find still fit the code, and two of them are found; `make kit` does it for all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kit_matrix import ROOT, copied, faults, put_into, suite_run


def test_every_fault_fits_the_code() -> None:
    assert len(faults()) >= 30
    wrong = []
    for fault in faults():
        done = subprocess.run(
            ["git", "apply", "--check", str(fault.patch)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        wrong += [f"{fault.name}: {done.stderr}"] if done.returncode else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "finder"),
    [
        ("memory-scan-stop-inclusive", "TestMemoryKeyValue.test_scan_bounds"),
        ("memory-log-trimmed-in-silence", "TestMemoryTransport.test_trimmed"),
    ],
)
def test_a_fault_is_found_by_the_test_that_is_there_for_it(name: str, finder: str, tmp_path: Path) -> None:
    (fault,) = [each for each in faults() if each.name == name]
    copy = copied(tmp_path)
    put_into(copy, fault)
    assert finder in suite_run(copy, fault.suite).failed
