"""What every command does: how it ends, and how errors are told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner

from ikvcore.cli import app
from ikvcore.cli._app import _message, _tell
from ikvcore.errors import InvalidArgumentError

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
Start: TypeAlias = "Callable[..., subprocess.Popen[str]]"


def test_an_error_is_shown_without_what_a_terminal_obeys_and_not_at_any_length(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _tell("one\x1b[31m\ntwo")
    assert capsys.readouterr().err == "error: one\\x1b[31m\ntwo\n"
    _tell("x" * 100_000)
    assert len(capsys.readouterr().err) < 2_100


def test_only_what_nobody_foresaw_is_called_a_bug() -> None:
    assert _message(InvalidArgumentError("no")) == "no"
    assert _message(OSError(28, "No space left on device")) == "No space left on device"
    assert _message(OSError(5, "Input/output error", "a\nb")) == "'a\\nb': Input/output error"
    assert _message(KeyError("a")) == "KeyError: 'a'; this is a bug: --debug shows where it is"


@pytest.mark.parametrize("option", ["--mount-directory", "--account-id", "--backend", "--transport"])
def test_an_empty_option_is_refused_and_not_read_as_none(option: str) -> None:
    """As of "$UNSET" in a shell: the replica would be made in the working directory."""
    done = CliRunner().invoke(app, ["scan", "profiles", option, ""], obj={"debug": False})
    assert done.exit_code == 2
    assert f"{option} is empty" in done.output


def test_a_value_of_an_option_that_is_nested_too_deeply_is_refused(ikv: Ikv) -> None:
    told = ikv("scan", "profiles", "--option", "home=" + "[" * 100_000, code=2).stderr
    assert "the value of option 'home' is nested too deeply" in told


def test_a_limit_of_any_size_is_a_limit(ikv: Ikv, profiles: None) -> None:
    assert ikv("scan", "profiles", "--limit", "9" * 30).stderr == "no documents\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_with_its_code_and_without_a_traceback(
    start_ikv: Start, profiles: None, number: signal.Signals, code: int
) -> None:
    process = start_ikv("tail", "profiles")
    assert process.stderr is not None
    assert process.stderr.readline() == "following the log of store 'profiles'; Ctrl-C ends\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (code, "")


def test_ctrl_c_while_modules_are_imported_shows_no_traceback(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, threading\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from ikvcore.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_load_that_is_ended_leaves_no_temporary_file(
    start_ikv: Start, profiles: None, tmp_path: Path, number: signal.Signals
) -> None:
    (spill := tmp_path / "spill").mkdir()
    source = tmp_path / "many.csv"
    source.write_text("id\n" + "".join(f"{n}\n" for n in range(300_000)))
    process = start_ikv(
        *("load", "profiles", str(source), "--primary-key", "id", "--batch-size", "10"), TMPDIR=str(spill)
    )
    while not list(spill.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in told
    assert list(spill.iterdir()) == []
