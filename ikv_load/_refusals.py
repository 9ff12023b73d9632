"""Rows that were refused: counted by reason, and kept as JSON lines where that was asked for."""

from __future__ import annotations

import base64
import json
from collections import Counter
from contextlib import suppress
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
                raise self._not_kept(exc) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(InvalidArgumentError):  # after an error, which tells more
            self.close()

    def close(self) -> None:
        """Have all of the file on its way to the disk. Idempotent. Raises InvalidArgumentError."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as exc:
                raise self._not_kept(exc) from exc

    @property
    def kept(self) -> bool:
        """Whether the rows are wanted, not only their number."""
        return self._path is not None

    def add(self, row: int, reason: str, values: str | None) -> None:
        """Count a row; `values` are its JSON. Raises InvalidArgumentError where it cannot be kept."""
        self.counts[reason] += 1
        if self._file is not None:
            head = json.dumps({"row": row, "reason": reason}, ensure_ascii=False)
            try:
                self._file.write(f'{head[:-1]}, "values": {values or "null"}}}\n')
            except OSError as exc:
                raise self._not_kept(exc) from exc

    def add_document(self, row: int, reason: str, document: IKVDocument) -> None:
        """Count a row that was already made a document."""
        self.add(row, reason, json.dumps(document.to_dict(), default=_base64) if self.kept else None)

    def _not_kept(self, exc: OSError) -> InvalidArgumentError:
        return InvalidArgumentError(f"refused rows cannot be kept in {str(self._path)!r}: {exc.strerror}")


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()
