"""The stores over psycopg: a connection, a pool or a conninfo, synchronous or asynchronous."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg import sql

from toastrack import Embedder, Match, Reranker
from toastrack.stores import (
    Adopt,
    AsyncBaseStore,
    BaseStore,
    ChooseEmbedder,
    Filter,
    OnProgress,
    RecallTable,
    SearchMode,
    SearchRequest,
    TextSyntax,
    arrays,
    measure_recall,
    run_sync,
)
from toastrack_postgres.backend import PostgresBackend
from toastrack_postgres.codec import VectorType
from toastrack_postgres.columns import Columns
from toastrack_postgres.conninfo import check_conninfo
from toastrack_postgres.embedded import OwnServer
from toastrack_postgres.index_kinds import IndexChoice, Kind
from toastrack_postgres.prefix_warning import warn_of_prefix
from toastrack_postgres.search_plan import SearchOptions
from toastrack_postgres.session import Session

DEFAULT_TABLE = "toastrack_documents"

Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]


@runtime_checkable
class ConnectionPool(Protocol):
    """What we use of ``psycopg_pool.ConnectionPool``."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection]:
        """Lend a connection."""
        ...


@runtime_checkable
class AsyncConnectionPool(Protocol):
    """What we use of ``psycopg_pool.AsyncConnectionPool``."""

    def connection(
        self, timeout: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection."""
        ...


class PostgresStore(BaseStore[Session, SearchOptions]):
    """A Postgres table that embeds what is put into it and is searched by meaning.

        with PostgresStore("postgresql://localhost/shop", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat.")])
            store.search("which bread stays fresh?")

    The connection is made at the first use; of what was given, only a conninfo is ours to close.
    Over a conninfo a search waits neither for a write nor for a build, which have connections of
    their own meanwhile; over one connection of the caller's, calls follow one another. Over a
    conninfo a forked child connects anew, and a pickle opens anew; a connection or pool of the
    caller's serves the process that it was made in.
    On a connection that is inside a transaction nothing is committed, and every setting that a
    search changes is put back.

    A server that restarts is waited for, up to 15 s, and the transaction under way is done again;
    a search, which somebody waits for, is only tried again at once. A connection of the caller's
    is not replaced: ``ConnectionLostError``, a ``psycopg.OperationalError``, says so, and that there
    is no server, or that a pool has no connection to lend.

    Args:
        connection: A psycopg connection, a pool, or a conninfo string.
        table: The table's name, quoted as it is; at most 63 bytes.
        embedder: Embeds texts and queries; its space is recorded in the table and compared. Or a
            function that picks one for the space that the table recorded.
        schema: Where the table is; None takes what the session's search_path finds.
        create: Create extension, schema and table if they are missing.
        adopt: Take over a filled table that does not say which model embedded it, once some of its
            texts were embedded again and gave the same vectors. "unchecked" believes that they do.
        verify: Compare such a sample at each opening, too.
        storage: The type of a new embedding column; halfvec takes half the room of vector.
        ef_search: How many rows an index looks at in each search, at least, from 1 to 1,000: more
            find more of the best rows and take longer. None is 40, or 400 behind a filter, and more
            for a larger ``k``.
        columns: Where a table that something else made has what a record has: whose it is,
            "langchain", "langchain-pgvector", "llama-index" or "pgai", or columns such as
            ``{"text": "body", "id": "article_id"}``. The parts are id, document_id, chunk, text,
            metadata, text_hash, embedding and source. An id of any type is read as text. What cannot
            hold what is written is only read.
    """

    _backend: PostgresBackend

    def __init__(
        self,
        connection: Connection | ConnectionPool | str,
        table: str = DEFAULT_TABLE,
        *,
        embedder: Embedder | ChooseEmbedder,
        schema: str | None = None,
        create: bool = True,
        adopt: Adopt = False,
        verify: bool = False,
        storage: VectorType = "halfvec",
        ef_search: int | None = None,
        columns: Columns | None = None,
    ) -> None:
        _check_sync(connection)
        backend = PostgresBackend(
            connection,
            table,
            schema=schema,
            create=create,
            storage=storage,
            ef_search=ef_search,
            columns=columns,
        )
        super().__init__(backend, embedder=embedder, create=create, adopt=adopt, verify=verify)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self._backend.given_label!r})"

    def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        mode: SearchMode = "vector",
        weights: tuple[float, float] = (1.0, 1.0),
        text_syntax: TextSyntax = "any",
        min_score: float | None = None,
        rerank: Reranker | None = None,
        candidates: int = 50,
        group_by_document: bool = False,
        neighbours: int = 0,
        where: sql.Composable | None = None,
        params: Mapping[str, Any] | None = None,
        index: IndexChoice = "auto",
        ef_search: int | None = None,
        oversampling: float | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records by cosine similarity, best first.

        Args:
            query: A text, embedded as a query, or a ready vector.
            k: How many at most.
            filter: What the metadata must be, e.g. ``{"lang": "en", "year": {"$gte": 2020}}``.
            exact: Compare with every row instead of using the index.
            mode: "vector" goes by meaning, "text" by the words of the texts, "hybrid" by both, fused by
                reciprocal rank.
            weights: How much the list by vectors and that by words count in "hybrid".
            text_syntax: "any" word of the query may match; "web" reads quotes and ``-word`` as in web
                search.
            min_score: Leave out what is less similar than this, from -1 to 1; for "vector" alone.
            rerank: Puts what was found into a better order; ``Match.score`` is its score then, and
                ``Match.scores`` keeps the cosine.
            candidates: How many it reads at least, and how many each of two lists has; k, if that is
                more.
            group_by_document: Return one match a document, its best record by the score that ranks:
                ``min(k, matching documents)`` of them.
            neighbours: How many chunks on each side of a match are joined with it in
                ``Match.context``, whether they match or not.
            where: A condition in SQL on the table's columns, with named placeholders ...
            params: ... and their values.
            index: The kind of index to ask: "full", "binary" or "prefix"; "auto" takes the first of
                these that is there.
            ef_search: How many rows the index looks at, at least; None is the store's.
            oversampling: How many times ``k`` rows of a "binary" or "prefix" index are compared
                again by their whole vectors; None is 10, and 100 rows at least.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            RecordError: The query is a vector of another size, or not finite, or zero.
            SpaceMismatchError: The table was built with another model, prompt or size.
            StoreError: The table is gone, cannot be used as it is, or has no such index.
            TruncationError: The query is over the limit and ``on_truncate="error"``.
            ModelError: A model cannot be found, read or run, or its server does not answer.
            UnsupportedError: There is no index of words, which "text" and "hybrid" search by.
            ValueError: ``k``, ``min_score``, ``candidates``, ``neighbours``, ``index``, ``ef_search``
                or ``oversampling`` is none, or the query to rerank for is a vector or blank.
        """
        options = SearchOptions(where, params or {}, index, ef_search, oversampling)
        request = SearchRequest(
            query,
            k,
            filter,
            exact,
            mode,
            weights,
            text_syntax,
            min_score,
            rerank,
            candidates,
            group_by_document,
            neighbours,
        )
        return self._search(request, options)

    def build_index(
        self,
        *,
        kind: Kind = "full",
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        concurrently: bool = False,
        maintenance_work_mem: str | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
        on_progress: OnProgress | None = None,
    ) -> bool:
        """Build an HNSW index, best after the load; True if one was built, False if it is there.

        Of those who build at once one does, and the others wait for it.

        Args:
            kind: What it is on: "full" are the vectors; "binary" their signs, of 1,024 dimensions in a
                sixth of the room; "prefix" their first numbers. What the last two find is compared
                again by the whole vectors, in the same statement.
            prefix: How many numbers of a prefix; None is what the index has, and of a new one 256.
            m: Links of each row in the graph; None is what the index has, and of a new one 16,
                pgvector's own default.
            ef_construction: How widely neighbours are looked for; None likewise, and of a new one
                64.
            concurrently: Let others write meanwhile; slower, and neither on a connection that is
                inside a transaction nor over a pooler such as PgBouncer.
            maintenance_work_mem: Memory for the build, e.g. "1GB"; None leaves the server's, or on an
                embedded server takes what the rows need, at most a quarter of the machine's. It is
                put back afterwards, and a warning says when it was too little.
                Parallel builds take it from /dev/shm, which containers often keep at 64 MB.
            rebuild: Build it anew if it is there, with these settings; the old one serves searches
                until the new one is ready.
            filter_fields: Fields of the metadata that filters ask for: an index for the equality of
                all fields, and for each of these one for the order of its numbers and one for its
                texts and dates.
            on_progress: Called about twice a second, on another thread, with the share that is
                built. Asked over a second connection: of our own, or the pool's while it has one
                to spare; a caller's own connection has none, and nothing is reported.

        Raises:
            SpaceMismatchError: The table was built with another model, prompt or size.
            FilterError: A field's name is none that a filter could have.
            StoreError: The table is gone; the index has other settings than were asked for; no
                record has one of the fields; or another session builds an index of it and cannot
                be waited for inside the caller's transaction.
            UnsupportedError: The vectors are too large for an index, or ``concurrently`` over a
                pooler such as PgBouncer.
            ValueError: ``concurrently`` on a connection that is inside a transaction; or there is
                no such kind, or no such prefix of these vectors.

        Warns:
            UserWarning: The rows did not fit the memory; or how much an index of the kind "prefix"
                finds, of a model that does not say that it was trained for it (Matryoshka).
        """
        build = partial(
            self._backend.build_index,
            kind=kind,
            prefix=prefix,
            m=m,
            ef_construction=ef_construction,
            concurrently=concurrently,
            maintenance_work_mem=maintenance_work_mem,
            rebuild=rebuild,
            on_progress=on_progress,
        )
        return run_sync(_build_index(self, build, kind, filter_fields))

    def recall(
        self, k: int = 10, sample: int = 200, queries: Iterable[str] | None = None
    ) -> RecallTable:
        """Measure what share of the best rows each index finds, and how long it takes.

        Each query is asked exactly, and then of each kind of index that is there with several
        settings. Printed, the table is Markdown.

        Args:
            k: How many rows are asked for.
            sample: How many rows of the table are the queries where none are given: the same ones each
                time, each left out of its own answer.
            queries: Texts, embedded as queries, which tell more: a model with a query prompt puts
                questions elsewhere than documents.

        Raises:
            SpaceMismatchError: The table was built with another model, prompt or size.
            StoreError: The table is gone, cannot be used as it is, or has no index.
            TruncationError: A query is over the limit and ``on_truncate="error"``.
            TypeError: ``queries`` is one text.
            ValueError: ``k`` or ``sample`` is less than 1, there is no query, or no row.
        """
        return run_sync(_recall(self, k, sample, queries))

    def _build_index(self, *, on_progress: OnProgress | None, memory: str | None) -> bool:
        return self.build_index(on_progress=on_progress, maintenance_work_mem=memory)

    def _recall(self, k: int, sample: int, queries: Iterable[str] | None) -> RecallTable:
        return self.recall(k, sample, queries)


class AsyncPostgresStore(AsyncBaseStore[Session, SearchOptions]):
    """``PostgresStore`` for asyncio: the same arguments, the same results, awaited.

        async with AsyncPostgresStore("postgresql://localhost/shop", embedder=Embedder()) as store:
            await store.upsert([Record("1", "Rye keeps longer than wheat.")])
            await store.search("which bread stays fresh?")

    The model and the reading of sources run on other threads, never on the event loop. A store
    over a conninfo may be used from several event loops; each gets connections of its own.
    """

    _backend: PostgresBackend

    def __init__(
        self,
        connection: AsyncConnection | AsyncConnectionPool | str,
        table: str = DEFAULT_TABLE,
        *,
        embedder: Embedder | ChooseEmbedder,
        schema: str | None = None,
        create: bool = True,
        adopt: Adopt = False,
        verify: bool = False,
        storage: VectorType = "halfvec",
        ef_search: int | None = None,
        columns: Columns | None = None,
    ) -> None:
        _check_async(connection)
        backend = PostgresBackend(
            connection,
            table,
            schema=schema,
            create=create,
            storage=storage,
            ef_search=ef_search,
            columns=columns,
        )
        super().__init__(backend, embedder=embedder, create=create, adopt=adopt, verify=verify)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self._backend.given_label!r})"

    async def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        mode: SearchMode = "vector",
        weights: tuple[float, float] = (1.0, 1.0),
        text_syntax: TextSyntax = "any",
        min_score: float | None = None,
        rerank: Reranker | None = None,
        candidates: int = 50,
        group_by_document: bool = False,
        neighbours: int = 0,
        where: sql.Composable | None = None,
        params: Mapping[str, Any] | None = None,
        index: IndexChoice = "auto",
        ef_search: int | None = None,
        oversampling: float | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``PostgresStore.search``.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            RecordError: The query is a vector of another size, or not finite, or zero.
            SpaceMismatchError: The table was built with another model, prompt or size.
            StoreError: The table is gone, cannot be used as it is, or has no such index.
            TruncationError: The query is over the limit and ``on_truncate="error"``.
            ModelError: A model cannot be found, read or run, or its server does not answer.
            UnsupportedError: There is no index of words, which "text" and "hybrid" search by.
            ValueError: ``k``, ``min_score``, ``candidates``, ``neighbours``, ``index``, ``ef_search``
                or ``oversampling`` is none, or the query to rerank for is a vector or blank.
        """
        options = SearchOptions(where, params or {}, index, ef_search, oversampling)
        request = SearchRequest(
            query,
            k,
            filter,
            exact,
            mode,
            weights,
            text_syntax,
            min_score,
            rerank,
            candidates,
            group_by_document,
            neighbours,
        )
        return await self._search(request, options)

    async def build_index(
        self,
        *,
        kind: Kind = "full",
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        concurrently: bool = False,
        maintenance_work_mem: str | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
        on_progress: OnProgress | None = None,
    ) -> bool:
        """Build an HNSW index; see ``PostgresStore.build_index``.

        ``on_progress`` is called on the event loop.

        Raises:
            SpaceMismatchError: The table was built with another model, prompt or size.
            FilterError: A field's name is none that a filter could have.
            StoreError: The table is gone; the index has other settings than were asked for; no
                record has one of the fields; or another session builds an index of it and cannot
                be waited for inside the caller's transaction.
            UnsupportedError: The vectors are too large for an index, or ``concurrently`` over a
                pooler such as PgBouncer.
            ValueError: ``concurrently`` on a connection that is inside a transaction; or there is
                no such kind, or no such prefix of these vectors.

        Warns:
            UserWarning: The rows did not fit the memory; or how much an index of the kind "prefix"
                finds, of a model that does not say that it was trained for it (Matryoshka).
        """
        build = partial(
            self._backend.build_index,
            kind=kind,
            prefix=prefix,
            m=m,
            ef_construction=ef_construction,
            concurrently=concurrently,
            maintenance_work_mem=maintenance_work_mem,
            rebuild=rebuild,
            on_progress=on_progress,
        )
        return await _build_index(self, build, kind, filter_fields)

    async def recall(
        self, k: int = 10, sample: int = 200, queries: Iterable[str] | None = None
    ) -> RecallTable:
        """Measure what share of the best rows each index finds; see ``PostgresStore.recall``.

        Raises:
            SpaceMismatchError: The table was built with another model, prompt or size.
            StoreError: The table is gone, cannot be used as it is, or has no index.
            TruncationError: A query is over the limit and ``on_truncate="error"``.
            TypeError: ``queries`` is one text.
            ValueError: ``k`` or ``sample`` is less than 1, there is no query, or no row.
        """
        return await _recall(self, k, sample, queries)


async def _build_index(
    store: PostgresStore | AsyncPostgresStore,
    build: Callable[..., Awaitable[bool]],
    kind: Kind,
    filter_fields: Collection[str],
) -> bool:
    built = await store._flow.build_index(build, filter_fields)
    if built and kind == "prefix":
        await warn_of_prefix(store._flow, store._backend, store.embedder)
    return built


async def _recall(
    store: PostgresStore | AsyncPostgresStore, k: int, sample: int, queries: Iterable[str] | None
) -> RecallTable:
    backend = store._backend
    return await measure_recall(
        store._flow,
        k=k,
        sample=sample,
        queries=queries,
        exact=SearchOptions(),
        trials=backend.recall_trials,
        sampled=backend.sample,
    )


def _check_sync(connection: object) -> None:
    if isinstance(connection, psycopg.AsyncConnection) or _is_async_pool(connection):
        raise TypeError("PostgresStore takes a synchronous connection or pool.")
    if isinstance(connection, str):
        check_conninfo(connection)
    elif not isinstance(connection, (psycopg.Connection, ConnectionPool, OwnServer)):
        raise TypeError(
            "PostgresStore takes a psycopg connection, a pool or a conninfo, not "
            f"{type(connection).__name__}."
        )


def _check_async(connection: object) -> None:
    if isinstance(connection, str):
        check_conninfo(connection)
    elif not isinstance(connection, psycopg.AsyncConnection) and not _is_async_pool(connection):
        raise TypeError(
            "AsyncPostgresStore takes a psycopg.AsyncConnection, an asynchronous pool or a "
            f"conninfo, not {type(connection).__name__}."
        )


def _is_async_pool(connection: object) -> bool:
    return isinstance(connection, AsyncConnectionPool) and inspect.iscoroutinefunction(
        getattr(connection, "getconn", None)
    )
