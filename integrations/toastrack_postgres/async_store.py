"""The store over asynchronous psycopg; the same operations, awaited."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match, Record, Report
from toastrack.store import Document
from toastrack.truncation import Truncation
from toastrack.writing import WINDOW, Window, document_windows, record_windows, writes
from toastrack_postgres import operations
from toastrack_postgres.base import (
    DEFAULT_TABLE,
    RETRIES,
    PostgresStoreBase,
    check_idle,
    check_search,
    delete_operation,
    is_inside_transaction,
    listed,
    may_retry,
    search_operation,
)
from toastrack_postgres.codec import VectorType, register_parameters
from toastrack_postgres.conninfo import check_conninfo, with_timeout
from toastrack_postgres.operations import Call, Query, Rows, Steps, Table
from toastrack_postgres.progress import OnProgress, awatched
from toastrack_postgres.reconnecting import Outage, connecting, noticing_loss

if TYPE_CHECKING:
    from toastrack.records import Vector

AsyncConnection = psycopg.AsyncConnection[Any]
AsyncOnWrite = Callable[[Report, Sequence[str]], Awaitable[None] | None]
"""``toastrack.store.OnWrite``, which may also be a coroutine function."""
T = TypeVar("T")
Item = TypeVar("Item")


@runtime_checkable
class AsyncConnectionPool(Protocol):
    """What we use of ``psycopg_pool.AsyncConnectionPool``."""

    def connection(
        self, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection."""
        ...


