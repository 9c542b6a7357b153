"""A connection inside a transaction, as one operation has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from toastrack.stores import Runtime
from toastrack_postgres.codec import register_parameters

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
Rows = Sequence[tuple[Any, ...]]
Parameters = Mapping[str, Any] | Sequence[Any]
Statement = str | sql.Composable


class Asked(NamedTuple):
    """One statement that returns rows, with its parameters."""

    statement: Statement
    parameters: Parameters = ()


class Session:
    """Executes statements on a connection, synchronous or asynchronous."""

    def __init__(self, runtime: Runtime, connection: AnyConnection) -> None:
        self._runtime = runtime
        self._connection = connection
        self.inside = is_inside_transaction(connection)
        """A transaction of the caller's was open on the connection already."""

    @property
    def connection(self) -> AnyConnection:
        """What the operation was lent."""
        return self._connection

    @property
    def backend_pid(self) -> int:
        """The process of the server that the connection was made to, as it was told then.

        A pooler makes that up.
        """
        return self._connection.info.backend_pid

    async def execute(self, statement: Statement, parameters: Parameters = ()) -> Rows:
        """Execute one statement; one without rows answers with the number it touched."""
        async with self._cursor(row_factory=tuple_row) as cursor:
            async with self._answered():
                # A plan that was prepared for other values would ignore this search's settings.
                await self._runtime.call(cursor.execute, statement, parameters, prepare=False)
            if not cursor.description:
                return [(cursor.rowcount,)]
            rows: Rows = await self._runtime.call(cursor.fetchall)
            return rows

    async def execute_before(self, first: Statement, then: Statement) -> Rows:
        """Execute a statement, and in the same round trip another one that returns nothing."""
        is_supported = psycopg.Pipeline.is_supported()
        pipeline = self._connection.pipeline() if is_supported else nullcontext()
        async with self._cursor(row_factory=tuple_row) as cursor, self._cursor() as other:
            async with self._runtime.enter(pipeline):
                await self._runtime.call(cursor.execute, first, prepare=False)
                await self._runtime.call(other.execute, then, prepare=False)
            rows: Rows = await self._runtime.call(cursor.fetchall)
            return rows

    async def execute_checked(
        self, first: Asked, check: Callable[[Rows], None], second: Asked
    ) -> tuple[Rows, Rows]:
        """Execute two statements, of which the second counts once the first's rows are checked."""
        told = await self.execute(*first)
        check(told)
        return told, await self.execute(*second)

    async def fetch(self, statement: Statement, parameters: Parameters | None = None) -> Rows:
        """Execute one statement that returns rows, also inside a pipeline of the caller's.

        There nothing is known of its result before that is asked for. Without parameters it is sent
        as it is written.
        """
        async with self._cursor(row_factory=tuple_row) as cursor:
            await self._runtime.call(cursor.execute, statement, parameters, prepare=False)
            rows: Rows = await self._runtime.call(cursor.fetchall)
            return rows

    async def run(self, statement: Statement) -> None:
        """Execute one statement without parameters, as it is written."""
        async with self._cursor() as cursor:
            await self._runtime.call(cursor.execute, statement, prepare=False)

    async def execute_many(self, statement: sql.Composed, parameters: Iterable[Parameters]) -> None:
        """Execute one statement for several parameters, taken while the server does earlier ones."""
        # A libpq before 14 waits for each answer.
        is_supported = psycopg.Pipeline.is_supported()
        pipeline = self._connection.pipeline() if is_supported else nullcontext()
        written = statement.as_bytes(self._connection)
        async with self._runtime.enter(pipeline), self._cursor() as cursor:
            for values in parameters:
                # Behind a pooler the next transaction may have another of its connections.
                await self._runtime.call(cursor.execute, written, values, prepare=False)

    @property
    def may_copy(self) -> bool:
        """Tell whether the connection is in no pipeline of the caller's, where nothing is copied."""
        return self._connection.pgconn.pipeline_status == psycopg.pq.PipelineStatus.OFF

    async def copy(self, statement: sql.Composed, data: Iterable[bytes]) -> None:
        """Send what a COPY takes, each part made while the server works on those before."""
        async with (
            self._cursor() as cursor,
            self._runtime.enter(cursor.copy(statement)) as copy,
        ):
            for part in data:
                await self._runtime.call(copy.write, part)

    @property
    def encoding(self) -> str:
        """What texts are sent in, as Python calls it."""
        encoding = self._connection.info.encoding
        # What psycopg calls so is a connection that says nothing of it.
        return "utf-8" if encoding == "ascii" else encoding

    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """Return a block whose failure leaves the surrounding transaction usable."""
        return self._runtime.enter(self._connection.transaction())

    def _answered(self) -> AbstractAsyncContextManager[Any]:
        """Return a block whose statements have been answered at its end.

        In a pipeline of the caller's they are not before that is synchronized.
        """
        in_pipeline = self._connection.pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF
        return self._runtime.enter(self._connection.pipeline()) if in_pipeline else nullcontext()

    def _cursor(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        cursor = cursor_on(self._connection, **options)
        register_parameters(cursor.adapters)
        return self._runtime.enter(cursor)


def cursor_on(connection: AnyConnection, **options: Any) -> Any:
    """Return a cursor of ours: the connection's own may be client-side, or return dicts."""
    if isinstance(connection, psycopg.AsyncConnection):
        return psycopg.AsyncCursor(connection, **options)
    return psycopg.Cursor(connection, **options)


def is_inside_transaction(connection: AnyConnection) -> bool:
    """Tell whether somebody else's transaction is open on a connection."""
    return connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
