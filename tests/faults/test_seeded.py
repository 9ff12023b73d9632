"""The harness's own test: each of these faults, put into the real modules, is found by the check that is named for it.

Tests that could not fail would promise what nobody has looked at.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ikvcore.models import WriteBatch
from ikvcore.testing._plugins import open_backend
from ikvcore.testing.faults.arena import Aim, Arena, until
from ikvcore.testing.faults.checker import CHECKS
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.worker import load_file
from ikvcore.testing.faults.workload import Workload
from ikvcore.testing.faults.zygote import Process, Zygote

FAULTS = Path(__file__).with_name("seeded.py")
SEEDED = load_file(FAULTS).SEEDED
LOCK_IGNORED = f"{FAULTS}:lock_ignored"
PATIENCE = 30.0


def work(arena: Arena, fault: str | None) -> None:
    """A writer to its end, beside a reader that ingests and reads."""
    reader = arena.reader("reader", reads=arena.workload.keys, tokens=True, pace=0.002)
    writer = arena.writer(calls=300, pace=0.0005)
    until(lambda: writer.ended, "the writer is done", PATIENCE)
    until_quiet(arena, reader)
    reader.kill()
    arena.look()


def killed_writers(arena: Arena, fault: str | None) -> None:
    for _ in range(4):
        writer = arena.writer()
        until(lambda w=writer: w.marks.get("acked") >= 20 or w.ended, "some calls", PATIENCE)
        writer.kill()


def killed_ingesters(arena: Arena, fault: str | None) -> None:
    aim = Aim(arena.workload.seed, depth=0.003)
    writer = arena.writer(pace=0.001)
    for _ in range(8):
        reader = arena.reader("ingester")
        until(lambda r=reader: r.marks.get("applied") >= 20 or r.ended, "some events", PATIENCE)
        aim.wait(reader)
        reader.kill()
        arena.look()
    writer.kill()


def two_ingesters(arena: Arena, fault: str | None) -> None:
    writer = arena.writer(pace=0.001)
    readers = [arena.reader(f"reader-{number}") for number in range(2)]
    try:
        until(lambda: all(reader.marks.get("commits") > 5 or reader.ended for reader in readers), "both commit", 5.0)
    except TimeoutError:
        # A fault may halt one of them before it has come that far; what they have done is looked at all the same.
        if fault == LOCK_IGNORED:
            raise
    for _ in range(5):
        time.sleep(0.1)  # how long they are at each other
        arena.look()
    for process in (writer, *readers):
        if not process.ended:
            process.kill()
    arena.look()


def swapped(arena: Arena, fault: str | None) -> None:
    """Two records change places in the engine, as a write that goes astray does it."""
    work(arena, fault)
    pair = arena.target.pair
    engine = open_backend(pair.backend, arena.target.mount() / "gen-1", pair.backend_options)
    with engine.snapshot() as snapshot:
        (first, one), *_, (last, other) = engine.scan(snapshot, b"\x01", b"\x02")
    assert one[4:] != other[4:]
    engine.commit(WriteBatch({first: other, last: one}), expect={})
    engine.close()
    arena.look(fault=fault)


def restored(arena: Arena, fault: str | None) -> None:
    """The log is restored from an old copy, and written on, past the place where the replica is."""
    home = Path(os.environ["IKV_HOME"])
    copy = arena.target.directory / "copy"
    until(arena.writer(calls=60).gone, "the first calls", PATIENCE)
    _copy_files(home, copy)
    until(arena.writer(calls=60).gone, "the lost calls", PATIENCE)
    _follow_for_a_while(arena)
    _copy_files(copy, home)
    (arena.target.directory / "records" / "writer-2.jsonl").unlink()  # its calls are gone by what was done to the log
    until(arena.writer(calls=150).gone, "other calls", PATIENCE)
    _follow_for_a_while(arena)
    arena.look()


def _copy_files(source: Path, place: Path) -> None:
    for path in list(source.rglob("*")):
        if path.is_file():
            (place / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place / path.relative_to(source))


def _follow_for_a_while(arena: Arena) -> None:
    reader = arena.reader("reader")
    until_quiet(arena, reader)
    if not reader.ended:
        reader.kill()


def until_quiet(arena: Arena, reader: Process) -> None:
    """Until a reader has applied what there is, or refuses to, or is dead."""
    last, since = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        applied = reader.marks.get("commits")
        if applied != last:
            last, since = applied, time.monotonic()
        return reader.ended or time.monotonic() - since > (0.4 if last else 1.5)

    until(quiet, "the reader rests", PATIENCE)


SCENARIOS: dict[str, Callable[[Arena, str | None], None]] = {
    each.__name__: each for each in (work, killed_writers, killed_ingesters, two_ingesters, swapped, restored)
}


# -- the tests ---------------------------------------------------------------------------------


def play(scenario: str, zygote: Zygote, directory: Path, fault: str | None) -> set[str]:
    """The names of the checks that found something."""
    path = None if fault is None else f"{FAULTS}:{fault}"
    pair = Pair().with_durability("process-crash")
    arena = Arena(zygote, directory / "target", pair, Workload(seed=7, keys=24), partitions=2, fault=path)
    SCENARIOS[scenario](arena, path)
    return {violation.check for violation in arena.check()}


@pytest.mark.parametrize("seeded", SEEDED, ids=lambda seeded: seeded.fault)
def test_a_seeded_fault_is_found(seeded: Any, zygote: Zygote, tmp_path: Path) -> None:
    """Within some plays: where a kill falls, and who comes first, is not in our hand."""
    found: set[str] = set()
    for number in range(10):
        found |= play(seeded.scenario, zygote, tmp_path / str(number), seeded.fault)
        if seeded.check in found:
            return
    raise AssertionError(f"found {found or 'nothing'}")


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in ("swapped", "restored")])
def test_without_a_fault_nothing_is_found(scenario: str, zygote: Zygote, tmp_path: Path) -> None:
    """Two ingesters side by side are no fault: the compare-and-set keeps them from doing harm."""
    fault = "lock_ignored" if scenario == "two_ingesters" else None
    assert play(scenario, zygote, tmp_path, fault) == set()


def test_swapped_records_are_found_by_their_checksums(zygote: Zygote, tmp_path: Path) -> None:
    """The look itself raises, and says so: no document is shown for another."""
    assert play("swapped", zygote, tmp_path, None) == {"noted"}


def test_a_restored_log_is_refused(zygote: Zygote, tmp_path: Path) -> None:
    """The reader says so, and the replica stays where it was: at a place that the log never had."""
    found = play("restored", zygote, tmp_path, None)
    assert "noted" in found
    assert "applied" not in found


def test_a_replica_that_went_back_is_found(zygote: Zygote, tmp_path: Path) -> None:
    """By its files being those of an earlier copy: all that is in them is right, and it is older than what was seen."""
    pair = Pair().with_durability("process-crash")
    arena = Arena(zygote, tmp_path / "target", pair, Workload(seed=7, keys=24))
    work(arena, None)
    _copy_files(arena.target.mount(), tmp_path / "copy")
    work(arena, None)
    _copy_files(tmp_path / "copy", arena.target.mount())
    arena.look()
    assert {violation.check for violation in arena.check()} == {"advance"}


def test_every_check_is_tested() -> None:
    """`advance` by the test above, all others by a seeded fault."""
    assert {seeded.check for seeded in SEEDED} | {"advance"} == set(CHECKS)
