"""An embedder on a connection of the caller's: texts as parameters in statements of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from toastrack import Embedder
from toastrack.errors import StoreError
from toastrack.stores import AsyncRuntime, Runtime, SyncRuntime, run_sync
from toastrack_postgres import catalogue
from toastrack_postgres.column_space import check_space_of_column
from toastrack_postgres.cursors import embedding_factory
from toastrack_postgres.dumpers import register_dumpers, register_text_dumpers
from toastrack_postgres.registry import (
    Registration,
    VectorOids,
    keep_registration,
)
from toastrack_postgres.session import Rows, Session

Column = tuple[str, str] | tuple[str, str, str]
"""A table and its column, or a schema, a table and its column."""


def register_embedder(
    connection: psycopg.Connection[Any], embedder: Embedder, *, check: Iterable[Column] = ()
) -> None:
    """Let ``QueryText`` and ``DocumentText`` be parameters of this connection's statements.

        register_embedder(connection, embedder, check=[("loaves", "embedding")])
        question = QueryText("which bread stays fresh?")
        connection.execute("select id from loaves order by embedding <=> %s limit 5", [question])

    Each stands where a vector or halfvec belongs; all texts of a statement, of 1,000 rows of an
    ``executemany`` or of 256 rows of a ``copy`` are embedded in one call. For a pool:
    ``ConnectionPool(conninfo, configure=lambda c: register_embedder(c, embedder))``.

    The cursors that the connection makes from now on embed; one that was made before, or by hand,
    embeds text by text. No loader is registered, and a transaction is neither left open nor ended.

    Args:
        connection: A psycopg connection.
        embedder: Embeds the texts; another one takes the place of what was registered before.
        check: Columns that must have been filled by this embedder's model: pairs of table and
            column, or triples with the schema in front; see ``check_column_space``.

    Raises:
        SpaceMismatchError: A column to check was filled by another model, or does not say by which.
        StoreError: The database has no pgvector, or a column to check is not there.
    """
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(_wrong(connection, "register_embedder", "psycopg.Connection"))
    run_sync(_register(SyncRuntime(), connection, embedder, tuple(check)))


async def register_embedder_async(
    connection: psycopg.AsyncConnection[Any], embedder: Embedder, *, check: Iterable[Column] = ()
) -> None:
    """``register_embedder`` for an asynchronous connection; the model runs off the event loop.

    A cursor that was made before, or by hand, raises ``ParameterError`` for a text.

    Raises:
        SpaceMismatchError: A column to check was filled by another model, or does not say by which.
        StoreError: The database has no pgvector, or a column to check is not there.
    """
    if not isinstance(connection, psycopg.AsyncConnection):
        raise TypeError(_wrong(connection, "register_embedder_async", "psycopg.AsyncConnection"))
    await _register(AsyncRuntime(), connection, embedder, tuple(check))


def unregister_embedder(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
) -> None:
    """Take back what ``register_embedder`` did, and leave what the caller did before or since.

    unregister_embedder(connection)
    """
    keep_registration(connection, None)
    for name in ("cursor_factory", "server_cursor_factory"):
        # One that the caller derived from ours stays, and does what its own base does.
        replaced = vars(getattr(connection, name)).get("replaced")
        if replaced is not None:
            setattr(connection, name, replaced)


async def _register(
    runtime: Runtime,
    connection: Any,
    embedder: Embedder,
    check: tuple[Column, ...],
) -> None:
    if not isinstance(embedder, Embedder):
        raise TypeError(f"embedder is a {type(embedder).__name__}, not an Embedder.")
    space = await runtime.offload(lambda: embedder.space) if check else None
    session = Session(runtime, connection)
    async with session.savepoint():
        oids = await _vector_oids(session, connection)
        if space is not None:
            for *schema, table, column in check:
                await check_space_of_column(
                    session, space, table, column, schema=schema[0] if schema else None
                )
    for name in ("cursor_factory", "server_cursor_factory"):
        factory = getattr(connection, name)
        if not isinstance(factory, type):
            raise TypeError(f"connection.{name} is {factory!r}; a subclass of a cursor is needed.")
        setattr(connection, name, embedding_factory(factory))
    register_dumpers(connection.adapters)
    keep_registration(connection, Registration(embedder, oids))


async def _vector_oids(session: Session, connection: Any) -> VectorOids:
    rows: Rows = await session.fetch(catalogue.EXTENSION_TYPES)
    if not rows:
        raise StoreError("The extension pgvector is not in this database: CREATE EXTENSION vector")
    for name, oid, array_oid, written in rows:
        # Names for psycopg's own lists and set_types(); they change nothing that is loaded.
        info = psycopg.types.TypeInfo(name, oid, array_oid, regtype=written)
        connection.adapters.types.add(info)
    return VectorOids(
        {name: oid for name, oid, _, _ in rows}, {name: oid for name, _, oid, _ in rows}
    )


def _wrong(connection: object, function: str, wanted: str) -> str:
    return f"{function} takes a {wanted}, not {type(connection).__name__}."


# So that a cursor made before its connection was registered knows them as well.
register_text_dumpers(psycopg.adapters)
