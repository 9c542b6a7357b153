"""A runtime that stops at every call of the host, and all orders in which several calls can go on."""

from __future__ import annotations

import random
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any

from toastrack.errors import StoreError
from toastrack.stores import Runtime, SyncRuntime

Body = Callable[[Any], Coroutine[Any, Any, Any]]
"""Given a flow, a call of a store."""


class _QueuedCall:
    """A call of the host that is made when it is waited for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine

    def done(self) -> bool:
        return True


class _Queue:
    """A write queue without a thread or task of its own: one call is one chain of host calls."""

    def __init__(self, perform: Any) -> None:
        self._perform = perform

    async def __aenter__(self) -> _Queue:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    def submit(self, method: Any, *args: Any, reads: bool = False) -> _QueuedCall:
        return _QueuedCall(self._perform(method, *args, reads=reads))

    async def wait(self, call: Any) -> Any:
        return await call.coroutine


class SteppedRuntime(SyncRuntime):
    """Hands control back before each call of the host, and never waits."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        await _switch()
        return function(*args, **options)

    async def sleep(self, seconds: float) -> None:
        for _ in range(1 + int(100 * seconds)):
            await _switch()

    def write_queue(self, perform: Any, interrupt: Any) -> Any:
        return _Queue(perform)


RUNTIME: Runtime = SteppedRuntime()


@types.coroutine
def _switch() -> Generator[None, None, None]:
    yield


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a call to its end without letting another one in between."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


def run(
    coroutines: Sequence[Coroutine[Any, Any, Any]], choose: Callable[[int], int]
) -> list[StoreError]:
    """Run calls at once; ``choose(n)`` says which of the n unfinished ones makes its next step.

    Returns the errors of those that gave up because of another writer.
    """
    running = list(coroutines)
    gave_up: list[StoreError] = []
    while running:
        chosen = running[choose(len(running))]
        try:
            chosen.send(None)
        except StopIteration:
            running.remove(chosen)
        except StoreError as error:
            if "another writer is changing document" not in str(error):
                raise
            gave_up.append(error)
            running.remove(chosen)
    return gave_up


class Orders:
    """All orders, one after another, or random ones where there are more than may be tried."""

    def __init__(self, most: int, seed: int) -> None:
        self._most = most
        self._random = random.Random(seed)
        self.tried = 0
        self.random = 0

    def __iter__(self) -> Iterator[Callable[[int], int]]:
        """Yield what chooses each step of one run."""
        way: list[int] = []
        while self.tried < self._most // 2:
            taken: list[tuple[int, int]] = []

            def choose(number: int, way: list[int] = way, taken: Any = taken) -> int:
                position = len(taken)
                choice = way[position] if position < len(way) else 0
                taken.append((choice, number))
                return choice

            self.tried += 1
            yield choose
            while taken and taken[-1][0] == taken[-1][1] - 1:
                taken.pop()
            if not taken:
                return
            way = [*(choice for choice, _ in taken[:-1]), taken[-1][0] + 1]
        # The first half differ near their ends only.
        while self.tried < self._most:
            self.tried += 1
            self.random += 1
            yield lambda number: self._random.randrange(number)
