"""Forks that wait for native code: what it has locked at a fork stays locked in the child for ever."""

from __future__ import annotations

# What this and logging lock before a fork is locked after our wait, as the last registered is the
# first called: a model that is loaded meanwhile logs, and starts threads.
import concurrent.futures.thread  # noqa: F401
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, get_ident

# Longer than any batch takes. There is an end, as what computes may wait for who forks.
_SECONDS = 30.0


class _State:
    """Who computes and who forks, by thread.

    What is over is noted without the lock: Ctrl-C may come to who waits for that, and ever after all
    others would wait for what is over.
    """

    def __init__(self) -> None:
        self.changed = Condition()
        self.computing: dict[int, int] = {}
        """How many blocks a thread is in."""
        self.forking: set[int] = set()

    def enter(self) -> None:
        me = get_ident()
        with self.changed:
            if me not in self.computing:  # else the fork waits for this thread
                self.changed.wait_for(lambda: not self.forking, _SECONDS)
            self.computing[me] = self.computing.get(me, 0) + 1

    def leave(self) -> None:
        me = get_ident()
        if self.computing[me] > 1:
            self.computing[me] -= 1
        else:
            del self.computing[me]
        with self.changed:
            self.changed.notify_all()

    def is_computing(self) -> bool:
        """Tell whether a thread computes that does not fork itself, from within its block."""
        return any(thread not in self.forking for thread in list(self.computing))


_state = _State()


@contextmanager
def computing() -> Iterator[None]:
    """Let no other thread fork while the block runs; a fork that waits already goes first.

    torch, for one, locks its generator of random numbers while a model is made.
    """
    _state.enter()
    try:
        yield
    finally:
        _state.leave()


def _before_fork() -> None:
    _state.forking.add(get_ident())
    with _state.changed:
        _state.changed.wait_for(lambda: not _state.is_computing(), _SECONDS)


def _in_parent() -> None:
    _state.forking.discard(get_ident())
    with _state.changed:
        _state.changed.notify_all()


def _in_child() -> None:
    global _state
    blocks = _state.computing.get(get_ident(), 0)
    _state = _State()
    if blocks:
        _state.computing[get_ident()] = blocks


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
