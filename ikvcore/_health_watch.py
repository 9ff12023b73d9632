"""Noticing that a reader's health has changed: nothing happens then, it is made up when asked for."""

from __future__ import annotations

import weakref
from pathlib import Path

from ikvcore._observers import Audience
from ikvcore.client import IKVReader
from ikvcore.errors import ForkedError
from ikvcore.health import Health
from ikvcore.models import HealthChanged, StoreDescription

__all__ = ["HealthWatch"]


class HealthWatch:
    """Implements Watched: looks at one reader's health and tells its audience of changes, until it is stopped."""

    def __init__(self, reader: IKVReader, store: StoreDescription, mount: Path | None, audience: Audience) -> None:
        self._reader = weakref.ref(reader)
        self._store = store
        self._mount = mount
        self._audience = audience
        self._last = reader.health()
        # Not looked for: a reader of a short life would have been stopped before the first look.
        audience.tell("health_changed", self._changed(Health(state="stopped", reason="not started"), self._last))

    def look(self) -> bool:
        reader = self._reader()
        if reader is None:
            return False
        try:
            health = reader.health()
        except ForkedError:
            return False
        # Reasons hold figures, which change at every look.
        if (health.state, health.halts) != (self._last.state, self._last.halts):
            before, self._last = self._last, health
            self._audience.tell_here("health_changed", self._changed(before, health))
        return health.state != "stopped"

    def _changed(self, before: Health, after: Health) -> HealthChanged:
        return HealthChanged(
            store_name=self._store.store_name,
            account_id=self._store.account_id,
            mount=self._mount,
            before=before,
            after=after,
        )
