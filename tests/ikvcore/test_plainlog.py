"""PlainTransport: what it adds to a log that knows nothing of subscriptions, closing and forks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ikvcore import plainlog
from ikvcore.errors import (
    EventTooLargeError,
    ForkedError,
    InvalidArgumentError,
    LogDivergedError,
    LogTrimmedError,
    TransportError,
)
from ikvcore.models import Bounds, LogMessage, Message, Position, Start, StoreDescription
from ikvcore.plainlog import PlainTransport
from ikvcore.testing._parallel import PATIENCE, in_fork, started
from ikvcore.tokens import Token

STORE = StoreDescription(store_name="profiles", account_id="demo", identity="log-1", primary_key="key", partitions=3)
LONG = 10 * PATIENCE


class ListLog:
    """A PlainLog that never waits, and writes down how it is asked."""

    def __init__(self) -> None:
        self.messages: dict[int, list[LogMessage]] = {partition: [] for partition in range(STORE.partitions)}
        self.first = dict.fromkeys(self.messages, 0)
        self.limits: list[int] = []
        self.waits: list[float] = []
        self.looks = self.closed = 0
        self.deleted = False
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.takes_time: Callable[[float], None] = lambda wait: None

    def append(self, messages: Sequence[Message]) -> Mapping[int, Position]:
        if self.deleted:
            return {}
        for each in messages:
            held = self.messages[each.partition]
            place = held[-1].position + 1 if held else self.first[each.partition]
            held.append(LogMessage(each.partition, place, each.key, each.value, each.timestamp))
        return {each.partition: self.messages[each.partition][-1].position + 1 for each in messages}

    def read(self, places: Mapping[int, Position], *, limit: int, wait: float) -> Iterable[LogMessage]:
        self.limits.append(limit)
        self.waits.append(wait)
        self.reading.set()
        assert self.go_on.wait(PATIENCE)
        assert not self.closed
        self.takes_time(wait)
        for partition, place in places.items():
            yield from (each for each in list(self.messages[partition]) if each.position >= place)

    def bounds(self) -> Mapping[int, Bounds]:
        self.looks += 1
        if self.deleted:
            return {}
        return {
            partition: Bounds(first, held[-1].position + 1 if held else first, complete=first == 0)
            for (partition, held), first in zip(self.messages.items(), self.first.values(), strict=True)
        }

    def close(self) -> None:
        self.closed += 1

    def cut(self, partition: int, first: Position) -> None:
        self.first[partition] = first
        self.messages[partition] = [each for each in self.messages[partition] if each.position >= first]


class Clock:
    """In the place of the module's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(plainlog, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def log() -> ListLog:
    return ListLog()


@pytest.fixture
def transport(log: ListLog) -> PlainTransport:
    return PlainTransport(STORE, log)


def message(value: bytes = b"v", partition: int = 0) -> Message:
    return Message(partition, b"", value, 1)


def begin() -> dict[int, Start]:
    return {partition: Start(0, None) for partition in range(STORE.partitions)}


def test_publish_tells_the_log_of_good_messages_alone(transport: PlainTransport, log: ListLog) -> None:
    """An empty call is not passed on, nor is one of whose messages one is bad."""
    assert transport.publish([]) == Token()
    small = PlainTransport(replace(STORE, max_event_bytes=3), log)
    with pytest.raises(EventTooLargeError):
        small.publish([message(), message(b"long")])
    for partition in (-1, 3):
        with pytest.raises(InvalidArgumentError, match="partitions are 0 to 2"):
            transport.publish([message(), message(partition=partition)])
        with pytest.raises(InvalidArgumentError):
            transport.subscribe({partition: Start(0, None)})
    assert log.messages[0] == []
    assert transport.publish([message(), message(partition=2)]) == Token("log-1", {0: 1, 2: 1})


def test_a_poll_keeps_to_its_limits_and_gives_one_message_at_least(transport: PlainTransport, log: ListLog) -> None:
    """Whatever the log yields: it may give more than it was asked for."""
    transport.publish([message(b"x" * 10, n % 3) for n in range(30)])
    subscription = transport.subscribe(begin())
    assert len(subscription.poll(max_messages=4, max_bytes=1_000, timeout=0).messages) == 4
    assert len(subscription.poll(max_messages=100, max_bytes=35, timeout=0).messages) == 3
    assert len(subscription.poll(max_messages=100, max_bytes=1, timeout=0).messages) == 1
    assert len(subscription.poll(max_messages=100, max_bytes=1_000, timeout=0).messages) == 22


