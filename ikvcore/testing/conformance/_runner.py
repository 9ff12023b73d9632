"""Runs the tests in a process of its own, which an engine may take down, and judges by what that has told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ikvcore._registry import load_backend, load_transport
from ikvcore.errors import InvalidArgumentError
from ikvcore.testing._announcing import kit_version
from ikvcore.testing.conformance._plan import VARIABLE, Plan, Told
from ikvcore.testing.conformance.report import report, write_report
from ikvcore.testing.conformance.tiers import Kind, chosen
from ikvcore.testing.conformance.verdict import Subject, Verdict, judge

__all__ = ["Certified", "certify"]

_CLASS: Final = """\
from ikvcore.testing.conformance import {base}


class Test{kind}({base}):
    name = {name!r}
"""
_NONE_COLLECTED: Final = 5
_SETTINGS: Final = """\
[pytest]
filterwarnings = error
xfail_strict = true
"""


@dataclass(frozen=True, kw_only=True)
class Certified:
    """What a run gave."""

    verdict: Verdict
    report: Mapping[str, Any]


def certify(
    kind: Kind,
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    tiers: Sequence[str],
    seed: int = 1,
    output: Path | None = None,
    file: Path | None = None,
    say: Callable[[str], object] | None = None,
) -> Certified:
    """Run the tiers on a plugin, and write what came of it into `output`.

    file: the author's test file, whose class states deviations and whatever else the plugin needs; without it a class
    is made that names the plugin alone. say: gets each line that pytest prints, as it comes. Raises
    InvalidArgumentError for a tier that there is not, PluginError and its kin, OSError where `output` cannot be made.
    """
    try:
        asked = chosen(tiers)
    except ValueError as exc:
        raise InvalidArgumentError(str(exc)) from exc
    plugin = load_backend(name) if kind == "backend" else load_transport(name)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # before minutes have gone into what cannot be kept
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ikv-conformance-", ignore_cleanup_errors=True) as place:
        run = _Run(Path(place), kind, name, file)
        plan = Plan(
            kind=kind,
            name=name,
            options=dict(options or {}),
            tiers=tuple(tier.name for tier in asked),
            seed=seed,
            records=str(run.records),
        )
        ended = run.carry_out(plan, say)
        told = Told(run.records)
    nothing = Subject(kind=kind, name=name, kit=kit_version(), expected=[], claims=[], deviations={})
    subject = told.subject or nothing
    verdict = judge(subject, told.outcomes, ended=_ended(ended, told, f"class that certifies {kind} {name!r}"))
    content = report(
        verdict,
        distribution=(plugin.distribution, plugin.version),
        declared=told.declared,
        seed=seed,
        seconds=time.monotonic() - began,
    )
    if output is not None:
        write_report(output, verdict, content)
    return Certified(verdict=verdict, report=content)


class _Run:
    """One process of pytest, with files of its own."""

    def __init__(self, place: Path, kind: Kind, name: str, file: Path | None) -> None:
        self._place = place
        self.records = place / "records.jsonl"
        if file is None:
            self._file = place / "tests" / f"certify_{kind}.py"
            self._file.parent.mkdir()
            base = f"{kind.title()}Conformance"
            self._file.write_text(_CLASS.format(base=base, kind=kind.title(), name=name), encoding="utf-8")
        else:
            self._file = file.resolve(strict=True)

    def carry_out(self, plan: Plan, say: Callable[[str], object] | None) -> int:
        """Run it; how it ended, negative for a signal."""
        plan.save(self._place / "plan.json")
        (self._place / "pytest.ini").write_text(_SETTINGS, encoding="utf-8")
        # No option of the surroundings: the same run everywhere. Plugins that choose, repeat or share tests stay out.
        command = [sys.executable, "-m", "pytest", "-c", str(self._place / "pytest.ini"), "--rootdir", str(self._place)]
        command += ["--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "-v"]
        command += ["--confcutdir", str(self._file.parent), "--basetemp", str(self._place / "t"), str(self._file)]
        child = subprocess.Popen(
            command,
            cwd=self._place,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if say is not None:
                    say(line.rstrip("\n"))
            return child.wait()
        finally:
            child.kill()
            child.wait()

    def _environment(self) -> dict[str, str]:
        """Without what this process's clients are set up with, passkeys among it, and without pytest's options."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("IKV_", "PYTEST_"))}
        home = {"IKV_HOME": str(self._place / "home"), VARIABLE: str(self._place / "plan.json")}
        return {**kept, **home, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": "1"}


def _ended(code: int, told: Told, wanted: str) -> str:
    """A sentence where the process did not come to its end; failed tests speak for themselves."""
    if told.subject is None and code == _NONE_COLLECTED:
        return f"the file has no {wanted}"
    if told.subject is None:
        return f"the tests could not be collected: pytest ended with {_word(code)}"
    if code in (0, 1) and not told.doing:
        return ""
    where = f" in the midst of {told.doing}" if told.doing else ""
    return f"the process of the tests ended with {_word(code)}{where}"


def _word(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
