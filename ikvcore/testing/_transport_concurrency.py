"""TransportSuite, part three: threads, processes, forks, and polls that wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from ikvcore.errors import ForkedError, TransportError
from ikvcore.models import Durability, Start
from ikvcore.protocols import Subscription, Transport
from ikvcore.testing._parallel import PATIENCE, in_fork, run_threads, spawned, started
from ikvcore.testing._plugins import open_transport
from ikvcore.testing._transport_base import Stores, TransportBase, begin, drain, everything, message, publish

__all__ = ["TransportConcurrency"]

LONG = 10 * PATIENCE
"""A poll's timeout that no test waits for: only a message, wake() or close() can end it in time."""


class TransportConcurrency(TransportBase):
    """Many publishers, many followers."""

    def test_wake(self, log: Transport) -> None:
        """wake ends a poll that waits, or the next one, and messages come as usual after it."""
        subscription = log.subscribe(begin(log))
        for _ in range(10):
            polling = started(partial(_poll, subscription))
            subscription.wake()
            assert polling.finish() == []
        subscription.wake()
        assert _poll(subscription) == []
        publish(log, b"a")
        assert _poll(subscription) == [b"a"]
        subscription.close()

    def test_waiting_poll_gets_a_message(self, stores: Stores, log: Transport) -> None:
        """A poll that waits is ended by a message that another instance publishes, time and again."""
        other = stores.open("store")
        subscription = log.subscribe(begin(log))
        for n in range(20):
            polling = started(partial(_poll, subscription))
            publish(other, b"%d" % n, partition=n % 3)
            assert polling.finish() == [b"%d" % n]
        subscription.close()

    def test_every_follower_gets_a_message(self, stores: Stores, log: Transport) -> None:
        """One message ends the waiting polls of all subscriptions of all instances."""
        logs = [log, stores.open("store"), stores.open("store")]
        subscriptions = [each.subscribe(begin(each)) for each in logs for _ in range(2)]
        for n in range(5):
            polling = [started(partial(_poll, subscription)) for subscription in subscriptions]
            publish(logs[n % 3], b"%d" % n)
            assert [each.finish() for each in polling] == [[b"%d" % n]] * 6
        for subscription in subscriptions:
            subscription.close()

    def test_close_ends_a_waiting_poll(self, log: Transport) -> None:
        """Closing the instance ends a poll that waits, with TransportError."""
        subscription = log.subscribe(begin(log))
        polling = started(partial(_poll, subscription))
        log.close()
        with pytest.raises(TransportError):
            polling.finish()
        subscription.close()

    def test_concurrent_publishers(self, stores: Stores, log: Transport) -> None:
        """Of many publishers at once nothing is lost or doubled, positions strictly increase, each publisher's
        messages keep their order, and each token names the place after its own."""
        logs = [log, log, stores.open("store"), stores.open("store")]

        def write(who: int) -> list[Mapping[int, int]]:
            return [
                logs[who]
                .publish([message(p, b"%d.%d.%d" % (who, turn, n)) for n in range(3) for p in (0, turn % 2 + 1)])
                .positions
                for turn in range(25)
            ]

        tokens = run_threads([partial(write, who) for who in range(4)])
        found = everything(log, max_messages=50)
        for partition, messages in found.items():
            positions = [m.position for m in messages]
            assert positions == sorted(set(positions))
            for who in range(4):
                own = [tuple(map(int, (m.value or b"").split(b"."))) for m in messages]
                own = [each for each in own if each[0] == who]
                assert own == [(who, turn, n) for turn in range(25) for n in range(3) if partition in (0, turn % 2 + 1)]
                places = {m.value: m.position for m in messages}
                for turn, positions_after in enumerate(tokens[who]):
                    if partition in positions_after:
                        assert positions_after[partition] > places[b"%d.%d.2" % (who, turn)]

    def test_followers_agree_beside_publishers(self, stores: Stores, log: Transport) -> None:
        """Followers that read while others publish all see one order, the log's."""
        logs = [log, stores.open("store")]
        subscriptions = [each.subscribe(begin(each, [0])) for each in logs]

        def write(who: int) -> None:
            for turn in range(40):
                publish(logs[who], b"%d.%d" % (who, turn))

        def read(subscription: Subscription) -> list[bytes | None]:
            values: list[bytes | None] = []
            while len(values) < 80:
                values.extend(_poll(subscription))
            return values

        results = run_threads([partial(write, 0), partial(write, 1), *(partial(read, s) for s in subscriptions)])
        order = [m.value for m in everything(log)[0]]
        assert len(order) == len(set(order)) == 80
        assert results[2:] == [order, order]
        for subscription in subscriptions:
            subscription.close()

    def test_two_processes(self, stores: Stores, log: Transport) -> None:
        """Where the transport is process-shared, a waiting poll gets what another process publishes, and both
        processes' messages are in one log."""
        if not self.info.process_shared:
            pytest.skip("not declared process-shared")
        arguments = (self.info.name, "store", stores.account_id, stores.passkey, dict(self.options), 20)
        start = begin(log, [0])
        subscription = log.subscribe({1: Start(log.bounds()[1].first, None)})
        with spawned(publish_in_child, *arguments) as result:
            hello = subscription.poll(max_messages=100, max_bytes=1 << 20, timeout=PATIENCE).messages
            assert [m.value for m in hello] == [b"hello"], result()  # which tells what became of the child
            for n in range(20):
                publish(log, b"parent.%d" % n)
            assert result() == [b"child.%d" % n for n in range(20)]
        values = [m.value for m in drain(log.subscribe(start), {0: log.bounds()[0].end})]
        assert [v for v in values if v is not None and v.startswith(b"parent")] == [b"parent.%d" % n for n in range(20)]
        assert [v for v in values if v is not None and v.startswith(b"child")] == [b"child.%d" % n for n in range(20)]
        assert len(values) == 40
        subscription.close()

    def test_acknowledged_survives_a_kill(self, stores: Stores, log: Transport) -> None:
        """C4: from durability process-crash on, what was acknowledged is in the log although its process was killed."""
        if self.info.durability < Durability.PROCESS_CRASH:
            pytest.skip("declares no durability")
        arguments = (self.info.name, "store", stores.account_id, stores.passkey, dict(self.options))
        with spawned(publish_and_die, *arguments) as result, pytest.raises(AssertionError, match="died without"):
            result()
        assert [m.value for m in everything(log)[1]] == [b"last words"]

    def test_fork(self, log: Transport) -> None:
        """Every call in a forked child raises ForkedError within a bounded time, and the parent's log works on."""
        publish(log, b"a")
        starts = begin(log)
        subscription = log.subscribe(starts)

        def calls() -> str:
            return " ".join(
                _outcome(call)
                for call in (
                    lambda: publish(log, b"child"),
                    log.bounds,
                    lambda: log.subscribe(starts),
                    lambda: subscription.poll(max_messages=1, max_bytes=100, timeout=LONG),
                    log.close,
                )
            )

        outcomes = in_fork(calls).split(" ")
        assert outcomes[:4] == ["ForkedError"] * 4
        assert outcomes[4] in ("ForkedError", "returned")
        end = publish(log, b"b")
        assert [m.value for m in drain(subscription, end)] == [b"a", b"b"]
        polling = started(partial(_poll, subscription))
        publish(log, b"c")
        assert polling.finish() == [b"c"]
        subscription.close()


