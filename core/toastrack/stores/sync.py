"""A body that waits for nothing, run on the thread that asks."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a body on this thread to its end; ``RuntimeError`` if it awaits what is not done."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("A synchronous store awaited something that was not done.")
