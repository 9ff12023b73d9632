"""The load as a process: memory, threads that end, interruption, what must be installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS = 400_000


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_memory_is_bounded_whatever_the_size_of_the_file(tmp_path: Path, form: str) -> None:
    """Much more than the limit is read: had the file, its rows or the documents been kept, it would be passed."""
    import duckdb

    source = tmp_path / f"large.{form}"
    with duckdb.connect() as connection:
        # Texts that do not compress, so that the Parquet file is no smaller than what it holds.
        text = " || ".join(f"md5('{n}' || range)" for n in range(20))
        connection.sql(f"SELECT range AS id, {text} AS t, range / 7 AS f FROM range({ROWS})").to_view("v")
        connection.execute(
            f"COPY v TO '{source}' (ROW_GROUP_SIZE 20000)" if form == "parquet" else f"COPY v TO '{source}'"
        )
    assert source.stat().st_size > 250_000_000
    code = """
        import sys
        from pathlib import Path
        from ikvcore.testing.fixtures import EphemeralStore
        from ikvcore.tokens import Token
        with EphemeralStore() as store:
            # The log in memory would hold everything: it is the loading that is measured.
            store.writer._transport.publish = lambda messages: Token("log", {0: 1})
            print(store.writer.load(sys.argv[1]).loaded)
        # Not ru_maxrss, which a process has from the one that started it.
        (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        print(peak.split()[1])
    """
    done = run(code, str(source))
    assert done.returncode == 0, done.stderr
    loaded, kilobytes = map(int, done.stdout.split())
    assert loaded == ROWS
    assert kilobytes < 300_000


def test_nothing_is_left_behind_by_a_load_that_was_broken_off(
    store: Any, parquet: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    source = parquet("SELECT range AS id FROM range(200000)")

    def interrupt(report: Any, share: float | None) -> None:
        if report.loaded:
            assert list(spill.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.writer.load(source, progress=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name == "ikv-load"]
    assert list(spill.iterdir()) == []
    assert store.load(source, where="id < 10").loaded == 10


def test_a_wait_for_rows_can_be_broken_off(store: Any, parquet: Callable[[str], str]) -> None:
    """No row comes for a long time: progress is told nevertheless, and ends the load and its query."""
    source = parquet("SELECT range AS id FROM range(1000)")
    calls: list[int] = []

    def impatient(report: Any, share: float | None) -> None:
        calls.append(report.rows)
        if len(calls) == 3:
            raise TimeoutError

    endless = "(SELECT count(*) FROM range(100000000) AS a(x), range(1000) AS b(y) WHERE x + y + id = 5) = -1"
    with pytest.raises(TimeoutError):
        store.writer.load(source, where=endless, progress=impatient)
    assert calls == [0, 0, 0]


@pytest.mark.parametrize("missing", ["duckdb", "pyarrow"])
def test_without_the_extra_the_command_that_installs_it_is_told(missing: str) -> None:
    code = f"""
        import sys
        from importlib.abc import MetaPathFinder
        class Block(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == {missing!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Block())
        from ikvcore.errors import MissingExtraError
        from ikvcore.testing.fixtures import EphemeralStore
        with EphemeralStore() as store:
            try:
                store.writer.load("a.csv")
            except MissingExtraError as error:
                assert isinstance(error, ImportError)
                print(error)
    """
    done = run(code)
    assert done.stdout == (
        f'load needs {missing}, which is not installed; install it with: pip install "ikvcore[load]"\n'
    ), done.stderr


def test_only_this_room_is_opened_by_load_and_only_then() -> None:
    code = """
        import sys
        from ikvcore.testing.fixtures import EphemeralStore
        with EphemeralStore() as store:
            store.put(id="1")
            print(sorted({"duckdb", "pyarrow", "pandas", "polars", "ikv_load"} & set(sys.modules)))
    """
    assert run(code).stdout == "[]\n"
