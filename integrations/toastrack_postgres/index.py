"""How the indexes of a table are built: one session at a time, with the memory that they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import catalogue, filter_index, vector_index
from toastrack_postgres.codec import VectorType
from toastrack_postgres.embedded import SETTINGS
from toastrack_postgres.index_kinds import Kind
from toastrack_postgres.index_memory import FullMemory, bytes_of_graph, bytes_to_spare
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements

Plan = Callable[[], Awaitable[Sequence[sql.Composed]]]
"""Looks at what is there and returns the statements that build what is missing."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of the indexes of a table; None is what is there, or pgvector's default."""

    kind: Kind
    prefix: int | None
    m: int | None
    ef_construction: int | None
    rebuild: bool
    filter_fields: Sequence[str]

    @property
    def options(self) -> dict[str, int]:
        """Those of the HNSW index that somebody chose."""
        chosen = {"prefix": self.prefix, "m": self.m, "ef_construction": self.ef_construction}
        return {name: value for name, value in chosen.items() if value is not None}


async def build_index(
    session: Session,
    *,
    table: Statements,
    oid: int,
    label: str,
    storage: VectorType,
    dimensions: int,
    wanted: Wanted,
    memory: str | None,
    concurrently: bool,
    full: FullMemory,
) -> bool | None:
    """Build the indexes of vectors and fields as ``build`` does."""

    async def plan() -> Sequence[sql.Composed]:
        planned, on, m = await vector_index.plan(
            session,
            table,
            oid,
            storage,
            dimensions,
            wanted.kind,
            label=label,
            options=wanted.options,
            rebuild=wanted.rebuild,
            concurrently=concurrently,
        )
        if planned:
            ((rows,),) = await session.execute(table.count_vectors)
            full.needed = bytes_of_graph(rows, on.bytes_of_one(storage), m)
        fields = await filter_index.plan(
            session,
            table,
            oid,
            label=label,
            fields=wanted.filter_fields,
            concurrently=concurrently,
        )
        return [*planned, *fields]

    return await build(session, plan, oid=oid, memory=memory, concurrently=concurrently, full=full)


async def build(
    session: Session,
    plan: Plan,
    *,
    oid: int,
    memory: str | None,
    concurrently: bool,
    full: FullMemory,
) -> bool | None:
    """Build what is asked for and is not there; None while another session builds one.

    A concurrent build runs outside of a transaction, and gives back what the session was given. On a
    server of ours it gets the memory that the rows need, if the machine has it to spare.
    """
    local = not concurrently
    if concurrently:
        await _check_backend(session)
    take = catalogue.TRY_BUILD_LOCK if local else catalogue.TRY_SESSION_BUILD_LOCK
    if not (await session.execute(take, [oid]))[0][0]:
        if session.inside:
            raise StoreError(
                "Another session builds an index of this table. It may wait for the transaction "
                "that is open on your connection, so this one cannot wait for it: end the "
                "transaction, or build later."
            )
        return None
    try:
        missing = await plan()
        if missing:
            await _execute(session, missing, memory=memory, local=local, full=full)
    except BaseException:
        if concurrently:  # else the transaction gives it back
            await session.execute(catalogue.SESSION_BUILD_UNLOCK, [oid])
        raise
    if concurrently:
        await session.execute(catalogue.SESSION_BUILD_UNLOCK, [oid])
    return bool(missing)


async def _check_backend(session: Session) -> None:
    """Raise ``UnsupportedError`` where two statements may go to two backends of the server.

    What the one gives the session, the other could not give back.
    """
    ((pid,),) = await session.execute("select pg_backend_pid()")
    # A pooler makes up what a connection is told at its start.
    if pid != session.backend_pid:
        raise UnsupportedError(
            "concurrently=True needs a connection to the server itself, and this one goes through a "
            "pooler such as PgBouncer. Connect without it for the build, or build without "
            "concurrently=."
        )


async def _execute(
    session: Session,
    build: Sequence[sql.Composed],
    *,
    memory: str | None,
    local: bool,
    full: FullMemory,
) -> None:
    """Execute statements that take long, with the settings that they need."""
    ours = False
    if memory is None:
        ((ours,),) = await session.execute(catalogue.IS_OWN_SERVER, SETTINGS)
    if ours:
        memory = f"{min(full.needed, bytes_to_spare()) >> 10}kB"
    settings = {"local": local, "memory": memory, "at_least": ours}
    ((timeout, memory_before, *_),) = await session.execute(
        catalogue.INDEX_BUILD_SETTINGS, settings
    )
    before = [timeout, local, memory_before, local]
    try:
        with full.watching(session.connection):
            for statement in build:
                await session.execute(statement)
    except BaseException:
        if not local:  # else the transaction takes the settings back itself
            await session.execute(catalogue.RESTORE_SETTINGS, before)
        raise
    await session.execute(catalogue.RESTORE_SETTINGS, before)
