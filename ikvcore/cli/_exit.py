"""What the command's exit codes mean, the same for every command."""

from __future__ import annotations

from typing import Final

__all__ = ["ERROR", "INTERRUPTED", "NO", "USAGE"]

ERROR: Final = 1
"""Something failed; the message says what, and the way out."""
USAGE: Final = 2
"""The command line is wrong; nothing was done."""
NO: Final = 3
"""All went well and the answer is no: not found, not healthy, damaged, rows refused."""
INTERRUPTED: Final = 130
"""Ctrl-C. Another signal that ends the program gives 128 and its number, as in a shell."""
