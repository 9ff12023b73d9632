"""Rows that were refused: counted by reason, and kept as JSON lines where that was asked for."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from ikvcore.document import IKVDocument
from ikvcore.errors import InvalidArgumentError

__all__ = ["Refusals"]


class Refusals:
    """A context manager; the file, made anew, holds {"row": its number from 1, "reason": ..., "values": {...}}."""

    def __init__(self, path: str | Path | None) -> None:
        self.counts: Counter[str] = Counter()
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = Path(self._path).open("w", encoding="utf-8")
            except OSError as exc:
                raise InvalidArgumentError(
                    f"refused rows cannot be kept in {str(self._path)!r}: {exc.strerror}"
                ) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def kept(self) -> bool:
        """Whether the rows are wanted, not only their number."""
        return self._path is not None

    def add(self, row: int, reason: str, values: str | None) -> None:
        """Count a row; `values` are its JSON."""
        self.counts[reason] += 1
        if self._file is not None:
            head = json.dumps({"row": row, "reason": reason}, ensure_ascii=False)
            self._file.write(f'{head[:-1]}, "values": {values or "null"}}}\n')

    def add_document(self, row: int, reason: str, document: IKVDocument) -> None:
        """Count a row that was already made a document."""
        self.add(row, reason, json.dumps(document.to_dict(), default=_base64) if self.kept else None)


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()
