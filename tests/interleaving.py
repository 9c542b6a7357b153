"""A runtime that stops at every call of the host, and all orders in which several calls can go on."""

from __future__ import annotations

import asyncio
import inspect
import random
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

from toastrack.errors import StoreError
from toastrack.stores import AsyncRuntime, Runtime, SyncRuntime

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
            gave_up.append(_because_of_another(error))
            running.remove(chosen)
    return gave_up


def _because_of_another(error: StoreError) -> StoreError:
    if "another writer is changing document" not in str(error):
        raise error
    return error


class Writer(AsyncRuntime):
    """One of several calls on an event loop, which stops before each statement and each commit.

    Args:
        process: The host's own name of its connection, by which it says who waits for whom.
    """

    def __init__(self, process: int) -> None:
        self.process = process
        self.free = True
        """It goes on by itself."""
        self.turn: asyncio.Future[None] | None = None
        """Set while it stands still."""

    async def _stop(self) -> None:
        if not self.free:
            self.turn = asyncio.get_running_loop().create_future()
            await self.turn

    def go_on(self) -> None:
        """Let it take its next step."""
        assert self.turn is not None
        turn, self.turn = self.turn, None
        turn.set_result(None)

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        if getattr(function, "__name__", "") == "execute":
            await self._stop()
        answer = function(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def offload(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        return function(*args, **options)

    async def sleep(self, seconds: float) -> None:
        await self._stop()

    def enter(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        entered = super().enter(manager)
        # Transactions and pipelines do at their end what others see; a cursor does nothing.
        return self._stopping_at_its_end(entered) if hasattr(manager, "gen") else entered

    @asynccontextmanager
    async def _stopping_at_its_end(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        async with manager as value:
            yield value
            await self._stop()

    def write_queue(self, perform: Any, interrupt: Any) -> Any:
        return _Queue(perform)


Waits = Callable[[Sequence[int]], Awaitable[Mapping[int, Sequence[int]]]]
"""Asks a host which of its processes waits for which others at this moment."""


async def run_waiting(
    calls: Mapping[Writer, Coroutine[Any, Any, Any]], choose: Callable[[int], int], waits: Waits
) -> list[StoreError]:
    """Do what ``run`` does for calls that may wait for each other's locks."""
    tasks = {}
    for writer, call in calls.items():
        writer.free, writer.turn = False, None
        tasks[writer] = asyncio.create_task(call)
    try:
        while True:
            await _come_to_rest(tasks, waits)
            still = [writer for writer, task in tasks.items() if writer.turn is not None]
            if not still:
                break
            still[choose(len(still))].go_on()
        gave_up = []
        for task in tasks.values():
            try:
                task.result()
            except StoreError as error:
                gave_up.append(_because_of_another(error))
        return gave_up
    finally:
        for writer, task in tasks.items():
            writer.free = True
            task.cancel()
        await asyncio.wait(tasks.values())


async def _come_to_rest(tasks: Mapping[Writer, asyncio.Task[Any]], waits: Waits) -> None:
    """Wait until each one has ended, stands still, or waits for one that stands still."""
    while True:
        await asyncio.sleep(0)  # lets those go on who can
        moving = [
            writer for writer, task in tasks.items() if writer.turn is None and not task.done()
        ]
        if not moving:
            return
        waiting = await waits([writer.process for writer in moving])
        held = {writer.process for writer in tasks if writer.turn is not None}
        for _ in moving:
            held |= {process for process, others in waiting.items() if held & set(others)}
        # Those in a deadlock are not: the host ends it.
        if all(writer.process in held for writer in moving if writer.turn is None):
            return


def on_a_thread(function: Callable[[Callable[[Coroutine[Any, Any, Any]], Any]], Any]) -> Any:
    """Return the coroutine of a plain function, to which is given how it can await.

    It runs on a thread while everybody else stands still, and stops wherever what it awaits does.
    """

    async def body() -> Any:
        asked: SimpleQueue[Any] = SimpleQueue()
        answers: SimpleQueue[Callable[[], Any]] = SimpleQueue()

        def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
            asked.put(coroutine)
            return answers.get()()

        def work() -> None:
            try:
                asked.put(_returning(function(wait_for)))
            except BaseException as error:
                asked.put(_raising(error))

        thread = Thread(target=work, daemon=True)
        thread.start()
        while inspect.iscoroutine(step := asked.get()):
            try:
                answers.put(_returning(await step))
            except BaseException as error:
                answers.put(_raising(error))
        thread.join()
        return step()

    return body()


def _returning(value: Any) -> Callable[[], Any]:
    return lambda: value


def _raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


class Orders:
    """All orders, one after another, or random ones where there are more than may be tried."""

    def __init__(self, most: int, seed: int, *, all_of_them: bool = True) -> None:
        self._most = most
        self._in_turn = most // 2 if all_of_them else 0
        self._random = random.Random(seed)
        self.seed = seed
        self.tried = 0
        self.random = 0

    def __iter__(self) -> Iterator[Callable[[int], int]]:
        """Yield what chooses each step of one run."""
        way: list[int] = []
        while self.tried < self._in_turn:
            taken: list[tuple[int, int]] = []

            def choose(number: int, way: list[int] = way, taken: Any = taken) -> int:
                position = len(taken)
                choice = min(way[position], number - 1) if position < len(way) else 0
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
