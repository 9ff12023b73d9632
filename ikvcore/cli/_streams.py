"""Standard streams that are closed, or full."""

from __future__ import annotations

import os
import sys

__all__ = ["give_up_results", "open_missing"]


def open_missing() -> None:
    """Open stdin, stdout and stderr where they are closed.

    Else the next file to be opened, such as a store's, would take the place of one, and what is printed go into it.
    Reading such an stdin and printing results to such an stdout fail; messages to such an stderr go nowhere.
    """
    for name, mode, flags in (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, flags)  # the lowest number that is free, which is this stream's
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays


def give_up_results() -> None:
    """After an error: what cannot be written is no longer kept, since the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
