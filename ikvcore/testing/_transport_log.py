"""TransportSuite, part one: publishing, positions, polling and closing."""

from __future__ import annotations

import time

import pytest

from ikvcore.errors import EventTooLargeError, InvalidArgumentError, TransportError
from ikvcore.models import LogMessage, Message, Start
from ikvcore.protocols import Transport
from ikvcore.testing._transport_base import (
    Stores,
    TransportBase,
    begin,
    contents,
    drain,
    everything,
    message,
    publish,
)
from ikvcore.tokens import Token

__all__ = ["TransportLog"]


class TransportLog(TransportBase):
    """What was published is read back, in order, from any place."""

    def test_empty_log(self, log: Transport) -> None:
        """A new log holds nothing: each partition begins where it ends, and is complete."""
        bounds = log.bounds()
        assert sorted(bounds) == [0, 1, 2]
        assert all(b.first == b.end and b.complete for b in bounds.values())
        subscription = log.subscribe(begin(log))
        polled = subscription.poll(max_messages=10, max_bytes=1_000, timeout=0)
        assert (list(polled.messages), dict(polled.positions)) == ([], {})
        subscription.close()

    def test_publish_and_read(self, log: Transport) -> None:
        """Messages come back with their partition, key and value, in the order of the call; whatever bytes they are."""
        messages = [
            Message(0, b"", b"", time.time_ns()),
            Message(0, b"\x00", b"\xff\x00", time.time_ns()),
            Message(0, b"k" * 70_000, bytes(range(256)), time.time_ns()),
            Message(2, b"key", b"two", time.time_ns()),
            Message(0, b"\x00", b"again", time.time_ns()),
        ]
        log.publish(messages)
        found = everything(log)
        assert [(m.partition, m.key, m.value) for p in (0, 1, 2) for m in found[p]] == [
            (m.partition, m.key, m.value) for m in sorted(messages, key=lambda m: m.partition)
        ]

    def test_timestamps(self, log: Transport) -> None:
        """A message's time comes back in nanoseconds since the epoch, or as None."""
        now = time.time_ns()
        log.publish([Message(0, b"k", b"v", now)])
        timestamp = everything(log)[0][0].timestamp
        assert timestamp is None or abs(timestamp - now) < 24 * 3600 * 10**9

    def test_token(self, log: Transport) -> None:
        """The token names the log, and each partition touched with the position after its last message: the end of its
        bounds."""
        token = log.publish([message(0, b"a"), message(2, b"b"), message(0, b"c")])
        assert token.identity == log.describe().identity
        assert set(token.positions) == {0, 2}
        bounds = log.bounds()
        assert token.positions == {0: bounds[0].end, 2: bounds[2].end}
        assert everything(log)[0][-1].position < token.positions[0]
        later = log.publish([message(0, b"d")])
        assert set(later.positions) == {0}
        assert later.positions[0] > token.positions[0]

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (Message(0, b"key", b"v" * 1_001, 1), EventTooLargeError),
            (Message(3, b"key", b"v", 1), InvalidArgumentError),
            (Message(-1, b"key", b"v", 1), InvalidArgumentError),
        ],
        ids=["too large", "no such partition", "negative partition"],
    )
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_a_call_is_checked_whole(self, stores: Stores, wrong: Message, error: type[Exception], place: int) -> None:
        """One message that the log cannot take, wherever it stands, and nothing of the call is published."""
        stores.create("checked", partitions=3, max_event_bytes=1_000)
        log = stores.open("checked")
        before = log.bounds()
        messages = [message(0, b"a"), message(2, b"b")]
        with pytest.raises(error):
            log.publish([*messages[:place], wrong, *messages[place:]])
        assert log.bounds() == before
        assert log.publish(messages).positions == {p: log.bounds()[p].end for p in (0, 2)}

    def test_publish_nothing(self, log: Transport) -> None:
        """Publishing no messages gives the empty token and moves nothing."""
        publish(log, b"a")
        before = log.bounds()
        assert log.publish([]) == Token()
        assert log.publish(()) == Token()
        assert log.bounds() == before

    def test_bounds(self, log: Transport) -> None:
        """bounds moves only where something was published, and holds first <= position < end for every message."""
        before = log.bounds()
        publish(log, b"a", b"b", partition=1)
        after = log.bounds()
        assert (after[0], after[2]) == (before[0], before[2])
        assert (after[1].first, after[1].complete) == (before[1].first, True)
        assert all(after[1].first <= m.position < after[1].end for m in everything(log)[1])

    def test_positions_increase(self, log: Transport) -> None:
        """Positions of a partition strictly increase, within one call and over calls."""
        for turn in range(20):
            publish(log, *(b"%d.%d" % (turn, n) for n in range(turn % 4 + 1)))
        messages = everything(log)[0]
        positions = [m.position for m in messages]
        assert positions == sorted(set(positions))
        assert [m.value for m in messages] == [b"%d.%d" % (turn, n) for turn in range(20) for n in range(turn % 4 + 1)]

    def test_subset_of_partitions(self, log: Transport) -> None:
        """A subscription gives messages of its partitions alone."""
        for partition in (0, 1, 2):
            publish(log, b"p%d" % partition, partition=partition)
        found = everything(log, [2, 0])
        assert {p: [m.value for m in messages] for p, messages in found.items()} == {2: [b"p2"], 0: [b"p0"]}
        subscription = log.subscribe(begin(log, [1]))
        got = drain(subscription, {1: log.bounds()[1].end})
        assert [m.value for m in got] == [b"p1"]
        publish(log, b"more", partition=0)
        end = publish(log, b"last", partition=1)
        assert [m.value for m in drain(subscription, end)] == [b"last"]
        subscription.close()

    @pytest.mark.parametrize("max_messages", [1, 2, 3, 7, 1_000])
    def test_max_messages(self, log: Transport, max_messages: int) -> None:
        """A poll gives at most max_messages, over all of its partitions, and polls together give everything once."""
        token = log.publish([message(n % 3, b"%d" % n) for n in range(23)])
        subscription = log.subscribe(begin(log))
        got = drain(subscription, token.positions, max_messages=max_messages)
        subscription.close()
        assert sorted(int(m.value or b"") for m in got) == list(range(23))
        for partition in range(3):
            assert [int(m.value or b"") for m in got if m.partition == partition] == list(range(partition, 23, 3))

    def test_max_bytes(self, log: Transport) -> None:
        """A poll gives at most max_bytes of messages, but at least one message, whatever its size."""
        sizes = [10, 5_000, 10, 10, 20_000, 3, 900, 900, 900, 1]
        token = log.publish([message(n % 2, b"x" * size, b"") for n, size in enumerate(sizes)])
        for max_bytes in (1, 1_000, 2_000, 6_000):
            subscription = log.subscribe(begin(log))
            got = drain(subscription, token.positions, max_bytes=max_bytes)
            subscription.close()
            assert sorted(len(m.value or b"") for m in got) == sorted(sizes)

    def test_large_message(self, log: Transport) -> None:
        """A message of 5 MB beside small ones arrives whole."""
        big = bytes(range(250)) * 20_000
        publish(log, b"before", big, b"after")
        assert contents(log) == [b"before", big, b"after"]

    def test_many_messages_at_once(self, log: Transport) -> None:
        """One call may publish thousands of messages."""
        log.publish([message(n % 3, b"%d" % n) for n in range(6_000)])
        for partition, messages in everything(log).items():
            assert [m.value for m in messages] == [b"%d" % n for n in range(partition, 6_000, 3)]

    def test_timeout(self, log: Transport) -> None:
        """A poll with nothing to give returns empty at its timeout, and the next one gives what came meanwhile."""
        subscription = log.subscribe(begin(log))
        for timeout in (0, 0.01, 0.05):
            polled = subscription.poll(max_messages=10, max_bytes=1_000, timeout=timeout)
            assert (list(polled.messages), dict(polled.positions)) == ([], {})
        end = publish(log, b"a")
        assert [m.value for m in drain(subscription, end)] == [b"a"]
        subscription.close()

    def test_resume_anywhere(self, log: Transport) -> None:
        """A subscription begun at any message's position gives it and what follows; at the end, only later ones."""
        publish(log, *(b"%d" % n for n in range(8)))
        messages = everything(log)[0]
        end = log.bounds()[0].end
        for index, got in enumerate(messages):
            subscription = log.subscribe({0: Start(got.position, None)})
            assert drain(subscription, {0: end}) == messages[index:]
            subscription.close()
        subscription = log.subscribe({0: Start(end, None)})
        after = publish(log, b"later")
        assert [m.value for m in drain(subscription, after)] == [b"later"]
        subscription.close()

    def test_resume_after_each_poll(self, log: Transport) -> None:
        """The positions of a poll are where the next subscription goes on, nothing lost and nothing twice."""
        token = log.publish([message(n % 2, b"%d" % n) for n in range(20)])
        places = {partition: start.position for partition, start in begin(log, [0, 1]).items()}
        got: list[LogMessage] = []
        while any(places[p] < position for p, position in token.positions.items()):
            subscription = log.subscribe({p: Start(position, None) for p, position in places.items()})
            polled = subscription.poll(max_messages=3, max_bytes=1_000, timeout=5)
            subscription.close()
            assert polled.positions
            got.extend(polled.messages)
            places.update(polled.positions)
        assert sorted(int(m.value or b"") for m in got) == list(range(20))

    def test_two_subscriptions(self, log: Transport) -> None:
        """Two subscriptions of one instance each get everything, whatever the other has read."""
        end = publish(log, b"a", b"b", b"c")
        first, second = log.subscribe(begin(log)), log.subscribe(begin(log))
        assert [m.value for m in drain(first, end)] == [b"a", b"b", b"c"]
        end = publish(log, b"d")
        first.wake()
        assert [m.value for m in drain(second, end)] == [b"a", b"b", b"c", b"d"]
        second.close()
        assert [m.value for m in drain(first, end)] == [b"d"]
        first.close()

    def test_two_instances(self, stores: Stores, log: Transport) -> None:
        """Two instances for one store see one log: what one publishes, the other reads, in one order."""
        other = stores.open("store")
        assert other.describe() == log.describe()
        publish(log, b"a")
        publish(other, b"b")
        publish(log, b"c")
        assert contents(log) == contents(other) == [b"a", b"b", b"c"]
        assert log.bounds() == other.bounds()

    def test_log_outlives_its_instances(self, stores: Stores) -> None:
        """Messages stay when every instance is closed, and positions go on where they were."""
        stores.create("kept", partitions=2)
        log = stores.open("kept")
        end = publish(log, b"a", b"b", partition=1)
        log.close()
        log = stores.open("kept")
        assert contents(log, 1) == [b"a", b"b"]
        assert log.bounds()[1].end == end[1]
        assert publish(log, b"c", partition=1)[1] > end[1]

    def test_no_value(self, log: Transport) -> None:
        """A message without value is read as None, apart from an empty one."""
        if not self.carries_no_value:
            pytest.skip("the transport's own messages always have a value")
        log.publish([Message(0, b"k", None, 1), message(0, b"")])  # type: ignore[arg-type]  # beyond what the core sends
        assert contents(log) == [None, b""]

    def test_size(self, log: Transport) -> None:
        """size is None, or a number of bytes that messages do not lower."""
        before = log.size()
        publish(log, b"x" * 100_000)
        after = log.size()
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert 0 <= before <= after

    def test_close(self, log: Transport) -> None:
        """close is idempotent; calls after it raise TransportError, and a subscription ends with it."""
        publish(log, b"a")
        subscription = log.subscribe(begin(log))
        starts = begin(log)
        log.close()
        log.close()
        with pytest.raises(TransportError):
            publish(log, b"b")
        with pytest.raises(TransportError):
            log.bounds()
        with pytest.raises(TransportError):
            log.subscribe(starts)
        with pytest.raises(TransportError):
            subscription.poll(max_messages=1, max_bytes=1_000, timeout=0)
        subscription.wake()
        subscription.close()
        subscription.close()

    def test_close_of_one_instance(self, stores: Stores, log: Transport) -> None:
        """Closing one instance or subscription leaves the others as they are."""
        other = stores.open("store")
        mine, theirs = log.subscribe(begin(log)), other.subscribe(begin(other))
        mine.close()
        mine.close()
        log.close()
        end = publish(other, b"a")
        assert [m.value for m in drain(theirs, end)] == [b"a"]
        theirs.close()
