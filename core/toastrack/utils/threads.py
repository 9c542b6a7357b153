"""Threads for what would hold up an event loop."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from toastrack.utils.forks import after_fork

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

# A thread is started when all others are busy, and most of them wait for the engine.
_MOST_THREADS = 1_000

# They end with their loop, at the latest when the next one needs some.
_threads: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


async def off_loop(function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
    """Call a function on a thread of our own.

    ``asyncio.to_thread`` has a few for everybody: those who wait for the engine would fill them,
    and what else the program does off its loop would have to wait, too.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    threads = _threads.get(loop)
    if threads is None:
        _end_those_of_closed_loops()
        threads = _threads[loop] = ThreadPoolExecutor(_MOST_THREADS, "toastrack-off-loop")
    context = contextvars.copy_context()
    return await loop.run_in_executor(threads, partial(context.run, function, *args, **options))


def _end_those_of_closed_loops() -> None:
    """A host may keep a closed loop, as Chroma's asynchronous client does for ever."""
    for reference in _threads.keyrefs():
        loop = reference()
        if loop is not None and loop.is_closed():
            threads = _threads.pop(loop, None)
            if threads is not None:  # another thread was not faster
                threads.shutdown(wait=False)


def _start_anew() -> None:
    """In a forked child: the threads of a loop that it goes on with are not here."""
    _threads.clear()


after_fork(_start_anew)
