"""How the HNSW index of a table is built."""

from __future__ import annotations

from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores.steps import Steps
from toastrack_postgres import sql as statements
from toastrack_postgres.table import Query, Table

# https://github.com/pgvector/pgvector#hnsw
_MAX_HNSW_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}


def build_index(
    table: Table, *, m: int, ef_construction: int, memory: str | None, concurrently: bool
) -> Steps[bool]:
    """Build the HNSW index unless it is there; of two who build at once, one does.

    A concurrent build runs outside of a transaction: ``table`` must be settled, and what the
    session is given it gives back.
    """
    check_index(table)
    local = not concurrently
    take = statements.TRY_BUILD_LOCK if local else statements.TRY_SESSION_BUILD_LOCK
    # Waiting inside one statement would hold a snapshot that a concurrent build waits for.
    while not (yield Query(take, [table.oid]))[0][0]:
        yield Query("select pg_sleep(0.1)")
    try:
        built = yield from _build_index(
            table, m=m, ef_construction=ef_construction, memory=memory, concurrently=concurrently
        )
    except BaseException:
        if concurrently:  # else the transaction gives it back
            yield Query(statements.SESSION_BUILD_UNLOCK, [table.oid])
        raise
    if concurrently:
        yield Query(statements.SESSION_BUILD_UNLOCK, [table.oid])
    return built


def check_index(table: Table) -> None:
    """Raise ``UnsupportedError`` for a table that no index can be built on."""
    limit = _MAX_HNSW_DIMENSIONS[table.kind]
    if table.dimensions > limit:
        raise UnsupportedError(
            f"pgvector's HNSW index takes {table.kind} of up to {limit} dimensions and table "
            f"{table.label!r} has {table.dimensions}. Use Embedder(..., dimensions=) for fewer, "
            "or search without an index (--no-index)."
        )


def _build_index(
    table: Table, *, m: int, ef_construction: int, memory: str | None, concurrently: bool
) -> Steps[bool]:
    indexes = yield Query(statements.VECTOR_INDEXES, [table.oid])
    operators = f"{table.kind}_cosine_ops"
    if any(valid and found == operators for _, valid, _, _, found in indexes):
        return False
    for name, valid, in_progress, method, _ in indexes:
        if in_progress:
            raise StoreError(f"Index {name!r} is being built by another session. Wait for it.")
        if not valid and method == "hnsw":
            # "create index if not exists" would take a broken index for a good one.
            yield Query(table.statements.drop_index(name))
    local = not concurrently
    ((timeout, memory_before, *_),) = yield Query(
        statements.INDEX_BUILD_SETTINGS, {"local": local, "memory": memory}
    )
    restore = Query(statements.RESTORE_SETTINGS, [timeout, local, memory_before, local])
    try:
        yield Query(
            table.statements.create_hnsw_index(
                table.kind, m=m, ef_construction=ef_construction, concurrently=concurrently
            )
        )
    except BaseException:
        if concurrently:  # else the transaction takes the settings back itself
            yield restore
        raise
    yield restore
    return True
