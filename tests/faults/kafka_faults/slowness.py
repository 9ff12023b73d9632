"""What makes a reader slow: a worker loads this file by itself, since its path has no other of this folder."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["slowly"]

_PAUSE = 0.15
_SLICE = 1 << 20


def slowly() -> None:
    """A process whose ingest takes a megabyte at a time, and then rests. For `--fault`."""
    from ikv_transports._kafka_reader import KafkaSubscription

    poll = KafkaSubscription.poll

    def rested(self: Any, *, max_messages: int, max_bytes: int, timeout: float) -> Any:
        time.sleep(_PAUSE)
        return poll(self, max_messages=max_messages, max_bytes=min(max_bytes, _SLICE), timeout=timeout)

    KafkaSubscription.poll = rested  # type: ignore[method-assign]
