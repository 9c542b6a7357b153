"""What a forked child starts anew: the parent's threads are not there, and their locks stay locked."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from weakref import WeakKeyDictionary


def after_fork(start_anew: Callable[[], None]) -> None:
    """Call this first thing in every forked child, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=start_anew)


def keep_for_ever(thing: object) -> None:
    """Never take a thing apart, not even when the interpreter ends.

    For what a forked child got from its parent: its end may say goodbye on the parent's connection,
    or wait for threads that are not here. No variable is enough, as those go at the end, too.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_processes: WeakKeyDictionary[object, int] = WeakKeyDictionary()


def process_of(thing: object) -> int:
    """Return the process in which this was first asked about a thing."""
    try:
        return _processes.setdefault(thing, os.getpid())
    except TypeError:  # nothing can be noted of it
        return os.getpid()
