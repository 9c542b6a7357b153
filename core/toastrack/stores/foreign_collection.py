"""What a framework's vector store is over, and where the calls of its client are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from toastrack.space import EmbeddingSpace
from toastrack.stores.backend import Retry
from toastrack.stores.plan import Row
from toastrack.stores.runtime import AsyncRuntime, Runtime, SyncRuntime, run_sync
from toastrack.utils.threads import off_loop

T = TypeVar("T")

Body = Callable[[], Coroutine[Any, Any, T]]


class ForeignBackend(Protocol):
    """The part of a ``Backend`` that a collection needs which is not ours: no record is written."""

    kind: str
    label: str
    runtime: Runtime
    dimensions: int | None
    space: EmbeddingSpace | None
    adopting: str

    async def find(self, session: Any) -> bool:
        """Look for the collection; if it is there, learn its ``dimensions`` and ``space``."""
        ...

    async def create(self, session: Any, space: EmbeddingSpace) -> None:
        """Create it as the framework does, and record the space; or raise ``StoreError``."""
        ...

    async def record_space(self, session: Any, space: EmbeddingSpace) -> None:
        """Write the space down where none is, or an equal one; then read it back."""
        ...

    async def is_empty(self, session: Any) -> bool:
        """Tell whether it holds no vector."""
        ...

    async def check_adoptable(self, session: Any) -> None:
        """Raise ``StoreError`` if its texts cannot be read."""
        ...

    async def read_sample(self, session: Any, size: int) -> list[Row]:
        """Return so many rows, or all, with their vectors, from all over the collection."""
        ...

    async def in_session(
        self, operation: Callable[[Any], Awaitable[T]], *, reads: bool, retry: Retry
    ) -> T:
        """Run one operation; ``reads`` says that it changes nothing."""
        ...


@dataclass(frozen=True)
class ForeignCollection:
    """What a framework's vector store is over, and how its client's calls are made.

    Args:
        backend: The collection itself.
        awaited: Its client's calls are awaited.
        run: Runs a coroutine on the event loop that the client belongs to, from another thread; None
            where that is the caller's own.
        run_async: The same, awaited.
    """

    backend: ForeignBackend
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
