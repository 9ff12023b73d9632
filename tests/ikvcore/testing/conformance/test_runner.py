"""`ikv conformance`, as the program that it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

IKV = Path(sys.executable).with_name("ikv")
OPENS = "TestFormat::test_its_own_files_open_again"
NEWER = "TestFormat::test_a_newer_format_is_refused_untouched"


def ikv(place: Path, *arguments: str, code: int) -> str:
    """Run it in a directory that has nothing to do with anything, with settings that it must not take over."""
    place.mkdir(exist_ok=True)
    surroundings = {"PYTEST_ADDOPTS": "-k nothing", "IKV_STORE_NAME": "mine", "COLUMNS": "100"}
    done = subprocess.run(
        [IKV, "conformance", *arguments],
        cwd=place,
        env={**os.environ, **surroundings},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def report(directory: Path) -> Any:
    return json.loads((directory / "report.json").read_text())


def test_a_clean_run_leaves_a_report_a_badge_and_junit_xml(tmp_path: Path) -> None:
    out = tmp_path / "some where"
    option = ("--option", "durability=process-crash")
    said = ikv(
        tmp_path / "x", "backend", "sqlite", "--tier", "format", "--seed", "7", "--output", str(out), *option, code=0
    )
    assert "verdict: not certified" in said  # without the core tier nothing is
    found = report(out)
    assert (found["kind"], found["name"], found["seed"], found["clean"], found["level"]) == (
        *("backend", "sqlite", 7, True, "none"),
    )
    assert found["distribution"]["name"] == "ikvcore"
    assert found["verified"] == ["format"]
    counts = {"passed": 3, "failed": 0, "skipped": 0, "known deviation": 0, "never run": 0}
    assert found["tiers"] == [{"name": "format", "state": "verified", "counts": counts}]
    assert found["declared"]["sharing"] == "shared"
    assert found["observed"]["durability: power-loss"] == "declared"
    assert json.loads((out / "badge.json").read_text())["message"] == "not certified"
    suites = ET.parse(out / "junit.xml").getroot()
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        ("format", "3", "0")
    ]


@pytest.mark.usefixtures("faulty")
def test_an_engine_that_kills_the_process_is_a_finding(tmp_path: Path) -> None:
    """What had not run by then never ran; the golden files came first, and it names none."""
    out = tmp_path / "out"
    said = ikv(tmp_path / "x", "backend", "dying", "--tier", "format", "--output", str(out), code=3)
    assert (
        f"PROBLEM: the process of the tests ended with SIGKILL in the midst of {OPENS}" in said
    )  # golden files come first, and are skipped
    found = report(out)
    assert (found["clean"], found["level"], found["verified"]) == (False, "failed", [])
    assert found["tests"]["never run"] == {OPENS: "", NEWER: ""}
    assert json.loads((out / "badge.json").read_text())["message"] == "failed"
    assert [case[0].tag for case in ET.parse(out / "junit.xml").getroot()[0]] == ["skipped", "error", "error"]


@pytest.mark.usefixtures("faulty")
def test_an_authors_file_states_deviations(tmp_path: Path) -> None:
    """Its class runs what the command line asks for, not what it says itself."""
    file = tmp_path / "conformance_of_mine.py"
    file.write_text(
        "from ikvcore.testing.conformance import BackendConformance\n\n\n"
        "class TestForgetful(BackendConformance):\n    name = 'forgetful'\n"
        f"    deviations = {{{OPENS!r}: 'its long scans lack the last pair'}}\n"
    )
    out = tmp_path / "out"
    asked = ("--tier", "format", "--file", str(file), "--output", str(out))
    said = ikv(tmp_path / "x", "backend", "forgetful", *asked, code=0)
    assert f"known deviation: {OPENS}: its long scans lack the last pair" in said
    found = report(out)
    assert (found["clean"], found["verified"]) == (True, [])
    assert found["tests"]["known deviation"] == {OPENS: "its long scans lack the last pair"}
    assert found["distribution"] == {"name": "faulty", "version": "1.5"}
    assert "PROBLEM: the file has no class that certifies backend 'dying'" in ikv(
        tmp_path / "x", "backend", "dying", "--tier", "format", "--file", str(file), code=3
    )


def test_options_that_a_fixture_fills_reach_the_tests(tmp_path: Path) -> None:
    """As the port of a server that runs for the tests; those of the command line come before them."""
    file = tmp_path / "conformance_of_mine.py"
    file.write_text(
        "import pytest\nfrom ikvcore.testing.conformance import BackendConformance\n\nOPTIONS = {}\n\n\n"
        "@pytest.fixture(autouse=True, scope='module')\ndef _fill():\n"
        "    OPTIONS.update(durability='a word that there is not', busy=1)\n\n\n"
        "class TestMine(BackendConformance):\n    name = 'sqlite'\n    options = OPTIONS\n"
    )
    asked = ("backend", "sqlite", "--tier", "format", "--file", str(file))
    said = ikv(tmp_path / "x", *asked, "--option", "durability=process-crash", code=3)
    assert "no option 'busy'" in said
    assert "a word that there is not" not in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("backend", "memory", "--tier", "cor"), 1, "there is no tier 'cor'; the tiers are core, stateful"),
        (("backend", "memry"), 1, "did you mean 'memory'?"),
        (("backend", "memory", "--file", "none.py"), 2, "there is no file 'none.py'"),
        (("transport", "memory", "--option", "x"), 2, "write it as KEY=VALUE"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    assert words in ikv(tmp_path / "x", *arguments, code=code)


def test_a_report_that_cannot_be_written_is_told_before_the_tests_are_run(tmp_path: Path) -> None:
    output = "/dev/null/report"
    said = ikv(tmp_path / "x", "backend", "memory", "--tier", "format", "--output", output, "--verbose", code=1)
    assert "Not a directory" in said
    assert "PASSED" not in said


def test_an_option_that_the_plugin_does_not_have_is_told(tmp_path: Path) -> None:
    said = ikv(tmp_path / "x", "backend", "memory", "--tier", "format", "--option", "speed=9", code=3)
    assert "PROBLEM: the tests could not be collected" in said
    assert "speed" in said
