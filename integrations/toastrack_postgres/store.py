"""The store over a psycopg connection, a pool or a conninfo."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match, Record, Report
from toastrack.space import EmbeddingSpace
from toastrack.store import Document, OnWrite
from toastrack.truncation import Truncation
from toastrack.writing import Window, document_windows, record_windows, writes
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
from toastrack_postgres.operations import Call, Query, Rows, Settings, Steps, Table
from toastrack_postgres.progress import OnProgress, watched
from toastrack_postgres.reconnecting import Outage, connecting, noticing_loss

if TYPE_CHECKING:
    from toastrack.records import Vector

Connection = psycopg.Connection[Any]
T = TypeVar("T")


@runtime_checkable
class ConnectionPool(Protocol):
    """What we use of ``psycopg_pool.ConnectionPool``."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection]:
        """Lend a connection."""
        ...


class PostgresStore(PostgresStoreBase):
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
        super().__init__(
            table, embedder=embedder, schema=schema, create=create, adopt=adopt, storage=storage
        )
        self._given = connection
        self._own: Connection | None = None
        self._connected = False
        self._lock = RLock()

    def __enter__(self) -> PostgresStore:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self) -> PostgresStore:
        """Connect, create what is missing and compare the recorded space."""
        try:
            self._known()
        except BaseException:
            self.close()  # a `with` that was never entered will not
            raise
        return self

    def close(self) -> None:
        """Close the connection if it was made from a conninfo."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None
            self._table = None

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the table recorded."""
        self._opened()
        return super().space

    # -- writing --------------------------------------------------------------------------------

    def upsert(self, records: Iterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed.

        Records are taken from any iterable in windows, and each window is written in portions
        that are committed as they are done. Within a window the last of equal ids wins.
        Raises ``RecordError`` naming the record; nothing of its window is written then.
        """
        return self._write(record_windows(records, self._ready().dimensions), None)

    def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document, in one transaction."""
        return self.replace_many([(document_id, list(records))])

    def replace_many(
        self, documents: Iterable[Document], on_write: OnWrite | None = None
    ) -> Report:
        """Do ``replace`` for many documents, streaming; each one changes at once or not at all."""
        return self._write(document_windows(documents, self._ready().dimensions), on_write)

    def delete(
        self, ids: Iterable[str] | None = None, documents: Iterable[str] | None = None
    ) -> int:
        """Delete records by id, or whole documents; return how many records went."""
        return self._run(delete_operation(ids, documents))

    def _write(self, windows: Iterable[Window], on_write: OnWrite | None) -> Report:
        report, truncation = Report(), Truncation(self.embedder.on_truncate)
        started = time.monotonic()
        limit = self.embedder.max_tokens
        for window in windows:
            stored = self._run(
                partial(operations.states, records=window.records, max_tokens=limit),
                undo=True,
            )
            for portion in writes(window, stored, self.embedder, report, truncation):
                written, deleted = self._run(partial(operations.write, portion=portion))
                report.written += written
                report.deleted += deleted
                report.seconds = time.monotonic() - started
                if on_write is not None:
                    on_write(report, portion.documents)
        report.seconds = time.monotonic() - started
        truncation.warn()
        return report

    # -- reading --------------------------------------------------------------------------------

    def search(
        self,
        query: str | Vector,
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
        check_search(k, filter)
        table = self._ready()
        if k == 0:
            return []
        vector = self.embedder.embed_query(query) if isinstance(query, str) else query
        operation = search_operation(
            vector, table, k=k, filter=filter, exact=exact, where=where, params=params
        )
        return self._run(operation, undo=True, patient=False)

    def get(self, ids: Iterable[str]) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there."""
        operation = partial(operations.get, ids=listed("ids", ids))
        return self._run(operation, undo=True, patient=False)

    def count(self, documents: bool = False) -> int:
        """Count the records, or the documents they belong to."""
        operation = partial(operations.count, documents=documents)
        return self._run(operation, undo=True, patient=False)

    def document_ids(self) -> Iterator[str]:
        """Yield the id of every document, in the order of their bytes."""
        after: str | None = None
        while page := self._run(partial(operations.document_page, after=after), undo=True):
            yield from page
            after = page[-1]

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
            operations.build_index,
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
        operations.check_index(self._opened())

    def _outside(self, operation: Callable[[Table], Steps[T]]) -> T:
        """Run an operation that Postgres refuses inside a transaction."""
        table = self._opened()
        with self._connection() as connection, _autocommit(connection):
            return drive(connection, operation(table))

    # -- the connection -------------------------------------------------------------------------

    def _opened(self) -> Table:
        with self._lock:
            table = self._table
            if table is None or table.unsettled:
                with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    steps = operations.open_table(self._settings, self.embedder)
                    with connection.transaction():
                        opened = drive(connection, steps)
                    opened.unsettled = inside and (opened.changed or table is not None)
                    self._table = table = opened
            return table

    def _ready(self) -> Table:
        """The table, known to be of the embedder's space: asked before each write and search."""
        return self._reconnecting(self._compared)

    def _compared(self) -> Table:
        with self._lock:
            table = self._opened()
            if not table.checked:
                with self._connection() as connection:
                    inside = is_inside_transaction(connection)
                    with connection.transaction():
                        drive(connection, operations.check_space(table, self.embedder))
                    table.unsettled = table.unsettled or (inside and table.changed)
            return table

    def _known(self) -> Table:
        """The table, compared already unless it would take a download to know our own space."""
        table = self._opened()
        if table.checked or self.embedder.known_space is None:
            return table
        return self._compared()

    def _run(
        self, operation: Callable[[Table], Steps[T]], *, undo: bool = False, patient: bool = True
    ) -> T:
        """Run one operation in one transaction; ``undo`` one that only reads.

        Rolling back what only read puts back the settings it changed, also in a savepoint.
        """
        return self._reconnecting(partial(self._transact, operation, undo=undo), patient=patient)

    def _reconnecting(self, work: Callable[[], T], *, patient: bool = True) -> T:
        """Do work, and again on another connection if the server went away meanwhile."""
        outage = Outage(own=not isinstance(self._given, psycopg.Connection), patient=patient)
        while True:
            try:
                return work()
            except psycopg.OperationalError as error:
                time.sleep(outage.pause(error))
            if callable(check := getattr(self._given, "check", None)):
                check()  # a pool gives its other dead connections up

    def _transact(self, operation: Callable[[Table], Steps[T]], *, undo: bool) -> T:
        table = self._known()
        for attempt in range(RETRIES + 1):
            with self._connection() as connection:
                inside = is_inside_transaction(connection)
                try:
                    with connection.transaction(force_rollback=undo):
                        return drive(connection, operation(table))
                except errors.UndefinedTable:
                    self._table = None  # dropped by somebody: the next call looks again
                    raise
                except psycopg.OperationalError as error:
                    if inside or attempt == RETRIES or not may_retry(error):
                        raise
        raise AssertionError("unreachable")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
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
        return drive(connection, operations.read_space(settings))


def drive(connection: Connection, steps: Steps[T]) -> T:
    """Execute what an operation asks for until it returns."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step.function() if isinstance(step, Call) else execute(connection, step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def execute(connection: Connection, query: Query) -> Rows:
    """Execute one statement; one without rows answers with the number it touched."""
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