class AsyncPostgresStore(PostgresStoreBase):
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
        super().__init__(
            table, embedder=embedder, schema=schema, create=create, adopt=adopt, storage=storage
        )
        self._given = connection
        self._connected = False
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    async def __aenter__(self) -> AsyncPostgresStore:
        return await self.open()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def open(self) -> AsyncPostgresStore:
        """Connect, create what is missing and compare the recorded space."""
        try:
            await self._known()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close the connection that this event loop made from a conninfo."""
        here = self._loops.pop(asyncio.get_running_loop(), None)
        if here is not None and here.own is not None:
            await here.own.close()
        self._table = None

    # -- writing --------------------------------------------------------------------------------

    async def upsert(self, records: Iterable[Record] | AsyncIterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed."""
        return await self._write(record_windows, records, None)

    async def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document, in one transaction."""
        return await self.replace_many([(document_id, list(records))])

    async def replace_many(
        self,
        documents: Iterable[Document] | AsyncIterable[Document],
        on_write: AsyncOnWrite | None = None,
    ) -> Report:
        """Do ``replace`` for many documents, streaming; each one changes at once or not at all."""
        return await self._write(document_windows, documents, on_write)

    async def delete(
        self, ids: Iterable[str] | None = None, documents: Iterable[str] | None = None
    ) -> int:
        """Delete records by id, or whole documents; return how many records went."""
        return await self._run(delete_operation(ids, documents))

    async def _write(
        self,
        cut: Callable[[Iterable[Item], int | None], Iterator[Window]],
        items: Iterable[Item] | AsyncIterable[Item],
        on_write: AsyncOnWrite | None,
    ) -> Report:
        table = await self._ready()
        report, truncation = Report(), Truncation(self.embedder.on_truncate)
        started = time.monotonic()
        limit = await asyncio.to_thread(lambda: self.embedder.max_tokens)
        async for batch in _portions(items):
            async for window in _on_a_thread(cut(batch, table.dimensions)):
                stored = await self._run(
                    partial(operations.states, records=window.records, max_tokens=limit),
                    undo=True,
                )
                portions = writes(window, stored, self.embedder, report, truncation)
                async for portion in _on_a_thread(portions):
                    written, deleted = await self._run(partial(operations.write, portion=portion))
                    report.written += written
                    report.deleted += deleted
                    report.seconds = time.monotonic() - started
                    if on_write is not None:
                        answer = on_write(report, portion.documents)
                        if answer is not None:
                            await answer
        report.seconds = time.monotonic() - started
        truncation.warn()
        return report

    # -- reading --------------------------------------------------------------------------------

    async def search(
        self,
        query: str | Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        where: sql.Composable | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``PostgresStore.search``."""
        check_search(k, filter)
        table = await self._ready()
        if k == 0:
            return []
        vector = await self.embedder.aembed_query(query) if isinstance(query, str) else query
        operation = search_operation(
            vector, table, k=k, filter=filter, exact=exact, where=where, params=params
        )
        return await self._run(operation, undo=True, patient=False)

    async def get(self, ids: Iterable[str]) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there."""
        operation = partial(operations.get, ids=listed("ids", ids))
        return await self._run(operation, undo=True, patient=False)

    async def count(self, documents: bool = False) -> int:
        """Count the records, or the documents they belong to."""
        operation = partial(operations.count, documents=documents)
        return await self._run(operation, undo=True, patient=False)

    async def document_ids(self) -> AsyncIterator[str]:
        """Yield the id of every document, in the order of their bytes."""
        after: str | None = None
        while page := await self._run(partial(operations.document_page, after=after), undo=True):
            for document in page:
                yield document
            after = page[-1]

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
            operations.build_index,
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
        operations.check_index(await self._opened())

    async def _outside(self, operation: Callable[[Table], Steps[T]]) -> T:
        """Run an operation that Postgres refuses inside a transaction."""
        table = await self._opened()
        async with self._connection() as connection, _autocommit(connection):
            return await drive(connection, operation(table))

    # -- the connection -------------------------------------------------------------------------

    async def _opened(self) -> Table:
        async with self._here().opening:
            table = self._table
            if table is None or table.unsettled:
                async with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    steps = operations.open_table(self._settings, self.embedder)
                    async with connection.transaction():
                        opened = await drive(connection, steps)
                    opened.unsettled = inside and (opened.changed or table is not None)
                    self._table = table = opened
            return table

    async def _ready(self) -> Table:
        """The table, known to be of the embedder's space: asked before each write and search."""
        return await self._reconnecting(self._compared)

    async def _compared(self) -> Table:
        table = await self._opened()
        async with self._here().opening:
            if not table.checked:
                async with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    async with connection.transaction():
                        await drive(connection, operations.check_space(table, self.embedder))
                    table.unsettled = table.unsettled or (inside and table.changed)
        return table

    async def _known(self) -> Table:
        """The table, compared already unless it would take a download to know our own space."""
        table = await self._opened()
        if table.checked or (await asyncio.to_thread(lambda: self.embedder.known_space)) is None:
            return table
        return await self._compared()

    async def _run(
        self, operation: Callable[[Table], Steps[T]], *, undo: bool = False, patient: bool = True
    ) -> T:
        """Run one operation in one transaction; ``undo`` one that only reads."""
        work = partial(self._transact, operation, undo=undo)
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

    async def _transact(self, operation: Callable[[Table], Steps[T]], *, undo: bool) -> T:
        table = await self._known()
        for attempt in range(RETRIES + 1):
            async with self._connection() as connection:
                inside = is_inside_transaction(connection)
                try:
                    async with connection.transaction(force_rollback=undo):
                        return await drive(connection, operation(table))
                except errors.UndefinedTable:
                    self._table = None  # dropped by somebody: the next call looks again
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
    """The locks and the connection of one event loop."""

    def __init__(self) -> None:
        self.opening = asyncio.Lock()
        self.using = asyncio.Lock()
        self.own: AsyncConnection | None = None


async def drive(connection: AsyncConnection, steps: Steps[T]) -> T:
    """Execute what an operation asks for until it returns."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Call):
                    answer = await asyncio.to_thread(step.function)
                else:
                    answer = await execute(connection, step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def execute(connection: AsyncConnection, query: Query) -> Rows:
    """Execute one statement; one without rows answers with the number it touched."""
    if query.savepoint:
        async with connection.transaction():
            return await execute(connection, Query(query.statement, query.parameters))
    async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
        register_parameters(cursor.adapters)
        await cursor.execute(query.statement, query.parameters, prepare=False)  # type: ignore[arg-type]
        return await cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


async def _on_a_thread(items: Iterator[Item]) -> AsyncIterator[Item]:
    """Take each item of an iterator that reads files or runs the model off the event loop."""
    end = object()
    while (item := await asyncio.to_thread(next, items, end)) is not end:
        yield cast(Item, item)


async def _portions(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Iterable[Item]]:
    """Turn an asynchronous stream into lists of a window's size; any other is passed on whole."""
    if not isinstance(items, AsyncIterable):
        yield items
        return
    portion: list[Item] = []
    async for item in items:
        portion.append(item)
        if len(portion) >= WINDOW:
            yield portion
            portion = []
    yield portion


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
