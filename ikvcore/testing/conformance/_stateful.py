"""The stateful tier: random events and restarts against a plain model."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import seed as seeded
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from ikvcore.testing._store_base import StoreBase
from ikvcore.testing.machine import store_machine

__all__ = ["Stateful"]


class Stateful(StoreBase):
    """A writer and a reader that are restarted at any point."""

    seed: ClassVar[int] = 1
    examples: ClassVar[int] = 20
    steps: ClassVar[int] = 25

    def test_random_events_and_restarts_equal_the_model(self) -> None:
        """Upserts, deletes and drops of every kind, from one seed: what the reader shows is what a dict would hold."""
        machine = store_machine(
            self.backend,
            self.transport,
            partitions=3,
            max_examples=self.examples,
            steps=self.steps,
            backend_options=self.backend_options,
            transport_options=self.transport_options,
        )
        chosen: Any = machine.TestCase.settings
        run_state_machine_as_test(seeded(self.seed)(machine), settings=settings(chosen, derandomize=False))
