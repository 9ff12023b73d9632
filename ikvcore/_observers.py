"""Observers: those that are installed (entry points of group `ikv_hooks`) and those that an application gave.

An observer is loaded, and called, in the observers' thread alone. What it raises is logged once and goes no further.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from ikvcore._discovery import Candidate, installed, missing_requirements
from ikvcore._observation import observation
from ikvcore.errors import InvalidOptionError, near_miss

__all__ = ["Audience", "Observer", "given_observers", "hooks_of", "installed_observers", "load_observer"]

_log = logging.getLogger(__name__)

_SLOW: Final = 1.0
Hooks: TypeAlias = Mapping[str, Callable[..., object]]


class Observer:
    """One observer, loaded when it is first told something."""

    def __init__(self, name: str, load: Callable[[], Hooks]) -> None:
        self.name = name
        self._load = load
        self._hooks: Hooks | None = None
        self._complained: set[str] = set()

    def tell(self, hook: str, event: object) -> None:
        """Call the observer's hook, if it has it. In the observers' thread; raises nothing."""
        observation.busy_with = self.name
        began = time.monotonic()
        try:
            function = self._loaded().get(hook)
            if function is not None:
                function(event=event)
        except BaseException as exc:  # SystemExit too would end the thread, and with it all telling
            self._complain("failing", f"failed in {hook}; it is called again, and logged no more", exc)
        observation.busy_with = ""
        seconds = time.monotonic() - began
        if seconds > _SLOW:
            self._complain("slow", f"took {seconds:.1f} s for {hook}, which keeps all observers waiting; logged once")

    def _loaded(self) -> Hooks:
        if self._hooks is None:
            self._hooks = {}  # also where loading fails: it is not tried again
            self._hooks = self._load()
        return self._hooks

    def _complain(self, about: str, text: str, exc: BaseException | None = None) -> None:
        if about not in self._complained:
            self._complained.add(about)
            _log.warning("observer %s %s", self.name, text, exc_info=exc)


class Audience:
    """Who is told of what a client, or a replica that clients share, does. False where it is nobody."""

    __slots__ = ("_joined", "_observers")

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)
        self._joined: tuple[Audience, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._observers)

    def tell(self, hook: str, event: object) -> None:
        """Have `event` told to everybody, each in the thread of observers. Never waits."""
        if self._observers:
            observation.put(partial(_tell, self._observers, hook, event))

    def tell_here(self, hook: str, event: object) -> None:
        """Tell everybody at once: for what is found in the thread of observers."""
        _tell(self._observers, hook, event)

    def join(self, other: Audience) -> None:
        """Tell also whom `other` tells; one call at a time of this and of `leave`."""
        self._gather((*self._joined, other))

    def leave(self, other: Audience) -> None:
        """Take one `join` back."""
        joined = list(self._joined)
        if other in joined:
            joined.remove(other)
        self._gather(tuple(joined))

    def _gather(self, joined: tuple[Audience, ...]) -> None:
        self._joined = joined
        self._observers = tuple(dict.fromkeys(each for audience in joined for each in audience._observers))


def _tell(observers: tuple[Observer, ...], hook: str, event: object) -> None:
    for observer in observers:
        observer.tell(hook, event)


# -- who there is ------------------------------------------------------------------------------

_installed: Final[dict[str, Observer]] = {}
_given: Final[weakref.WeakValueDictionary[int, Observer]] = weakref.WeakValueDictionary()
"""By the id of what was given, which lives as long as its Observer: what is logged once is so for all its clients."""


def installed_observers() -> list[Observer]:
    """Those whose requirements are there too; nothing of them is imported yet."""
    usable = [candidate for candidate in installed("observer") if not missing_requirements(candidate)]
    return [
        _installed.setdefault(each.qualified_name, Observer(_title(each), partial(load_observer, each)))
        for each in usable
    ]


def given_observers(objects: Iterable[object]) -> list[Observer]:
    """Observers that are these objects. Raises InvalidOptionError for one that has no hooks, or wrong ones."""
    return [_observer_of(each) for each in objects]


def _observer_of(thing: object) -> Observer:
    known = _given.get(id(thing))
    if known is not None:
        return known
    if isinstance(thing, type):
        raise InvalidOptionError("observers", thing, "it is a class: give an instance of it")
    try:
        hooks = hooks_of(thing)
    except Exception as exc:
        raise InvalidOptionError("observers", thing, f"it cannot observe: {exc}") from exc
    observer = _given[id(thing)] = Observer(f"{thing!r:.200}", lambda: hooks)
    return observer


def _title(candidate: Candidate) -> str:
    return f"{candidate.name!r} of {candidate.distribution} {candidate.version}"


def load_observer(candidate: Candidate) -> Hooks:
    """The hooks of one that is installed. Raises PluginNotFoundError, PluginBrokenError."""
    from ikvcore._registry import broken, import_plugin

    plugin = import_plugin(candidate)
    try:
        return hooks_of(plugin)
    except Exception as exc:
        raise broken(candidate, exc) from exc


def hooks_of(plugin: Any) -> Hooks:
    """The hooks of an observer, ready to be called with `event=`. Raises TypeError, pluggy's own errors.

    Each has a manager of its own: pluggy checks its hooks and leaves out arguments that it does not name, and one that
    raises keeps no other from being called.
    """
    import pluggy

    from ikvcore import hookspecs
    from ikvcore._registry import unknown_hooks

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs.ObserverSpec)
    manager.register(plugin)
    known = vars(hookspecs.ObserverSpec)
    unknown = unknown_hooks(manager, plugin)
    if unknown:
        close = near_miss(unknown[0], [name for name in known if not name.startswith("_")])
        raise TypeError(f"it implements unknown hook {unknown[0]!r}{close}")
    hooks = {caller.name: caller for caller in manager.get_hookcallers(plugin) or () if caller.name in known}
    if not hooks:
        raise TypeError("it has no function marked with hookimpl that is a hook of observers")
    return hooks
