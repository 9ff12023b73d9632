"""The tests that tiers have beside the suites: short forms of them, and the faults that they must find."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from ikvcore.testing._parallel import spawned
from ikvcore.testing.conformance._contention import KEYS, Contention, _Watch
from ikvcore.testing.conformance._formats import LogFormat
from ikvcore.testing.conformance._golden import built_in
from ikvcore.testing.conformance._harm import PowerLosses
from ikvcore.testing.conformance._profile import Profile
from ikvcore.testing.conformance._resources import BackendRounds, TransportRounds, open_storages
from ikvcore.testing.conformance._stateful import Stateful
from ikvcore.testing.faults.leaks import Sample, grown
from ikvcore.testing.faults.result import Result, Row

FAST = {"durability": "process-crash"}


class TestContention(Contention):
    """Two processes that share a mount."""

    backend, transport, events = "lmdb", "local", 1_600
    backend_options: ClassVar[dict[str, str]] = FAST
    transport_options: ClassVar[dict[str, str]] = FAST


class TestContentionOfOneProcess(Contention):
    """Where nothing is shared."""

    backend, transport, events = "memory", "memory", 1_600


class TestStateful(Stateful):
    """One seed."""

    backend, transport, examples, steps = "memory", "memory", 3, 10


class TestLogFormat(LogFormat):
    """A log in files; the replica's is tested with the command."""

    backend, transport = "memory", "local"
    golden: ClassVar[Path | None] = built_in("transport", "local")


class TestBackendRounds(BackendRounds):
    """A storage in files."""

    backend, transport, rounds = "sqlite", "local", 60


class TestTransportRounds(TransportRounds):
    """A log in files."""

    backend, transport, rounds = "memory", "local", 60
    transport_options: ClassVar[dict[str, str]] = FAST


class TestProfile(Profile):
    """What is measured has no mark, and is all there."""

    backend, transport, reads, writes = "memory", "memory", 200, 10

    @pytest.fixture(autouse=True)
    def _told(self, request: pytest.FixtureRequest) -> Any:
        yield
        measured = dict(request.node.user_properties)["conformance"]
        assert measured["read_one_field_us"].keys() == {"times", "p50", "p90", "p99", "p99_9", "max"}
        assert "processors" in measured["machine"]


# -- they must be able to fail -------------------------------------------------------------------


@pytest.mark.usefixtures("faulty")
def test_an_end_that_is_not_the_logs_is_found(run_pytest: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Documents are as they were seen first, by whoever reads all keys."""
    done = run_pytest(
        "from ikvcore.testing.conformance._contention import Contention\n"
        "class TestStale(Contention):\n    backend, transport, events = 'stale', 'memory', 1600\n"
    )
    assert done.returncode == 1
    assert re.search(r"_contention.py:\d+: AssertionError", done.stdout), done.stdout


def watch(*rows: tuple[str, str] | None) -> _Watch:
    """One that has been shown these (left, right) of the first key, one after the other."""
    shown = iter(rows)

    def multiget(_: object) -> list[dict[str, str] | None]:
        row = next(shown)
        first = None if row is None else {"left": row[0], "right": row[1]}
        return [first, *[None] * (len(KEYS) - 1)]

    reader: Any = SimpleNamespace(multiget_documents=multiget)
    found = _Watch(reader, {}, {})
    for _ in rows:
        found.look()
    return found


def test_fields_of_two_events_in_one_read_are_seen() -> None:
    with pytest.raises(AssertionError, match="fields of two events"):
        watch(("1:5", "1:6"))


def test_a_sequence_that_goes_back_is_seen() -> None:
    """Of one writer; another one's may be lower."""
    assert watch(("1:5", "1:5"), ("2:3", "2:3"), ("1:6", "1:6")).sequences == {("a", 1): 6, ("a", 2): 3}
    with pytest.raises(AssertionError, match="'a' went back from 5 to 4 of writer 1"):
        watch(("1:5", "1:5"), ("2:3", "2:3"), ("1:4", "1:4"))


def test_a_document_that_vanishes_is_seen() -> None:
    with pytest.raises(AssertionError, match="'a' was there, and is not"):
        watch(None, ("1:5", "1:5"), None)


def test_a_place_that_goes_back_is_seen() -> None:
    places = iter([5, 7, 6])
    reader: Any = SimpleNamespace(stats=lambda: SimpleNamespace(partitions={0: SimpleNamespace(position=next(places))}))
    looking = _Watch(reader, {}, {})
    looking.look_at_places()
    looking.look_at_places()
    with pytest.raises(AssertionError, match="partition 0 went back from 7 to 6"):
        looking.look_at_places()


def test_a_descriptor_that_each_opening_keeps_is_found(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(faulty))
    with spawned(open_storages, "leaking", {}, str(tmp_path), 60) as result:
        samples = [Sample(*sample) for sample in result()]
    assert any(found.startswith("descriptors grew") for found in grown(samples, 60))


def campaign(monkeypatch: pytest.MonkeyPatch, result: Result, directory: Path) -> None:
    """Play the power losses of the default pair, which come to `result`."""

    class Mine(PowerLosses):
        backend, transport = "lmdb", "local"

    monkeypatch.setattr("ikvcore.testing.faults.powerloss.run", lambda **_: result)
    Mine().test_dropped_writes(directory)


def test_a_campaign_that_was_violated_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = Row(fault="seeded", times=1, happened="lost", violations=1, seed=1)
    with pytest.raises(AssertionError, match="seeded: 1"):
        campaign(monkeypatch, Result(rows=[row]), tmp_path)


def test_a_campaign_that_was_not_run_is_skipped_and_no_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="no strace"):
        campaign(monkeypatch, Result(rows=[], not_run=["no strace"]), tmp_path)
