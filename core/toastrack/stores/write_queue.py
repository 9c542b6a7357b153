"""Host calls one after another, while their caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol
from weakref import finalize

from toastrack.stores.sync import run_sync

if TYPE_CHECKING:
    from typing_extensions import Self

Perform = Callable[..., Coroutine[Any, Any, Any]]
"""``StoreFlow.perform``: one operation on the collection."""

Interrupt = Callable[[Thread], None]
"""``Backend.interrupt``: end the call of the host that a thread is making."""

Calls = SimpleQueue[tuple[Future[Any], Perform, bool] | None]

# How long Ctrl-C waits for a host that does not answer.
_SECONDS_TO_END = 5.0


class Call(Protocol):
    """A call of the host under way: a future of threads or of an event loop."""

    def done(self) -> bool:
        """Tell whether there is an answer, or an error."""
        ...


class WriteQueue(Protocol):
    """Operations that are performed one after another; after one that failed to write, none.

    At the end of the ``async with`` block what has not begun is dropped, and what has is waited for.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None: ...

    def submit(self, method: Callable[..., Any], *args: Any, reads: bool = False) -> Call:
        """Queue an operation behind those before it; ``method`` and ``reads`` as in ``perform``."""
        ...

    async def wait(self, call: Call) -> Any:
        """Return the answer to a call."""
        ...


class ThreadWriteQueue:
    """Performs operations on a thread of its own, which is interrupted at Ctrl-C."""

    def __init__(self, perform: Perform, interrupt: Interrupt) -> None:
        self._perform = perform
        self._interrupt = interrupt
        self._calls: Calls = SimpleQueue()
        self._closed = Event()
        # Nobody waits for a daemon at the end of the process.
        self._thread = Thread(
            target=_serve, args=(self._calls, self._closed), name="toastrack-writing", daemon=True
        )
        # Ctrl-C may come between the thread's start and the block, or before the block's end began.
        finalize(self, _end, self._calls, self._closed).atexit = False

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        _end(self._calls, self._closed)
        if kind is None or issubclass(kind, Exception):
            self._thread.join()
        else:
            self._interrupt(self._thread)
            self._thread.join(_SECONDS_TO_END)

    def submit(self, method: Callable[..., Any], *args: Any, reads: bool = False) -> Call:
        """Queue an operation."""
        future: Future[Any] = Future()
        self._calls.put((future, partial(self._perform, method, *args, reads=reads), reads))
        return future

    async def wait(self, call: Call) -> Any:
        """Return the answer to a call."""
        assert isinstance(call, Future)
        return call.result()


def _serve(calls: Calls, closed: Event) -> None:
    """Perform operations until the end; the thread does not hold the queue."""
    failed: BaseException | None = None
    while (item := calls.get()) is not None:
        future, call, reads = item
        if closed.is_set():
            future.cancel()
            continue
        try:
            if failed is not None:
                raise failed
            future.set_result(run_sync(call()))
        except BaseException as error:
            if not reads:
                failed = error
            future.set_exception(error)


def _end(calls: Calls, closed: Event) -> None:
    closed.set()
    calls.put(None)


class TaskWriteQueue:
    """Performs operations in tasks of the running event loop, which are cancelled with their caller."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._open: set[asyncio.Task[Any]] = set()
        self._last: asyncio.Task[Any] | None = None
        self._running: asyncio.Task[Any] | None = None
        self._failed: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        cancelled = kind is not None and not issubclass(kind, Exception)
        for task in self._open:
            if cancelled or task is not self._running:
                task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def submit(self, method: Callable[..., Any], *args: Any, reads: bool = False) -> Call:
        """Queue an operation."""
        call = partial(self._perform, method, *args, reads=reads)
        task = asyncio.create_task(self._run(self._last, call, reads))
        self._open.add(task)
        task.add_done_callback(self._done)
        self._last = task
        return task

    async def wait(self, call: Call) -> Any:
        """Return the answer to a call."""
        assert isinstance(call, asyncio.Task)
        return await call

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._open.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, or the loop would log it beside the caller's own error

    async def _run(self, previous: asyncio.Task[Any] | None, call: Perform, reads: bool) -> Any:
        if previous is not None:
            await asyncio.wait([previous])
        self._running = asyncio.current_task()
        if self._failed is not None:
            raise self._failed
        try:
            return await call()
        except Exception as error:
            if not reads:
                self._failed = error
            raise
