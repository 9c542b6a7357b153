"""How far the building of an index is, asked over a second connection while the first one waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from functools import partial
from threading import Event
from typing import Any, Protocol

import psycopg
from psycopg.rows import tuple_row

from toastrack.stores.protocol import OnProgress
from toastrack_postgres.conninfo import with_timeout
from toastrack_postgres.sql import INDEX_PROGRESS

_SECONDS_BETWEEN = 0.5
# A pool that has no connection to spare by then has none for this.
_POOL_SECONDS = 0.1


class Pool(Protocol):
    """What we use of a pool here."""

    def connection(
        self, timeout: float | None = None
    ) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend a connection."""
        ...


class AsyncPool(Protocol):
    """What we use of an asynchronous pool here."""

    def connection(
        self, timeout: float | None = None
    ) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        """Lend a connection."""
        ...


@contextmanager
def watched(
    table: int, given: psycopg.Connection[Any] | Pool | str, on_progress: OnProgress | None
) -> Iterator[None]:
    """Report on the build that runs in the block, from another thread.

    Nothing is reported where there is no second connection to be had: over a caller's own, and
    while a pool has none to spare. An error of ``on_progress`` is raised when the build is done.
    """
    if on_progress is None or isinstance(given, psycopg.Connection):
        yield
        return
    ended, shares = Event(), _Shares(on_progress)

    def watch() -> None:
        # Nobody to ask is no reason to end a build.
        with suppress(psycopg.Error), ExitStack() as stack:
            if isinstance(given, str):
                second = psycopg.connect(with_timeout(given), autocommit=True)
                lend: Any = partial(nullcontext, stack.enter_context(second))
            else:
                lend = partial(given.connection, timeout=_POOL_SECONDS)
            while not ended.wait(_SECONDS_BETWEEN):
                with (
                    suppress(psycopg.Error),
                    lend() as connection,
                    psycopg.Cursor(connection, row_factory=tuple_row) as cursor,
                ):
                    shares.add(cursor.execute(INDEX_PROGRESS, [table], prepare=False).fetchone())

    with ThreadPoolExecutor(1, "toastrack-index-progress") as threads:
        watching = threads.submit(watch)
        try:
            yield
        finally:
            ended.set()
    watching.result()
    shares.finish()


@asynccontextmanager
async def awatched(
    table: int,
    given: psycopg.AsyncConnection[Any] | AsyncPool | str,
    on_progress: OnProgress | None,
) -> AsyncIterator[None]:
    """Do the same as ``watched`` in another task of the running event loop."""
    if on_progress is None or isinstance(given, psycopg.AsyncConnection):
        yield
        return
    ended, shares = asyncio.Event(), _Shares(on_progress)

    async def watch() -> None:
        with suppress(psycopg.Error):
            async with AsyncExitStack() as stack:
                if isinstance(given, str):
                    second = await psycopg.AsyncConnection.connect(
                        with_timeout(given), autocommit=True
                    )
                    lend: Any = partial(nullcontext, await stack.enter_async_context(second))
                else:
                    lend = partial(given.connection, timeout=_POOL_SECONDS)
                while not await _within(_SECONDS_BETWEEN, ended):
                    with suppress(psycopg.Error):
                        async with (
                            lend() as connection,
                            psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor,
                        ):
                            await cursor.execute(INDEX_PROGRESS, [table], prepare=False)
                            shares.add(await cursor.fetchone())

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        ended.set()
        await asyncio.wait([watching])
    watching.result()
    shares.finish()


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for an event, and tell whether it came in time."""
    with suppress(asyncio.TimeoutError):
        return await asyncio.wait_for(event.wait(), seconds)
    return False


class _Shares:
    """Passes on what is more than before: a second pass over the table starts from 0 again."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._last = 0.0

    def add(self, row: tuple[Any, ...] | None) -> None:
        if row is not None and row[0] is not None and self._last < row[0] < 1:
            self._last = float(row[0])
            self._on_progress(self._last)

    def finish(self) -> None:
        if self._last:
            self._on_progress(1.0)
