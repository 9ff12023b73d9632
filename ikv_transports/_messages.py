"""What every log asks of the messages and places it is given, before it touches anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ikvcore.errors import EventTooLargeError, InvalidArgumentError
from ikvcore.models import Message, StoreDescription

__all__ = ["check_messages", "check_partitions"]


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