def _poll(subscription: Subscription) -> list[bytes | None]:
    """The values of one poll that would wait far longer than a test's patience."""
    return [m.value for m in subscription.poll(max_messages=100, max_bytes=1 << 20, timeout=LONG).messages]


def publish_and_die(name: str, store_name: str, account_id: str, passkey: str, options: Mapping[str, Any]) -> None:
    """In a child process: publish, and be killed as soon as that is acknowledged."""
    log = open_transport(name, store_name, account_id, passkey, options)
    publish(log, b"last words", partition=1)
    os.kill(os.getpid(), signal.SIGKILL)


def publish_in_child(
    name: str, store_name: str, account_id: str, passkey: str, options: Mapping[str, Any], times: int
) -> list[bytes | None]:
    """In a child process: publish, and read one's own messages back."""
    log = open_transport(name, store_name, account_id, passkey, options)
    try:
        publish(log, b"hello", partition=1)
        for n in range(times):
            publish(log, b"child.%d" % n)
        values = [m.value for m in everything(log, [0])[0]]
        return [value for value in values if value is not None and value.startswith(b"child")]
    finally:
        log.close()


def _outcome(call: Any) -> str:
    try:
        call()
    except ForkedError:
        return "ForkedError"
    except Exception as exc:
        return type(exc).__name__
    return "returned"
