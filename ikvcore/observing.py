"""How observers get on: for those who write or test one. What they are told is in ikvcore.hookspecs.ObserverSpec."""

from __future__ import annotations

from ikvcore._observation import DRAIN_SECONDS, observation

__all__ = ["events_lost", "flush"]


def events_lost() -> int:
    """Events that no observer of this process was told of, since too many waited."""
    return observation.lost


def flush(timeout: float = DRAIN_SECONDS) -> bool:
    """Wait up to `timeout` seconds until observers were told of everything so far; whether they were.

    In an observer it returns at once.
    """
    return observation.wait(timeout)
