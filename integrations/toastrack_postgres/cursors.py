"""Cursors that embed the texts among their parameters before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from toastrack.stores import AsyncRuntime, Runtime, SyncRuntime, run_sync
from toastrack_postgres.copying import AsyncEmbeddingCopy, EmbeddingCopy
from toastrack_postgres.embedding import Parameters, embed, text_places, values_of
from toastrack_postgres.landing import Landing, check_landing, check_place, copy_columns
from toastrack_postgres.parameters import ParameterError
from toastrack_postgres.registry import Registration, registration_of

# The rows of an executemany whose texts are embedded together.
WINDOW = 1_000

_SYNC = SyncRuntime()
_ASYNC = AsyncRuntime()


async def _with_vectors(
    runtime: Runtime, cursor: Any, statement: Any, parameters: Any, *, check: bool = True
) -> Any:
    """Return the parameters of one statement with vectors for texts."""
    registration = registration_of(cursor.connection)
    if registration is None or not text_places(parameters):
        return parameters
    if check:
        await check_landing(runtime, registration, cursor, statement, [parameters])
    vectors = await embed(runtime, registration, [values_of(parameters)])
    return vectors.in_place(parameters)


async def _rows_with_vectors(
    runtime: Runtime,
    registration: Registration,
    rows: Sequence[Parameters],
    landing: Landing | None,
) -> list[Parameters]:
    """Return a window of an executemany with vectors for texts."""
    if landing is not None:
        for place in {place for row in rows for place in text_places(row)}:
            if place not in landing:
                raise ParameterError(
                    f"Parameter {place!r} became a text to be embedded after {WINDOW} rows, and "
                    "where it lands is not known. Begin with a row that has all texts."
                )
            check_place(registration, landing, place)
    vectors = await embed(runtime, registration, map(values_of, rows))
    return [vectors.in_place(row) for row in rows]


def _windows(rows: Iterable[Parameters]) -> Iterator[list[Parameters]]:
    iterator = iter(rows)
    while window := list(islice(iterator, WINDOW)):
        yield window


class EmbeddingCursor(psycopg.Cursor[Any]):
    """Mixed into the cursors of a registered connection."""

    __slots__ = ()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute a statement."""
        # A cursor on the server only reads, and cannot be prepared.
        check = not isinstance(self, psycopg.ServerCursor)
        params = run_sync(_with_vectors(_SYNC, self, query, params, check=check))
        return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        """Execute a statement for many parameters, which are embedded in windows."""
        registration = registration_of(self._conn)
        if registration is None:
            return super().executemany(query, params_seq, **options)
        windows = _windows(params_seq)
        first = next(windows, [])
        landing = run_sync(check_landing(_SYNC, registration, self, query, first))
        rows = (
            row
            for window in chain([first], windows)
            for row in run_sync(_rows_with_vectors(_SYNC, registration, window, landing))
        )
        super().executemany(query, rows, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Execute a statement and yield its rows as they come."""
        params = run_sync(_with_vectors(_SYNC, self, query, params))
        yield from super().stream(query, params, **options)

    @contextmanager
    def copy(self, statement: Any, params: Any = None, **options: Any) -> Iterator[psycopg.Copy]:
        """Begin a COPY."""
        registration = registration_of(self._conn)
        columns = None
        if registration is not None and not self._conn.info.pipeline_status:
            params = run_sync(_with_vectors(_SYNC, self, statement, params))
            columns = run_sync(copy_columns(_SYNC, registration, self, statement))
        with super().copy(statement, params, **options) as copy:
            if registration is None or columns is None:
                yield copy
            else:
                ours = EmbeddingCopy(copy, registration, columns)
                yield ours
                ours.release()


class AsyncEmbeddingCursor(psycopg.AsyncCursor[Any]):
    """Mixed into the cursors of a registered asynchronous connection."""

    __slots__ = ()

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute a statement."""
        check = not isinstance(self, psycopg.AsyncServerCursor)
        params = await _with_vectors(_ASYNC, self, query, params, check=check)
        return await super().execute(query, params, **options)

    async def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        """Execute a statement for many parameters, which are embedded in windows."""
        registration = registration_of(self._conn)
        if registration is None:
            return await super().executemany(query, params_seq, **options)
        windows = _windows(params_seq)
        first = next(windows, [])
        landing = await check_landing(_ASYNC, registration, self, query, first)
        if len(first) < WINDOW or self._conn.info.pipeline_status:
            # What rides the caller's pipeline is answered behind it, and so is sent as one.
            rows = [
                row
                for window in chain([first], windows)
                for row in await _rows_with_vectors(_ASYNC, registration, window, landing)
            ]
            return await super().executemany(query, rows, **options)
        # psycopg takes its rows without awaiting them, so each window is a call of its own.
        total, results = 0, []
        async with self._together():
            for window in chain([first], windows):
                rows = await _rows_with_vectors(_ASYNC, registration, window, landing)
                await super().executemany(query, rows, **options)
                total += self._rowcount
                results += self._results
        if options.get("returning"):
            self._results = results
            self._select_current_result(0)
        else:
            self._rowcount = total

    def _together(self) -> AbstractAsyncContextManager[Any]:
        """Write all windows or none, as the one call of psycopg does that they stand for."""
        idle = self._conn.info.transaction_status == TransactionStatus.IDLE
        return self._conn.transaction() if self._conn.autocommit and idle else nullcontext()

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        """Execute a statement and yield its rows as they come."""
        params = await _with_vectors(_ASYNC, self, query, params)
        stream: Any = super().stream(query, params, **options)
        async with aclosing(stream) as rows:
            async for row in rows:
                yield row

    @asynccontextmanager
    async def copy(
        self, statement: Any, params: Any = None, **options: Any
    ) -> AsyncIterator[psycopg.AsyncCopy]:
        """Begin a COPY."""
        registration = registration_of(self._conn)
        columns = None
        if registration is not None and not self._conn.info.pipeline_status:
            params = await _with_vectors(_ASYNC, self, statement, params)
            columns = await copy_columns(_ASYNC, registration, self, statement)
        async with super().copy(statement, params, **options) as copy:
            if registration is None or columns is None:
                yield copy
            else:
                ours = AsyncEmbeddingCopy(copy, registration, columns)
                yield ours
                await ours.release()


@lru_cache(maxsize=64)
def embedding_factory(factory: type[Any]) -> type[Any]:
    """Return a subclass of a connection's cursors that embeds."""
    is_async = issubclass(factory, psycopg.AsyncCursor)
    mixin = AsyncEmbeddingCursor if is_async else EmbeddingCursor
    if issubclass(factory, mixin):
        return factory
    name = f"Embedding{factory.__name__}"
    return type(name, (mixin, factory), {"__slots__": (), "replaced": factory})
