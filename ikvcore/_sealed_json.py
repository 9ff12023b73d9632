"""Small JSON files with a checksum: one that a bit of was flipped in is refused, and not believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

from ikvcore.models import dump_json

__all__ = ["dump_sealed", "load_sealed"]

_CHECKSUM: Final = "checksum"


def dump_sealed(content: Mapping[str, Any]) -> bytes:
    """The content of a file, with its checksum."""
    return dump_json({**content, _CHECKSUM: _checksum(content)})


def load_sealed(data: bytes, known_format: int | None = None) -> Any:
    """What was dumped; where there is no checksum, or no object to hold one, it is for the caller to judge.

    known_format: what its entry "format" is in this release; another one is the caller's to refuse, and seals its files
    in a way of its own. Raises ValueError where it is no JSON or fails its checksum.
    """
    content = json.loads(data)
    if isinstance(content, dict) and _CHECKSUM in content:
        if known_format is not None and content.get("format") != known_format:
            return content
        stated = content.pop(_CHECKSUM)
        if stated != _checksum(content):
            raise ValueError("it fails its checksum")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{crc32(dump_json(content)):08x}"
