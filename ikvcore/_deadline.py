"""How long a call may wait."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from ikvcore.errors import InvalidArgumentError, WaitTimeoutError

__all__ = ["Deadline"]


class Deadline:
    """`timeout` seconds from now, None for ever. `what` is said of what did not happen in time."""

    def __init__(self, timeout: float | None, what: str) -> None:
        valid = timeout is None or (isinstance(timeout, (int, float)) and not math.isnan(timeout) and timeout >= 0)
        if not valid:
            raise InvalidArgumentError(
                f"timeout cannot be {timeout!r}: give seconds, 0 or more, or None to wait for ever"
            )
        self._timeout = timeout
        self._what = what
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds left, 0.0 if none, None for ever."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def check(self, missing: Mapping[int, int], reached: Mapping[int, int], why: object = None) -> None:
        """Raise WaitTimeoutError, with the positions that are missing and why, where that is known, if the time is
        over.
        """
        if self.left() == 0.0:
            behind = ", ".join(f"partition {p} at {reached.get(p, 0)} of {end}" for p, end in missing.items())
            known = "" if why is None else f"; {why}"
            raise WaitTimeoutError(f"{self._what} did not happen within {self._timeout:g} s: {behind}{known}")
