"""A broker that is killed and comes back, or stands still: what was acknowledged is there, once, and reads go on.

One kill meets two stores at once: one that is being written, and one whose log a new replica is just being built from.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from ikvcore.testing.faults.arena import Aim, Arena
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.zygote import Zygote
from kafka_faults.brokers import Topic, a_broker, a_cluster, pair_on
from kafka_faults.scene import Scene, finished, in_lanes, in_words, wait_until, workload

__all__ = ["frozen", "killed", "leaders"]

_FROZEN = 10.0
_BACKLOG = 1_200
_BYTES = 8_000


# -- kill -9 and restart -----------------------------------------------------------------------


def killed(
    *, times: int, seed: int, directory: Path, pair: Pair, broker: Any = None, fault: str | None = None
) -> Result:
    """kill -9 of the only broker, which is started again on its files."""
    with a_broker(directory, broker) as broker, Zygote(pair_on(pair, broker.address), directory / "zygote") as zygote:
        chosen = pair_on(pair, broker.address)
        scene = Scene(Arena(zygote, directory / "written", chosen, workload(seed), partitions=4, fault=fault))
        backlog = _Backlog(
            Arena(zygote, directory / "read", chosen, workload(seed + 1, payload=_BYTES), partitions=4, fault=fault)
        )
        aim = Aim(seed)
        inside = 0
        try:
            for number in range(times):
                scene.wait_for_writes()
                backlog.begin(number)
                aim.inside(scene.writers[number % 2])
                broker.kill()
                inside += any(each.marks.stage.when == "inside" for each in scene.writers)
                backlog.cut_off()
                scene.wait_for_reads()
                broker.start()
                backlog.finish()
            scene.wait_for_writes()
        finally:
            scene.end()
        wrong = [scene.violations(), backlog.violations()]
    acknowledged = f"{scene.arena.acknowledged():,} calls acknowledged"
    words = {
        "writes": f"a publication was under way {inside} times; {acknowledged}; reads went on",
        "reads": f"replicas were being built, and had {backlog.least:,} to {backlog.most:,} of {backlog.events:,} "
        f"events; {backlog.cut} had more to fetch",
    }
    rows = [
        Row(fault=f"kill -9 of the broker during {what}", times=times, happened=told, violations=len(found), seed=seed)
        for (what, told), found in zip(words.items(), wrong, strict=True)
    ]
    return Result(rows=rows, violations=[*wrong[0], *wrong[1]])


class _Backlog:
    """A log of some megabytes, from which one replica after the other is built."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        finished(arena, *(arena.writer(calls=_BACKLOG // 2) for _ in range(2)))
        log = arena.target.open_log()
        self.events = sum(end - first for first, end, _ in log.bounds().values())
        log.close()
        self._mounts: list[str] = []
        self._applied: list[int] = []
        self.cut = 0
        """How many builders lacked something that only the broker had."""

    @property
    def least(self) -> int:
        return min(self._applied)

    @property
    def most(self) -> int:
        return max(self._applied)

    def begin(self, number: int) -> None:
        """Have a new replica built, until it has its first events."""
        self._mounts.append(f"fresh-{number}")
        self._builder = self._arena.reader(f"builder-{number}", mount=self._mounts[-1], outages=True)
        wait_until(lambda: self._builder.marks.get("applied") or self._builder.ended, "a replica is being built")

    def cut_off(self) -> None:
        """The broker is away: note how far the replica came."""
        self._applied.append(self._builder.marks.get("applied"))
        time.sleep(0.3)  # what had come by then is applied; what is missing now comes with the broker alone
        self.cut += self._builder.marks.get("applied") < self.events

    def finish(self) -> None:
        """The broker is back: the replica gets to the end by itself."""
        wait_until(lambda: self._builder.marks.get("applied") >= self.events or self._builder.ended, "it is built")
        self._builder.kill()

    def violations(self) -> list[str]:
        self._arena.settle(*self._mounts, rebuild=False)
        return [str(violation) for violation in self._arena.check()]


# -- SIGSTOP -----------------------------------------------------------------------------------


def frozen(
    *, times: int, seed: int, directory: Path, pair: Pair, lanes: int = 1, broker: Any = None, fault: str | None = None
) -> Result:
    """SIGSTOP of the broker for ten seconds, on so many brokers at once."""

    def play(lane: int, told: Counter[str]) -> list[str]:
        share = times // lanes + (lane < times % lanes)
        wrong, told["calls acknowledged"] = _freeze(share, seed + lane, directory / f"lane-{lane}", pair, broker, fault)
        return wrong

    told, wrong = in_lanes(lanes, lanes, play)
    words = f"{in_words(told)}; reads went on"
    row = Row(fault="SIGSTOP of the broker for 10 s", times=times, happened=words, violations=len(wrong), seed=seed)
    return Result(rows=[row], violations=wrong)


def _freeze(times: int, seed: int, directory: Path, pair: Pair, given: Any, fault: str | None) -> tuple[list[str], int]:
    with a_broker(directory, given) as broker, Zygote(pair_on(pair, broker.address), directory / "zygote") as zygote:
        chosen = pair_on(pair, broker.address)
        scene = Scene(Arena(zygote, directory / "store", chosen, workload(seed), partitions=2, fault=fault))
        aim = Aim(seed)
        try:
            for number in range(times):
                scene.wait_for_writes()
                aim.wait(scene.writers[number % 2])
                broker.freeze()
                thaw = time.monotonic() + _FROZEN
                try:
                    scene.wait_for_reads()
                    time.sleep(max(0.0, thaw - time.monotonic()))
                    scene.wait_for_reads()
                finally:
                    broker.thaw()
            scene.wait_for_writes()
        finally:
            scene.end()
        return scene.violations(), scene.arena.acknowledged()


# -- another leader ----------------------------------------------------------------------------


def leaders(*, times: int, seed: int, directory: Path, pair: Pair, fault: str | None = None) -> Result:
    """kill -9 of a partition's leader, of three brokers of which two have to have each write."""
    dice = Random(f"leaders/{seed}")
    seconds: list[float] = []
    with a_cluster(directory) as cluster:
        chosen = pair_on(pair, cluster.address, replication_factor=3, min_insync_replicas=2)
        with Zygote(chosen, directory / "zygote") as zygote:
            scene = Scene(Arena(zygote, directory / "store", chosen, workload(seed), partitions=4, fault=fault))
            topic, aim = Topic(scene.arena.target), Aim(seed)
            try:
                for number in range(times):
                    scene.wait_for_writes()
                    partition = dice.randrange(4)
                    leader = topic.leaders()[partition]
                    aim.inside(scene.writers[number % 2])
                    cluster.nodes[leader].kill()
                    began = time.monotonic()
                    scene.wait_for_reads()
                    wait_until(lambda p=partition, old=leader: topic.leaders().get(p, old) != old, "a new leader")
                    scene.wait_for_writes()
                    seconds.append(time.monotonic() - began)
                    cluster.nodes[leader].start()
                    wait_until(lambda: topic.in_sync() == 3, "all brokers have everything")
            finally:
                scene.end()
            wrong = scene.violations()
    words = (
        f"all writers and replicas went on, {max(seconds):.1f} s after the kill at the latest "
        f"(median {statistics.median(seconds):.1f} s); {scene.arena.acknowledged():,} calls acknowledged"
    )
    row = Row(
        fault="kill -9 of a leader of three brokers", times=times, happened=words, violations=len(wrong), seed=seed
    )
    return Result(rows=[row], violations=wrong)
