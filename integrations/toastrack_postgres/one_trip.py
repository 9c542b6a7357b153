"""A session that reads: whatever it asks at once goes to the server and back one time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from toastrack_postgres.codec import register_parameters
from toastrack_postgres.session import (
    AnyConnection,
    Asked,
    Parameters,
    Rows,
    Session,
    Statement,
    cursor_on,
)

_BEGIN = "begin isolation level read committed"
_ACCESS = {None: "", True: " read only", False: " read write"}


class OneTripSession(Session):
    """Sends each question with the begin and the end of a transaction of its own around it."""

    @staticmethod
    def serves(connection: AnyConnection) -> bool:
        """Tell whether a connection is idle, and libpq does not wait for each answer."""
        return (
            psycopg.Pipeline.is_supported()
            and connection.info.transaction_status == TransactionStatus.IDLE
            and connection.pgconn.pipeline_status == PipelineStatus.OFF
        )

    async def execute(self, statement: Statement, parameters: Parameters = ()) -> Rows:
        """Ask with one statement."""
        cursors, error = await self._ask(Asked(statement, parameters))
        if error is not None:
            raise error
        return await self._rows(cursors[0])

    async def execute_checked(
        self, first: Asked, check: Callable[[Rows], None], second: Asked
    ) -> tuple[Rows, Rows]:
        """Ask with two statements; what the first is told is checked before an error is, too."""
        cursors, error = await self._ask(first, second)
        if error is not None and cursors[0].pgresult is None:
            raise error
        told = await self._rows(cursors[0])
        check(told)
        if error is not None:
            raise error
        return told, await self._rows(cursors[1])

    async def _ask(self, *asked: Asked) -> tuple[list[Any], psycopg.Error | None]:
        """Return a cursor for each statement that was answered, and what the first other one met."""
        connection, call = self._connection, self._runtime.call
        cursors = [cursor_on(connection, row_factory=tuple_row) for _ in asked]
        around = cursor_on(connection)
        errors: list[psycopg.Error] = []
        async with self._left_idle():
            try:
                async with self._runtime.enter(connection.pipeline()):
                    try:
                        # Not psycopg's own, whose answer it waits for.
                        begin = _BEGIN + _ACCESS[connection.read_only]
                        await call(around.execute, begin, prepare=False)
                        for cursor, (statement, parameters) in zip(cursors, asked, strict=True):
                            register_parameters(cursor.adapters)
                            # A plan that was prepared for other values would ignore the settings.
                            await call(cursor.execute, statement, parameters, prepare=False)
                        await call(around.execute, "rollback", prepare=False)
                    except psycopg.Error as error:  # answers come while others are asked
                        errors.append(error)
            except psycopg.Error as error:
                errors.append(error)
        return cursors, errors[0] if errors else None

    async def _rows(self, cursor: Any) -> Rows:
        rows: Rows = await self._runtime.call(cursor.fetchall)
        return rows

    @asynccontextmanager
    async def _left_idle(self) -> AsyncIterator[None]:
        """Let nothing begin by itself, and leave the connection as it was, after an error, too."""
        connection, call = self._connection, self._runtime.call
        before = connection.autocommit
        if not before:
            await call(connection.set_autocommit, True)
        try:
            yield
        finally:
            if not connection.closed and connection.pgconn.pipeline_status == PipelineStatus.OFF:
                if connection.info.transaction_status != TransactionStatus.IDLE:
                    # What follows an error is not executed, the transaction's end neither.
                    await call(connection.rollback)
                if not before:
                    await call(connection.set_autocommit, False)
