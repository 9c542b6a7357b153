"""Forks that wait for native code: what it has locked at a fork stays locked in the child for ever."""

from __future__ import annotations

# What this and logging lock before a fork is locked after our wait, as the last registered is the
# first called: a model that is loaded meanwhile logs, and starts threads.
import concurrent.futures.thread  # noqa: F401
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, local

# Longer than any batch takes. There is an end, as what computes may wait for who forks.
_SECONDS = 30.0


class _State:
    def __init__(self) -> None:
        self.changed = Condition()
        self.blocks = 0
        self.forks = 0
        self.thread = local()

    @property
    def own(self) -> int:
        """The blocks that the calling thread is in, for which it need not wait."""
        return getattr(self.thread, "blocks", 0)

    def enter(self) -> None:
        with self.changed:
            if not self.own:  # else the fork waits for this thread
                self.changed.wait_for(lambda: not self.forks, _SECONDS)
            self.blocks += 1
            self.thread.blocks = self.own + 1

    def leave(self) -> None:
        with self.changed:
            self.blocks -= 1
            self.thread.blocks -= 1
            self.changed.notify_all()


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
    with _state.changed:
        _state.forks += 1
        _state.changed.wait_for(lambda: _state.blocks == _state.own, _SECONDS)


def _in_parent() -> None:
    with _state.changed:
        _state.forks -= 1
        _state.changed.notify_all()


def _in_child() -> None:
    global _state
    blocks = _state.own
    _state = _State()
    _state.blocks = _state.thread.blocks = blocks


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
