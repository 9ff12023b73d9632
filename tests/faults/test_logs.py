"""Logs with bad events, and logs that were changed behind the backs of those who follow them, in the short form."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.target import Pair


@pytest.mark.parametrize("name", ["bad-events", "changed-logs"])
def test_nothing_is_left_out_in_silence(name: str, tmp_path: Path) -> None:
    campaign = CAMPAIGNS[name]
    campaign.load()(directory=tmp_path / name, seed=1, pair=Pair(), **campaign.short).require()
