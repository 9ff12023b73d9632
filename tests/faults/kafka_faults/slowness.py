"""What makes a reader slow: a worker loads this file by itself, since its path has no other of this folder."""

from __future__ import annotations

import signal
import time
from typing import Any

__all__ = ["slowly"]

_PAUSE = 0.5
_SHORTER = 0.03
_SLICE = 1 << 20


def slowly() -> None:
    """A process whose ingest takes a megabyte at a time, then rests; for less long after SIGRTMIN. For `--fault`."""
    from ikv_transports._kafka_reader import KafkaSubscription

    poll, pause = KafkaSubscription.poll, _PAUSE

    def hurry(*_: object) -> None:
        nonlocal pause
        pause = _SHORTER

    def rested(self: Any, *, max_messages: int, max_bytes: int, timeout: float) -> Any:
        time.sleep(pause)
        return poll(self, max_messages=max_messages, max_bytes=min(max_bytes, _SLICE), timeout=timeout)

    signal.signal(signal.SIGRTMIN, hurry)
    KafkaSubscription.poll = rested  # type: ignore[method-assign]
