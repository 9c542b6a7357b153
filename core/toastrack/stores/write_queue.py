"""Calls of a host that wait for one another, while their caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


# How long Ctrl-C waits for a host that does not answer.
_SECONDS_TO_END = 5.0


class Line:
    """Makes calls one after another on a thread of its own; after one that failed to write, none.

    At the end of the ``with`` block what has not begun is dropped, and what has is waited for; at
    Ctrl-C it is ended by ``interrupt``, which is given the thread.
    """

    def __init__(self, interrupt: Callable[[Thread], None]) -> None:
        self._interrupt = interrupt
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any], bool] | None] = SimpleQueue()
        self._closed = False
        # Nobody waits for a daemon at the end of the process.
        self._thread = Thread(target=self._serve, name="toastrack-writing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._closed = True
        self._calls.put(None)
        if kind is None or issubclass(kind, Exception):
            self._thread.join()
        else:
            self._interrupt(self._thread)
            self._thread.join(_SECONDS_TO_END)

    def start(self, call: Callable[[], Any], *, writes: bool) -> Future[Any]:
        """Queue a call."""
        future: Future[Any] = Future()
        self._calls.put((future, call, writes))
        return future

    def _serve(self) -> None:
        failed: BaseException | None = None
        while (item := self._calls.get()) is not None:
            future, call, writes = item
            if self._closed:
                future.cancel()
                continue
            try:
                if failed is not None:
                    raise failed
                future.set_result(call())
            except BaseException as error:
                if writes:
                    failed = error
                future.set_exception(error)


class AsyncLine:
    """Makes calls one after another on the event loop; after one that failed to write, none.

    At the end of the block what has not begun is dropped, and what has is waited for; if the caller
    was cancelled, so is that.
    """

    def __init__(self) -> None:
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

    def start(self, call: Callable[[], Awaitable[Any]], *, writes: bool) -> asyncio.Task[Any]:
        """Queue a call."""
        task = asyncio.create_task(self._run(self._last, call, writes))
        self._open.add(task)
        task.add_done_callback(self._done)
        self._last = task
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._open.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, or the loop would log it beside the caller's own error

    async def _run(
        self, previous: asyncio.Task[Any] | None, call: Callable[[], Awaitable[Any]], writes: bool
    ) -> Any:
        if previous is not None:
            await asyncio.wait([previous])
        self._running = asyncio.current_task()
        if self._failed is not None:
            raise self._failed
        try:
            return await call()
        except Exception as error:
            if writes:
                self._failed = error
            raise
