"""Observers: one that tells what it hears, one that fails, and one that listens for what there is not."""

import sys

from ikvcore.hookspecs import hookimpl


class Audit:
    @hookimpl
    def events_published(self, event):
        print("published", event.events, file=sys.stderr)

    @hookimpl
    def reader_started(self):
        print("started", file=sys.stderr)


class Failing:
    @hookimpl
    def events_published(self, event):
        raise ValueError("not today")


class Misspelt:
    @hookimpl
    def event_published(self, event):
        raise NotImplementedError


audit, failing, misspelt = Audit(), Failing(), Misspelt()
