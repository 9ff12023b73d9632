"""`ikv tail`, run as the program that it is."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore.testing._plugins import open_transport
from ikvcore.testing._raw_events import BYTES, FLOAT32, INT32, STRING, raw_delete_fields, raw_drop, raw_upsert

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

KEY = "[red]name"
TIME = 1_700_000_000_123_456_789


@pytest.fixture
def publish(profiles: None) -> Callable[..., Any]:
    """`publish(event, partition=0)`: put events into the log of `profiles` as they are."""
    from ikvcore.models import Message

    def publish(*values: bytes, partition: int = 0) -> Any:
        log = open_transport("local", "profiles", "demo", "secret", {})
        try:
            return log.publish([Message(partition, b"", value, TIME) for value in values])
        finally:
            log.close()

    return publish


def upsert(key: bytes, **fields: tuple[int, bytes]) -> bytes:
    return raw_upsert({KEY: (STRING, key), **fields})


def test_events_are_lines_that_a_person_can_read(ikv: Ikv, publish: Callable[..., Any]) -> None:
    publish(
        upsert(b"Alice", age=(INT32, b"\x1e\0\0\0"), city=(STRING, b"New York"), raw=(BYTES, b"\0\1")),
        raw_delete_fields({KEY: (STRING, b"Alice")}, ["age", "city"]),
        raw_drop(names=["x"], prefixes=["p_"]),
        raw_drop(drop_all=True),
        b"",
        b"\xff\xff",
    )
    shown = ikv("tail", "profiles", "--no-follow").stdout.splitlines()
    assert shown[:5] == [
        "2023-11-14T22:13:20.123Z 0:0 upsert Alice age:int32=30 'city=New York' raw:bytes=AAE=",
        "2023-11-14T22:13:20.123Z 0:1 delete-fields Alice age city",
        "2023-11-14T22:13:20.123Z 0:2 drop-fields x p_*",
        "2023-11-14T22:13:20.123Z 0:3 clear",
        "2023-11-14T22:13:20.123Z 0:4 no-op",
    ]
    assert shown[5].startswith("2023-11-14T22:13:20.123Z 0:5 bad (2 bytes) it is not an event in the wire format")


def test_what_users_wrote_cannot_steer_a_terminal(ikv: Ikv, publish: Callable[..., Any]) -> None:
    publish(
        upsert(b"\x1b[2J[red]", **{"a\nb": (STRING, "\x9b31m\u202e".encode()), "long": (STRING, b"x" * 5_000)}),
        upsert(b"many", **{f"f{n:03}": (STRING, b"") for n in range(200)}),
    )
    first, second = ikv("tail", "profiles", "--no-follow").stdout.splitlines()
    assert first.isprintable()
    assert r"upsert \x1b[2J[red] a\nb=\x9b31m\u202e" in first
    assert "(5,000 characters)" in first
    assert len(first) < 300
    assert "f019=" in second
    assert second.endswith("and 180 more")
    for line in ikv("tail", "profiles", "--no-follow", "--json").stdout.splitlines():
        assert not set("\x1b\x9b\n") & set(line)


def test_events_are_json_lines(ikv: Ikv, publish: Callable[..., Any]) -> None:
    nan = b"\0\0\xc0\x7f"
    publish(upsert(b"Alice", age=(INT32, b"\x1e\0\0\0"), x=(FLOAT32, nan)), b"\xff", raw_drop(prefixes=[""]))
    first, second, third = map(json.loads, ikv("tail", "profiles", "--no-follow", "--json").stdout.splitlines())
    assert first == {
        "partition": 0,
        "position": 0,
        "time": "2023-11-14T22:13:20.123Z",
        "timestamp": TIME,
        "kind": "upsert",
        "bytes": first["bytes"],
        "key": "Alice",
        "fields": {KEY: "Alice", "age": 30, "x": {"float32": "NaN"}},
    }
    assert (second["kind"], second["bytes"]) == ("bad", 1)
    assert "wire format" in second["reason"]
    assert (third["kind"], third["names"], third["prefixes"]) == ("drop-fields", [], [""])
    typed = json.loads(ikv("tail", "profiles", "--no-follow", "--typed", "--limit", "1").stdout)
    assert typed["fields"]["age"] == {"int32": 30}


def test_it_begins_and_ends_where_it_was_asked_to(ikv: Ikv, publish: Callable[..., Any]) -> None:
    publish(b"", b"", b"")
    publish(b"", partition=1)

    def places(*arguments: str) -> list[str]:
        return sorted(line.split()[1] for line in ikv("tail", "profiles", *arguments).stdout.splitlines())

    assert places("--no-follow") == ["0:0", "0:1", "0:2", "1:0"]
    assert places("--no-follow", "--partition", "1") == ["1:0"]
    assert places("--no-follow", "--from", "0:2", "--from", "1:0") == ["0:2", "1:0"]
    assert places("--no-follow", "--from", "end") == []
    assert places("--from", "beginning", "--partition", "0", "--limit", "2") == ["0:0", "0:1"]


def test_it_follows_and_ends_quietly_with_ctrl_c(publish: Callable[..., Any]) -> None:
    """Each line comes at once, to a pipe too."""
    publish(b"")
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ikv"), "tail", "profiles"],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert "following the log of store 'profiles'" in process.stderr.readline()
    for position in (1, 2):
        publish(b"")
        readable, _, _ = select.select([process.stdout], [], [], 60)
        if not readable:
            process.kill()
        assert process.stdout.readline().split()[1:] == [f"0:{position}", "no-op"]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["tail", "unknown"], 1, "no store 'unknown'"),
        (["tail", "profiles", "--from", "middle"], 2, "--from cannot be 'middle'"),
        (["tail", "profiles", "--from", "beginning", "--from", "0:1"], 2, "--from cannot be 'beginning'"),
        (["tail", "profiles", "--from", "0:0", "--from", "0:1"], 2, "partition 0 twice"),
        (["tail", "profiles", "--from", "0:5"], 1, "partition 0 has no position 5"),
        (["tail", "profiles", "--partition", "9"], 1, "no partition 9"),
    ],
)
def test_a_mistake_is_told_in_two_lines(ikv: Ikv, profiles: None, arguments: list[str], code: int, told: str) -> None:
    done = ikv(*arguments, code=code)
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2
