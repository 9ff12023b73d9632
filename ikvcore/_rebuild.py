"""Builds the generation that replaces a damaged one, from the whole log (C7).

It takes the place of the damaged one when it is nowhere behind what may have been read of that: the log's end as it was
when the rebuild began, since ingest into the damaged generation had stopped by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ikvcore._generations import Generations
from ikvcore._ingest import Ingester
from ikvcore._progress import read_progress
from ikvcore.errors import ReplicaDamagedError
from ikvcore.models import Position
from ikvcore.protocols import Storage, Transport

__all__ = ["Rebuild"]

_log = logging.getLogger(__name__)


class Rebuild:
    """One try. Used by the replica's loop."""

    def __init__(
        self,
        generations: Generations,
        transport: Transport,
        make_ingester: Callable[[Storage], Ingester],
        partitions: Sequence[int],
        *,
        may_halt: bool,
    ) -> None:
        """`may_halt`: the damaged generation never passed a bad event, so halting before one leaves nothing behind.

        Raises ReplicaDamagedError where the log has lost its beginning, StorageError, TransportError."""
        assert generations.damage is not None
        self._generations = generations
        self._partitions = tuple(partitions)
        self._may_halt = may_halt
        self.blocked: ReplicaDamagedError | None = None
        """Why it can never be done, as things are."""
        self.reason: Final = generations.damage.reason
        bounds = transport.bounds()
        cut = [partition for partition in self._partitions if not bounds[partition].complete]
        if cut:
            raise ReplicaDamagedError(
                self.reason,
                f"It cannot be rebuilt by itself, since the log no longer begins at its beginning (partitions {cut}): "
                "restore the mount directory from a copy, or publish the documents again into a new store",
            )
        self._target: Mapping[int, Position] = {partition: bounds[partition].end for partition in self._partitions}
        self._directory, self._storage = generations.begin_next()
        try:
            self.ingester: Final = make_ingester(self._storage)
        except BaseException:
            generations.abandon(self._directory, self._storage)
            raise
        self.reached: Mapping[int, Position] = {}
        """The positions of the new generation; absent where nothing was applied yet."""
        _log.warning("rebuilding the replica in %s from the log: %s", self._directory, self.reason)

    def step(self, timeout: float) -> bool:
        """Apply what the log gives next; whether the new generation is now the current one."""
        self.ingester.step(timeout)
        progress = read_progress(self._storage, self._partitions).partitions
        self.reached = {partition: done.position for partition, done in progress.items()}
        # A partition that halts before a bad event had halted there before; unless it was passed over then, and what
        # was read after it must not be gone now.
        halts = self.ingester.halts
        if halts and not self._may_halt:
            told = "; ".join(f"partition {partition}: {reason}" for partition, reason in sorted(halts.items()))
            self.blocked = ReplicaDamagedError(
                self.reason,
                f"Rebuilding it from the log has halted ({told}), and the replica may have passed that over before: "
                "open the reader with with_on_bad_event('quarantine'), or remove the mount directory to do without "
                "what came after",
            )
            return False
        going_on = self._target.keys() - halts
        if any(self.reached.get(partition, 0) < self._target[partition] for partition in going_on):
            return False
        self._generations.change_over(self._directory, self._storage)
        _log.warning("the replica was rebuilt in %s; the damaged one is left beside it", self._directory)
        return True

    def abandon(self) -> None:
        """Give the try up and remove what it made."""
        self.ingester.close()
        self._generations.abandon(self._directory, self._storage)