def test_a_log_is_asked_for_what_will_be_taken(transport: PlainTransport, log: ListLog) -> None:
    """By the size of the messages that came last, so that large ones are not read in vain."""
    transport.publish([message(b"x" * 100) for _ in range(30)])
    subscription = transport.subscribe(begin())
    for _ in range(2):
        subscription.poll(max_messages=50, max_bytes=1_000, timeout=0)
    assert log.limits[-1] == 10
    subscription.poll(max_messages=7, max_bytes=1_000, timeout=0)
    assert log.limits[-1] == 7


def test_a_busy_partition_starves_no_other(transport: PlainTransport) -> None:
    """Whoever was served comes last next time."""
    transport.publish([message(partition=partition) for partition in (0, 0, 0, 0, 1, 1, 2)])
    subscription = transport.subscribe(begin())
    polled = [subscription.poll(max_messages=2, max_bytes=1_000, timeout=0) for _ in range(4)]
    assert [dict(each.positions) for each in polled] == [{0: 2}, {1: 2}, {2: 1, 0: 3}, {0: 4}]


def test_no_partitions_give_nothing(transport: PlainTransport, log: ListLog) -> None:
    """A reader all of whose partitions have halted polls on."""
    transport.publish([message()])
    assert transport.subscribe({}).poll(max_messages=1, max_bytes=1, timeout=0.01).messages == []
    assert log.limits == []


def test_a_poll_that_finds_nothing_pauses_for_longer_and_longer(
    transport: PlainTransport, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 1 to 50 ms; the log is never let wait beyond the timeout, and a wait of its own takes a pause's place."""
    clock = Clock(monkeypatch)
    pauses: list[float] = []

    def pause(_: object, subscription: object, seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(plainlog._OpenLog, "pause", pause)
    subscription = transport.subscribe(begin())
    subscription.poll(max_messages=1, max_bytes=1, timeout=0.2)
    assert pauses == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.037])
    assert log.waits == pytest.approx([0.05] * 8 + [0.037, 0])
    log.takes_time = lambda wait: setattr(clock, "now", clock.now + wait)
    pauses.clear()
    subscription.poll(max_messages=1, max_bytes=1, timeout=0.2)
    assert sum(pauses) < 1e-6


def test_publishing_ends_a_pause(transport: PlainTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this client's own messages a subscription learns at once, and wake needs no second turn either."""
    monkeypatch.setattr(plainlog, "_SLICE", LONG)
    monkeypatch.setattr(plainlog, "_SHORTEST_PAUSE", LONG)
    subscription = transport.subscribe(begin())
    polling = started(lambda: subscription.poll(max_messages=9, max_bytes=99, timeout=LONG).messages)
    transport.publish([message()])
    assert len(polling.finish()) == 1
    polling = started(lambda: subscription.poll(max_messages=9, max_bytes=99, timeout=LONG).messages)
    subscription.wake()
    assert polling.finish() == []


def test_a_wake_just_before_a_pause_is_not_lost(
    transport: PlainTransport, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the log was read, and before the pause begins."""
    monkeypatch.setattr(plainlog, "_SLICE", LONG)
    monkeypatch.setattr(plainlog, "_SHORTEST_PAUSE", LONG)
    subscription = transport.subscribe(begin())
    before = plainlog._OpenLog.pause

    def wake_and_pause(self: plainlog._OpenLog, subscription: plainlog._PlainSubscription, seconds: float) -> None:
        subscription.wake()
        before(self, subscription, seconds)

    monkeypatch.setattr(plainlog._OpenLog, "pause", wake_and_pause)
    polling = started(lambda: subscription.poll(max_messages=9, max_bytes=99, timeout=LONG).messages)
    assert polling.finish() == []


def test_a_gap_that_was_cut_is_told_and_a_natural_one_passed(transport: PlainTransport, log: ListLog) -> None:
    """Nothing is taken then, so that nothing is lost."""
    transport.publish([message(b"%d" % n) for n in range(6)])
    del log.messages[0][2]  # as logs do that delete single entries
    subscription = transport.subscribe(begin())
    polled = subscription.poll(max_messages=3, max_bytes=99, timeout=0)
    assert [each.position for each in polled.messages] == [0, 1, 3]
    transport.publish([message(partition=1)])
    log.cut(0, 5)
    for _ in range(2):
        with pytest.raises(LogTrimmedError):
            subscription.poll(max_messages=9, max_bytes=99, timeout=0)


def test_a_dense_log_is_looked_at_once_a_while(
    transport: PlainTransport, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is read without a pause, and with the places after the poll: what was read may be cut."""
    clock = Clock(monkeypatch)
    transport.publish([message() for _ in range(100)])
    subscription = transport.subscribe(begin())
    before = log.looks
    for _ in range(20):
        subscription.poll(max_messages=1, max_bytes=1, timeout=0)
    assert log.looks == before
    clock.now += 100
    for _ in range(20):
        subscription.poll(max_messages=1, max_bytes=1, timeout=0)
    assert log.looks == before + 1
    clock.now += 100
    log.first[0] = 41  # cut while it is read
    assert subscription.poll(max_messages=1, max_bytes=1, timeout=0).messages[0].position == 40


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda log: log.cut(0, 9), LogTrimmedError),
        (lambda log: log.messages[0].clear(), LogDivergedError),
        (lambda log: setattr(log, "deleted", True), TransportError),
    ],
    ids=["cut at its end", "set back", "deleted"],
)
def test_what_happens_to_a_log_is_noticed_where_nothing_comes(
    transport: PlainTransport, log: ListLog, monkeypatch: pytest.MonkeyPatch, change: object, error: type[Exception]
) -> None:
    """Within the time between two looks."""
    monkeypatch.setattr(plainlog, "_BETWEEN_CHECKS", 0.01)
    transport.publish([message()])
    subscription = transport.subscribe(begin())
    subscription.poll(max_messages=9, max_bytes=99, timeout=0)
    assert callable(change)
    change(log)
    with pytest.raises(error):
        subscription.poll(max_messages=9, max_bytes=99, timeout=PATIENCE)


