"""TransportSuite, part two: every subscription is compared with the log (C7, ikvcore.witness)."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ikvcore.errors import LogDivergedError, LogTrimmedError
from ikvcore.models import Start
from ikvcore.protocols import Transport
from ikvcore.testing._transport_base import Stores, TransportBase, begin, drain, everything, publish, witness_of

__all__ = ["TransportStarts"]


class TransportStarts(TransportBase):
    """A subscription begins only where the log continues what the replica saw."""

    def test_right_witness(self, log: Transport) -> None:
        """A start whose witness is the message before it goes on from there, at every place, in every partition."""
        for partition in (0, 1):
            publish(log, *(b"%d.%d" % (partition, n) for n in range(4)), partition=partition)
        found = everything(log)
        ends = {partition: log.bounds()[partition].end for partition in (0, 1)}
        for place in range(4):
            starts = {p: Start(found[p][place].position + 1, witness_of(log, found[p][place])) for p in (0, 1)}
            subscription = log.subscribe(starts)
            rest = drain(subscription, ends) if place < 3 else []
            assert sorted(rest) == sorted([*found[0][place + 1 :], *found[1][place + 1 :]])
            subscription.close()

    def test_beyond_the_end(self, log: Transport) -> None:
        """A start beyond the log's end raises LogDivergedError; the end itself is a good place."""
        publish(log, b"a")
        end = log.bounds()[0].end
        log.subscribe({0: Start(end, None)}).close()
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(end + 1, None)})
        with pytest.raises(LogDivergedError):
            log.subscribe({1: Start(log.bounds()[1].first, None), 0: Start(end + 10**12, None)})

    def test_before_the_first(self, log: Transport) -> None:
        """A start below the log's first position raises LogTrimmedError."""
        publish(log, b"a")
        with pytest.raises(LogTrimmedError):
            log.subscribe({0: Start(log.bounds()[0].first - 1, None)})

    def test_other_identity(self, log: Transport) -> None:
        """A witness of another log raises LogDivergedError, even where the message is the same."""
        publish(log, b"a", b"b")
        first = everything(log)[0][0]
        witness = witness_of(log, first)
        log.subscribe({0: Start(first.position + 1, witness)}).close()
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(first.position + 1, witness._replace(identity="f" * 32))})

    def test_other_message(self, log: Transport) -> None:
        """A witness whose checksum is not that of the message at its position raises LogDivergedError."""
        publish(log, b"a", b"b")
        first, second = everything(log)[0]
        wrong = witness_of(log, second)._replace(position=first.position)
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(first.position + 1, wrong)})
        with pytest.raises(LogDivergedError):
            log.subscribe({1: Start(log.bounds()[1].first, None), 0: Start(first.position + 1, wrong)})

    def test_witness_is_of_its_own_partition(self, log: Transport) -> None:
        """A witness is compared with the message of its own partition, not with one at that place in another."""
        publish(log, b"zero", partition=0)
        publish(log, b"one", partition=1)
        found = everything(log)
        for partition in (0, 1):
            got = found[partition][0]
            log.subscribe({partition: Start(got.position + 1, witness_of(log, got))}).close()
        mixed = witness_of(log, found[0][0])._replace(position=found[1][0].position)
        with pytest.raises(LogDivergedError):
            log.subscribe({1: Start(found[1][0].position + 1, mixed)})

    def test_no_gap_after_a_refusal(self, log: Transport) -> None:
        """A refused subscription changes nothing: the next one works."""
        end = publish(log, b"a")
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(end[0] + 5, None)})
        subscription = log.subscribe(begin(log))
        assert [m.value for m in drain(subscription, end)] == [b"a"]
        subscription.close()

    def test_recreated_store(self, stores: Stores) -> None:
        """A store made again under its old name is another log: old places raise LogDivergedError."""
        stores.create("again")
        log = stores.open("again")
        publish(log, b"a", b"b")
        messages, identity = everything(log)[0], log.describe().identity
        witness = witness_of(log, messages[0])
        log.close()
        stores.provisioning.delete_store("again")
        stores.create("again")
        log = stores.open("again")
        assert log.describe().identity != identity
        assert everything(log)[0] == []
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(messages[1].position + 1, witness)})
        publish(log, b"a", b"b", b"c")
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(messages[0].position + 1, witness)})

    def test_trimmed(self, log: Transport) -> None:
        """After a trim the log is no longer complete; a start before the cut raises LogTrimmedError; at the cut, where
        the witness's message is gone, the identity alone is compared. A subscription that stands before the cut gives
        all messages, as far as it has them, or raises LogTrimmedError: it never passes over the gap."""
        publish(log, *(b"%d" % n for n in range(6)))
        messages = everything(log)[0]
        behind = log.subscribe(begin(log, [0]))
        self.trim(log, 0, messages[3].position)
        with suppress(LogTrimmedError):
            assert drain(behind, {0: log.bounds()[0].end}) == messages
        behind.close()
        bounds = log.bounds()
        assert bounds[0].first == messages[3].position
        assert not bounds[0].complete
        assert bounds[1].complete
        for place in range(3):
            with pytest.raises(LogTrimmedError):
                log.subscribe({0: Start(messages[place].position, None)})
        gone = witness_of(log, messages[2])
        subscription = log.subscribe({0: Start(messages[3].position, gone)})
        assert drain(subscription, {0: bounds[0].end}) == messages[3:]
        subscription.close()
        with pytest.raises(LogDivergedError):
            log.subscribe({0: Start(messages[3].position, gone._replace(identity="f" * 32))})
