"""Compares what a target's processes recorded with its log, and the log with its replicas.

    checker = Checker(target, workload)
    violations = checker.run()

Each violation names the check that found it; CHECKS says what each of them holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from ikvcore.models import LogMessage, Mutation
from ikvcore.testing.faults.recorder import History, Inspection
from ikvcore.testing.faults.target import Target
from ikvcore.testing.faults.timeline import Log, Timeline
from ikvcore.testing.faults.workload import Workload, expected, unstamp
from ikvcore.tokens import Token

__all__ = ["CHECKS", "Checker", "Violation", "summary"]

CHECKS: Final = {
    "acknowledged": "every event of a call that returned is in the log, before the position that its token names",
    "invented": "every event in the log is one that a recorded call asked for, whole and unchanged, once",
    "refused": "nothing of a call whose error says that nothing was published is in the log",
    "order": "the events of one writer stand in each partition in the order of its calls",
    "applied": "events_applied is the number of messages before the replica's position",
    "documents": "the replica's documents are the model's at the replica's position, field by field",
    "count": "what the replica says that it counts is what it holds",
    "verify": "the storage's own check, of checksums, counts and digests, finds nothing",
    "advance": "the positions and the commit number of a mount never go back",
    "reads": "each read is a state that the log had, and none is older than one that its client saw before",
    "noted": "no process noted that something was wrong",
}
"""The checks by name."""


class Violation(NamedTuple):
    """Something that must not be."""

    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.text}"


class Checker:
    """Checks one target after its processes have ended, or while they rest.

    The log is read through the transport, in this process, unless it is given. The records are read from the target's
    directory, unless given.
    """

    def __init__(
        self,
        target: Target,
        workload: Workload,
        *,
        log: Log | None = None,
        history: History | None = None,
        foreign: Container[tuple[int, int]] = (),
    ) -> None:
        """foreign: (partition, position) of messages of somebody who keeps no records: no call has asked for them."""
        self.target = target
        self.workload = workload
        self.log = log or _read_log(target)
        self.history = history or History.read(target.directory)
        self.timeline = Timeline(self.log)
        self._foreign = foreign

    def run(self) -> list[Violation]:
        """All checks over all records."""
        return list(self._all())

    def _all(self) -> Iterator[Violation]:
        yield from self.events()
        for inspection in self.history.inspections():
            yield from self.replica(inspection)
        yield from self.advance()
        yield from self.reads()
        for line in self.history.events("wrong"):
            yield Violation("noted", str(line))

    # -- the log -------------------------------------------------------------------------------

    def events(self) -> Iterator[Violation]:
        """acknowledged, invented, refused and order."""
        found = self._calls_in_log()
        called = {(line["w"], line["n"]) for line in self.history.events("call")}
        acked = {(line["w"], line["n"]): Token.parse(line["token"]) for line in self.history.events("acked")}
        refused = {(line["w"], line["n"]) for line in self.history.events("failed") if line["refused"]}
        for call in sorted(acked.keys() - called):
            yield Violation("acknowledged", f"call {call} was acknowledged and never made")
        for call, token in acked.items():
            yield from self._acknowledged(call, token, found.get(call, {}))
        for call, partitions in found.items():
            if call not in called:
                yield Violation("invented", f"the log has events of call {call}, which was never made")
            elif call in refused:
                yield Violation("refused", f"call {call} was refused and is in the log all the same")
            else:
                yield from self._invented(call, partitions)
        yield from self._order()

    def _calls_in_log(self) -> dict[tuple[int, int], dict[int, list[tuple[LogMessage, Mutation | None]]]]:
        found: dict[tuple[int, int], dict[int, list[tuple[LogMessage, Mutation | None]]]] = {}
        for partition in self.timeline.mutations:
            for message, mutation in self._asked_for(partition):
                call = unstamp(_timestamp(message, mutation), self.workload.epoch)
                found.setdefault(call, {}).setdefault(partition, []).append((message, mutation))
        return found

    def _asked_for(self, partition: int) -> Iterator[tuple[LogMessage, Mutation | None]]:
        """The messages of a partition that somebody who keeps records has written."""
        return (
            (message, mutation)
            for message, mutation in self.timeline.mutations[partition]
            if (partition, message.position) not in self._foreign
        )

    def _acknowledged(
        self, call: tuple[int, int], token: Token, found: Mapping[int, list[tuple[LogMessage, Mutation | None]]]
    ) -> Iterator[Violation]:
        asked = expected(self.workload.call(*call), self.log.store)
        for partition, mutations in asked.items():
            there = found.get(partition, [])
            if [mutation for _, mutation in there] != mutations:
                yield Violation(
                    "acknowledged",
                    f"call {call} asked for {len(mutations)} events in partition {partition}, the log has {len(there)}",
                )
            reached = token.positions.get(partition, 0)
            if there and reached <= there[-1][0].position:
                yield Violation(
                    "acknowledged",
                    f"call {call} got a token to {reached} in partition {partition}, and stands at "
                    f"{there[-1][0].position}",
                )

    def _invented(
        self, call: tuple[int, int], found: Mapping[int, list[tuple[LogMessage, Mutation | None]]]
    ) -> Iterator[Violation]:
        """A call that was not acknowledged may be there in part, but not changed, and not twice."""
        asked = expected(self.workload.call(*call), self.log.store)
        for partition, there in found.items():
            left = iter(asked.get(partition, []))
            for message, mutation in there:
                if not any(mutation == wanted for wanted in left):
                    yield Violation(
                        "invented",
                        f"call {call} did not ask for what stands at {partition}:{message.position}, or not twice: "
                        f"{mutation}",
                    )
                    break

    def _order(self) -> Iterator[Violation]:
        for partition in self.timeline.mutations:
            last: dict[int, int] = {}
            for message, mutation in self._asked_for(partition):
                writer, number = unstamp(_timestamp(message, mutation), self.workload.epoch)
                if number < last.get(writer, -1):
                    yield Violation(
                        "order",
                        f"call {number} of writer {writer} stands at {partition}:{message.position}, after its call "
                        f"{last[writer]}",
                    )
                last[writer] = max(number, last.get(writer, -1))

    # -- replicas ------------------------------------------------------------------------------

    def replica(self, found: Inspection) -> Iterator[Violation]:
        """applied, documents, count and verify, of one look into a replica."""
        where = f"mount {found.mount} at {dict(found.positions)}"
        held = 0
        for partition in range(self.log.store.partitions):
            position = found.positions.get(partition, self.log.bounds[partition].first)
            if position > self.log.bounds[partition].end:
                yield Violation("documents", f"{where}: the log ends at {self.log.bounds[partition].end}")
            passed = self.timeline.messages_before(partition, position)
            applied = found.applied.get(partition, 0)
            if applied != passed:
                yield Violation("applied", f"{where}: {applied} applied in partition {partition}, passed {passed}")
            documents, wanted = found.documents.get(partition, {}), self.timeline.documents(partition, position)
            held += len(documents)
            if documents != wanted:
                wrong = sorted(k for k in documents.keys() | wanted.keys() if documents.get(k) != wanted.get(k))
                yield Violation("documents", f"{where}: {len(wrong)} wrong in partition {partition}, {wrong[:5]}")
        if found.counted != held:
            yield Violation("count", f"{where}: says {found.counted} documents and holds {held}")
        for finding in found.findings:
            yield Violation("verify", f"{where}: {finding}")

    def reached_end(self, found: Inspection) -> bool:
        """Whether a replica has applied the whole log."""
        return all(found.positions.get(p, bounds.first) == bounds.end for p, bounds in self.log.bounds.items())

    def advance(self) -> Iterator[Violation]:
        """Looks at one mount, in the order in which they were taken."""
        last: dict[str, Inspection] = {}
        for found in self.history.inspections():
            before = last.get(found.mount)
            if before is not None:
                back = [p for p, position in before.positions.items() if found.positions.get(p, 0) < position]
                if back or found.commit < before.commit:
                    yield Violation(
                        "advance",
                        f"mount {found.mount} went from commit {before.commit} at {dict(before.positions)} to commit "
                        f"{found.commit} at {dict(found.positions)}",
                    )
            last[found.mount] = found

    # -- reads ---------------------------------------------------------------------------------

    def reads(self) -> Iterator[Violation]:
        """For each client, all of its reads must fit into a state each, in an order that never goes back."""
        for client, lines in self.history.clients().items():
            reached = {partition: bounds.first for partition, bounds in self.log.bounds.items()}
            for line in lines:
                if line["e"] == "waited":
                    for partition, position in Token.parse(line["token"]).positions.items():
                        reached[partition] = max(reached[partition], position)
                elif line["e"] == "read":
                    yield from self._read(client, line["found"], reached)

    def _read(self, client: str, found: Iterable[Any], reached: dict[int, int]) -> Iterator[Violation]:
        seen: dict[int, dict[str, str | None]] = {}
        for key, shown in found:
            seen.setdefault(self.timeline.partition(key), {})[key] = shown
        for partition, keys in seen.items():
            position = self.timeline.first_state(partition, keys, reached[partition])
            if position is not None:
                reached[partition] = position
                continue
            first = self.log.bounds[partition].first
            ever = self.timeline.first_state(partition, keys, first)
            what = "never was" if ever is None else f"was last before {reached[partition]}"
            yield Violation(
                "reads", f"{client} saw in partition {partition} what {what}: {dict(list(keys.items())[:3])}"
            )


def summary(violations: Iterable[Violation]) -> str:
    """How many of each check."""
    return ", ".join(f"{count} {check}" for check, count in sorted(Counter(v.check for v in violations).items()))


def _timestamp(message: LogMessage, mutation: Mutation | None) -> int:
    if mutation is not None and mutation.timestamp is not None:
        return mutation.timestamp
    return message.timestamp or 0


def _read_log(target: Target) -> Log:
    transport = target.open_log()
    try:
        return Log.read(transport)
    finally:
        transport.close()
