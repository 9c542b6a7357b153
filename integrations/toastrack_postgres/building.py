"""The way of an index: whether a table can have it, whose build is waited for, how far it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from toastrack.errors import UnsupportedError
from toastrack.stores import OnProgress, Runtime
from toastrack_postgres import index, text_index, vector_index
from toastrack_postgres.connections import Connections
from toastrack_postgres.index_kinds import Kind
from toastrack_postgres.index_memory import FullMemory
from toastrack_postgres.progress import reporting
from toastrack_postgres.session import Session
from toastrack_postgres.table import Table
from toastrack_postgres.transactions import Transactions

# How often a build asks whether another session's is done.
_SECONDS_BETWEEN_TRIES = 0.1


class Builder:
    """Builds indexes in transactions, or outside of one where others write meanwhile."""

    def __init__(
        self, runtime: Runtime, connections: Connections, transactions: Transactions
    ) -> None:
        self._runtime = runtime
        self._connections = connections
        self._transactions = transactions

    async def build_index(
        self,
        table: Table,
        wanted: index.Wanted,
        *,
        concurrently: bool,
        memory: str | None,
        on_progress: OnProgress | None,
    ) -> bool:
        """Build an HNSW index unless it is there, and those that serve filters."""
        _check_indexable(table, wanted.kind, wanted.filter_fields)
        vector_index.check_wanted(
            wanted.kind, wanted.prefix, table.storage, table.dimensions, table.label
        )
        full = FullMemory()
        build = partial(
            index.build_index,
            table=table.statements,
            oid=table.oid,
            label=table.label,
            storage=table.storage,
            dimensions=table.dimensions,
            wanted=wanted,
            memory=memory,
            concurrently=concurrently,
            full=full,
        )
        async with reporting(self._runtime, self._connections, table.oid, on_progress):
            built = await self._build(build, concurrently=concurrently)
        full.warn()
        return built

    async def build_text_index(
        self, table: Table, *, language: str, concurrently: bool, rebuild: bool
    ) -> bool:
        """Build an index of the words of the texts unless it is there."""

        async def build(session: Session) -> bool | None:
            plan = partial(
                text_index.plan,
                session,
                table.statements,
                table.oid,
                label=table.label,
                language=language,
                rebuild=rebuild,
                concurrently=concurrently,
            )
            return await index.build(
                session,
                plan,
                oid=table.oid,
                memory=None,
                concurrently=concurrently,
                full=FullMemory(),
            )

        return await self._build(build, concurrently=concurrently)

    async def _build(
        self, build: Callable[[Session], Awaitable[bool | None]], *, concurrently: bool
    ) -> bool:
        """Build indexes, one session of a table's at a time."""
        run = self._transactions.run_outside if concurrently else self._transactions.run
        while True:
            built = await run(build, "build", retry="long")
            if built is not None:
                return built
            # Not inside the transaction: a concurrent build waits for the end of each.
            await self._runtime.sleep(_SECONDS_BETWEEN_TRIES)


def _check_indexable(table: Table, kind: Kind, fields: Sequence[str]) -> None:
    """Raise ``UnsupportedError`` for an index that would not be known again on such columns."""
    if table.columns is None:
        return
    names = table.columns.names
    if not table.has_size:
        raise UnsupportedError(
            f"pgvector has no index for vectors of any size, and the column "
            f"{names['embedding']!r} of table {table.label!r} has none: ALTER TABLE ... ALTER COLUMN "
            f"... TYPE {table.storage}({table.dimensions})"
        )
    if kind != "full" and names["embedding"] != "embedding":
        raise UnsupportedError(
            f"An index of the kind {kind!r} is for a column of the name embedding, and that of "
            f"table {table.label!r} is {names['embedding']!r}. Build kind='full'."
        )
    is_ours = names.get("metadata") == "metadata" and table.columns.metadata_type == "jsonb"
    if fields and not is_ours:
        raise UnsupportedError(
            f"filter_fields= are for a column metadata jsonb, and table {table.label!r} has none. "
            "Its filters go without an index."
        )
