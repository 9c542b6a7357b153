"""Tables behind the vector stores of LangChain and LlamaIndex, asked over their own engines."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from psycopg import sql

from toastrack import EmbeddingSpace, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import BackendBase, ForeignCollection, Retry, Row, Runtime
from toastrack_postgres.catalogue import CREATION_LOCK
from toastrack_postgres.codec import metadata_of
from toastrack_postgres.columns import Layout, layout_of
from toastrack_postgres.reading import sampled_share
from toastrack_postgres.space_comment import recorded_in, with_recorded

if TYPE_CHECKING:
    from typing_extensions import LiteralString

T = TypeVar("T")

_COLUMN = sql.SQL("""
    select a.atttypmod, col_description(a.attrelid, a.attnum),
           pg_relation_size(c.oid) / current_setting('block_size')::int8
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid
    where n.nspname = {schema} and c.relname = {table} and a.attname = {column}
      and a.attnum > 0 and not a.attisdropped
""")


def foreign_collection(host_object: object, *, asynchronous: bool) -> ForeignCollection:
    """Return the table that an object is over.

    Raises:
        UnsupportedError: It is none of the objects that this knows.
    """
    found: Any = host_object
    inner = getattr(found, "_PGVectorStore__vs", None)
    if inner is not None:  # LangChain's PGVectorStore, around one whose methods are all awaited
        backend = _langchain_table(inner)
        engine = found._engine
        if engine._loop is None:
            return ForeignCollection(backend, awaited=True)
        return ForeignCollection(
            backend, awaited=True, run=engine._run_as_sync, run_async=engine._run_as_async
        )
    if hasattr(found, "_table_class"):  # LlamaIndex'
        return ForeignCollection(_llama_index_table(found))
    raise UnsupportedError(
        f"{type(host_object).__name__} is over no table that toastrack can ask: it takes LangChain's "
        "PGVectorStore and LlamaIndex' PGVectorStore."
    )


def _langchain_table(store: Any) -> _ForeignTable:
    columns = {"text": store.content_column, "embedding": store.embedding_column}
    if store.metadata_json_column is not None:
        columns["metadata"] = store.metadata_json_column
    layout = layout_of(columns)
    return _ForeignTable(lambda: store.engine, store.schema_name, store.table_name, layout)


def _llama_index_table(store: Any) -> _ForeignTable:
    def engine() -> Any:
        store._initialize()  # as each of its own calls does first
        return store._engine

    table = store._table_class.__tablename__
    return _ForeignTable(engine, store.schema_name, table, layout_of("llama-index"))


class _Statements:
    """Runs statements on a connection of SQLAlchemy's, whatever driver it is over.

    Values are written into them, as each driver has its own way with parameters.
    """

    def __init__(self, runtime: Runtime, connection: Any) -> None:
        self._runtime = runtime
        self._connection = connection

    async def run(self, statement: sql.Composable) -> Any:
        """Run one statement."""
        return await self._runtime.call(
            self._connection.exec_driver_sql,
            statement.as_string(None),
            execution_options={"no_parameters": True},
        )

    async def fetch(self, statement: sql.Composable) -> Sequence[Any]:
        """Run one that returns rows."""
        rows: Sequence[Any] = (await self.run(statement)).fetchall()
        return rows


class _ForeignTable(BackendBase):
    """A table of any columns.

    Args:
        engine: Returns SQLAlchemy's engine, synchronous or not.
        schema: The table's schema.
        table: Its name.
        layout: How its columns are called; there may be none of the metadata.
    """

    kind = "Table"

    def __init__(self, engine: Callable[[], Any], schema: str, table: str, layout: Layout) -> None:
        self.label = f"{schema}.{table}"
        self._engine = engine
        self._schema, self._table = schema, table
        columns = layout.columns
        self._embedding = columns.get("embedding", "embedding")
        self._names: dict[str, sql.Composable] = {
            "table": sql.Identifier(schema, table),
            "text": sql.Identifier(columns["text"]),
            "metadata": sql.Identifier(columns["metadata"])
            if "metadata" in columns
            else sql.SQL("null"),
            "embedding": sql.Identifier(self._embedding),
        }
        self._comment: str | None = None
        self._pages = 0

    async def find(self, session: _Statements) -> bool:
        """Look for the column of vectors, and read what its comment says."""
        asked = {"schema": self._schema, "table": self._table, "column": self._embedding}
        rows = await session.fetch(
            _COLUMN.format(**{name: sql.Literal(value) for name, value in asked.items()})
        )
        if not rows:
            return False
        ((size, self._comment, self._pages),) = rows
        self.dimensions = size if size > 0 else None
        self.space, self.format = recorded_in(self._comment, self.label, self._embedding)
        return True

    async def create(self, session: _Statements, space: EmbeddingSpace) -> None:
        """Raise ``StoreError``: a framework has its own way to make one."""
        raise StoreError(
            f"There is no table {self.label!r}, or it has no column {self._embedding!r}. Create it as "
            "the vector store's own guide says."
        )

    async def record_space(self, session: _Statements, space: EmbeddingSpace) -> None:
        """Put the space into the comment on the column, unless another one is there."""
        await session.run(sql.SQL(CREATION_LOCK))
        await self.find(session)
        if self.space in (None, space):
            changed = with_recorded(self._comment, space, self.writes_format)
            statement = "comment on column {table}.{embedding} is {comment}"
            await session.run(self._sql(statement, comment=sql.Literal(changed)))
            await self.find(session)

    async def is_empty(self, session: _Statements) -> bool:
        """Look for one row with a vector."""
        statement = "select exists (select from {table} where {embedding} is not null)"
        ((is_filled,),) = await session.fetch(self._sql(statement))
        return not is_filled

    async def count(self, session: _Statements, documents: bool) -> int:
        """Count the rows."""
        ((number,),) = await session.fetch(self._sql("select count(*) from {table}"))
        return int(number)

    async def read_sample(self, session: _Statements, size: int) -> list[Row]:
        """Return rows from all over the table; of a large one from some of its pages."""
        share = sampled_share(self._pages)
        rows = await session.fetch(self._sample(size, share))
        if len(rows) < size and share is not None:
            rows = await session.fetch(self._sample(size, None))
        return [
            Row(
                Record("", text or "", metadata_of(metadata)),
                b"",
                np.array(json.loads(vector), dtype=np.float32),
            )
            for text, metadata, vector in rows
        ]

    def _sample(self, size: int, share: float | None) -> sql.Composed:
        chosen: sql.Composable = sql.SQL("")
        if share is not None:
            chosen = sql.SQL("tablesample system ({})").format(sql.Literal(share))
        return self._sql(
            """
            select {text}::text, {metadata}::text, {embedding}::text from {table} {chosen}
            where {embedding} is not null order by random() limit {size}
            """,
            chosen=chosen,
            size=sql.Literal(size),
        )

    def _sql(self, statement: LiteralString, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(statement).format(**self._names, **parts)

    async def in_session(
        self, operation: Callable[[_Statements], Awaitable[T]], *, reads: bool, retry: Retry
    ) -> T:
        """Run one operation in a transaction of the engine's, and what only reads without one.

        So a check is one trip to the server, and not three.
        """
        engine = self._engine()
        if reads:
            lent = engine.execution_options(isolation_level="AUTOCOMMIT").connect()
        else:
            lent = engine.begin()
        async with self.runtime.enter(lent) as connection:
            return await operation(_Statements(self.runtime, connection))

    def is_collection_gone(self, error: BaseException) -> bool:
        """Return False: a table that is gone is told by the framework's own error."""
        return False
