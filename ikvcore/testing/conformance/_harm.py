"""The crash and hostile tiers: the fault harness's campaigns, in their short form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ikvcore.clientoptions import DEFAULT_TRANSPORT
from ikvcore.models import Durability
from ikvcore.testing._store_base import StoreBase
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.result import Result
from ikvcore.testing.faults.target import Pair

__all__ = ["DamagedFiles", "HostileEvents", "Kills", "PowerLosses"]


class _Campaigns(StoreBase):
    """One campaign a test, on the pair of plugins under test."""

    seed: ClassVar[int] = 1
    how_often: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other figures than the harness's own short ones."""

    def play(self, name: str, directory: Path) -> None:
        """Run one; its violations fail the test."""
        pair = Pair(
            backend=self.backend,
            transport=self.transport,
            backend_options=dict(self.backend_options),
            transport_options=dict(self.transport_options),
        )
        campaign = CAMPAIGNS[name]
        reason = campaign.why_not(pair)
        if reason:
            pytest.skip(reason)
        how_often = self.how_often.get(name, campaign.short)
        result: Result = campaign.load()(directory=directory / name, seed=self.seed, pair=pair, **how_often)
        result.require()
        if not result.rows:
            pytest.skip("; ".join(result.not_run) or "nothing of it can be done to this plugin")

    def needs_what_outlives_a_process(self) -> None:
        """The harness's writers and readers are processes of their own, which are killed."""
        if not self.transport_info.process_shared:
            pytest.skip("the log is for one process")
        if min(self.backend_info.durability, self.transport_info.durability) < Durability.PROCESS_CRASH:
            pytest.skip("declares no durability")

    def needs_shared_log(self) -> None:
        """The harness reads it from processes of its own."""
        if not self.transport_info.process_shared:
            pytest.skip("the log is for one process")

    def needs_known_files(self) -> None:
        """What is done to a log's files knows which they are."""
        if self.transport != DEFAULT_TRANSPORT:
            pytest.skip("the kit does not know the log's files")


class Kills(_Campaigns):
    """kill -9 at random moments, and right before, inside and after commits."""

    def test_kill_9_of_a_writer(self, tmp_path: Path) -> None:
        """Nothing that was acknowledged is lost, nothing is invented."""
        self.needs_what_outlives_a_process()
        self.play("killed-writers", tmp_path)

    def test_kill_9_of_an_ingester(self, tmp_path: Path) -> None:
        """Its files hold whole commits, and the next one applies every event exactly once."""
        self.needs_what_outlives_a_process()
        self.play("killed-ingesters", tmp_path)

    def test_kill_9_of_a_reader(self, tmp_path: Path) -> None:
        """Those who read beside it go on."""
        self.needs_what_outlives_a_process()
        self.play("killed-readers", tmp_path)


class PowerLosses(_Campaigns):
    """What no sync had kept is dropped."""

    def test_dropped_writes(self, tmp_path: Path) -> None:
        """With durability power-loss nothing acknowledged or committed is missing at any cut; with less, nothing is
        silently wrong."""
        self.needs_known_files()
        self.play("power-losses", tmp_path)


class DamagedFiles(_Campaigns):
    """Bits that flip in the files of a replica, and files that are cut."""

    def test_damaged_replicas(self, tmp_path: Path) -> None:
        """A read is right, or refused; no signal ends the process."""
        self.needs_known_files()
        self.play("damaged-replicas", tmp_path)

    def test_damaged_manifests(self, tmp_path: Path) -> None:
        """Likewise with the files beside it."""
        self.needs_known_files()
        self.play("damaged-manifests", tmp_path)


class HostileEvents(_Campaigns):
    """A log that holds what no writer of ours sends."""

    def test_bad_events(self, tmp_path: Path) -> None:
        """Each is carried as it is, halts ingest or is quarantined as was chosen, and hides none of its neighbours."""
        self.needs_shared_log()
        self.play("bad-events", tmp_path)

    def test_changed_logs(self, tmp_path: Path) -> None:
        """A log that is replaced, restored or cut behind its followers' backs is told."""
        self.needs_known_files()
        self.play("changed-logs", tmp_path)
