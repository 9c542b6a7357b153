"""The store over asynchronous psycopg; the same operations, awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match
from toastrack.stores.async_store import AsyncStore
from toastrack.stores.protocol import OnProgress
from toastrack.stores.steps import Steps, arun_steps
from toastrack.utils import arrays
from toastrack_postgres.base import (
    DEFAULT_TABLE,
    RETRIES,
    PostgresBase,
    check_idle,
    find,
    is_inside_transaction,
    may_retry,
)
from toastrack_postgres.codec import VectorType, register_parameters
from toastrack_postgres.conninfo import check_conninfo, with_timeout
from toastrack_postgres.index import build_index as build_index_steps
from toastrack_postgres.index import check_index
from toastrack_postgres.opening import check_table, open_table
from toastrack_postgres.progress import awatched
from toastrack_postgres.reconnecting import Outage, connecting, noticing_loss
from toastrack_postgres.table import Queries, Query, Rows, Table

AsyncConnection = psycopg.AsyncConnection[Any]
T = TypeVar("T")


@runtime_checkable
class AsyncConnectionPool(Protocol):
    """What we use of ``psycopg_pool.AsyncConnectionPool``."""

    def connection(
        self, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection."""
        ...


class AsyncPostgresStore(PostgresBase, AsyncStore[Table]):
    """``PostgresStore`` for asyncio: the same arguments, the same results, awaited.

        async with AsyncPostgresStore("postgresql://localhost/shop", embedder=Embedder()) as store:
            await store.upsert([Record("1", "Rye keeps longer than wheat.")])
            await store.search("which bread stays fresh?")

    The model and the reading of sources run on other threads, never on the event loop. A store
    over a conninfo may be used from several event loops; each gets a connection of its own.
    """

    def __init__(
        self,
        connection: AsyncConnection | AsyncConnectionPool | str,
        table: str = DEFAULT_TABLE,
        *,
        embedder: Embedder,
        schema: str | None = None,
        create: bool = True,
        adopt: bool = False,
        storage: VectorType = "halfvec",
    ) -> None:
        _check_connection(connection)
        super().__init__(table, embedder=embedder)
        self._set(table, schema=schema, create=create, adopt=adopt, storage=storage)
        self._given = connection
        self._shared = isinstance(connection, psycopg.AsyncConnection)
        self._connected = False
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    async def close(self) -> None:
        """Close the connection that this event loop made from a conninfo."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None and here.own is not None:
            await here.own.close()
        await super().close()

    async def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        where: sql.Composable | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``PostgresStore.search``."""
        return await self._search(query, k, filter, find(k, filter, exact, where, params))

    async def build_index(
        self,
        *,
        m: int = 16,
        ef_construction: int = 64,
        concurrently: bool = False,
        maintenance_work_mem: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> bool:
        """Build the HNSW index; see ``PostgresStore.build_index``.

        ``on_progress`` is called on the event loop.
        """
        table = await self._ready()
        build = partial(
            build_index_steps,
            m=m,
            ef_construction=ef_construction,
            memory=maintenance_work_mem,
            concurrently=concurrently,
        )
        async with awatched(table.oid, self._given, on_progress):
            if concurrently:
                return await self._reconnecting(partial(self._outside, build))
            return await self._run(build)

    async def check_index(self) -> None:
        """Raise ``UnsupportedError`` if ``build_index`` could not build one over this table."""
        check_index(await self._opened())

    async def _outside(self, operation: Callable[[Table], Steps[T]]) -> T:
        """Run an operation that Postgres refuses inside a transaction."""
        table = await self._opened()
        async with self._connection() as connection, _autocommit(connection):
            return await arun_steps(operation(table), partial(execute, connection))

    # -- the connection -------------------------------------------------------------------------

    async def _opened(self) -> Table:
        async with self._opening_lock():
            table = self._collection
            if table is None or table.unsettled:
                async with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    async with connection.transaction():
                        opened = await arun_steps(
                            open_table(self._settings, self.embedder), partial(execute, connection)
                        )
                    opened.unsettled = inside and (opened.changed or table is not None)
                    self._collection = table = opened
            return table

    async def _ready(self) -> Table:
        return await self._reconnecting(self._compared)

    async def _compared(self) -> Table:
        table = await self._opened()
        async with self._opening_lock():
            if not table.checked:
                async with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    async with connection.transaction():
                        await arun_steps(
                            check_table(table, self.embedder), partial(execute, connection)
                        )
                    table.unsettled = table.unsettled or (inside and table.changed)
        return table

    async def _run(
        self, operation: Callable[[Table], Steps[T]], *, reads: bool = False, patient: bool = True
    ) -> T:
        """Run one operation in one transaction, which is rolled back if it only ``reads``."""
        work = partial(self._transact, operation, reads=reads)
        return await self._reconnecting(work, patient=patient)

    async def _reconnecting(self, work: Callable[[], Awaitable[T]], *, patient: bool = True) -> T:
        """Do work, and again on another connection if the server went away meanwhile."""
        outage = Outage(own=not isinstance(self._given, psycopg.AsyncConnection), patient=patient)
        while True:
            try:
                return await work()
            except psycopg.OperationalError as error:
                await asyncio.sleep(outage.pause(error))
            if callable(check := getattr(self._given, "check", None)):
                await check()  # a pool gives its other dead connections up

    async def _transact(self, operation: Callable[[Table], Steps[T]], *, reads: bool) -> T:
        table = await self._known()
        for attempt in range(RETRIES + 1):
            async with self._connection() as connection:
                inside = is_inside_transaction(connection)
                try:
                    async with connection.transaction(force_rollback=reads):
                        return await arun_steps(operation(table), partial(execute, connection))
                except errors.UndefinedTable:
                    self._collection = None  # dropped by somebody: the next call looks again
                    raise
                except psycopg.OperationalError as error:
                    if inside or attempt == RETRIES or not may_retry(error):
                        raise
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        given = self._given
        if isinstance(given, str):
            here = self._here()
            async with here.using:
                if here.own is None or here.own.closed:
                    with connecting(again=self._connected):
                        here.own = await psycopg.AsyncConnection.connect(
                            with_timeout(given), autocommit=True
                        )
                    self._connected = True
                with noticing_loss(here.own):
                    yield here.own
        elif isinstance(given, psycopg.AsyncConnection):
            # Two tasks on one connection would end each other's transactions.
            async with self._here().using:
                with noticing_loss(given):
                    yield given
        else:
            async with given.connection() as connection:
                with noticing_loss(connection):
                    yield connection

    def _here(self) -> _Loop:
        """What belongs to the running event loop; what belonged to a closed one is given back."""
        loop = asyncio.get_running_loop()
        for old in [old for old in self._loops if old.is_closed()]:
            connection = self._loops.pop(old).own
            if connection is not None:
                connection.pgconn.finish()  # its loop cannot await any more
        return self._loops.setdefault(loop, _Loop())


class _Loop:
    """The connection of one event loop, used by one task at a time."""

    def __init__(self) -> None:
        self.using = asyncio.Lock()
        self.own: AsyncConnection | None = None


async def execute(connection: AsyncConnection, query: Query | Queries) -> Rows:
    """Execute one statement; one without rows answers with the number it touched."""
    if isinstance(query, Queries):
        async with connection.pipeline() if psycopg.AsyncPipeline.is_supported() else nullcontext():
            for parameters in query.parameters:
                async with psycopg.AsyncCursor(connection) as cursor:
                    register_parameters(cursor.adapters)
                    await cursor.execute(query.statement, parameters, prepare=False)
        return []
    if query.savepoint:
        async with connection.transaction():
            return await execute(connection, Query(query.statement, query.parameters))
    async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
        register_parameters(cursor.adapters)
        await cursor.execute(query.statement, query.parameters, prepare=False)  # type: ignore[arg-type]
        return await cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


@asynccontextmanager
async def _autocommit(connection: AsyncConnection) -> AsyncIterator[None]:
    check_idle(connection)
    before = connection.autocommit
    await connection.set_autocommit(True)
    try:
        yield
    finally:
        await connection.set_autocommit(before)


def _check_connection(connection: object) -> None:
    pooled = isinstance(connection, AsyncConnectionPool) and inspect.iscoroutinefunction(
        getattr(connection, "getconn", None)
    )
    if isinstance(connection, str):
        check_conninfo(connection)
    elif not (pooled or isinstance(connection, psycopg.AsyncConnection)):
        raise TypeError(
            "AsyncPostgresStore takes a psycopg.AsyncConnection, an asynchronous pool or a "
            f"conninfo, not {type(connection).__name__}."
        )
