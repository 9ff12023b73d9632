"""Puts small faults into the real backends and transports, and notes which tests of the kit find each of them.

A fault is a file in patches/: a sentence, the suite that is to find it, and a patch as git writes it. Each is put into
a copy of the packages, whose tests are run in processes of their own. `make kit` does it for all of them, runs the
suites without a fault as often as it is told, and writes docs/reference/kit-faults.md. It fails where a fault is not
found, where a suite does not pass without one, and where a core test neither finds one alone nor has its reason in
reasons.toml.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kit_reasons import Account, account, core_tests, reasons

__all__ = ["PAGE", "Fault", "Found", "copied", "faults", "page", "put_into", "suite_run"]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reference" / "kit-faults.md"
_PATCHES: Final = Path(__file__).with_name("patches")
_COPIED: Final = ("ikvcore", "ikv_backends", "ikv_load", "ikv_metrics", "ikv_transports", "tests", "pyproject.toml")
_PATIENCE: Final = 900.0
_HEAD: Final = re.compile(r"Fault: (?P<text>.+)\nSuite: (?P<suite>\S+)\n\n--- ")


@dataclass(frozen=True, slots=True)
class Fault:
    """One patch."""

    name: str
    text: str
    """What it makes of the plugin, in a sentence."""
    suite: str
    """The test file that is to find it."""
    patch: Path


@dataclass(frozen=True, slots=True)
class Found:
    """What a run of a suite came to."""

    failed: tuple[str, ...]
    """Class and name of each test that failed, sorted."""
    passed: tuple[str, ...]
    hung: bool = False
    """It had not come to its end after a quarter of an hour."""


def faults() -> list[Fault]:
    """All of them, by name. Raises ValueError for a patch without its two lines."""
    found = []
    for patch in sorted(_PATCHES.glob("*.patch")):
        head = _HEAD.match(patch.read_text())
        if head is None:
            raise ValueError(f"{patch.name} does not begin with its fault and its suite")
        found.append(Fault(patch.stem, head["text"], head["suite"], patch))
    return found


def copied(directory: Path) -> Path:
    """A copy of the packages and their tests."""
    for name in _COPIED:
        source, target = ROOT / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return directory


def put_into(copy: Path, fault: Fault) -> None:
    """Put a fault into a copy. Raises CalledProcessError where the code has changed too much for the patch."""
    subprocess.run(["git", "apply", str(fault.patch)], cwd=copy, check=True, capture_output=True, text=True)


def suite_run(copy: Path, suite: str) -> Found:
    """Run a suite of a copy, the modules of which go before those that are installed; no further than five failures."""
    report = copy / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--maxfail=5",
        f"--junit-xml={report}",
        suite,
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return Found((), (), hung=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{suite} could not be run:\n{done.stdout}\n{done.stderr}")
    failed, passed = set(), set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name', '').partition('[')[0]}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        elif case.find("skipped") is None:
            passed.add(name)
    return Found(tuple(sorted(failed)), tuple(sorted(passed - failed)))


def _with(fault: Fault) -> Found:
    with tempfile.TemporaryDirectory(prefix="ikv-kit-") as directory:
        copy = copied(Path(directory))
        put_into(copy, fault)
        return suite_run(copy, fault.suite)


def _without(suite: str) -> Found:
    with tempfile.TemporaryDirectory(prefix="ikv-kit-") as directory:
        return suite_run(copied(Path(directory)), suite)


# -- the page ----------------------------------------------------------------------------------


def page(found: Sequence[tuple[Fault, Found]], correct: Iterable[tuple[str, int]], told: Account) -> str:
    """The page of the matrix. correct: how often each suite passed without a fault. told: of the core tests."""
    catchers = {name for _, result in found for name in result.failed}
    rows = "\n".join(f"| `{fault.name}` | {fault.text} | {_caught(result)} |" for fault, result in found)
    alone = "\n".join(f"| `{test}` | {', '.join(f'`{each}`' for each in found)} |" for test, found in told.sole.items())
    others = "\n".join(f"| {reason} | {_named(tests)} |" for reason, tests in told.reasons.items())
    passes = "\n".join(f"| `{suite}` | {times} |" for suite, times in sorted(correct))
    return f"""# Faults that the kit has to find

Written by `make kit`, from the patches in `tests/kit/patches`: each is a small fault in one of this project's own
plugins, and the tests are those of the suites that certify any plugin. {len(found)} faults; \
{sum(1 for _, result in found if result.failed)} found, by {len(catchers)} tests. A run ends with its fifth failure.

| Fault | What it does | Found by |
| --- | --- | --- |
{rows}

## Core tests that are the only ones to find a fault

Only among the tests of the suite that was run on the plugin, which are all but `TestStore` and `TestCapabilities`: with
one failure, every other one of them ran and passed.

| Test | Faults |
| --- | --- |
{alone}

## Core tests that are not, and why

From `tests/kit/reasons.toml`. `make kit` fails where a test is in neither table.

| Why | Tests |
| --- | --- |
{others}

## Without a fault

So often in a row the suites passed on the same plugins as they are:

| Suite | Runs |
| --- | --- |
{passes}
"""


def _named(tests: Sequence[str]) -> str:
    """By their classes."""
    classes = dict.fromkeys(test.partition("::")[0] for test in tests)
    of = {cls: [test.partition("::")[2] for test in tests if test.startswith(f"{cls}::")] for cls in classes}
    return "; ".join(f"`{cls}`: {', '.join(f'`{name}`' for name in names)}" for cls, names in of.items())


def _caught(result: Found) -> str:
    if result.hung:
        return "**hangs: found by no test by name**"
    if not result.failed:
        return "**not found**"
    shown = ", ".join(f"`{name}`" for name in result.failed[:3])
    return f"{shown} and {len(result.failed) - 3} more" if len(result.failed) > 3 else shown


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="the name of a fault; nothing is written then")
    parser.add_argument("--correct", type=int, default=20, help="how often each suite is run without a fault")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    chosen = [fault for fault in faults() if not arguments.only or fault.name in arguments.only]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = []
        for fault, result in zip(chosen, pool.map(_with, chosen), strict=True):
            print(f"{fault.name}: {_caught(result)}", flush=True)  # noqa: T201
            found.append((fault, result))
        if arguments.only:
            return 0
        suites = sorted({fault.suite for fault in chosen})
        correct, wrong = [], []
        for suite in suites:
            runs = list(pool.map(_without, [suite] * arguments.correct))
            correct.append((suite, sum(1 for run in runs if run.passed and not run.failed and not run.hung)))
            wrong += [f"{suite}: {', '.join(run.failed) or 'hangs'}" for run in runs if run.failed or run.hung]
            print(f"{suite}: {correct[-1][1]} of {arguments.correct} without a fault", flush=True)  # noqa: T201
    told = account([(fault.name, result.failed) for fault, result in found], core_tests(), reasons())
    wrong += [f"{test} finds no fault alone, and reasons.toml does not say why" for test in told.without]
    wrong += [f"reasons.toml: {pattern!r} names no core test" for pattern in told.stray]
    wrong += [f"{fault.name} is not found" for fault, result in found if not result.failed]
    for test in told.spare:
        print(f"{test} finds a fault alone: reasons.toml need not say why not")  # noqa: T201
    PAGE.write_text(page(found, correct, told))
    print("\n".join(wrong))  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(_main())
