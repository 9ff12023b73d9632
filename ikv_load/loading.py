"""The load itself: batches are read, judged, made documents and published, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ikv_load._ahead import ReadAhead
from ikv_load._documents import documents
from ikv_load._engine import Connection, opened, reason
from ikv_load._part import Part
from ikv_load._plan import Plan, Wishes, make_plan
from ikv_load._refusals import Refusals
from ikv_load._sources import Reading, open_source
from ikv_load._types import check_words
from ikvcore.client import IKVWriter
from ikvcore.document import IKVDocument
from ikvcore.errors import EventTooLargeError, InvalidArgumentError, LoadError
from ikvcore.loadreport import LoadProgress, LoadReport
from ikvcore.models import StoreDescription
from ikvcore.tokens import Token

__all__ = ["load"]

_LARGEST_BATCH: Final = 100_000
_BATCH_BYTES: Final = 8 * 1024 * 1024
"""What is published as one, where rows are so large that a batch would be more: a batch is in memory several times."""


def load(
    writer: IKVWriter,
    store: StoreDescription,
    source: object,
    *,
    primary_key: str | None,
    select: str | None,
    where: str | None,
    batch_size: int,
    timestamps: str,
    casts: Mapping[str, str] | None,
    null: str | Sequence[str],
    file_format: str | None,
    errors: str | Path | None,
    progress: LoadProgress | None,
) -> LoadReport:
    """See IKVWriter.load."""
    casts = dict(casts or {})
    check_words(casts, timestamps)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= _LARGEST_BATCH:
        raise InvalidArgumentError(f"batch_size is a number from 1 to {_LARGEST_BATCH:,}, not {batch_size!r}")
    reading = Reading(
        format=file_format,
        null=[null] if isinstance(null, str) else list(null),
        as_text=casts,
        keys=store.key_fields if primary_key is None else (primary_key, *store.key_fields),
    )
    wishes = Wishes(
        primary_key=primary_key,
        select=select,
        where=where,
        timestamps=timestamps,
        casts=casts,
        keep_refused=errors is not None,
    )
    with opened() as connection:
        parts = open_source(connection, source, reading)
        _check_apart(parts, errors)
        # All parts are planned before the first is read: a mistake in the call is found before anything is published.
        plans = [make_plan(connection, part.query, store, wishes) for part in parts]
        with Refusals(errors) as refusals:
            loading = _Loading(writer, store, connection, refusals, batch_size, progress)
            return loading.run(parts, plans)


def _check_apart(parts: Sequence[Part], errors: str | Path | None) -> None:
    """The file of refused rows is made anew: it must be none of those that are read."""
    if errors is None or not Path(errors).exists():
        return
    for part in parts:
        for file in part.files:
            if Path(file).samefile(errors):
                raise InvalidArgumentError(
                    f"the refused rows cannot go to {file!r}, which is loaded; name another file"
                )


class _Loading:
    """The state of one load."""

    def __init__(
        self,
        writer: IKVWriter,
        store: StoreDescription,
        connection: Connection,
        refusals: Refusals,
        batch_size: int,
        progress: LoadProgress | None,
    ) -> None:
        self._writer, self._store, self._connection = writer, store, connection
        self._refusals, self._batch_size, self._progress = refusals, batch_size, progress
        self._started = time.monotonic()
        self._rows = self._loaded = 0
        self._token = Token()

    def run(self, parts: Sequence[Part], plans: Sequence[Plan]) -> LoadReport:
        """Load all parts, in their order."""
        whole = sum(part.weight for part in parts) or 1.0
        done = 0.0
        try:
            for part, plan in zip(parts, plans, strict=True):
                self._run(part, plan, done / whole, part.weight / whole)
                done += part.weight
            self._refusals.close()
        except InvalidArgumentError as exc:
            raise LoadError(str(exc), self._report()) from exc
        return self._report()

    def _run(self, part: Part, plan: Plan, done: float, weight: float) -> None:
        before = self._rows
        with closing(ReadAhead(self._connection, plan.query, self._batch_size)) as batches:
            for batch in self._translated(part, batches):
                if batch is not None:
                    for piece in _pieces(batch):
                        self._load(piece, plan)
                if self._progress is not None:
                    share = self._share(part, self._rows - before)
                    self._progress(self._report(), None if share is None else done + weight * share)

    def _translated(self, part: Part, batches: ReadAhead) -> Iterator[Any]:
        try:
            yield from batches
        except (duckdb.Error, pa.ArrowException, OSError) as exc:
            raise LoadError(f"{part.name}: {reason(exc)}", self._report()) from exc

    def _load(self, batch: Any, plan: Plan) -> None:
        """Publish the rows of a batch that can be, and count the others."""
        numbers: Sequence[int] = range(self._rows + 1, self._rows + 1 + batch.num_rows)
        verdicts = batch.column(len(plan.fields))
        if verdicts.null_count < batch.num_rows:
            self._refuse(batch.filter(pc.is_valid(verdicts)), _where(numbers, pc.is_valid(verdicts)), plan)
            batch, numbers = batch.filter(pc.is_null(verdicts)), _where(numbers, pc.is_null(verdicts))
        self._publish(documents(batch, plan.fields), numbers)
        self._rows = self._loaded + self._refusals.counts.total()

    def _refuse(self, batch: Any, numbers: Sequence[int], plan: Plan) -> None:
        verdicts = batch.column(len(plan.fields)).to_pylist()
        values = batch.column(len(plan.fields) + 1).to_pylist() if self._refusals.kept else [None] * len(verdicts)
        for number, verdict, value in zip(numbers, verdicts, values, strict=True):
            self._refusals.add(number, plan.verdicts[verdict], value)

    def _publish(self, batch: list[IKVDocument], numbers: Sequence[int]) -> None:
        """Publish documents in their order; one that is too large is found by halving, since nothing of a batch is
        published where one is.
        """
        if not batch:
            return
        try:
            self._token |= self._writer.upsert_fields_batch(batch)
        except EventTooLargeError:
            if len(batch) == 1:
                reason = f"the event is over {self._store.max_event_bytes:,} bytes"
                self._refusals.add_document(numbers[0], reason, batch[0])
                return
            half = len(batch) // 2
            self._publish(batch[:half], numbers[:half])
            self._publish(batch[half:], numbers[half:])
        else:
            self._loaded += len(batch)

    def _share(self, part: Part, rows: int) -> float | None:
        """How much of a part was read, 0.0 to 1.0."""
        if part.rows is not None:
            return rows / part.rows if part.rows else 1.0
        percent = self._connection.query_progress()
        return percent / 100 if 0 <= percent <= 100 else None

    def _report(self) -> LoadReport:
        return LoadReport(
            rows=self._rows,
            loaded=self._loaded,
            refused=dict(self._refusals.counts),
            token=self._token,
            seconds=time.monotonic() - self._started,
        )


def _pieces(batch: Any) -> Iterator[Any]:
    rows: int = batch.num_rows
    size = max(1, rows * _BATCH_BYTES // max(1, batch.nbytes))
    return (batch.slice(start, size) for start in range(0, rows, size))


def _where(numbers: Sequence[int], mask: Any) -> list[int]:
    return [number for number, wanted in zip(numbers, mask.to_pylist(), strict=True) if wanted]
