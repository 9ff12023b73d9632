"""Standard streams that are closed or full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell, in which $ikv is the program."""
    environment = {**os.environ, "ikv": str(Path(sys.executable).with_name("ikv"))}
    quoted = command.replace("$ikv", '"$ikv"')
    return subprocess.run(["bash", "-c", quoted], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", ["get profiles Alice --raw --field a", "scan profiles", "status profiles --json"])
def test_results_that_a_full_disk_does_not_take_are_an_error_and_no_bug(command: str, profiles: None) -> None:
    shell("$ikv put profiles '[red]name=Alice' a=1")
    done = shell(f"$ikv {command} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_results_for_a_closed_stdout_are_an_error(profiles: None) -> None:
    done = shell("$ikv store list --json >&-")
    assert (done.returncode, done.stderr) == (1, "error: Bad file descriptor\n")


def test_a_closed_stdin_holds_no_documents_and_no_answers(profiles: None) -> None:
    done = shell("$ikv put profiles --json - <&-")
    assert (done.returncode, done.stderr) == (1, "error: Bad file descriptor\n")
    done = shell("$ikv drop profiles --all <&-")
    assert done.returncode == 2
    assert "say --yes" in done.stderr


def test_without_any_stream_the_work_is_done(profiles: None, tmp_path: Path) -> None:
    """And no file of the store takes the place of a stream."""
    done = shell("$ikv put profiles '[red]name=Alice' <&- >&- 2>&-")
    assert done.returncode == 0
    assert '"Alice"' in shell("$ikv scan profiles --json").stdout


def test_a_reader_that_stops_reading_is_no_error_to_tell(profiles: None) -> None:
    assert shell("$ikv plugins | true").stderr == ""
