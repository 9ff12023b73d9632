"""Faults cost replicas on sqlite nothing, in the short form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ikvcore.testing.faults.campaigns import CAMPAIGNS
from short_forms import HOW_OFTEN, LONG, run, those_of


@pytest.mark.parametrize("name", those_of("sqlite"))
def test_a_fault_costs_nothing(name: str, tmp_path: Path, requires_part: Callable[..., None]) -> None:
    run("sqlite", name, tmp_path / name, requires_part)


def test_each_campaign_of_replicas_is_run_on_other_backends_or_is_known_to_be_long() -> None:
    assert {name for name, campaign in CAMPAIGNS.items() if campaign.of_replicas} == HOW_OFTEN.keys() | LONG.keys()
