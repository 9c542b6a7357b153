"""How far the building of an index is, asked over a second connection while the first one waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg

from toastrack.stores import Ended, OnProgress, Runtime
from toastrack_postgres.catalogue import INDEX_PROGRESS
from toastrack_postgres.connections import Connections
from toastrack_postgres.session import Session

_SECONDS_BETWEEN = 0.5
# A pool that has no connection to spare by then has none for this.
_POOL_SECONDS = 0.1


@asynccontextmanager
async def reporting(
    runtime: Runtime, connections: Connections, oid: int, on_progress: OnProgress | None
) -> AsyncIterator[None]:
    """Report on the build that runs in the block.

    Nothing is reported where there is no second connection to be had: over a caller's own, and
    while a pool has none to spare. An error of ``on_progress`` is raised when the build is done.
    """
    if on_progress is None or connections.is_callers:
        yield
        return
    shares = _Shares(on_progress)

    async def watch(ended: Ended) -> None:
        # Nobody to ask is no reason to end a build.
        with suppress(psycopg.Error):
            async with connections.lend_others() as lend:
                while not await ended.within(_SECONDS_BETWEEN):
                    with suppress(psycopg.Error):
                        async with lend(_POOL_SECONDS) as connection:
                            session = Session(runtime, connection)
                            shares.add(await session.execute(INDEX_PROGRESS, [oid]))

    async with runtime.background(watch):
        yield
    shares.finish()


class _Shares:
    """Passes on what is more than before: a second pass over the table starts from 0 again."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._last = 0.0

    def add(self, rows: Any) -> None:
        share = rows[0][0] if rows else None
        if share is not None and self._last < share < 1:
            self._last = float(share)
            self._on_progress(self._last)

    def finish(self) -> None:
        if self._last:
            self._on_progress(1.0)
