"""How the HNSW index of a table is built."""

from __future__ import annotations

from functools import partial

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import VectorType
from toastrack_postgres.index_memory import FullMemory, bytes_of_graph, bytes_to_spare
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements

# https://github.com/pgvector/pgvector#hnsw
_MAX_HNSW_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}


def check_index(storage: VectorType, dimensions: int, label: str) -> None:
    """Raise ``UnsupportedError`` for a table that no index can be built on."""
    limit = _MAX_HNSW_DIMENSIONS[storage]
    if dimensions > limit:
        raise UnsupportedError(
            f"pgvector's HNSW index takes {storage} of up to {limit} dimensions and table "
            f"{label!r} has {dimensions}. Use Embedder(..., dimensions=) for fewer, or search "
            "without an index (--no-index)."
        )


async def build_index(
    session: Session,
    *,
    table: Statements,
    oid: int,
    storage: VectorType,
    dimensions: int,
    m: int,
    ef_construction: int,
    memory: str | None,
    own_server: bool,
    concurrently: bool,
    full: FullMemory,
) -> bool | None:
    """Build the HNSW index unless it is there; None while another session builds one.

    A concurrent build runs outside of a transaction, and gives back what the session was given. On a
    server of ours it gets the memory that the rows need, if the machine has it to spare.
    """
    local = not concurrently
    if concurrently:
        await _check_backend(session)
    take = statements.TRY_BUILD_LOCK if local else statements.TRY_SESSION_BUILD_LOCK
    if not (await session.execute(take, [oid]))[0][0]:
        if session.inside:
            raise StoreError(
                "Another session builds an index of this table. It may wait for the transaction "
                "that is open on your connection, so this one cannot wait for it: end the "
                "transaction, or build later."
            )
        return None
    try:
        built = await _build(
            session,
            table,
            oid,
            storage,
            dimensions,
            m=m,
            ef_construction=ef_construction,
            memory=memory,
            own_server=own_server,
            local=local,
            full=full,
        )
    except BaseException:
        if concurrently:  # else the transaction gives it back
            await session.execute(statements.SESSION_BUILD_UNLOCK, [oid])
        raise
    if concurrently:
        await session.execute(statements.SESSION_BUILD_UNLOCK, [oid])
    return built


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


async def _build(
    session: Session,
    table: Statements,
    oid: int,
    storage: VectorType,
    dimensions: int,
    *,
    m: int,
    ef_construction: int,
    memory: str | None,
    own_server: bool,
    local: bool,
    full: FullMemory,
) -> bool:
    if await _is_built(session, table, oid, storage):
        return False
    create = partial(table.create_hnsw_index, storage, m=m, ef_construction=ef_construction)
    creations = []
    partitions = [] if local else await session.execute(statements.PARTITIONS, {"oid": oid})
    for partition_oid, schema, name in partitions:
        if not await _is_built(session, table, partition_oid, storage, schema=schema):
            creations.append(create(concurrently=True, partition=(schema, name)))
    # That of the whole table takes those of its parts for its own, and builds nothing.
    creations.append(create(concurrently=not local and not partitions))
    ((rows,),) = await session.execute(table.count_vectors)
    full.needed = bytes_of_graph(rows, dimensions, storage, m)
    ours = memory is None and own_server
    if ours:
        memory = f"{min(full.needed, bytes_to_spare()) >> 10}kB"
    settings = {"local": local, "memory": memory, "at_least": ours}
    ((timeout, memory_before, *_),) = await session.execute(
        statements.INDEX_BUILD_SETTINGS, settings
    )
    before = [timeout, local, memory_before, local]
    try:
        with full.watching(session.connection):
            for creation in creations:
                await session.execute(creation)
    except BaseException:
        if not local:  # else the transaction takes the settings back itself
            await session.execute(statements.RESTORE_SETTINGS, before)
        raise
    await session.execute(statements.RESTORE_SETTINGS, before)
    return True


async def _is_built(
    session: Session,
    table: Statements,
    oid: int,
    storage: VectorType,
    *,
    schema: str | None = None,
) -> bool:
    """Tell whether a table, or a part of it, has the index; one that was left broken is dropped."""
    indexes = await session.execute(statements.VECTOR_INDEXES, [oid])
    operators = f"{storage}_cosine_ops"
    if any(valid and found == operators for _, valid, _, _, found in indexes):
        return True
    for name, valid, in_progress, method, _ in indexes:
        if in_progress:
            raise StoreError(f"Index {name!r} is being built by another session. Wait for it.")
        if not valid and method == "hnsw":
            # "create index if not exists" would take a broken index for a good one.
            await session.execute(table.drop_index(name, schema))
    return False
