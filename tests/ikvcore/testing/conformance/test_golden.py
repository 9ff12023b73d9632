"""Golden files: written with a command, opened by the format tier, and what it must not let pass."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ikvcore.testing.conformance import BackendConformance, TransportConformance
from ikvcore.testing.conformance._golden import built_in

IKV = Path(sys.executable).with_name("ikv")
KIT = Path(sys.modules["ikvcore.testing.conformance._golden"].__file__ or "").with_name("golden")
OPENS = "TestFormat::test_golden_files_open"


def write(kind: str, name: str, into: Path, code: int = 0) -> str:
    command = [IKV, "conformance", kind, name, "--write-golden", str(into)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def changed(archive: Path, into: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive once more in a directory, each file as `change` makes it, None to leave it out."""
    into.mkdir()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(into / archive.name, "w") as new:
        for info in old.infolist():
            content = change(info.filename, old.read(info))
            if content is not None:
                new.writestr(info, content)
    return into


@pytest.mark.parametrize("name", ["lmdb", "sqlite", "rocksdb", "duckdb"])
def test_the_kit_has_golden_files_of_the_backends_that_keep_files(name: str) -> None:
    class Mine(BackendConformance):
        pass

    Mine.name = name
    assert Mine.golden_files() == KIT / f"backend-{name}"


def test_the_kit_has_golden_files_of_the_local_log_and_they_are_small() -> None:
    class Mine(TransportConformance):
        name = "local"

    assert Mine.golden_files() == KIT / "transport-local"
    assert built_in("transport", "memory") is None
    assert sum(path.stat().st_size for path in KIT.rglob("*.zip")) < 200_000


def test_the_kits_golden_files_do_not_name_the_host_that_wrote_them() -> None:
    """RocksDB's tables do by themselves."""
    (archive,) = (KIT / "backend-rocksdb").glob("*.zip")
    with zipfile.ZipFile(archive) as packed:
        tables = [packed.read(name) for name in packed.namelist() if name.endswith(".sst")]
    assert tables
    assert all(b"host.identitylocalhost" in table for table in tables)


@pytest.mark.usefixtures("faulty")
def test_an_authors_golden_files(tmp_path: Path, run_pytest: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Written by a release, opened by the next one: those that it opens pass, and whatever is not as it was fails."""
    mine, its_kin = tmp_path / "mine", tmp_path / "its kin"
    assert "untidy-1.5.zip" in write("backend", "untidy", mine)
    assert "is there: golden files are written once for each version" in write("backend", "untidy", mine, code=1)
    write("backend", "forgetful", its_kin)
    emptied = changed(
        mine / "untidy-1.5.zip",
        tmp_path / "emptied",
        lambda name, content: None if name.endswith("replica.sqlite") else content,
    )
    (tmp_path / "none").mkdir()
    said = run_pytest(
        "".join(
            f"class Test{title}(BackendConformance):\n    name, tiers = {name!r}, ('format',)\n    golden = {golden}\n"
            for title, name, golden in [
                ("Opens", "untidy", f"__import__('pathlib').Path({str(mine)!r})"),
                ("Misreads", "forgetful", f"__import__('pathlib').Path({str(its_kin)!r})"),
                ("BuildsAnew", "untidy", f"__import__('pathlib').Path({str(emptied)!r})"),
                ("HasNone", "untidy", f"__import__('pathlib').Path({str(tmp_path / 'none')!r})"),
                ("NamesNone", "untidy", "None"),
            ]
        ),
        "-vv",
    ).stdout
    ends = dict(line.split()[:2] for line in said.splitlines() if re.match(f"test_mine.py::.*::{OPENS} ", line))
    assert {name.split("::")[1]: end for name, end in ends.items()} == {
        "TestOpens": "PASSED",
        "TestMisreads": "FAILED",
        "TestBuildsAnew": "FAILED",
        "TestHasNone": "FAILED",
        "TestNamesNone": "SKIPPED",
    }, said
    assert "the replica was built anew" in said
    assert "there is no golden file (*.zip) in" in said
    assert f"{OPENS} was skipped" not in said  # which is excused


def test_a_log_whose_events_are_not_at_their_places_fails(
    tmp_path: Path, run_pytest: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def other(name: str, content: bytes) -> bytes:
        if name != "golden.json":
            return content
        about = json.loads(content)
        about["places"][3][1] += 1
        return json.dumps(about).encode()

    (archive,) = (KIT / "transport-local").glob("*.zip")
    golden = changed(archive, tmp_path / "moved", other)
    done = run_pytest(
        "from pathlib import Path\nclass TestMine(TransportConformance):\n    name, tiers = 'local', ('format',)\n"
        f"    golden = Path({str(golden)!r})\n"
    )
    assert f"PROBLEM: {OPENS} failed" in done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "why"), [("backend", "memory", "keeps no files"), ("transport", "memory", "keeps no files")]
)
def test_what_keeps_no_files_has_none_to_write(tmp_path: Path, kind: str, name: str, why: str) -> None:
    assert why in write(kind, name, tmp_path / "golden", code=1)
    shutil.rmtree(tmp_path / "golden", ignore_errors=True)
