"""`ikv status`, run as the program that it is."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore.clientoptions import ClientOptions
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_writer
from ikvcore.models import Secret
from ikvcore.tokens import Token

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
Start: TypeAlias = "Callable[..., subprocess.Popen[str]]"


@pytest.fixture
def options(profiles: None, tmp_path: Path) -> ClientOptions:
    """Those of a service."""
    return ClientOptions(
        store_name="profiles",
        account_id="demo",
        account_passkey=Secret("secret"),
        mount_directory=tmp_path / "mount",
        console_logging="ERROR",
    )


def write(options: ClientOptions, *names: str) -> Token:
    with create_new_writer(options) as writer:
        token = Token()
        for name in names:
            token |= writer.upsert_fields(IKVDocument.from_dict({"[red]name": name}))
        return token


def mount(options: ClientOptions) -> tuple[str, str]:
    return "--mount-directory", str(options.mount_directory)


def test_a_service_that_keeps_up_is_zero(ikv: Ikv, options: ClientOptions, start_service: Callable[..., Any]) -> None:
    service = start_service(options)
    service.documents(write(options, "Alice", "Bob"))
    done = ikv("status", "profiles", *mount(options), "--patience", "60")
    assert done.stderr == ""
    for told in ("ready", "profiles of account demo", f"process {service.pid}, heard of", "2 applied", "gen-1"):
        assert told in done.stdout
    report = json.loads(ikv("status", "profiles", *mount(options), "--patience", "60", "--json").stdout)
    assert (report["state"], report["ready"], report["reason"]) == ("ready", True, "")
    assert report["replica"]["ingester"]["pid"] == service.pid
    assert (report["replica"]["documents"], report["replica"]["lag_events"]) == (2, 0)
    assert report["replica"]["partitions"].keys() == report["log"]["bounds"].keys() == {"0", "1"}


def test_a_service_that_is_gone_or_halted_is_three(
    ikv: Ikv, options: ClientOptions, start_service: Callable[..., Any]
) -> None:
    from ikvcore.models import Message
    from ikvcore.testing._plugins import open_transport

    service = start_service(options)
    log = open_transport("local", "profiles", "demo", "secret", {})
    log.publish([Message(1, b"", b"\xff[red]", 0)])
    log.close()
    status = options.mount_directory / "status.json"  # type: ignore[operator]
    while not json.loads(status.read_bytes())["halts"]:
        assert service.process.poll() is None
    done = ikv("status", "profiles", *mount(options), code=3)
    assert "halted: partition 1: bad event at position 0" in " ".join(done.stdout.split())
    service.end()
    report = json.loads(ikv("status", "profiles", *mount(options), "--json", code=3).stdout)
    assert report["state"] == "stopped"
    assert "bad event at position 0" in report["replica"]["ingester"]["halts"]["1"]


def test_without_a_replica_the_log_alone_is_shown(ikv: Ikv, options: ClientOptions) -> None:
    """The tool's own replica, or one that is named; none is made."""
    write(options, "Alice")
    for arguments in ((), mount(options)):
        done = ikv("status", "profiles", *arguments, code=3)
        assert "absent: there is no replica" in done.stdout
        assert "profiles of account demo" in done.stdout
    assert options.mount_directory is not None
    assert not options.mount_directory.exists()
    assert not (Path(os.environ["IKV_HOME"]) / "mounts").exists()


def test_the_tools_own_replica_has_no_service(ikv: Ikv, options: ClientOptions) -> None:
    write(options, "Alice")
    ikv("get", "profiles", "Alice")
    report = json.loads(ikv("status", "profiles", "--json", code=3).stdout)
    assert (report["state"], report["replica"]["documents"]) == ("stopped", 1)


def test_watch_gives_a_line_of_json_a_round_until_ctrl_c(
    start_ikv: Start, options: ClientOptions, start_service: Callable[..., Any]
) -> None:
    service = start_service(options)
    process = start_ikv("status", "profiles", *mount(options), "--watch", "--interval", "0.05", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["replica"]["documents"] == 0
    service.documents(write(options, "Alice"))
    while json.loads(process.stdout.readline())["replica"]["documents"] != 1:
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_watch_refreshes_a_table_on_a_terminal(options: ClientOptions) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ikv"), "status", "profiles", "--watch", "--interval", "0.05"],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while shown.count(b"absent: there is no replica") < 3:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux's end of a terminal
        pass
    os.close(ours)
    assert process.wait(60) == 130
    assert b"\x1b[1A" in shown
    assert b"Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["status", "unknown"], 1, "no store 'unknown'"),
        (["status", "profiles", "--watch", "--interval", "0"], 2, "0"),
        (["status", "profiles", "--mount-directory", "/dev/null"], 1, "'/dev/null' cannot be used"),
    ],
)
def test_a_mistake_is_told_in_two_lines(ikv: Ikv, profiles: None, arguments: list[str], code: int, told: str) -> None:
    done = ikv(*arguments, code=code)
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2