def test_a_deleted_store_is_told_by_name(transport: PlainTransport, log: ListLog) -> None:
    """By every call that reaches the log."""
    log.deleted = True
    for call in (transport.bounds, lambda: transport.publish([message()]), lambda: transport.subscribe(begin())):
        with pytest.raises(TransportError, match="'profiles' was deleted"):
            call()


def test_a_log_is_closed_once_and_never_while_it_is_used(transport: PlainTransport, log: ListLog) -> None:
    """Who closes it waits for calls that are under way, which end as if nothing had happened."""
    subscription = transport.subscribe(begin())
    log.go_on.clear()
    polling = started(lambda: subscription.poll(max_messages=1, max_bytes=1, timeout=LONG))
    assert log.reading.wait(PATIENCE)
    closing = started(transport.close)
    while True:
        try:
            transport.describe()
        except TransportError:
            break
    assert not log.closed
    log.go_on.set()
    closing.finish()
    transport.close()
    assert log.closed == 1
    with pytest.raises(TransportError, match="closed by this client"):
        polling.finish()


def test_a_signal_handler_may_close_what_the_call_below_it_uses(
    transport: PlainTransport, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for that call, which ends well and closes the log."""
    append = log.append

    def interrupted(messages: Sequence[Message]) -> Mapping[int, Position]:
        transport.close()
        transport.close()
        assert log.closed == 0
        return append(messages)

    monkeypatch.setattr(log, "append", interrupted)
    assert started(lambda: transport.publish([message()])).finish() == Token("log-1", {0: 1})
    assert log.closed == 1
    transport.close()
    assert log.closed == 1


def test_a_forked_child_touches_nothing(
    transport: PlainTransport, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where another thread held its locks at the fork; and the log is not freed there."""
    subscription = transport.subscribe(begin())
    looks = log.looks
    leaked: list[object] = []
    monkeypatch.setattr(plainlog, "leak", leaked.append)

    def child() -> str:
        for call in (
            transport.describe,
            transport.bounds,
            transport.size,
            lambda: transport.publish([message()]),
            lambda: transport.subscribe(begin()),
            lambda: subscription.poll(max_messages=1, max_bytes=1, timeout=LONG),
            subscription.wake,
        ):
            with pytest.raises(ForkedError):
                call()
        subscription.close()
        transport.close()
        assert log in leaked
        return f"{log.looks} {log.closed} {len(log.limits)}"

    with transport._open._changed, subscription._polling:
        assert in_fork(child) == f"{looks} 0 0"
    transport.publish([message()])
