"""A Transport over a PlainLog, and the checks of arguments that all logs make.

`PlainTransport` has what is the same in every transport: refused arguments, closing, forks, subscriptions that wait and
are woken, turns of partitions, limits of a poll, and the look whether the log still holds what was read. A transport
that can do better, by a consumer of its own or by news from its engine, implements Transport itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

from ikvcore.errors import EventTooLargeError, ForkedError, InvalidArgumentError, TransportError
from ikvcore.forks import after_fork_in_child, leak
from ikvcore.models import Bounds, LogMessage, Message, Polled, Position, Start, StoreDescription
from ikvcore.protocols import PlainLog, Subscription
from ikvcore.tokens import Token
from ikvcore.witness import check_start

__all__ = ["PlainTransport", "check_messages", "check_partitions"]

_T = TypeVar("_T")
_SLICE: Final = 0.05
"""Seconds that a log may wait at a time: it cannot be woken meanwhile."""
_SHORTEST_PAUSE: Final = 0.001
_BETWEEN_CHECKS: Final = 1.0
"""Seconds after which a subscription looks again whether the log was cut, set back or deleted."""


def check_messages(messages: Sequence[Message], description: StoreDescription) -> None:
    """Raise InvalidArgumentError or EventTooLargeError unless the log can take all of `messages`."""
    check_partitions((message.partition for message in messages), description)
    for message in messages:
        size = len(message.value or b"")  # logs that others write to can be given messages without a value
        if size > description.max_event_bytes:
            raise EventTooLargeError(size, description.max_event_bytes)


def check_partitions(partitions: Iterable[int], description: StoreDescription) -> None:
    """Raise InvalidArgumentError unless the store has all of `partitions`."""
    for partition in partitions:
        if not 0 <= partition < description.partitions:
            raise InvalidArgumentError(
                f"store {description.store_name!r} has no partition {partition!r}; its partitions are 0 to "
                f"{description.partitions - 1}"
            )


class PlainTransport:
    """Implements Transport. The log is its own from now on: closing it closes the log."""

    def __init__(self, description: StoreDescription, log: PlainLog) -> None:
        self._description = description
        self._open = _OpenLog(description.store_name, log)

    def describe(self) -> StoreDescription:
        self._open.check()
        return self._description

    def publish(self, messages: Sequence[Message]) -> Token:
        self._open.check()
        messages = list(messages)
        check_messages(messages, self._description)
        if not messages:
            return Token()
        with self._open.using() as log:
            reached = self._open.unless_deleted(log.append(messages))
        self._open.notify()
        return Token(self._description.identity, reached)

    def subscribe(self, start: Mapping[int, Start]) -> Subscription:
        self._open.check()
        check_partitions(start, self._description)
        with self._open.using() as log:
            bounds = self._open.unless_deleted(log.bounds())
            for partition, place in start.items():
                check_start(
                    partition,
                    place,
                    identity=self._description.identity,
                    bounds=bounds[partition],
                    read=partial(_read_one, log),
                )
        return _PlainSubscription(self._open, {partition: place.position for partition, place in start.items()})

    def bounds(self) -> Mapping[int, Bounds]:
        with self._open.using() as log:
            return self._open.unless_deleted(log.bounds())

    def size(self) -> int | None:
        """None; override it where the log can tell."""
        self._open.check()
        return None

    def close(self) -> None:
        self._open.close()


class _OpenLog:
    """A log, who uses it, and what ends that."""

    def __init__(self, store_name: str, log: PlainLog) -> None:
        self._store_name = store_name
        self._log = log
        self._changed = threading.Condition()
        """Guards the three below; notified by what ends a pause, and when somebody leaves a closed log."""
        self._users: dict[int, int] = {}
        """Calls under way, by thread."""
        self._closed = False
        self._closes_at_end = False
        self._forked = False
        after_fork_in_child(self)

    @contextmanager
    def using(self) -> Iterator[PlainLog]:
        """The log, which is not closed before this ends."""
        self.check()
        thread = threading.get_ident()
        with self._changed:
            self.check()
            self._users[thread] = self._users.get(thread, 0) + 1
        try:
            yield self._log
        finally:
            self._leave(thread)

    def _leave(self, thread: int) -> None:
        with self._changed:
            left = self._users.pop(thread) - 1
            if left:
                self._users[thread] = left
            if self._closed:
                self._changed.notify_all()
            closing = self._closes_at_end and not self._users
        if closing:
            self._log.close()

    def close(self) -> None:
        """Waits for calls of other threads. One of this thread, below a signal handler, closes the log at its end."""
        if self._forked:
            return
        thread = threading.get_ident()
        with self._changed:
            closing, self._closed = not self._closed, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._users.keys() - {thread})
            if thread in self._users:
                self._closes_at_end = self._closes_at_end or closing
                return
        if closing:
            self._log.close()

    def forked(self) -> None:
        """See ikvcore.forks."""
        self._forked = True
        leak(self._log)

    def check(self) -> None:
        """Raise unless the log can be used. Takes no lock: in a forked child it may be held for ever."""
        self.check_process()
        if self._closed:
            raise TransportError(f"the log of store {self._store_name!r} was closed by this client; open it again")

    def check_process(self) -> None:
        """Raise ForkedError in a child of the process that opened the log."""
        if self._forked:
            raise ForkedError("log")

    def unless_deleted(self, found: Mapping[int, _T]) -> Mapping[int, _T]:
        """What the log gave, which is empty where the store was deleted."""
        if not found:
            raise TransportError(f"store {self._store_name!r} was deleted, and its log with it")
        return found

    def notify(self) -> None:
        """End the pauses of all subscriptions."""
        with self._changed:
            self._changed.notify_all()

    def pause(self, subscription: _PlainSubscription, seconds: float) -> None:
        """Wait, unless there is a reason not to."""
        with self._changed:
            if not (self._closed or subscription.woken):
                self._changed.wait(seconds)


class _PlainSubscription:
    """Places in a log that is asked again and again."""

    def __init__(self, log: _OpenLog, places: dict[int, Position]) -> None:
        self._log = log
        self._places = places
        self._message_bytes = 1 << 16  # what a message takes, guessed until some were read
        self._check_at = time.monotonic() + _BETWEEN_CHECKS
        self._polling = threading.Lock()
        self._closed = False
        self.woken = False

    def poll(self, *, max_messages: int, max_bytes: int, timeout: float) -> Polled:
        self._log.check()
        deadline = time.monotonic() + timeout
        pause = _SHORTEST_PAUSE
        with self._polling:
            while True:
                now = time.monotonic()
                turn = 0.0 if self.woken else max(0.0, min(deadline - now, _SLICE))
                polled = self._take(max_messages, max_bytes, turn)
                if polled.messages or self.woken or now >= deadline:
                    self.woken = False
                    return polled
                # A log that waits by itself has no pauses; one that does not is asked often where there is much to do.
                left = now + turn - time.monotonic()
                if left > 0:
                    self._log.pause(self, min(pause, left))
                    pause *= 2

    def wake(self) -> None:
        self._log.check_process()
        self.woken = True
        self._log.notify()

    def close(self) -> None:
        self._closed = True

    def _take(self, max_messages: int, max_bytes: int, wait: float) -> Polled:
        if self._closed:
            raise TransportError("this subscription was closed; subscribe again")
        places = dict(self._places)
        taken: list[LogMessage] = []
        gaps: dict[int, Position] = {}
        room = max_bytes
        with self._log.using() as log:
            limit = max(1, min(max_messages, max_bytes // self._message_bytes))
            for message in log.read(dict(places), limit=limit, wait=wait) if places else ():
                size = len(message.key) + len(message.value or b"")
                if taken and (size > room or len(taken) >= max_messages):
                    break
                place = places.pop(message.partition)  # whoever was served goes to the end
                if message.position > place:
                    gaps.setdefault(message.partition, place)
                places[message.partition] = message.position + 1
                taken.append(message)
                room -= size
            self._check_places(log, places, gaps)
        if taken:
            self._message_bytes = max(1, (max_bytes - room) // len(taken))
        self._places = places
        return Polled(taken, {message.partition: places[message.partition] for message in taken})

    def _check_places(self, log: PlainLog, places: Mapping[int, Position], gaps: Mapping[int, Position]) -> None:
        """Raise where what lies before a message was cut off rather than never there; now and then, look at all."""
        due = time.monotonic() >= self._check_at
        if not (due or gaps):
            return
        bounds = self._log.unless_deleted(log.bounds())
        for partition, place in {**(places if due else {}), **gaps}.items():
            check_start(partition, Start(place, None), identity="", bounds=bounds[partition], read=lambda *_: None)
        if due:
            self._check_at = time.monotonic() + _BETWEEN_CHECKS


def _read_one(log: PlainLog, partition: int, position: Position) -> LogMessage | None:
    found = log.read({partition: position}, limit=1, wait=0)
    return next((message for message in found if message.position == position), None)
