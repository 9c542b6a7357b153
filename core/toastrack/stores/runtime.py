"""How the body of a store waits: on this thread, or on an event loop.

A store is written once, in ``async def``. Its bodies await the runtime, a session, or one another,
and nothing else; so under ``SyncRuntime`` everything awaited is done when it returns, and a body
ends within one step of ``run_sync``.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from threading import Event, RLock
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from toastrack.embedder import Embedder
from toastrack.reranker import Reranker
from toastrack.stores.sync import run_sync
from toastrack.stores.write_queue import (
    Interrupt,
    Perform,
    TaskWriteQueue,
    ThreadWriteQueue,
    WriteQueue,
)
from toastrack.utils import arrays
from toastrack.utils.threads import off_loop

__all__ = ["AsyncRuntime", "Ended", "Runtime", "SyncRuntime", "run_sync"]

P = ParamSpec("P")
T = TypeVar("T")

Lock = AbstractAsyncContextManager[Any]


class Ended(Protocol):
    """Tells work in the background that the block beside it has ended."""

    async def within(self, seconds: float) -> bool:
        """Wait for that, and tell whether it came in time."""
        ...


class Runtime(Protocol):
    """Every thread, task, queue, pause and clock of a store."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Call the host's client; what it returns is awaited if it is awaitable."""
        ...

    async def offload(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Call what would hold up an event loop, such as the model or a file, off it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, which an event loop spends on others."""
        ...

    async def embed_query(self, embedder: Embedder, text: str) -> arrays.FloatVector:
        """Embed a query: float32 of shape ``(dimensions,)``, length 1."""
        ...

    async def score(
        self, reranker: Reranker, query: str, texts: Sequence[str]
    ) -> arrays.FloatVector:
        """Score texts for a query: float32 of shape ``(texts,)``."""
        ...

    def enter(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        """Return a context manager for ``async with``, also of one that is for ``with`` alone."""
        ...

    def lock(self) -> Lock:
        """Return a lock that keeps threads apart, or the tasks of each event loop."""
        ...

    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the running event loop; None without one."""
        ...

    def write_queue(self, perform: Perform, interrupt: Interrupt) -> WriteQueue:
        """Return a queue of host calls that are made one after another while their caller goes on."""
        ...

    def background(
        self, body: Callable[[Ended], Coroutine[Any, Any, None]]
    ) -> AbstractAsyncContextManager[None]:
        """Run a body beside a block, and wait for it at the block's end.

        An error of the body is raised then, unless the block has one of its own.
        """
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that only goes forward."""
        ...


class SyncRuntime:
    """Does everything on the thread that asks."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Call the host's client; ``TypeError`` if it answers with something to be awaited."""
        answer = function(*args, **options)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError(
                f"{getattr(function, '__qualname__', function)} returned something to be awaited. A "
                "synchronous store takes a synchronous client, and a body awaits runtime.offload "
                "itself."
            )
        return answer

    async def offload(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Call a function."""
        return function(*args, **options)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def embed_query(self, embedder: Embedder, text: str) -> arrays.FloatVector:
        """Embed a query."""
        return embedder.embed_query(text)

    async def score(
        self, reranker: Reranker, query: str, texts: Sequence[str]
    ) -> arrays.FloatVector:
        """Score texts."""
        return reranker.score(query, texts)

    def enter(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        """Return an asynchronous context manager of a synchronous one."""
        return _Entered(manager)

    def lock(self) -> Lock:
        """Return a lock that its thread may take again."""
        return _Entered(RLock())

    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return None."""
        return None

    def write_queue(self, perform: Perform, interrupt: Interrupt) -> WriteQueue:
        """Return a queue with a thread of its own, which Ctrl-C can interrupt."""
        return ThreadWriteQueue(perform, interrupt)

    @asynccontextmanager
    async def background(
        self, body: Callable[[Ended], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[None]:
        """Run a body on a thread."""
        ended = _ThreadEnded()
        with ThreadPoolExecutor(1, "toastrack-background") as threads:
            try:  # Ctrl-C may come as soon as the thread runs
                running = threads.submit(lambda: run_sync(body(ended)))
                yield
            finally:
                ended.set()
        running.result()

    def monotonic(self) -> float:
        """Return seconds of a clock that only goes forward."""
        return time.monotonic()


class AsyncRuntime:
    """Awaits on the running event loop; what would hold it up runs on a thread."""

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Call the host's client, and await what is awaitable."""
        answer = function(*args, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def offload(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        """Call a function on a thread."""
        return await off_loop(function, *args, **options)

    async def sleep(self, seconds: float) -> None:
        """Let others go on."""
        await asyncio.sleep(seconds)

    async def embed_query(self, embedder: Embedder, text: str) -> arrays.FloatVector:
        """Embed a query on the engine's thread, together with others that wait."""
        return await embedder.aembed_query(text)

    async def score(
        self, reranker: Reranker, query: str, texts: Sequence[str]
    ) -> arrays.FloatVector:
        """Score texts on the engine's thread, together with others that wait."""
        return await reranker.ascore(query, texts)

    def enter(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        """Return the manager, or an asynchronous one of it."""
        entered: AbstractAsyncContextManager[Any] = manager
        return entered if hasattr(manager, "__aenter__") else _Entered(manager)

    def lock(self) -> Lock:
        """Return a lock for the tasks of each event loop."""
        return _LoopLock()

    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the running event loop."""
        return asyncio.get_running_loop()

    def write_queue(self, perform: Perform, interrupt: Interrupt) -> WriteQueue:
        """Return a queue of tasks, which are cancelled with their caller."""
        return TaskWriteQueue(perform)

    @asynccontextmanager
    async def background(
        self, body: Callable[[Ended], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[None]:
        """Run a body in a task."""
        ended = _TaskEnded()
        running = asyncio.create_task(body(ended))
        try:
            yield
        finally:
            ended.set()
            await asyncio.wait([running])
        running.result()

    def monotonic(self) -> float:
        """Return seconds of a clock that only goes forward."""
        return time.monotonic()


class _Entered:
    """A synchronous context manager behind ``async with``."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return self._manager.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        suppressed: bool | None = self._manager.__exit__(kind, error, traceback)
        return suppressed


class _LoopLock:
    """A lock for each event loop; those of closed ones are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        for old in [old for old in self._locks if old.is_closed()]:
            self._locks.pop(old, None)
        await self._locks.setdefault(loop, asyncio.Lock()).acquire()

    async def __aexit__(self, *exception: object) -> None:
        self._locks[asyncio.get_running_loop()].release()


class _ThreadEnded:
    def __init__(self) -> None:
        self._event = Event()
        self.set = self._event.set

    async def within(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class _TaskEnded:
    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.set = self._event.set

    async def within(self, seconds: float) -> bool:
        with suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._event.wait(), seconds)
        return False
