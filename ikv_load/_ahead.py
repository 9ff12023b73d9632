"""Reading ahead: a thread runs the query, so that reading and publishing overlap and a wait can be broken off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any, Final

from ikv_load._engine import Connection

__all__ = ["ReadAhead"]

_BATCHES: Final = 1
"""How many batches wait at most, besides the one that the thread holds: memory is bounded by them."""
_HEARTBEAT: Final = 0.1


class ReadAhead:
    """An iterator over the record batches of a query, in the order of its source; None for each 0.1 s of waiting.

    What reading raises is raised here. Close it when done, also before the end.
    """

    def __init__(self, connection: Connection, query: str, batch_size: int) -> None:
        self._connection, self._query, self._batch_size = connection, query, batch_size
        self._queue: Queue[Any] = Queue(_BATCHES)
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="ikv-load", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                batch, error = self._queue.get(timeout=_HEARTBEAT)
            except Empty:
                yield None
                continue
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """End the query and its thread."""
        self._stopped = True
        while self._thread.is_alive():
            # Again and again: an interrupt that comes just before the query begins is lost.
            self._connection.interrupt()
            try:
                self._queue.get(timeout=_HEARTBEAT / 10)
            except Empty:
                continue

    def _read(self) -> None:
        try:
            # A relation streams its result; that of execute() would be there as a whole first.
            for batch in self._connection.sql(self._query).to_arrow_reader(self._batch_size):
                if self._stopped:
                    return
                batch.validate(full=True)  # DuckDB passes a table's strings on as they are, also what is not UTF-8
                self._queue.put((batch, None))
        except BaseException as exc:
            self._queue.put((None, exc))
        else:
            self._queue.put((None, None))
