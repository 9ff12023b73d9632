"""A distribution with backends that break the contract, and a way to run pytest on an author's file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAULTY = """
import os, signal
from dataclasses import replace
from ikv_backends.sqlite import SqliteStorage, ikv_backend_info
from ikvcore.hookspecs import hookimpl

class Forgetful(SqliteStorage):
    def scan(self, snapshot, start, stop, /):
        pairs = list(super().scan(snapshot, start, stop))
        yield from pairs[:-1] if len(pairs) > 30 else pairs

class Dying(SqliteStorage):
    def scan(self, snapshot, start, stop, /):
        os.kill(os.getpid(), signal.SIGKILL)

class Stale(SqliteStorage):
    first = {}
    def get_many(self, snapshot, keys, /):
        found = super().get_many(snapshot, keys)
        return self.first.setdefault(tuple(keys), found) if len(keys) == 4 and None not in found else found

class Leaking(SqliteStorage):
    def __init__(self, directory, options):
        os.open(os.devnull, os.O_RDONLY)
        super().__init__(directory, options)

class Untidy(SqliteStorage):
    def close(self):
        super().close()
        (self.directory / "left.tmp").touch()
    def __init__(self, directory, options):
        self.directory = directory
        super().__init__(directory, options)

class Plugin:
    def __init__(self, name, storage):
        self.name, self.storage = name, storage
    @hookimpl
    def ikv_backend_info(self):
        return replace(ikv_backend_info(), name=self.name)
    @hookimpl
    def ikv_open_backend(self, context):
        return self.storage(context.directory, context.options)

forgetful, dying = Plugin("forgetful", Forgetful), Plugin("dying", Dying)
stale, leaking = Plugin("stale", Stale), Plugin("leaking", Leaking)
untidy = Plugin("untidy", Untidy)
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where processes of a test find backends `forgetful`, whose long scans lack their last pair, `dying`, whose scans
    kill the process, `stale`, which gives what it gave first, `leaking`, which keeps descriptors, and `untidy`, which
    breaks no rule but leaves a file when it is closed.
    """
    place = tmp_path / "site"
    info = place / "faulty-1.5.dist-info"
    info.mkdir(parents=True)
    (place / "faulty.py").write_text(FAULTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.5\n")
    names = ("forgetful", "dying", "stale", "leaking", "untidy")
    points = "".join(f"{name} = faulty:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[ikv_backends]\n{points}")
    monkeypatch.setenv("PYTHONPATH", str(place))
    return place


Pytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """`run_pytest(text, *options)`: pytest on an author's file, in a directory of its own."""

    def run(text: str, *options: str) -> subprocess.CompletedProcess[str]:
        place = tmp_path / "an author's project"
        place.mkdir(exist_ok=True)
        head = "from ikvcore.testing.conformance import BackendConformance, TransportConformance\n"
        (place / "test_mine.py").write_text(head + text)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.run(
            [*command, *options, "test_mine.py"], cwd=place, env=kept, capture_output=True, text=True, timeout=300
        )

    return run
