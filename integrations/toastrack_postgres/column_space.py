"""The embedding space of a column of the caller's own, kept in the comment on it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from toastrack import Embedder, EmbeddingSpace
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack.stores import AsyncRuntime, Runtime, SyncRuntime, check_space, run_sync
from toastrack_postgres import catalogue
from toastrack_postgres.session import Session
from toastrack_postgres.space_comment import recorded_in, with_recorded

# Of what is written down; the vectors themselves are the caller's.
_FORMAT = 1


def record_column_space(
    connection: psycopg.Connection[Any],
    table: str,
    column: str,
    embedder: Embedder,
    *,
    schema: str | None = None,
    adopt: bool = False,
) -> None:
    """Write down beside a column of vectors which model fills it; nothing if that is there.

        record_column_space(connection, "loaves", "embedding", embedder)
        check_column_space(connection, "loaves", "embedding", embedder)

    It is one line of the column's comment, under what people wrote there: renaming the table or the
    column, and dump and restore keep it. On a connection that is in a transaction it is part of
    that, else it is committed. It takes the table's owner.

    Args:
        connection: A psycopg connection.
        table: The table's name, as it is, without quotes.
        column: The column's name: a vector or halfvec.
        embedder: Whose model, prompts and size are written down.
        schema: Where the table is; None takes what the session's search_path finds.
        adopt: Do so although the column holds vectors already; nothing is embedded anew.

    Raises:
        SpaceMismatchError: Another model, prompt or size is written down, or the column holds
            vectors and ``adopt`` is not set.
        StoreError: There is no such column, or it is no vector.
    """
    run_sync(_record(SyncRuntime(), connection, table, column, embedder, schema, adopt))


async def record_column_space_async(
    connection: psycopg.AsyncConnection[Any],
    table: str,
    column: str,
    embedder: Embedder,
    *,
    schema: str | None = None,
    adopt: bool = False,
) -> None:
    """``record_column_space`` over an asynchronous connection.

    Raises:
        SpaceMismatchError: Another model, prompt or size is written down, or the column holds
            vectors and ``adopt`` is not set.
        StoreError: There is no such column, or it is no vector.
    """
    await _record(AsyncRuntime(), connection, table, column, embedder, schema, adopt)


def check_column_space(
    connection: psycopg.Connection[Any],
    table: str,
    column: str,
    embedder: Embedder,
    *,
    schema: str | None = None,
) -> None:
    """Raise ``SpaceMismatchError`` unless a column says that this embedder's model filled it.

        check_column_space(connection, "loaves", "embedding", embedder)

    ``register_embedder(..., check=[("loaves", "embedding")])`` does so for each connection.

    Args:
        connection: A psycopg connection.
        table: The table's name, as it is, without quotes.
        column: The column's name.
        embedder: Whose model, prompts and size are compared.
        schema: Where the table is; None takes what the session's search_path finds.

    Raises:
        SpaceMismatchError: Another model, prompt or size is written down, or none.
        StoreError: There is no such column, or it is no vector.
    """
    run_sync(_check(SyncRuntime(), connection, table, column, embedder, schema))


async def check_column_space_async(
    connection: psycopg.AsyncConnection[Any],
    table: str,
    column: str,
    embedder: Embedder,
    *,
    schema: str | None = None,
) -> None:
    """``check_column_space`` over an asynchronous connection.

    Raises:
        SpaceMismatchError: Another model, prompt or size is written down, or none.
        StoreError: There is no such column, or it is no vector.
    """
    await _check(AsyncRuntime(), connection, table, column, embedder, schema)


async def _record(
    runtime: Runtime,
    connection: Any,
    table: str,
    column: str,
    embedder: Embedder,
    schema: str | None,
    adopt: bool,
) -> None:
    space = await runtime.offload(lambda: embedder.space)
    session = Session(runtime, connection)
    async with session.savepoint():
        await session.fetch(catalogue.CREATION_LOCK)
        found = await _Column.find(session, table, column, schema)
        stored = found.space()
        check_space(stored, found.dimensions or space.dimensions, space, where=found.where)
        if stored is not None:
            return
        ((filled,),) = await session.fetch(found.is_filled)
        if filled and not adopt:
            raise SpaceMismatchError(
                f"{found.where} holds vectors already. If {space.model!r} made them, with the same "
                "prompts, write that down with adopt=True; if not, embed the rows anew first.",
                ours=space,
            )
        await session.run(found.comment(with_recorded(found.text, space, _FORMAT)))


async def _check(
    runtime: Runtime,
    connection: Any,
    table: str,
    column: str,
    embedder: Embedder,
    schema: str | None,
) -> None:
    space = await runtime.offload(lambda: embedder.space)
    session = Session(runtime, connection)
    async with session.savepoint():
        await check_space_of_column(session, space, table, column, schema=schema)


async def check_space_of_column(
    session: Session, space: EmbeddingSpace, table: str, column: str, *, schema: str | None
) -> None:
    """Raise ``SpaceMismatchError`` unless a column says that it is of this space."""
    found = await _Column.find(session, table, column, schema)
    stored = found.space()
    check_space(stored, found.dimensions or space.dimensions, space, where=found.where)
    if stored is None:
        raise SpaceMismatchError(
            f"{found.where} does not say which model fills it. Write it down once: "
            f"record_column_space(connection, {table!r}, {column!r}, embedder), with adopt=True if "
            "it holds vectors of this model already.",
            ours=space,
        )


class _Column:
    """A column of vectors that is there."""

    def __init__(
        self, schema: str, table: str, column: str, dimensions: int, text: str | None
    ) -> None:
        self._names = [sql.Identifier(schema, table), sql.Identifier(column)]
        self._label = f"{schema}.{table}"
        self._column = column
        self.where = f"Column {column!r} of {self._label!r}"
        self.dimensions = max(dimensions, 0)
        """0 for a column of any size."""
        self.text = text
        """The comment on it."""

    @classmethod
    async def find(cls, session: Session, table: str, column: str, schema: str | None) -> _Column:
        """Look a column up; raises ``StoreError`` if it is not there, or no vector."""
        names = {"table": table, "schema": schema}
        tables = await session.fetch(catalogue.FIND_TABLE, names)
        if not tables:
            where = f"{schema}.{table}" if schema else table
            raise StoreError(f"There is no table {where!r}. Create it first, or give schema=.")
        found_schema, oid, _ = tables[0]
        columns = {row[0]: row for row in await session.fetch(catalogue.TABLE_COLUMNS, [oid])}
        if column not in columns:
            raise StoreError(
                f"Table {found_schema}.{table!r} has no column {column!r}; it has "
                f"{', '.join(sorted(columns, key=lambda name: columns[name][5]))}."
            )
        _, written, kind, dimensions, text, *_ = columns[column]
        if kind not in ("vector", "halfvec"):
            raise StoreError(
                f"Column {column!r} of {found_schema}.{table!r} is {written}, not vector or halfvec."
            )
        return cls(found_schema, table, column, dimensions, text)

    def space(self) -> EmbeddingSpace | None:
        """Return the space that is written down."""
        return recorded_in(self.text, self._label, self._column)[0]

    @property
    def is_filled(self) -> sql.Composed:
        table, column = self._names
        return sql.SQL("select exists (select from {} where {} is not null)").format(table, column)

    def comment(self, text: str) -> sql.Composed:
        table, column = self._names
        statement = sql.SQL("comment on column {}.{} is {}")
        return statement.format(table, column, sql.Literal(text))
