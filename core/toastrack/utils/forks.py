"""What a forked child starts anew: the parent's threads are not there, and their locks stay locked."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import time
from collections.abc import Callable
from functools import cached_property
from threading import RLock, get_ident
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


def after_fork(start_anew: Callable[[], None]) -> None:
    """Call this first thing in every forked child, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=start_anew)


def renewing_property_locks(cls: type[T]) -> type[T]:
    """Give the cached properties of a class new locks in every forked child.

    Before Python 3.12 each has one that all instances share, and another thread may have held it.
    """

    def start_anew() -> None:
        for part in vars(cls).values():
            if isinstance(part, cached_property) and hasattr(part, "lock"):
                part.lock = RLock()

    after_fork(start_anew)
    return cls


def keep_for_ever(thing: object) -> None:
    """Never take a thing apart, not even when the interpreter ends.

    For what a forked child got from its parent: its end may say goodbye on the parent's connection,
    or wait for threads that are not here. No variable is enough, as those go at the end, too.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


# What is imported at the first text or call, on whatever thread that comes. For a module of the
# user's no fork waits: a program may run all its life inside an import.
_LATE = frozenset(
    (
        *("numpy", "torch", "transformers", "sentence_transformers", "openvino", "tokenizers"),
        *("safetensors", "huggingface_hub", "semantic_text_splitter", "fastembed", "pyarrow"),
    )
)
# Far more than importing torch takes. There is an end, as what is imported may wait for who forks.
_SECONDS_FOR_IMPORTS = 30.0


def _wait_for_imports() -> None:
    """Before a fork: let other threads finish what they import for us.

    The child would have it half imported for ever, and wait for a thread that it does not have.
    """
    end = time.monotonic() + _SECONDS_FOR_IMPORTS
    while _others_import() and time.monotonic() < end:
        time.sleep(0.005)


def _others_import() -> bool:
    """Tell whether another thread holds the lock of such a module; only importlib knows of those."""
    locks = getattr(getattr(importlib, "_bootstrap", None), "_module_locks", {})
    others = sys._current_frames().keys() - {get_ident()}
    return any(
        getattr(lock(), "owner", None) in others
        for name, lock in list(locks.items())
        if (root := name.partition(".")[0]) in _LATE or root.startswith("toastrack")
    )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_imports)


_processes: WeakKeyDictionary[object, int] = WeakKeyDictionary()


def process_of(thing: object) -> int:
    """Return the process in which this was first asked about a thing."""
    try:
        return _processes.setdefault(thing, os.getpid())
    except TypeError:  # nothing can be noted of it
        return os.getpid()
