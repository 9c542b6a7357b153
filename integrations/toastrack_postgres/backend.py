"""A Postgres table as a store's backend: which part of the adapter does what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import errors

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import (
    BackendBase,
    Description,
    Filter,
    OnProgress,
    Retry,
    Row,
    Runtime,
    Span,
    Status,
    StoredSource,
    TextHits,
    TextQuery,
    Trial,
    WriteBatch,
    WriteResult,
)
from toastrack_postgres import (
    catalogue,
    document_sources,
    reading,
    recording,
    text_index,
    vector_index,
    writing,
)
from toastrack_postgres.building import Builder
from toastrack_postgres.codec import VectorType, check_record
from toastrack_postgres.columns import Columns, layout_of
from toastrack_postgres.connections import Connections
from toastrack_postgres.creation import create_table
from toastrack_postgres.finding import Finder
from toastrack_postgres.index import Wanted
from toastrack_postgres.index_kinds import Kind, read_indexes
from toastrack_postgres.search import Searcher
from toastrack_postgres.search_plan import SearchOptions, check_ef_search
from toastrack_postgres.session import Session
from toastrack_postgres.table import KIND, Table
from toastrack_postgres.transactions import Transactions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


class PostgresBackend(BackendBase):
    """One table. An operation is one transaction, which is run again if the server went away."""

    kind = KIND
    table: Table
    """As it was found last."""

    def __init__(
        self,
        given: Any,
        table: str,
        *,
        schema: str | None = None,
        create: bool = False,
        storage: VectorType = "halfvec",
        ef_search: int | None = None,
        columns: Columns | None = None,
    ) -> None:
        check_ef_search(ef_search)
        if storage not in ("halfvec", "vector"):
            raise ValueError(f"storage={storage!r} is not 'halfvec' or 'vector'.")
        self._given = given
        layout = None if columns is None else layout_of(columns)
        self._finder = Finder(table, schema, layout=layout, may_create=create)
        self._new_storage: VectorType = storage
        self.searcher = Searcher(ef_search)
        self.given_label = self._finder.label
        """The table as the user wrote it."""
        self.label = self.given_label

    @property
    def runtime(self) -> Runtime:
        """How it waits."""
        return self._runtime

    @runtime.setter
    def runtime(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._connections = Connections(runtime, self._given)
        self._transactions = Transactions(runtime, self._connections)
        self._builder = Builder(runtime, self._connections, self._transactions)
        self.callers_connection = self._connections.is_callers

    # -- the table ------------------------------------------------------------------------------

    async def find(self, session: Session) -> bool:
        """Look for extension and table, and read what the table says of itself."""
        # What was created in a transaction of the caller's may be rolled back until that ends.
        self.uncommitted = self.uncommitted and session.inside
        table = await self._finder.find(session)
        if table is not None:
            self._use(table)
        return table is not None

    async def create(self, session: Session, space: EmbeddingSpace) -> None:
        """Create extension, schema and table, where they are missing."""
        finder = self._finder
        if finder.layout is not None:
            raise UnsupportedError(
                f"There is no table {finder.label!r}. columns= is for one that is there; "
                "without it a table of ours is created."
            )
        await session.execute(catalogue.CREATION_LOCK)
        if await self.find(session):
            return  # somebody was faster
        await create_table(
            session,
            finder.table,
            finder.schema,
            storage=self._new_storage,
            space=space,
            format=self.writes_format,
        )
        self.uncommitted = session.inside
        if not await self.find(session):
            raise StoreError(
                f"Table {finder.label!r} was created and is not visible. Give schema=."
            )

    async def record_space(self, session: Session, space: EmbeddingSpace) -> None:
        """Put the space into the comment on the embedding column, unless another one is there."""
        self._use(await recording.read_again(session, self.table))
        if self.space in (None, space):
            self._use_changed(
                session, await recording.record(session, self.table, space, self.writes_format)
            )

    def needs_bring_up(self, batch: WriteBatch) -> bool:
        """Tell whether a source is to be kept, too, and there is no column for it yet."""
        return super().needs_bring_up(batch) or (
            self.table.may_add_source
            and any(row.source is not None for row in (*batch.rows, *batch.metadata_rows))
        )

    async def bring_up(self, session: Session) -> None:
        """Put the newer format into the comment and add what is missing, where this user may."""
        ((may_alter,),) = await session.execute(catalogue.MAY_ALTER, [self.table.oid])
        if not may_alter:
            self.table = replace(self.table, may_add_source=False)
            return
        self._use(await recording.read_again(session, self.table))
        if self.space is not None and self.format < self.writes_format:
            self._use_changed(
                session, await recording.record(session, self.table, self.space, self.writes_format)
            )
        if self.table.may_add_source:
            self._use_changed(session, await recording.add_source(session, self.table))

    def _use(self, table: Table) -> None:
        self.table = table
        self.label = table.label
        self.dimensions = table.dimensions
        self.space, self.format = table.space, table.format

    def _use_changed(self, session: Session, table: Table) -> None:
        """Use a table that this session altered, which a transaction of the caller's may undo."""
        self._use(table)
        self.uncommitted = self.uncommitted or session.inside

    async def is_empty(self, session: Session) -> bool:
        """Look for one row; counting would read them all."""
        ((empty,),) = await session.execute(self.table.statements.is_empty)
        return bool(empty)

    async def read_sample(self, session: Session, size: int) -> list[Row]:
        """Return rows from all over the table; of a large one from some of its pages."""
        return await reading.read_sample(self.table, session, size)

    async def describe(self, session: Session) -> Description:
        """Say which server and pgvector this is, and what the table takes on disk."""
        table = self.table
        ((server, extension, size),) = await session.execute(catalogue.DESCRIPTION, [table.oid])
        asked = [table.oid, table.statements.embedding_column]
        there = read_indexes(await session.execute(catalogue.VECTOR_INDEXES, asked))
        return Description(
            table.label,
            host=f"Postgres {server.split()[0]}, pgvector {extension}",
            storage=f"{table.storage}({table.dimensions})",
            index=vector_index.described(there, table.storage, table.dimensions),
            bytes=size,
        )

    # -- writing --------------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if Postgres cannot store this record, e.g. for NUL in its text."""
        check_record(record)

    async def compare(self, session: Session, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        return await writing.compare(self.table, session, rows)

    async def write(self, session: Session, batch: WriteBatch) -> WriteResult:
        """Write one batch, unless rows that it counts on are not as they were."""
        return await writing.write(self.table, session, batch)

    async def delete(self, session: Session, ids: Sequence[str], documents: Sequence[str]) -> int:
        """Delete rows by id and whole documents; return how many went."""
        return await writing.delete(self.table, session, ids, documents)

    async def delete_matching(self, session: Session, filter: Filter) -> int:
        """Delete the rows that match; return how many went."""
        return await writing.delete_matching(self.table, session, filter)

    # -- searching ------------------------------------------------------------------------------

    async def search(
        self,
        session: Session,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` rows; asked again exactly if an index gave fewer."""
        return await self.searcher.search(
            self.table, session, vector, k=k, filter=filter, exact=exact, options=options
        )

    async def search_text(
        self,
        session: Session,
        query: TextQuery,
        vector: NDArray[np.float32] | None,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> TextHits:
        """Return the best k rows by their words, or with a vector by both, of one statement."""
        return await self.searcher.search_text(
            self.table, session, query, vector, k=k, filter=filter, exact=exact, options=options
        )

    async def recall_trials(self, session: Session, k: int) -> list[Trial[SearchOptions]]:
        """Return the ways to search whose recall is measured.

        Raises:
            StoreError: There is no index.
        """
        return await self.searcher.recall_trials(self.table, session, k)

    async def prefix_trial(self, session: Session, k: int) -> Trial[SearchOptions]:
        """Return how a search by the first numbers goes by itself."""
        return await self.searcher.prefix_trial(self.table, session, k)

    async def sample(self, session: Session, size: int) -> list[tuple[str, NDArray[np.float32]]]:
        """Return the ids and vectors of some rows, the same ones each time."""
        return await reading.sample(self.table, session, size)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, session: Session, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        return await reading.get(self.table, session, ids)

    async def read(self, session: Session, ids: Sequence[str], vectors: bool) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        return await reading.read(self.table, session, ids, vectors)

    async def read_page(
        self, session: Session, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match, in the order of their ids."""
        return await reading.read_page(self.table, session, after, filter, vectors)

    async def chunks(self, session: Session, spans: Sequence[Span]) -> list[Record]:
        """Return the rows of documents whose chunk numbers lie in one of these spans."""
        return await reading.chunks(self.table, session, spans)

    async def count(self, session: Session, documents: bool) -> int:
        """Count rows or documents."""
        return await reading.count(self.table, session, documents)

    async def count_matching(self, session: Session, filter: Filter, documents: bool) -> int:
        """Count the rows that match, or their documents."""
        return await reading.count_matching(self.table, session, filter, documents)

    async def document_page(
        self, session: Session, after: str | None
    ) -> tuple[list[str], str | None]:
        """Return the next documents' ids behind ``after``, in the order of their bytes."""
        return await reading.document_page(self.table, session, after)

    # -- where documents came from --------------------------------------------------------------

    async def stored_sources(
        self, session: Session, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        return await document_sources.stored_sources(self.table, session, documents)

    async def has_other_source(self, session: Session, sources: Sequence[str]) -> bool:
        """Tell whether a row is stored from a source that is none of these."""
        return await document_sources.has_other_source(self.table, session, sources)

    async def source_page(
        self, session: Session, after: str | None, sources: Sequence[str] | None
    ) -> tuple[list[str], str | None]:
        """Return the next documents of some sources, in the order of their bytes."""
        return await document_sources.source_page(self.table, session, after, sources)

    # -- the index ------------------------------------------------------------------------------

    def check_index(self) -> None:
        """Raise ``UnsupportedError`` for a table that no index can be built on."""
        vector_index.check_index(self.table.storage, self.table.dimensions, self.label)

    async def check_index_memory(self, session: Session, memory: str) -> None:
        """Let the server say, before the load, what it thinks of so much memory."""
        await session.execute(catalogue.CHECK_MEMORY, [memory])

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Sequence[str] = (),
        kind: Kind = "full",
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        concurrently: bool = False,
        maintenance_work_mem: str | None = None,
    ) -> bool:
        """Build an HNSW index unless it is there, and those that serve filters."""
        return await self._builder.build_index(
            self.table,
            Wanted(kind, prefix, m, ef_construction, rebuild, filter_fields),
            concurrently=concurrently,
            memory=maintenance_work_mem,
            on_progress=on_progress,
        )

    async def check_text_index(self, session: Session, language: str) -> None:
        """Raise for an index of words that ``build_text_index`` could not build."""
        table = self.table
        text = table.statements.text_column
        await text_index.check(session, table.oid, label=table.label, language=language, text=text)

    async def build_text_index(self, *, language: str, concurrently: bool, rebuild: bool) -> bool:
        """Build an index of the words of the texts unless it is there."""
        return await self._builder.build_text_index(
            self.table, language=language, concurrently=concurrently, rebuild=rebuild
        )

    # -- the host -------------------------------------------------------------------------------

    async def in_session(
        self, operation: Callable[[Session], Awaitable[T]], *, reads: bool, retry: Retry
    ) -> T:
        """Run one operation that writes in one transaction, and one that reads in few round trips."""
        return await self._transactions.run(operation, "read" if reads else "write", retry=retry)

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether Postgres says that there is no such table, and not one of a ``where=``."""
        return isinstance(error, errors.UndefinedTable) and f'"{self.label}"' in str(error)

    def interrupt(self, thread: Thread) -> None:
        """Cancel what this thread asks of the server."""
        self._connections.interrupt(thread)

    async def close(self) -> None:
        """Close the connection if it was made from a conninfo."""
        await self._connections.close()

    def given(self) -> object | None:
        """Return a connection or pool of the caller's; None over a conninfo."""
        return None if self._connections.is_own else self._given

    def leave_to_parent(self) -> None:
        """In a forked child: forget the parent's connections without a byte on them."""
        self._connections.leave_to_parent()
