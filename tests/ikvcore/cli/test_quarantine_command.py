"""`ikv quarantine`, run as the program that it is."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore.clientoptions import ClientOptions
from ikvcore.factory import create_new_reader
from ikvcore.inspection import inspect_store, quarantined_events
from ikvcore.models import Message, Secret
from ikvcore.testing._plugins import open_transport

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def options(profiles: None, tmp_path: Path) -> ClientOptions:
    """Those of a service that passes over bad events; three are in the log."""
    log = open_transport("local", "profiles", "demo", "secret", {})
    log.publish([Message(1, b"[red]", b"\xff" + value, 1_700_000_000_123_456_789) for value in (b"0", b"1", b"2")])
    log.close()
    return ClientOptions(
        store_name="profiles",
        account_id="demo",
        account_passkey=Secret("secret"),
        mount_directory=tmp_path / "mount",
        on_bad_event="quarantine",
        console_logging="ERROR",
    )


@pytest.fixture
def mount(options: ClientOptions) -> tuple[str, str]:
    """The options that name a replica which has seen all three, and which nobody has open."""
    with create_new_reader(options):
        pass
    return "--mount-directory", str(options.mount_directory)


def sequences(options: ClientOptions) -> list[int]:
    return list(quarantined_events(options))


def test_events_are_listed_for_people_and_for_programs(ikv: Ikv, mount: tuple[str, str]) -> None:
    shown = ikv("quarantine", "list", "profiles", *mount).stdout
    for told in ("1:0", "1:2", "2023-11-14T22:13:20.123Z", "wire format"):
        assert told in shown
    _, event, _ = json.loads(ikv("quarantine", "list", "profiles", *mount, "--json").stdout)
    assert (event["sequence"], event["partition"], event["position"], event["bytes"]) == (1, 1, 1, 2)
    assert base64.b64decode(event["value"]["bytes"]) == b"\xff1"
    assert base64.b64decode(event["key"]["bytes"]) == b"[red]"


def test_events_are_dropped_by_their_numbers_and_all(ikv: Ikv, options: ClientOptions, mount: tuple[str, str]) -> None:
    assert ikv("quarantine", "drop", "profiles", "1", *mount, "--yes").stderr == "1 event dropped\n"
    assert sequences(options) == [0, 2]
    assert ikv("quarantine", "drop", "profiles", "--all", *mount, "--yes").stderr == "2 events dropped\n"
    done = ikv("quarantine", "list", "profiles", *mount)
    assert done.stdout == ""
    assert "keeps no bad events" in done.stderr


def test_events_are_dropped_beside_a_service(
    ikv: Ikv, options: ClientOptions, start_service: Callable[..., Any]
) -> None:
    service = start_service(options)
    assert inspect_store(options, patience=60).ready
    mount = ("--mount-directory", str(options.mount_directory))
    assert ikv("quarantine", "drop", "profiles", "--all", *mount, "--yes").stderr == "3 events dropped\n"
    assert sequences(options) == []
    assert service.process.poll() is None
    assert inspect_store(options, patience=60).ready


@pytest.mark.parametrize(("answer", "left"), [("n\n", [0, 1, 2]), ("y\n", [0, 2])])
def test_on_a_terminal_a_drop_is_asked_for(
    on_terminal: Callable[..., tuple[int, str]],
    options: ClientOptions,
    mount: tuple[str, str],
    answer: str,
    left: list[int],
) -> None:
    code, shown = on_terminal(answer, "quarantine", "drop", "profiles", "1", *mount)
    assert "for ever?" in shown
    assert code == (1 if len(left) == 3 else 0)
    assert sequences(options) == left


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "sequence numbers, or --all"),
        (["1", "--all"], 2, "sequence numbers, or --all"),
        (["one"], 2, "valid integer"),
        (["1"], 2, "--yes"),
        (["1", "9", "--yes"], 1, "no event 9; nothing was dropped"),
    ],
)
def test_a_mistake_is_told_in_two_lines_and_drops_nothing(
    ikv: Ikv, options: ClientOptions, mount: tuple[str, str], arguments: list[str], code: int, told: str
) -> None:
    done = ikv("quarantine", "drop", "profiles", *arguments, *mount, code=code)
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2
    assert sequences(options) == [0, 1, 2]


def test_where_there_is_no_replica_that_is_an_error(ikv: Ikv, profiles: None) -> None:
    done = ikv("quarantine", "list", "profiles", code=1)
    assert "there is no replica in it" in done.stderr
    assert done.stderr.count("\n") == 1
