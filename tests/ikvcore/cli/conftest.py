"""The real `ikv` executable, without a terminal or on one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ikvcore import _passkeys, admin

IKV = Path(sys.executable).with_name("ikv")


def _environment(changes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in {**os.environ, "COLUMNS": "100", **changes}.items() if value}


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is meant, unless a test says otherwise."""
    monkeypatch.setenv("IKV_ACCOUNT_ID", "demo")
    monkeypatch.setenv("IKV_ACCOUNT_PASSKEY", "secret")
    # Accounts that this process makes: each start of the command looks at the passkey, slowly on purpose.
    monkeypatch.setattr("ikvcore._passkeys._NOBODY", _passkeys._NOBODY._replace(log_n=6))  # what new hashes are made by


@pytest.fixture
def ikv() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`ikv("get", "profiles", "Alice", code=0, stdin=None, **changes)`: run the command and check its exit code.

    `changes` are to the environment, "" for none of a variable.
    """

    def run(
        *arguments: str, code: int = 0, stdin: str | None = None, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [IKV, *arguments],
            env=_environment(changes),
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def start_ikv() -> Callable[..., subprocess.Popen[str]]:
    """Start the command and leave it running; the test ends it."""

    def start(*arguments: str, **changes: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [IKV, *arguments],
            env={**_environment(changes), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def on_terminal() -> Callable[..., tuple[int, str]]:
    """`on_terminal("y\\n", "store", "delete", ...)`: run the command on a terminal that types the answers; its exit
    code and what the terminal showed.
    """

    def run(answers: str, *arguments: str, **changes: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [IKV, *arguments],
            env=_environment(changes),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.write(ours, answers.encode())
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # Linux's end of a terminal
            pass
        os.close(ours)
        return process.wait(timeout=60), shown.decode()

    return run


@pytest.fixture
def profiles() -> None:
    """A store `profiles` of two partitions, keyed by a field whose name looks like rich's markup."""
    admin.create_store("profiles", account_id="demo", account_passkey="secret", primary_key="[red]name", partitions=2)
