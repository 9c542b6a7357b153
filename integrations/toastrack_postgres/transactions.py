"""Operations in transactions, done again where the server or another writer made one impossible."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors

from toastrack.stores import Retry, Runtime
from toastrack_postgres.connections import Connections, Use
from toastrack_postgres.one_trip import OneTripSession
from toastrack_postgres.reconnecting import Outage
from toastrack_postgres.session import Session, is_inside_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

# How often a transaction is run again that another writer's made impossible.
RETRIES = 5
_CONFLICT_SECONDS = 0.02


class Transactions:
    """Runs operations, each in a session over a connection that it is lent."""

    def __init__(self, runtime: Runtime, connections: Connections) -> None:
        self._runtime = runtime
        self._connections = connections

    async def run(
        self, operation: Callable[[Session], Awaitable[T]], use: Use, *, retry: Retry
    ) -> T:
        """Run one operation that writes in one transaction, and one that reads in few round trips.

        Inside a transaction of the caller's what only read is rolled back to a savepoint, which puts
        back the settings it changed.
        """
        return await self._reconnecting(lambda: self._transact(operation, use), retry=retry)

    async def run_outside(
        self, operation: Callable[[Session], Awaitable[T]], use: Use, *, retry: Retry
    ) -> T:
        """Run an operation that Postgres refuses inside a transaction.

        Raises:
            ValueError: The connection is inside a transaction of the caller's.
        """
        return await self._reconnecting(lambda: self._outside(operation, use), retry=retry)

    async def _transact(self, operation: Callable[[Session], Awaitable[T]], use: Use) -> T:
        for attempt in range(RETRIES + 1):
            async with self._connections.lend(use) as connection:
                session = Session(self._runtime, connection)
                try:
                    if use == "read" and OneTripSession.serves(connection):
                        return await operation(OneTripSession(self._runtime, connection))
                    transaction = connection.transaction(force_rollback=use == "read")
                    async with self._runtime.enter(transaction):
                        return await operation(session)
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    # The same transaction can succeed when it is simply run again.
                    if session.inside or attempt == RETRIES:
                        raise
            # The others of a conflict do not come back at the same time.
            await self._runtime.sleep(random.random() * _CONFLICT_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    async def _outside(self, operation: Callable[[Session], Awaitable[T]], use: Use) -> T:
        async with self._connections.lend(use) as connection, self._autocommit(connection):
            return await operation(Session(self._runtime, connection))

    @asynccontextmanager
    async def _autocommit(self, connection: Any) -> AsyncIterator[None]:
        if is_inside_transaction(connection):
            raise ValueError(
                "concurrently=True needs a connection that is not inside a transaction."
            )
        before = connection.autocommit
        await self._runtime.call(connection.set_autocommit, True)
        try:
            yield
        finally:
            await self._runtime.call(connection.set_autocommit, before)

    async def _reconnecting(self, work: Callable[[], Awaitable[T]], *, retry: Retry) -> T:
        """Do work, and again on another connection if the server went away meanwhile."""
        connections = self._connections
        outage = Outage(
            own=not connections.is_callers, retry=retry, monotonic=self._runtime.monotonic
        )
        while True:
            try:
                return await work()
            except psycopg.OperationalError as error:
                if connections.is_interrupted():
                    raise
                await self._runtime.sleep(outage.pause(error))
                if connections.is_interrupted():
                    raise
            await connections.renew()
