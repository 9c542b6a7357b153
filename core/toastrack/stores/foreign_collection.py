"""What a framework's vector store is over, and where the calls of its client are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from toastrack.stores.backend import BackendBase
from toastrack.stores.runtime import AsyncRuntime, SyncRuntime, run_sync
from toastrack.utils.threads import off_loop

T = TypeVar("T")

Body = Callable[[], Coroutine[Any, Any, T]]


@dataclass(frozen=True)
class ForeignCollection:
    """What a framework's vector store is over, and how its client's calls are made.

    Args:
        backend: The collection. It is found, asked for a sample and told a space, and nothing else.
        awaited: Its client's calls are awaited.
        run: Runs a coroutine on the event loop that the client belongs to, from another thread; None
            where that is the caller's own.
        run_async: The same, awaited.
    """

    backend: BackendBase
    awaited: bool = False
    run: Callable[[Coroutine[Any, Any, Any]], Any] | None = None
    run_async: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        self.backend.runtime = AsyncRuntime() if self.awaited else SyncRuntime()
        self.backend.adopting = "call guard(vector_store, adopt=True)"

    @property
    def where(self) -> str:
        """Its name, for errors."""
        return f"{self.backend.kind} {self.backend.label!r}"

    def perform(self, body: Body[T]) -> T:
        """Run a body on this thread, or where the client's event loop is."""
        if not self.awaited:
            return run_sync(body())
        if self.run is None:
            raise TypeError(
                f"{self.where}: the client is asynchronous. Await the methods that begin with an a."
            )
        result: T = self.run(body())
        return result

    async def aperform(self, body: Body[T]) -> T:
        """Run a body without holding up the running event loop."""
        if not self.awaited:
            return await off_loop(lambda: run_sync(body()))
        result: T = await (body() if self.run_async is None else self.run_async(body()))
        return result
