"""Flipped bits and cut files, in the short form: right reads or an error that says what to do, and no signal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore.testing.faults import corruption
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.corruption_apart import Apart
from ikvcore.testing.faults.target import Pair, Target

VICTIM = "ikvcore.testing.faults.corruption_victim"


@pytest.mark.parametrize(
    ("name", "found"), [("damaged-replicas", "rebuilt"), ("damaged-logs", "refused"), ("damaged-manifests", "refused")]
)
def test_damage_is_found_or_does_no_harm(name: str, found: str, tmp_path: Path) -> None:
    """Some of it is, even in the short form: else it was done to what nobody needs."""
    campaign = CAMPAIGNS[name]
    result = campaign.load()(directory=tmp_path / name, seed=1, pair=Pair(), **campaign.short)
    result.require()
    assert any(found in row.happened for row in result.rows), result.rows


def test_what_is_damaged_of_a_replica_is_what_holds_its_documents(tmp_path: Path) -> None:
    """LMDB's file of readers is the larger one at first, and nobody misses what is in it."""
    with Apart(tmp_path / "apart") as apart:
        made = apart.run(f"{VICTIM}:make", home=tmp_path / "home", directory=str(tmp_path), calls=20)
    target = Target.from_json(made.value)
    assert (target.mount() / "gen-1" / "lock.mdb").stat().st_size > 0
    assert [path.name for path in target.replica_files()] == ["data.mdb"]


def test_the_campaign_tells_a_wrong_read(tmp_path: Path) -> None:
    """What is compared is what the log says: a document that nobody wrote is missed."""
    with Apart(tmp_path / "apart") as apart:
        made = apart.run(f"{VICTIM}:make", home=tmp_path / "home", directory=str(tmp_path), calls=20)
        assert not made.error, made.trace
        found = apart.run(f"{VICTIM}:read_log", home=tmp_path / "home", target=made.value).value["documents"]
        read = apart.run(
            f"{VICTIM}:read_replica",
            home=tmp_path / "home",
            target=made.value,
            expected={**found, "key-1": "x"},
            more=0,
        )
    assert "get_rows shows another key-1" in read.value["wrong"]


def test_a_process_that_is_ended_by_a_signal_is_told(tmp_path: Path) -> None:
    with Apart(tmp_path) as apart:
        assert apart.run("os:abort").signal == "SIGABRT"
        raised = apart.run("ikvcore._names:check_name", what="store name", name="..")
    assert (raised.typed, raised.is_a("InvalidNameError"), raised.signal) == (True, True, "")
    assert corruption._judge_end(raised)[0] == "failed"  # it does not say what to do about damage
