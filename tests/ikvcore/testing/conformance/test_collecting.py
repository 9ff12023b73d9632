"""An author's file of a few lines, run by pytest: what makes the run fail although no test did."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import TypeAlias

import pytest

Pytest: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

OPENS = "test_its_own_files_open_again"
OWN = "is the author's own, in the place of the kit's: state a deviation instead"
FORMAT = 'name, tiers = "sqlite", ("format",)'


def problems(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the verdicts say is wrong; the run fails if there is anything, and not otherwise."""
    found = re.findall(r"^PROBLEM: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == (1 if found else 0), done.stdout + done.stderr
    return found


def test_three_lines_certify(run_pytest: Pytest) -> None:
    done = run_pytest(f"class TestMine(BackendConformance):\n    {FORMAT}\n")
    assert problems(done) == []
    assert re.search(r"^format +verified +3 +0 +0 +0 +0$", done.stdout, re.MULTILINE)
    assert "3 passed" in done.stdout


@pytest.mark.usefixtures("faulty")
def test_what_makes_a_run_fail_although_every_test_passed(run_pytest: Pytest) -> None:
    """A test that is overridden in the class, in a class of a part's name or in a base, without effect; one that an
    author skips; a stated deviation that passes. A stated one that fails is reported and is no problem.
    """
    done = run_pytest(
        f"""
import pytest

class TestInPlace(BackendConformance):
    {FORMAT}
    class TestFormat:
        def {OPENS}(self): pass

class Base:
    def {OPENS}(self): pass

class TestInherited(Base, BackendConformance):
    {FORMAT}

class TestPasses(BackendConformance):
    {FORMAT}
    deviations = {{"TestFormat::{OPENS}": "it was so once"}}

class TestFails(BackendConformance):
    name, tiers = "forgetful", ("format",)
    deviations = {{"{OPENS}": "its long scans lack the last pair"}}

class TestSkips(BackendConformance):
    {FORMAT}

@pytest.fixture(autouse=True)
def _never(request):
    if request.node.nodeid.endswith("TestSkips::TestFormat::{OPENS}"):
        pytest.skip("not today")
"""
    )
    passed, skipped = problems(done)[2:]
    assert problems(done)[:2] == [f"TestInPlace.TestFormat {OWN}", f"TestInherited.{OPENS} {OWN}"]
    assert passed.startswith(f"TestFormat::{OPENS} is stated as a known deviation, and passed")
    assert skipped == f"TestFormat::{OPENS} was skipped (not today), and nothing that is declared excuses that"
    assert f"known deviation: TestFormat::{OPENS}: its long scans lack the last pair" in done.stdout
    assert done.stdout.count("PROBLEM") == 4


@pytest.mark.parametrize(
    "options", [("-k", "not own_files"), ("--deselect", f"test_mine.py::TestMine::TestFormat::{OPENS}")]
)
def test_a_deselected_test_fails_the_run(run_pytest: Pytest, options: tuple[str, ...]) -> None:
    done = run_pytest(f"class TestMine(BackendConformance):\n    {FORMAT}\n", *options)
    assert problems(done) == [f"TestFormat::{OPENS} was not run, without a stated reason"]
    assert "2 passed, 1 deselected" in done.stdout


def test_a_patched_test_fails_the_run(run_pytest: Pytest) -> None:
    done = run_pytest(
        f"""
from ikvcore.testing.conformance._formats import ReplicaFormat
ReplicaFormat.{OPENS} = lambda self: None

class TestMine(BackendConformance):
    {FORMAT}
"""
    )
    assert problems(done) == [f"TestFormat::{OPENS} is not the kit's test"]


def test_classes_that_certify_nothing_are_left_alone(run_pytest: Pytest) -> None:
    """A base of an author's own has no name yet; others only look alike."""
    done = run_pytest(
        "class TestBase(BackendConformance):\n    tiers = ('format',)\n"
        "class TestOther:\n    ikv_conformance = True\n    def test_it(self): pass\n"
    )
    assert problems(done) == []
    assert "1 passed" in done.stdout
    assert "verdict" not in done.stdout
