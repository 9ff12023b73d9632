"""`ikv load`, run as the program that it is."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ikvcore import admin
from ikvcore.cli import _load
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.factory import create_new_reader
from ikvcore.loadreport import LoadReport

Ikv: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
ACCOUNT = {"account_id": "demo", "account_passkey": "secret"}

FLIGHTS = """year,month,day,dep_time,carrier,flight,origin,time_hour
2013,1,1,517,UA,1545,EWR,2013-01-01T10:00:00Z
2013,1,1,NA,B6,725,JFK,2013-01-01T10:00:00Z
2013,1,2,542,AA,1141,NA,2013-01-02T10:00:00Z
"""


@pytest.fixture(autouse=True)
def _extra(requires_part: Callable[..., None]) -> None:
    available = all(map(find_spec, ("duckdb", "pyarrow")))
    requires_part("duckdb and pyarrow", available=available, how='pip install "ikvcore[load]"')


@pytest.fixture
def flights(tmp_path: Path) -> str:
    """A CSV file, and a store "flights" keyed by `id`."""
    admin.create_store("flights", **ACCOUNT, primary_key="id")
    path = tmp_path / "flights.csv"
    path.write_text(FLIGHTS)
    return str(path)


def documents(store: str, mount: Path) -> dict[Any, Any]:
    options = (
        ClientOptionsBuilder()
        .with_store_name(store)
        .with_account_id("demo")
        .with_account_passkey("secret")
        .with_mount_directory(mount)
        .with_console_logging("ERROR")
        .build()
    )
    with create_new_reader(options) as reader:
        return dict(reader.scan())


KEY = ("--primary-key", "printf('%s-%d', carrier, flight)")


def test_files_are_loaded_and_counted(ikv: Ikv, flights: str, tmp_path: Path) -> None:
    """Far from UTC, which must not matter."""
    select = "*, strftime(time_hour, '%H') AS utc_hour"
    done = ikv("load", "flights", flights, "--null", "NA", *KEY, "--select", select, TZ="America/New_York")
    assert [line.split() for line in done.stdout.splitlines()] == [["loaded", "3"], ["refused", "0"]]
    assert done.stderr == ""
    loaded = documents("flights", tmp_path / "mount")
    assert loaded["B6-725"] == {
        "id": "B6-725",
        "year": 2013,
        "month": 1,
        "day": 1,
        "carrier": "B6",
        "flight": 725,
        "origin": "JFK",
        "time_hour": "2013-01-01T10:00:00Z",
        "utc_hour": "10",
    }
    assert loaded["AA-1141"]["dep_time"] == 542
    assert "origin" not in loaded["AA-1141"]


def test_every_option_arrives(ikv: Ikv, flights: str, tmp_path: Path) -> None:
    refused = tmp_path / "refused rows.jsonl"
    odd = Path(flights).rename(tmp_path / "flights.data")
    done = ikv(
        *("load", "flights", str(tmp_path / "*.data"), "--format", "csv", *KEY, "--json", "--errors", str(refused)),
        *("--select", "day, dep_time, time_hour, origin AS from_airport", "--where", "year = 2013 AND day < 3"),
        *("--cast", "dep_time=int32", "--cast", "from_airport=bytes", "--timestamps", "epoch-us", "--batch-size", "2"),
        *("--null", "NIL", "--null", "JFK"),
        code=3,
    )
    assert odd.exists()
    report = json.loads(done.stdout)
    assert (report["rows"], report["loaded"]) == (3, 2)
    assert report["refused"] == {"column 'dep_time' does not become int32": 1}
    assert report["token"].endswith(":0=2")
    (kept,) = map(json.loads, refused.read_text().splitlines())
    assert (kept["row"], kept["values"]["dep_time"], kept["values"]["from_airport"]) == (2, "NA", None)
    assert documents("flights", tmp_path / "mount")["UA-1545"] == {
        "id": "UA-1545",
        "day": 1,
        "dep_time": 517,
        "from_airport": b"EWR",
        "time_hour": 1_357_034_400_000_000,
    }


def test_refused_rows_are_told_with_their_reasons_and_an_exit_code(ikv: Ikv, flights: str) -> None:
    done = ikv("load", "flights", flights, "--cast", "dep_time=int32", "--primary-key", "nullif(flight, 725)", code=3)
    lines = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines == [["loaded", "2"], ["refused", "1"], ["  primary key is NULL", "1"]]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["FILE", "--primary-key", "flihgt"], 1, "did you mean 'flight'?"),
        (["FILE"], 1, "no column is named 'id'"),
        (["FILE.txt"], 1, "there is no file"),
        (["FILE", *KEY, "--cast", "flight"], 2, "write it as COLUMN=TYPE"),
        (["FILE", *KEY, "--cast", "flight=int"], 1, "did you mean"),
        (["FILE", *KEY, "--batch-size", "many"], 2, "--batch-size"),
        (["FILE", *KEY, "--fromat", "csv"], 2, "--format"),
        ([], 2, "FILE"),
    ],
)
def test_a_mistake_is_told_in_a_line_or_two(ikv: Ikv, flights: str, arguments: list[str], code: int, told: str) -> None:
    done = ikv("load", "flights", *(each.replace("FILE", flights) for each in arguments), code=code)
    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") <= 2


def test_a_file_that_breaks_off_is_told_with_what_was_loaded(ikv: Ikv, flights: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    lines = [f"{n},{'x' * 2_000}\n" for n in range(10_000)]
    broken.write_text("id,t\n" + "".join(lines) + "broken\n")
    done = ikv("load", "flights", str(broken), "--json", code=1)
    loaded = json.loads(done.stdout)["loaded"]
    assert 0 < loaded <= 10_000
    assert f"{broken}" in done.stderr
    assert "Line: 10002" in done.stderr
    assert f"{loaded:,} rows before it are loaded; loading again is safe" in done.stderr


def test_ctrl_c_stops_between_batches_and_a_rerun_gives_the_same_store(
    ikv: Ikv, start_ikv: Callable[..., subprocess.Popen[str]], flights: str, tmp_path: Path
) -> None:
    source = tmp_path / "many.csv"
    source.write_text("id,n,t\n" + "".join(f"{n % 9_000},{n},text {n}\n" for n in range(40_000)))
    process = start_ikv("load", "flights", str(source), "--batch-size", "50")
    while not (published := _published()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    loaded = int(shown.splitlines()[0].split()[1].replace(",", ""))
    assert published <= loaded < 40_000
    assert loaded % 50 == 0
    assert loaded == _published()
    assert told == "stopped; loading again goes over the same rows and does no harm\n"

    ikv("load", "flights", str(source))
    admin.create_store("uninterrupted", **ACCOUNT, primary_key="id")
    ikv("load", "uninterrupted", str(source))
    again = documents("flights", tmp_path / "one")
    assert again == documents("uninterrupted", tmp_path / "other")
    assert again["5"] == {"id": "5", "n": 36_005, "t": "text 36005"}


def test_the_batch_in_flight_ends_before_ctrl_c_takes_effect() -> None:
    before = signal.getsignal(signal.SIGINT)
    with _load._watched() as watch:
        assert signal.getsignal(signal.SIGINT) == watch.interrupt
        watch(LoadReport(), None)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            watch(LoadReport(rows=5, loaded=5), 0.5)
        assert watch.report.loaded == 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def _published() -> int:
    return sum(place.end for place in admin.measure_store("flights", **ACCOUNT).bounds.values())


def test_a_terminal_sees_a_bar_with_rate_and_time_left(
    on_terminal: Callable[..., tuple[int, str]], flights: str, tmp_path: Path
) -> None:
    source = tmp_path / "many.csv"
    source.write_text("id,n\n" + "".join(f"{n},{n}\n" for n in range(10_000)))
    code, shown = on_terminal("", "load", "flights", str(source), TERM="xterm")
    assert code == 0
    assert "%" in shown
    assert "rows, " in shown
    assert "/s" in shown
    assert "loaded   10,000" in shown
