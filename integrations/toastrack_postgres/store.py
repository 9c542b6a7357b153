"""The store over a psycopg connection, a pool or a conninfo."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from threading import Thread, current_thread
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakSet

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match
from toastrack.space import EmbeddingSpace
from toastrack.stores.protocol import OnProgress
from toastrack.stores.steps import Steps, run_steps
from toastrack.stores.sync_store import SyncStore
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
from toastrack_postgres.opening import Settings, check_table, open_table, read_space
from toastrack_postgres.progress import watched
from toastrack_postgres.reconnecting import Outage, connecting, noticing_loss
from toastrack_postgres.table import Queries, Query, Rows, Table

Connection = psycopg.Connection[Any]
T = TypeVar("T")

_SECONDS_TO_CANCEL = 3.0


@runtime_checkable
class ConnectionPool(Protocol):
    """What we use of ``psycopg_pool.ConnectionPool``."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection]:
        """Lend a connection."""
        ...


class PostgresStore(PostgresBase, SyncStore[Table]):
    """A Postgres table that embeds what is put into it and is searched by meaning.

        with PostgresStore("postgresql://localhost/shop", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat.")])
            store.search("which bread stays fresh?")

    The connection is made at the first use; of what was given, only a conninfo is ours to close.
    On a connection that is inside a transaction nothing is committed, and every setting that a
    search changes is put back.

    A server that restarts is waited for, up to 15 s, and the transaction under way is done again;
    a search, which somebody waits for, is only tried again at once. A connection of the caller's
    is not replaced: ``ConnectionLostError``, a ``psycopg.OperationalError``, says so.

    Args:
        connection: A psycopg connection, a pool, or a conninfo string.
        table: The table's name, quoted as it is; at most 63 bytes.
        embedder: Embeds texts and queries; its space is recorded in the table and compared.
        schema: Where the table is; None takes what the session's search_path finds.
        create: Create extension, schema and table if they are missing.
        adopt: Take over a filled table that does not say which model embedded it.
        storage: The type of a new embedding column; halfvec takes half the room of vector.
    """

    def __init__(
        self,
        connection: Connection | ConnectionPool | str,
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
        self._shared = isinstance(connection, psycopg.Connection)
        self._own: Connection | None = None
        self._in_use: dict[Thread, Connection] = {}
        self._interrupted: WeakSet[Thread] = WeakSet()
        self._connected = False

    def close(self) -> None:
        """Close the connection if it was made from a conninfo."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None
            super().close()

    def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        where: sql.Composable | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records by cosine similarity, best first.

        Args:
            query: A text, embedded as a query, or a ready vector.
            k: How many at most.
            filter: Metadata fields that must equal these values, e.g. ``{"lang": "en"}``.
            exact: Compare with every row instead of using the index.
            where: A condition in SQL on the table's columns, with named placeholders ...
            params: ... and their values.
        """
        return self._search(query, k, filter, find(k, filter, exact, where, params))

    # -- the index ------------------------------------------------------------------------------

    def build_index(
        self,
        *,
        m: int = 16,
        ef_construction: int = 64,
        concurrently: bool = False,
        maintenance_work_mem: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> bool:
        """Build the HNSW index, best after the load; True if one was built, False if it is there.

        Args:
            m: Links of each row in the graph; pgvector's own default.
            ef_construction: How widely neighbours are looked for; pgvector's own default.
            concurrently: Let others write meanwhile; slower, and not on a connection that is
                inside a transaction.
            maintenance_work_mem: Memory for the build, e.g. "1GB"; None leaves the server's.
                Parallel builds take it from /dev/shm, which containers often keep at 64 MB.
            on_progress: Called about twice a second, on another thread, with the share that is
                built. Asked over a second connection: of our own, or the pool's while it has one
                to spare; a caller's own connection has none, and nothing is reported.
        """
        table = self._ready()
        build = partial(
            build_index_steps,
            m=m,
            ef_construction=ef_construction,
            memory=maintenance_work_mem,
            concurrently=concurrently,
        )
        with watched(table.oid, self._given, on_progress):
            if concurrently:
                return self._reconnecting(partial(self._outside, build))
            return self._run(build)

    def check_index(self) -> None:
        """Raise ``UnsupportedError`` if ``build_index`` could not build one over this table."""
        check_index(self._opened())

    def _outside(self, operation: Callable[[Table], Steps[T]]) -> T:
        """Run an operation that Postgres refuses inside a transaction."""
        table = self._opened()
        with self._connection() as connection, _autocommit(connection):
            return run_steps(operation(table), partial(execute, connection))

    # -- the connection -------------------------------------------------------------------------

    def _opened(self) -> Table:
        with self._lock:
            table = self._collection
            if table is None or table.unsettled:
                with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    with connection.transaction():
                        opened = run_steps(
                            open_table(self._settings, self.embedder), partial(execute, connection)
                        )
                    opened.unsettled = inside and (opened.changed or table is not None)
                    self._collection = table = opened
            return table

    def _ready(self) -> Table:
        return self._reconnecting(self._compared)

    def _compared(self) -> Table:
        with self._lock:
            table = self._opened()
            if not table.checked:
                with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    with connection.transaction():
                        run_steps(check_table(table, self.embedder), partial(execute, connection))
                    table.unsettled = table.unsettled or (inside and table.changed)
            return table

    def _run(
        self, operation: Callable[[Table], Steps[T]], *, reads: bool = False, patient: bool = True
    ) -> T:
        """Run one operation in one transaction, which is rolled back if it only ``reads``.

        Rolling back what only read puts back the settings it changed, also in a savepoint.
        """
        return self._reconnecting(partial(self._transact, operation, reads=reads), patient=patient)

    def _reconnecting(self, work: Callable[[], T], *, patient: bool = True) -> T:
        """Do work, and again on another connection if the server went away meanwhile."""
        outage = Outage(own=not isinstance(self._given, psycopg.Connection), patient=patient)
        while True:
            try:
                return work()
            except psycopg.OperationalError as error:
                if current_thread() in self._interrupted:
                    raise
                time.sleep(outage.pause(error))
                if current_thread() in self._interrupted:
                    raise
            if callable(check := getattr(self._given, "check", None)):
                check()  # a pool gives its other dead connections up

    def _transact(self, operation: Callable[[Table], Steps[T]], *, reads: bool) -> T:
        table = self._known()
        for attempt in range(RETRIES + 1):
            with self._connection() as connection:
                inside = is_inside_transaction(connection)
                try:
                    with connection.transaction(force_rollback=reads):
                        return run_steps(operation(table), partial(execute, connection))
                except errors.UndefinedTable:
                    self._collection = None  # dropped by somebody: the next call looks again
                    raise
                except psycopg.OperationalError as error:
                    if inside or attempt == RETRIES or not may_retry(error):
                        raise
        raise AssertionError("unreachable")

    def _interrupt(self, thread: Thread) -> None:
        """Cancel what this thread asks of the server, as psycopg does at Ctrl-C on its own."""
        self._interrupted.add(thread)
        connection = self._in_use.get(thread)
        if connection is not None:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_SECONDS_TO_CANCEL)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._lent() as connection:
            self._in_use[current_thread()] = connection
            try:
                if current_thread() in self._interrupted:
                    raise psycopg.OperationalError("interrupted while it waited for a connection")
                yield connection
            finally:
                del self._in_use[current_thread()]

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        given = self._given
        if isinstance(given, str):
            with self._lock:
                if self._own is None or self._own.closed:
                    with connecting(again=self._connected):
                        self._own = psycopg.connect(with_timeout(given), autocommit=True)
                    self._connected = True
                with noticing_loss(self._own):
                    yield self._own
        elif isinstance(given, psycopg.Connection):
            # Two threads on one connection would end each other's transactions.
            with self._lock, noticing_loss(given):
                yield given
        else:
            with given.connection() as connection, noticing_loss(connection):
                yield connection


def recorded_space(
    connection: Connection, table: str, *, schema: str | None = None
) -> EmbeddingSpace | None:
    """Return the space that a table recorded; None if there is no table or it recorded none."""
    settings = Settings(table, schema, create=False, adopt=False, storage="halfvec")
    with connection.transaction(force_rollback=True):
        return run_steps(read_space(settings), partial(execute, connection))


def execute(connection: Connection, query: Query | Queries) -> Rows:
    """Execute one statement; one without rows answers with the number it touched."""
    if isinstance(query, Queries):
        # A libpq before 14 waits for each answer.
        with connection.pipeline() if psycopg.Pipeline.is_supported() else nullcontext():
            for parameters in query.parameters:
                with psycopg.Cursor(connection) as cursor:
                    register_parameters(cursor.adapters)
                    cursor.execute(query.statement, parameters, prepare=False)
        return []
    if query.savepoint:
        with connection.transaction():
            return execute(connection, Query(query.statement, query.parameters))
    # A cursor of our own: the connection's may be client-side, or return dicts.
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        register_parameters(cursor.adapters)
        # A plan that was prepared for other values would ignore this search's settings.
        cursor.execute(query.statement, query.parameters, prepare=False)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


@contextmanager
def _autocommit(connection: Connection) -> Iterator[None]:
    check_idle(connection)
    before = connection.autocommit
    connection.autocommit = True
    try:
        yield
    finally:
        connection.autocommit = before


def _check_connection(connection: object) -> None:
    if isinstance(connection, psycopg.AsyncConnection) or inspect.iscoroutinefunction(
        getattr(connection, "getconn", None)
    ):
        raise TypeError("PostgresStore takes a synchronous connection or pool.")
    if isinstance(connection, str):
        check_conninfo(connection)
    elif not isinstance(connection, (psycopg.Connection, ConnectionPool)):
        raise TypeError(
            "PostgresStore takes a psycopg connection, a pool or a conninfo, not "
            f"{type(connection).__name__}."
        )
