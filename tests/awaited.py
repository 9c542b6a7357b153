"""An asynchronous store as a synchronous one, so that both pass the same tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stop(self) -> None:
        """End the thread and close the loop."""
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def running_loop() -> Iterator[Loop]:
    """Lend an event loop."""
    loop = Loop()
    try:
        yield loop
    finally:
        loop.stop()


@contextmanager
def entered(loop: Loop, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an asynchronous context manager on the loop."""
    value = loop.run(_enter(manager))
    try:
        yield value
    finally:
        loop.run(_exit(manager))


class Awaited:
    """Runs every method of a store on a loop; passes everything else through."""

    def __init__(self, store: Any, loop: Loop) -> None:
        self._store = store
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if inspect.isasyncgenfunction(value):
            return lambda *args, **options: self._items(value(*args, **options))
        return self._waiting(value) if inspect.iscoroutinefunction(value) else value

    def __repr__(self) -> str:
        return repr(self._store)

    def __enter__(self) -> Awaited:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self._loop.run(self._store.close())

    def open(self) -> Awaited:
        """Open the store; this stays its face."""
        self._loop.run(self._store.open())
        return self

    def replace_many(self, documents: Any, on_write: Any = None) -> Any:
        """Call back from a thread, so that the callback may use this store."""
        return self._loop.run(self._store.replace_many(documents, _in_a_thread(on_write)))

    def _ingest(self, documents: Any, run_sources: Any, on_write: Any) -> Any:
        return self._loop.run(self._store._ingest(documents, run_sources, _in_a_thread(on_write)))

    def _waiting(self, method: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
        return lambda *args, **options: self._loop.run(method(*args, **options))

    def _items(self, items: AsyncIterator[T]) -> Iterator[T]:
        end = object()
        while (item := self._loop.run(_next(items, end))) is not end:
            yield item


def _in_a_thread(call_back: Callable[..., object] | None) -> Any:
    """A callback that may use the store it is called by."""
    if call_back is None:
        return None
    return lambda *numbers: asyncio.to_thread(call_back, *numbers)


async def _next(items: AsyncIterator[T], end: Any) -> Any:
    return await anext(items, end)


async def _enter(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def _exit(manager: AbstractAsyncContextManager[T]) -> None:
    await manager.__aexit__(None, None, None)
