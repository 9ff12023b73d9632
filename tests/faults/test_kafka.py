"""Faults of brokers, topics and producers, each a few times: `make faults TRANSPORT=kafka` does all of them, 20 times.

Most of each is waiting, so all are begun at once, in threads. One broker is shared by all but those that kill theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from ikvcore.testing.faults.result import Result
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.worker import load_file
from kafka_faults.__main__ import CAMPAIGNS, main

FAULTS = Path(__file__).with_name("seeded_kafka.py")
SEEDED = load_file(FAULTS).SEEDED
CALM = ("slow-reader", "killed-producers", "topic-made-again", "log-overtaken", "bad-messages")  # the longest first
ROUGH = "broker-frozen"
APART = ("leader-killed", "broker-killed")


def play(name: str, directory: Path, **more: Any) -> Result:
    campaign = CAMPAIGNS[name]
    return campaign.load()(directory=directory, seed=1, pair=Pair(), **{**campaign.short, **more})


@pytest.fixture(scope="module")
def results(broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Result]]]:
    """What every campaign comes to, with and without faults, by its name."""
    place = tmp_path_factory.mktemp("kafka")
    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(1) as after:
        first, last = APART
        found = {first: pool.submit(play, first, place / first)}
        found |= {name: pool.submit(play, name, place / name, broker=broker) for name in CALM}
        for each in SEEDED:
            more = {"times": each.times, "fault": f"{FAULTS}:{each.fault}", "broker": broker}
            found[each.fault] = pool.submit(play, each.campaign, place / each.fault, **more)
        calm = [future for name, future in found.items() if name != first]
        found[last] = pool.submit(play, last, place / last)

        def rough() -> Result:
            """The broker is not taken away from the others."""
            for each in calm:
                each.exception()
            return play(ROUGH, place / ROUGH, broker=broker)

        found[ROUGH] = after.submit(rough)
        yield found


@pytest.mark.parametrize("name", [*CALM, ROUGH, *APART])
def test_every_replica_ends_equal_to_the_model(name: str, results: dict[str, Future[Result]]) -> None:
    results[name].result().require()


@pytest.mark.parametrize("seeded", SEEDED, ids=lambda seeded: seeded.fault)
def test_a_seeded_fault_is_found(seeded: Any, results: dict[str, Future[Result]]) -> None:
    violations = results[seeded.fault].result().violations
    assert any(seeded.finding in violation for violation in violations), violations[:5]


def test_every_campaign_is_played() -> None:
    assert {*CALM, ROUGH, *APART} == set(CAMPAIGNS)


def test_the_program_takes_the_campaigns_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "no-such-campaign"])
    assert "leader-killed" in capsys.readouterr().err
