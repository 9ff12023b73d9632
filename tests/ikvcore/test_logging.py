"""ikvcore._logging: where log lines go, and that each goes there once."""

from __future__ import annotations

import io
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikvcore import _logging
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.errors import InvalidOptionError

log = logging.getLogger("ikvcore.some_module")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    _logging.reset()
    yield
    _logging.reset()


def console(level: str) -> ClientOptions:
    return ClientOptionsBuilder().with_console_logging(level).build()


def file(level: str, path: Path) -> ClientOptions:
    return ClientOptionsBuilder().with_file_logging(level, path).build()


def test_without_any_logging_option_info_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    _logging.configure(ClientOptions())
    log.info("heard")
    log.debug("unheard")
    out, err = capsys.readouterr()
    assert out.count("heard") == 1
    assert "INFO" in out
    assert "ikvcore.some_module" in out
    assert err == ""


@pytest.mark.parametrize("name", ["ikvcore", "ikvcore.a.b", "ikv_backends.lmdb", "ikv_transports.local"])
def test_every_logger_of_the_project_is_heard(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _logging.configure(console("DEBUG"))
    logging.getLogger(name).debug("heard")
    assert capsys.readouterr().out.count("heard") == 1


def test_no_other_logger_is_touched(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    _logging.configure(console("TRACE"))
    logging.getLogger("somebody.else").warning("foreign")
    logging.getLogger("ikvcorex").warning("foreign")
    assert (root.level, list(root.handlers)) == before
    assert "foreign" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("ERROR", ["ERROR"]),
        ("warn", ["ERROR", "WARNING"]),
        ("Info", ["ERROR", "WARNING", "INFO"]),
        ("DEBUG", ["ERROR", "WARNING", "INFO", "DEBUG"]),
        ("trace", ["ERROR", "WARNING", "INFO", "DEBUG", "TRACE"]),
    ],
)
def test_each_level_lets_through_itself_and_what_is_graver(
    level: str, heard: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _logging.configure(console(level))
    for number in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, _logging.TRACE):
        log.log(number, "line")
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == heard


def test_with_only_file_logging_nothing_goes_to_the_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _logging.configure(file("DEBUG", tmp_path / "log"))
    log.error("to the file")
    assert "to the file" in (tmp_path / "log").read_text()
    assert capsys.readouterr() == ("", "")


def test_console_and_file_each_have_their_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ClientOptionsBuilder().with_console_logging("ERROR").with_file_logging("DEBUG", tmp_path / "log").build()
    _logging.configure(options)
    log.debug("small")
    log.error("grave")
    assert capsys.readouterr().out.count("\n") == 1
    assert [word in (tmp_path / "log").read_text() for word in ("small", "grave")] == [True, True]


def test_many_clients_share_one_handler_a_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path / "log", tmp_path / "log", tmp_path / "link" / "log"):
        _logging.configure(console("INFO"))
        _logging.configure(file("INFO", path))
    log.info("once")
    assert capsys.readouterr().out.count("once") == 1
    assert (tmp_path / "log").read_text().count("once") == 1
    assert len(logging.getLogger("ikvcore").handlers) == 2


def test_clients_of_different_files_each_get_every_line(tmp_path: Path) -> None:
    _logging.configure(file("INFO", tmp_path / "one"))
    _logging.configure(file("ERROR", tmp_path / "two"))
    log.error("both")
    log.info("first")
    assert "first" in (tmp_path / "one").read_text()
    assert "both" in (tmp_path / "one").read_text()
    assert "first" not in (tmp_path / "two").read_text()
    assert "both" in (tmp_path / "two").read_text()


@pytest.mark.parametrize(("earlier", "later", "heard"), [("DEBUG", "ERROR", 0), ("ERROR", "DEBUG", 1)])
def test_a_later_level_for_the_same_destination_holds(
    earlier: str, later: str, heard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _logging.configure(console(earlier))
    _logging.configure(console(later))
    log.debug("line")
    assert capsys.readouterr().out.count("line") == heard


def test_threads_that_configure_at_once_make_one_handler(capsys: pytest.CaptureFixture[str]) -> None:
    barrier = threading.Barrier(8)

    def configure() -> None:
        barrier.wait()
        _logging.configure(console("INFO"))

    threads = [threading.Thread(target=configure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.info("once")
    assert capsys.readouterr().out.count("once") == 1


def test_the_file_is_created_at_the_first_record_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or pytest keeps the record, and cannot send half a character to the process that reports.
    monkeypatch.setattr(logging.getLogger("ikvcore"), "propagate", False)
    path = tmp_path / "log"
    mask = os.umask(0)
    try:
        _logging.configure(file("INFO", path))
        assert not path.exists()
        log.info("naïve \ud800 line")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "naïve" in path.read_text(encoding="utf-8")


def test_an_existing_log_file_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("earlier\n")
    _logging.configure(file("INFO", tmp_path / "log"))
    log.info("later")
    assert (tmp_path / "log").read_text().startswith("earlier\n")


def test_a_log_file_that_cannot_be_written_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "log", Path("/dev/null/log")):
        options = ClientOptionsBuilder().with_console_logging("INFO").with_file_logging("INFO", path).build()
        with pytest.raises(InvalidOptionError, match="file_logging"):
            _logging.configure(options)
    assert logging.getLogger("ikvcore").handlers == []


def test_stdout_is_looked_up_at_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    _logging.configure(console("INFO"))
    for _ in range(2):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        log.info("line")
        assert stream.getvalue().count("line") == 1
    monkeypatch.setattr(sys, "stdout", None)
    log.info("a process without a console goes on")


def test_records_reach_the_handlers_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    _logging.configure(console("DEBUG"))
    log.debug("for the application")
    assert "for the application" in caplog.text


def test_a_line_that_the_application_writes_to_stdout_itself_is_not_written_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        _logging.configure(console("INFO"))
        log.warning("by the application")
        log.info("by us")
    finally:
        root.removeHandler(handler)
    out = capsys.readouterr().out
    assert out.count("by the application") == 1
    assert out.count("by us") == 1


PROGRAM = """
import logging
from ikvcore import _logging
from ikvcore.clientoptions import ClientOptions
logging.basicConfig(format="application %(message)s")
_logging.configure(ClientOptions())
logging.getLogger("ikvcore.x").info("line")
"""


def test_an_application_that_logs_to_stderr_sees_one_line_where_both_are_one_place_and_else_one_in_each() -> None:
    merged = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert merged.stdout == "application line\n"
    apart = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert apart.stderr == "application line\n"
    assert apart.stdout.endswith("ikvcore.x: line\n")
    assert apart.stdout.count("line") == 1


def test_the_trace_level_has_a_name() -> None:
    assert logging.getLevelName(_logging.TRACE) == "TRACE"
    assert _logging.TRACE < logging.DEBUG
