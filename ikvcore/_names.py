"""Names of stores and accounts, and of the directories that hold them (C8)."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from ikvcore.errors import InvalidNameError

__all__ = ["check_name", "directory_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_READABLE_CHARACTERS: Final = 40
_DIGEST_DIGITS: Final = 16


def check_name(what: str, name: object) -> str:
    """Return `name` if it can name a `what` ("store name", for one), else raise InvalidNameError."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in (".", ".."):
        raise InvalidNameError(what, name)
    return name


def directory_name(name: str) -> str:
    """The directory of the store or account `name`: readable, short, and distinct where file names ignore case.

    The true name cannot be read back from it; it is kept inside the directory.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{name[:_READABLE_CHARACTERS].lower()}-{digest}"
