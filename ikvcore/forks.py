"""What happens to open engines when their process forks.

An engine that was open at a fork must not be touched in the child: LMDB's reader slots belong to the parent, locks may
be held by threads that do not exist there, and clients of a broker send nothing. Plugins register what they opened; in
the child each is told once, and from then on raises ForkedError from every call.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["ForkAware", "after_fork_in_child", "leak"]


class ForkAware(Protocol):
    """Something opened before a fork."""

    def forked(self) -> None:
        """Called once in the child: refuse every later call; take no lock, touch no engine handle."""


_registered: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_leaked: list[object] = []


def after_fork_in_child(instance: ForkAware) -> None:
    """Have `instance.forked()` called in the child of any later fork; the reference held is weak."""
    _registered.add(instance)


def leak(handle: object) -> None:
    """Keep `handle` alive until the process is gone, its destructor never run, not even at interpreter exit."""
    import ctypes

    _leaked.append(handle)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))


def _tell_all() -> None:
    for instance in list(_registered):
        instance.forked()


os.register_at_fork(after_in_child=_tell_all)
